"""Checkpoints that are not whole, not of the model that their configuration describes, or of another type."""

import json
import warnings

import pytest
import torch
from packed_batches import random_batch, reading, small_config
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForPreTraining

from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining, MemoBertModel
from memofast.model.families import open_emotion_model
from memofast.model.memobert import conversion
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.sizes import sizes_of

SIZES = {"vocab_size": 120, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 20}
HEAD = "cls.predictions.transform.dense.weight"


def refused(load, *arguments, **options) -> str:
    with pytest.raises(MemofastError) as error:
        load(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message and "weights_only" not in message and "eights only" not in message
    return message


@pytest.fixture(scope="module")
def bert_weights():
    torch.manual_seed(1)
    model = BertForPreTraining(BertConfig(**SIZES))
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@pytest.fixture
def bert(tmp_path, bert_weights):
    """Writes a BERT's folder with some of its weights left out, replaced or added."""

    def write(*without, **replaced):
        BertConfig(**SIZES).save_pretrained(tmp_path)
        weights = {n: w.clone() for n, w in bert_weights.items() if not any(part in n for part in without)}
        save_file(weights | replaced, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("embeddings.LayerNorm", "embeddings.LayerNorm.bias and 1 more"),
        ("position_embeddings", "embeddings.position_embeddings.weight;"),
        ("layer.1.intermediate.dense.weight", "encoder.layer.1.intermediate.dense.weight;"),
        ("layer.1.output.dense.bias", "encoder.layer.1.output.dense.bias;"),
        ("attention.self.key.bias", "encoder.layer.0.attention.self.key.bias and 1 more"),
        ("pooler.dense.bias", "pooler.dense.bias;"),
        ("predictions.transform.LayerNorm", "cls.predictions.transform.LayerNorm.bias and 1 more"),
    ],
)
def test_what_a_bert_lacks_is_named(bert, part, named):
    assert f"no complete BERT, it lacks {named}" in refused(MemoBertForPreTraining.from_bert, bert(part))


def test_a_bert_without_a_pooler_or_a_head_is_noted(bert):
    with pytest.warns(UserWarning, match="has no pooler, which begins with random weights"):
        MemoBertModel.from_bert(bert("pooler", "cls."))
    with pytest.warns(UserWarning, match=r"no place for cls\.seq_relationship\.bias, cls\.seq_relationship\.weight$"):
        MemoBertModel.from_bert(bert())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MemoBertModel.from_bert(bert("seq_relationship"))


def test_weights_of_an_encoder_that_have_no_place_are_refused(bert, bert_weights):
    extra = {"bert.encoder.layer.2.output.dense.bias": torch.zeros(16), "bert.embeddings.further.weight": torch.ones(2)}
    assert "embeddings.further.weight and 1 more belongs to an encoder of another kind" in refused(
        MemoBertModel.from_bert, bert(**extra)
    )
    twice = {"embeddings.LayerNorm.weight": torch.ones(16)}
    assert "two weights for" in refused(MemoBertModel.from_bert, bert(**twice))
    assert "embeddings.position_ids" not in bert_weights  # older checkpoints have it
    MemoBertModel.from_bert(bert(**{"bert.embeddings.position_ids": torch.arange(20)[None]}))


def test_a_bert_whose_shapes_or_types_differ(bert):
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert "attention.self.query.weight is [16, 15]" in refused(
        MemoBertModel.from_bert, bert(**{name: torch.zeros(16, 15)})
    )
    assert "holds torch.int8" in refused(MemoBertModel.from_bert, bert(**{name: torch.zeros(16, 16).to(torch.int8)}))
    wide = torch.full((16, 16), 0.25, dtype=torch.float64)
    model = MemoBertModel.from_bert(bert(**{name: wide}))
    assert model.encoder.layers[0].qkv.weight[:16].eq(0.25).all() and model.dtype is torch.float32
    assert "lacks encoder.layers.2" in refused(MemoBertModel.from_bert, bert(), num_hidden_layers=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 10**12), ("vocab_size", 999_999), ("hidden_size", 0), ("hidden_size", -16), ("hidden_size", 36),
        ("num_hidden_layers", "2"), ("num_hidden_layers", 10**9), ("num_attention_heads", 0), ("hidden_size", None),
        ("intermediate_size", 24.5), ("hidden_dropout_prob", 1), ("layer_norm_eps", -1e-12), ("pad_token_id", -1),
        ("max_position_embeddings", [20]), ("dtype", "int8"), ("num_hidden_layers", True),
    ],
)  # fmt: skip
def test_a_configuration_out_of_bounds_takes_no_memory(bert, tmp_path, name, value):
    MemoBertForEmotion(small_config()).save_pretrained(tmp_path / "emotion")
    for folder, load in ((bert(), MemoBertModel.from_bert), (tmp_path / "emotion", open_emotion_model)):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
        assert str(folder) in refused(load, folder)


def test_entries_of_a_memobert_that_make_no_model(tmp_path):
    model = MemoBertForEmotion(small_config())
    model.save_pretrained(tmp_path)
    whole = json.loads((tmp_path / "config.json").read_text())
    for name, value in (
        ("visual_width", -1), ("visual_positions", 10**9), ("heads", {"x": {"kind": "other"}}),
        ("mask_token_id", "103"), ("heads", {"x": {"kind": "classes", "outputs": 10**12}}), ("prompt", 5),
        ("id2label", {"0": "a", "2": "b"}), ("emotion_head", "third"), ("id2label", ["a"]),
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(whole | {name: value}))
        assert f"{tmp_path / 'config.json'}: {name}" in refused(open_emotion_model, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(whole | {"visual_positions": 4000}))
    assert "another shape of memobert.embeddings.visual.position.weight" in refused(open_emotion_model, tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    assert "no mapping" in refused(sizes_of, str(tmp_path))


def test_weights_that_a_memobert_does_not_have(tmp_path):
    MemoBertForPreTraining(small_config()).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    stray = {"memobert.encoder.layers.7.qkv.bias": torch.zeros(96)}
    for change, message in (
        (stray, "hold memobert.encoder.layers.7.qkv.bias, which it does not have"),
        ({"memobert.pooler.bias": torch.zeros(32, dtype=torch.int64)}, "hold memobert.pooler.bias in no floating type"),
    ):
        save_file(whole | change, path, metadata={"format": "pt"})
        assert message in refused(MemoBertModel.from_pretrained, tmp_path)
    save_file({n: w for n, w in whole.items() if "pooler" not in n}, path, metadata={"format": "pt"})
    assert "lack memobert.pooler.bias and 1 more" in refused(MemoBertForPreTraining.from_pretrained, tmp_path)


def test_what_an_original_lacks_is_named(tmp_path):
    torch.manual_seed(3)
    whole = conversion.to_original(MemoBertForPreTraining(small_config(hidden_size=64, num_attention_heads=1)))
    path = tmp_path / "model_step_1.pt"
    for name in (
        "uniter.img_embeddings.LayerNorm.weight", "uniter.img_embeddings.mask_embedding.weight",
        "uniter.speech_embeddings.position_embeddings.weight", "uniter.speech_embeddings.speech_layer_norm.bias",
        "uniter.encoder.layer.1.output.LayerNorm.bias", "region_classifier.net.0.bias",
    ):  # fmt: skip
        torch.save({n: w for n, w in whole.items() if n != name}, path)
        assert name.removeprefix("uniter.") in refused(MemoBertForPreTraining.from_original, path)
    for other in ([1, 2], {"model": whole}, {}, {n: 3 for n in whole}, whole["cls.predictions.bias"]):
        torch.save(other, path)
        assert "no state dict" in refused(MemoBertForPreTraining.from_original, path)
    torch.save(whole | {"uniter.embeddings.word_embeddings.weight": torch.zeros(7)}, path)
    assert "no MEmoBERT state dict" in refused(MemoBertForPreTraining.from_original, path)
    name = "uniter.encoder.layer.0.attention.self.value.weight"
    torch.save(whole | {name: torch.zeros(()).expand(2**20, 2**20)}, path)  # of 4 bytes
    assert "which no training writes" in refused(MemoBertForPreTraining.from_original, path)


def test_checking_draws_no_random_number(bert):
    folder = bert("seq_relationship")
    torch.manual_seed(5)
    expected = MemoBertModel(small_config(**SIZES, visual_width=0, speech_width=0)).state_dict(), torch.rand(3)
    torch.manual_seed(5)
    MemoBertModel.from_bert(folder, visual_width=0, speech_width=0)
    torch.testing.assert_close(torch.rand(3), expected[1], rtol=0, atol=0)


def test_bf16_loads_with_norms_in_fp32(tmp_path):
    torch.manual_seed(6)
    model = MemoBertForEmotion(small_config(num_labels=3)).eval()
    model.save_pretrained(tmp_path / "fp32")
    half = MemoBertForEmotion.from_pretrained(tmp_path / "fp32", dtype=torch.bfloat16).eval()
    kinds = {name: weight.dtype for name, weight in half.named_parameters()}
    assert kinds["memobert.embeddings.norm.weight"] is kinds["memobert.embeddings.visual.norm.bias"] is torch.float32
    assert kinds["memobert.encoder.layers.1.output_norm.weight"] is torch.float32
    assert kinds["memobert.encoder.layers.1.qkv.weight"] is kinds["emotion.classifier.bias"] is torch.bfloat16
    batch = random_batch(model.config, [(5, 3, 4), (7, 0, 2), (1, 1, 0)])
    with torch.no_grad():
        torch.testing.assert_close(half(batch).float(), model(batch), rtol=0.05, atol=0.02)
        half.save_pretrained(tmp_path / "bf16")
        again = MemoBertForEmotion.from_pretrained(tmp_path / "bf16").eval()
        assert again.dtype is torch.bfloat16 and torch.equal(again(batch), half(batch))
    if not torch.cuda.is_available():
        message = refused(MemoBertForEmotion.from_pretrained, tmp_path / "fp32", dtype=torch.float16)
        assert "dtype=torch.bfloat16" in message
        model.half().save_pretrained(tmp_path / "fp16")
        widened = MemoBertForEmotion.from_pretrained(tmp_path / "fp16")
        assert widened.dtype is torch.float32
        assert torch.equal(widened.memobert.pooler.bias.half(), model.memobert.pooler.bias)


@pytest.mark.parametrize("words", [230, 131])
def test_another_number_of_word_pieces_round_trips_and_trains(tmp_path, words):
    torch.manual_seed(7)
    model = MemoBertForPreTraining(small_config()).eval()  # of 200
    with torch.no_grad():
        model.heads.words.bias.copy_(torch.randn(200))
    before, kept = model.heads.words.bias.detach().clone(), min(words, 200)
    model.resize_token_embeddings(words, mean_resizing=False)
    assert model.config.vocab_size == words and model.reads["text"] == words
    assert torch.equal(model.heads.words.bias[:kept], before[:kept]) and not model.heads.words.bias[kept:].any()
    model.save_pretrained(tmp_path)
    again = MemoBertForPreTraining.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    batch = random_batch(again.config, [(6, 2, 3)])
    logits = again(reading(batch, {"words": ("words", torch.tensor([1, 4]))}))["words"]
    assert logits.shape == (2, words)
    torch.nn.functional.cross_entropy(logits, torch.tensor([words - 1, 3])).backward()
    assert again.heads.words.bias.grad[words - 1] < 0 and again.memobert.embeddings.word.weight.grad[words - 1].any()


def test_a_vocabulary_keeps_its_mask_token():
    model = MemoBertForPreTraining(small_config())
    assert "lacks 103, which is [MASK]" in refused(model.resize_token_embeddings, 103)
    assert model.config.vocab_size == 200 and len(model.heads.words.bias) == 200
