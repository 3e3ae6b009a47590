"""Adapters on a MemoBert: each learns, also where kernels read weights; merged they answer alike; their dropout is that
of the sample, whatever stands beside it; what is saved opens again, here and by peft."""

import shutil
import sys

import pytest
import torch
from adapted_models import CLASSES, adapted_model, bert, pre_trained
from packed_batches import LENGTHS, random_batch
from peft import PeftModel
from safetensors.torch import load_file

from memofast.errors import MemofastError
from memofast.model import MemoBertConfig, MemoBertModel
from memofast.model.adapters.kept import lines_on_training, merge_adapters, round_to_saved, saved_tensors, trained_of
from memofast.model.families import FAMILIES, open_emotion_model, open_encoder
from memofast.model.memobert.section import MemoBertEmotionSection, PromptSection

RNG = torch.tensor([11, 3])
MAPS = ("qkv", "attention_output", "intermediate", "output")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pre_trained(tmp_path_factory.mktemp("adapting") / "base")


@pytest.fixture(scope="module")
def text_base(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("adapting") / "bert")


def updates(model, count, lr=1e-2):
    """The gradients of the last update."""
    features = bool(model.config.visual_width)
    batch = random_batch(model.config, [(text, v * features, a * features) for text, v, a in LENGTHS])
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    for step in range(count):
        optimiser.zero_grad()
        logits = model(batch, rng=torch.tensor([5, step + 1]))
        torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
        optimiser.step()
    model.eval()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "options",
    [{}, {"lora_dropout": 0.3}, {"use_dora": True, "lora_dropout": 0.1}, {"bias": "all"}, {"lora_bias": True}],
    ids=["plain", "dropout", "dora", "biases", "own biases"],
)
def test_every_adapter_learns_and_the_base_stays(base, options):
    model = adapted_model(base, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = updates(model, 2)
    of_adapters = [name for name in gradients if "lora_" in name]
    each = 2 + sum(map(bool, (options.get("use_dora"), options.get("lora_bias"))))
    assert len(of_adapters) == each * (2 * len(MAPS) + 1)
    for name in of_adapters:
        assert gradients[name] is not None and gradients[name].any(), name
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed >= set(of_adapters) | {"emotion.classifier.weight", "emotion.classifier.bias"}
    others = {name for name in changed if "lora_" not in name and not name.startswith("emotion.")}
    if options.get("bias") == "all":
        assert others and all(name.endswith("bias") for name in others)
        assert {"memobert.encoder.layers.0.qkv.base_layer.bias", "memobert.encoder.layers.1.output_norm.bias"} <= others
    else:
        assert not others


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True, "rank_pattern": {"qkv": 5}}])
def test_merged_answers_as_unmerged(base, options):
    model = adapted_model(base, drawn=True, **options)
    batch = random_batch(model.config)
    plain, unmerged = adapted_model(base)(batch), model(batch)
    merge_adapters(model)
    assert not [name for name in model.state_dict() if "lora_" in name or "base_layer" in name]
    torch.testing.assert_close(model(batch), unmerged, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain, unmerged, atol=1e-2)


@pytest.mark.parametrize("use_dora", [False, True])
def test_dropout_is_of_the_sample_and_the_update(base, use_dora):
    model = adapted_model(base, drawn=True, lora_dropout=0.4, use_dora=use_dora).train()
    lengths = [(7, 5, 9), (3, 0, 4), (12, 33, 0), (5, 2, 2)]
    batch = random_batch(model.config, lengths)
    together = model(batch, rng=RNG)
    torch.testing.assert_close(model(batch, rng=RNG), together, rtol=0, atol=0)
    assert not torch.allclose(model(batch, rng=torch.tensor([11, 4])), together, atol=1e-3)
    assert not torch.allclose(model.eval()(batch), together, atol=1e-3)
    model.train()
    alone = random_batch(model.config, lengths[:2])  # the same words
    alone.sample_keys = batch.sample_keys[:2]
    alone.visual, alone.speech = batch.visual[:5], batch.speech[:13]
    torch.testing.assert_close(model(alone, rng=RNG), together[:2], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="needs rng"):
        model(batch)


def test_dropout_leaves_as_much_as_it_says(base):
    model = adapted_model(base, drawn=True, lora_dropout=0.25).train()
    met = {}
    for name, module in model.named_modules():
        if name.endswith("lora_dropout.default"):
            module.register_forward_hook(lambda m, args, out, name=name: met.update({name: (args[0], out)}))
    model(random_batch(model.config), rng=RNG)
    assert len(met) == 9 and len({out.shape[0] for _, out in met.values()}) == 2  # all rows, and those that are read
    patterns = []
    for x, out in met.values():
        kept = out != 0
        torch.testing.assert_close(out[kept], x[kept] / 0.75)
        patterns.append(kept[:5, :16].flatten().tolist())
        if x.shape[0] > 50:
            assert 0.7 < kept.float().mean() < 0.8
    assert len({tuple(pattern) for pattern in patterns}) == len(patterns)  # no two maps drop alike


def test_what_is_saved_opens_again(base, tmp_path):
    model = adapted_model(base, drawn=True, lora_dropout=0.1)
    batch = random_batch(model.config)
    model.save_pretrained(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "config.json", "trained.safetensors", "adapter_config.json", "adapter_model.safetensors", "base.json",
    }  # fmt: skip
    assert set(load_file(tmp_path / "model" / "trained.safetensors")) == {
        "emotion.classifier.weight", "emotion.classifier.bias",
    }  # fmt: skip
    again = open_emotion_model(tmp_path / "model")
    assert not again.training and again.adapted is None and again.classes == CLASSES
    torch.testing.assert_close(again(batch), model(batch), rtol=1e-5, atol=1e-5)
    states = open_encoder(tmp_path / "model")
    torch.testing.assert_close(states(batch).pooled, again.memobert(batch).pooled)
    theirs = PeftModel.from_pretrained(MemoBertModel.from_pretrained(base), tmp_path / "model").eval()
    torch.testing.assert_close(theirs(batch).pooled, states(batch).pooled, rtol=1e-5, atol=1e-5)


def test_of_a_text_model_what_begins_anew_is_trained_and_kept(text_base, tmp_path):
    widths = {"visual_width": 21, "speech_width": 24, "visual_positions": 48, "speech_positions": 48}
    model = adapted_model(text_base, drawn=True, entries=widths)
    anew = {name.partition(".lora")[0] for name, p in model.named_parameters() if p.requires_grad}
    fresh = {name for name in anew if name.startswith("memobert.embeddings.")}
    assert {"memobert.embeddings.types.weight", "memobert.embeddings.speech.projection.weight"} <= fresh
    assert "memobert.embeddings.word.weight" not in fresh
    model.save_pretrained(tmp_path / "model")
    assert set(load_file(tmp_path / "model" / "trained.safetensors")) > fresh
    batch = random_batch(model.config)
    torch.testing.assert_close(open_emotion_model(tmp_path / "model")(batch), model(batch), rtol=1e-5, atol=1e-5)


def test_types_of_a_model_of_texts_alone_stay(text_base):
    model = adapted_model(text_base, entries={"visual_width": 0, "speech_width": 0})
    names = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert names == {"emotion.classifier.weight", "emotion.classifier.bias"}
    trained, every = trained_of(model)
    assert trained == 2 * 3 * (32 * 4 + 32 * 2 + 96 * 2) + 3 * (32 + 32) + 3 * 32 + 3
    *_, said = lines_on_training(model)
    assert said == f"{trained:,} of {every:,} parameters are trained"


def test_half_precision_halves_the_files_and_is_what_answers(base, tmp_path):
    model = adapted_model(base, dtype="float16", drawn=True, r=8)
    batch = random_batch(model.config)
    before = model(batch)
    round_to_saved(model)
    assert not torch.equal(model(batch), before)
    model.save_pretrained(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    for name, own in saved_tensors(model)["adapter_model.safetensors"].items():
        assert torch.equal(tensors[name].float(), own)
    torch.testing.assert_close(open_emotion_model(tmp_path / "model")(batch), model(batch), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        model.emotion.classifier.weight[0, 0] = 1e6
    with pytest.raises(MemofastError, match=r"emotion.classifier.weight is beyond torch.float16; .*dtype=float32"):
        round_to_saved(model)


def test_a_prompt_is_adapted_too(tmp_path):
    base = pre_trained(tmp_path / "base", vocab_size=9000)
    section = MemoBertEmotionSection(init=str(base), lora={"target_modules": ["qkv"]}, visual_width=0, speech_width=0)
    prompt = PromptSection(words={"calm": 5475, "glad": 3407})
    model = FAMILIES["memobert"].start(section, "single", ("calm", "glad"), None, prompt)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in names if "lora_" not in name} == {"heads"}
    assert len([name for name in names if "qkv.lora_" in name]) == 4
    model.save_pretrained(tmp_path / "model")
    batch = random_batch(model.config, [(6, 0, 0), (9, 0, 0)])
    torch.testing.assert_close(open_emotion_model(tmp_path / "model")(batch), model(batch), rtol=1e-5, atol=1e-5)


def test_an_encoder_of_three_streams_is_adapted_too(text_base, tmp_path):
    section = FAMILIES["memobert-flow"].section(
        family="memobert-flow", init=str(text_base), head="emocls", num_hidden_layers=1, text_layers=1,
        num_attention_heads=4, visual_width=0, speech_width=0,
        lora={"target_modules": "all-linear", "lora_dropout": 0.2},
    )  # fmt: skip
    model = FAMILIES["memobert-flow"].start(section, "single", CLASSES, None)
    gradients = updates(model, 2)
    adapters = [name for name in gradients if "lora_" in name]
    assert len(adapters) == 2 * 9 and any("text_layers" in name for name in adapters)
    assert all(gradients[name].any() for name in adapters)
    model.save_pretrained(tmp_path / "model")
    batch = random_batch(model.config, [(6, 0, 0), (9, 0, 0)])
    torch.testing.assert_close(open_emotion_model(tmp_path / "model")(batch), model(batch), rtol=1e-5, atol=1e-5)
    assert open_encoder(tmp_path / "model").width == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["qkvs"]}, "target_modules: 'qkvs' is no module of the encoder; did you mean qkv"),
        (
            {"target_modules": ["qkv", "word"]},
            r"means embeddings.word, of which no adapter would .* are qkv, attention",
        ),
        ({"target_modules": ["projection"]}, "means embeddings.speech.projection and 1 more, of which no adapter"),
        ({"target_modules": "encoder.*qkv", "exclude_modules": ["qkv"]}, "matches none of the 9 maps"),
        ({"target_modules": ["qkv"], "layers_to_transform": [7]}, "matches none of the 9 maps"),
        ({"target_modules": ["qkv"], "r": 64}, "model.lora: rank 64 is more than the 32"),
        (
            {"target_modules": ["qkv"], "rank_pattern": {"output": 2}},
            r"model.lora.rank_pattern: 'output' matches nothing adapted; there are qkv",
        ),
        ({"target_modules": ["qkv"], "alpha_pattern": {"0.q": 2}}, "alpha_pattern: '0.q' matches nothing adapted"),
        ({"target_modules": ["qkv"], "exclude_modules": ["pooler"]}, r"exclude_modules: .* leaves nothing out"),
        ({"target_modules": "(qkv"}, "model.lora: peft refuses it"),
        ({"target_modules": ["qkv"], "r": 3, "init_lora_weights": "orthogonal"}, "model.lora: peft refuses it .*even"),
    ],
)
def test_what_cannot_be_adapted_is_named(base, options, message):
    with pytest.raises(MemofastError, match=message):
        adapted_model(base, **options)


def test_layers_are_chosen(base):
    model = adapted_model(base, target_modules=["output"], layers_to_transform=[1], layers_pattern="layers")
    (lora,) = model.adapted.encoders.values()
    assert lora.maps == ("encoder.layers.1.output",)


def test_without_a_pre_trained_start_or_peft(base, tmp_path, monkeypatch):
    adapted_model(base).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="lora adapts a checkpoint"):
        MemoBertEmotionSection(lora={"target_modules": ["qkv"]})
    with pytest.raises(ValueError, match="leave one out"):
        MemoBertEmotionSection(lora={"target_modules": ["qkv"]}, init=str(base), freeze=1)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MemofastError, match=r'model.lora needs peft, .*: pip install "memofast\[lora\]"'):
        adapted_model(base)
    with pytest.raises(MemofastError, match=r'/model needs peft, .*: pip install "memofast\[lora\]"'):
        open_emotion_model(tmp_path / "model")


def test_a_base_that_changed_or_is_gone(tmp_path):
    base = pre_trained(tmp_path / "base")
    adapted_model(base, drawn=True).save_pretrained(tmp_path / "model")
    shutil.copytree(base, tmp_path / "copy")
    pre_trained(base, hidden_size=64)
    with pytest.raises(MemofastError, match=r"model adapts .*base, whose weights are no longer those"):
        open_emotion_model(tmp_path / "model")
    shutil.rmtree(base)
    with pytest.raises(MemofastError, match=r"which is missing; put it back, or name its new place in .*base.json"):
        open_emotion_model(tmp_path / "model")
    described = tmp_path / "model" / "base.json"
    described.write_text(described.read_text().replace(str(base), str(tmp_path / "copy")))
    assert open_emotion_model(tmp_path / "model").classes == CLASSES
    described.write_text("{}")
    with pytest.raises(MemofastError, match=r"base.json: path: is missing"):
        open_emotion_model(tmp_path / "model")


def test_a_model_of_adapters_starts_nothing_and_has_no_width_of_its_own(base, tmp_path):
    adapted_model(base).save_pretrained(tmp_path / "model")
    with pytest.raises(MemofastError, match=r"holds adapters of another model alone; merge both first: memofast conv"):
        MemoBertModel.from_pretrained(tmp_path / "model")
    assert MemoBertConfig.from_pretrained(tmp_path / "model").hidden_size == 32
