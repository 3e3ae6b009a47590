"""Perceivers over a corpus of raw pictures and sound: windows, pooling, folders, what is refused, and a training."""

import json

import numpy as np
import perceiver_rule as rule
import pytest
import torch
from moving_shapes import CLASSES, shapes_corpus
from transformers import PerceiverForMultimodalAutoencoding

from memofast.data import View, write_corpus
from memofast.data.conditions import keep
from memofast.errors import MemofastError, MemofastWarning
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.model.compatibility import check_shortest
from memofast.model.families import FAMILIES, export_model, open_emotion_model
from memofast.model.perceiver import PerceiverEmotionConfig, PerceiverForEmotion, patches_of
from memofast.model.perceiver.family import start
from memofast.model.perceiver.section import PerceiverSection
from memofast.sections import checked
from memofast.store import FeatureWriter
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read

SMALL = {
    "num_latents": 6, "d_latents": 16, "d_model": 410, "num_self_attends_per_block": 1, "num_self_attention_heads": 2,
    "output_num_channels": 12, "num_frames": 4,
}  # fmt: skip
RNG = torch.tensor([11, 3])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return shapes_corpus(tmp_path_factory.mktemp("c") / "shapes", {"train": 8, "test": 5}, frames=(4, 9))


@pytest.fixture(scope="module")
def batch(corpus):
    return corpus.split("test").pack(np.arange(5))


def section(**given) -> PerceiverSection:
    return checked({"family": "perceiver", **SMALL, **given}, "recipe", PerceiverSection)


def a_model(corpus, **given) -> PerceiverForEmotion:
    torch.manual_seed(0)
    return start(section(initializer_range=0.1, **given), "single", CLASSES, corpus.split("train")).eval()


def window(model, batch, sample, first):
    """Probabilities of one window, made by hand of the stored rows."""
    begin, size = int(batch.visual_offsets[sample]) + first, model.config.num_frames
    pictures = batch.visual[begin : begin + size].view(1, size, 16, 16, 3) / 255
    begin = int(batch.speech_offsets[sample]) + first
    sound = batch.speech[begin : begin + size].view(1, -1) / 32768
    return model.window_logits(patches_of(pictures), sound).softmax(-1)[0]


@pytest.mark.parametrize(("pooling", "pooled"), [("mean", lambda p: p.mean(0)), ("max", lambda p: p.amax(0))])
def test_answers_are_pooled_over_windows(corpus, batch, pooling, pooled):
    """Windows begin every `hop` rows and at the end of a clip."""
    model = a_model(corpus, hop=3, pooling=pooling)
    with torch.no_grad():
        found = model.probabilities(batch)
        for sample, rows in enumerate(batch.visual_offsets.diff().tolist()):
            starts = sorted({*range(0, rows - 4, 3), rows - 4})
            expected = pooled(torch.stack([window(model, batch, sample, first) for first in starts]))
            torch.testing.assert_close(found[sample], expected / expected.sum(), atol=1e-6, rtol=1e-5)
    assert len({*batch.visual_offsets.diff().tolist()}) > 2


def test_training_sees_one_window_of_each_clip(corpus, batch):
    model = a_model(corpus, attention_probs_dropout_prob=0.0, head_dropout_prob=0.0).train()
    seen = [set() for _ in range(5)]
    with torch.no_grad():
        for update in range(20):
            logits = model(batch, rng=torch.tensor([7, update])).softmax(-1)
            for sample, rows in enumerate(batch.visual_offsets.diff().tolist()):
                windows = torch.stack([window(model, batch, sample, first) for first in range(rows - 3)])
                apart = (windows - logits[sample]).abs().amax(1)
                assert apart.min() < 1e-6
                seen[sample].add(int(apart.argmin()))
        again = model(batch, rng=torch.tensor([7, 19])).softmax(-1)
    assert torch.equal(again, logits)
    for own, rows in zip(seen, batch.visual_offsets.diff().tolist(), strict=True):
        assert len(own) == min(rows - 3, 20) or len(own) > 2
    with pytest.raises(ValueError, match="rng"):
        model(batch)


def test_dropout_is_a_function_of_seed_update_and_sample(corpus, batch):
    model = a_model(corpus, attention_probs_dropout_prob=0.3).train()
    first = model(batch, rng=RNG)
    assert torch.equal(first, model(batch, rng=RNG))
    assert not torch.equal(first, model(batch, rng=RNG + torch.tensor([0, 1])))
    assert not torch.equal(first, model(View(batch, draw=1), rng=RNG))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(batch.select(order), rng=RNG), first[order], atol=1e-5, rtol=1e-5)


def test_modalities_that_a_condition_hides(corpus, batch):
    model = a_model(corpus)
    other = corpus.split("train").pack(np.arange(5))
    with torch.no_grad():
        whole = model(batch)
        for condition in ("v", "a"):
            shown = model(keep(batch, condition))
            assert not torch.allclose(shown, whole)
        mixed = keep(batch, "v")
        torch.testing.assert_close(model(mixed), model(keep(mixed, "v")))
        with pytest.raises(MemofastError, match=f"sample '{batch.ids[0]}' has neither pictures nor sound"):
            model(keep(batch, "l"))
    assert other.samples == 5


def test_a_sample_without_sound_beside_others(corpus, batch):
    """Windows that show the same modalities are looked at together, each clip as it would be alone."""
    model = a_model(corpus)
    silent = batch.map(lambda tensor: tensor.clone())
    first = int(silent.speech_offsets[1])
    silent.speech, silent.ids = silent.speech[first:], batch.ids
    silent.speech_offsets = (silent.speech_offsets - first).clamp(min=0)
    with torch.no_grad():
        found = model(silent)
        torch.testing.assert_close(found[0], model(keep(batch.select(torch.tensor([0])), "v"))[0])
        torch.testing.assert_close(found[1:], model(batch)[1:])


def test_a_hidden_row_is_black(corpus, batch):
    model = a_model(corpus)
    source = torch.arange(len(batch.visual), dtype=torch.int32)
    source[[1, 7]], source[2] = -1, 0
    shown = batch.map(lambda tensor: tensor.clone())
    shown.ids = batch.ids
    shown.visual[2], shown.visual[[1, 7]] = batch.visual[0], 0
    with torch.no_grad():
        torch.testing.assert_close(model(View(batch, sources={"visual": source})), model(shown))


@pytest.mark.parametrize("kind", ["multi", "regression"])
def test_other_targets(corpus, batch, kind):
    classes = ("value",) if kind == "regression" else CLASSES
    model = start(section(initializer_range=0.1), kind, classes, corpus.split("train")).eval()
    probabilities = model.probabilities(batch)
    assert probabilities.shape == (5, len(classes)) and model.kind == kind
    with torch.no_grad():
        logits = model(batch)
    torch.testing.assert_close(probabilities, logits if kind == "regression" else logits.sigmoid())


def test_a_saved_model_says_the_same(corpus, batch, tmp_path):
    model = a_model(corpus, hop=2, pooling="max")
    model.save_pretrained(tmp_path / "m")
    again = open_emotion_model(tmp_path / "m")
    assert again.classes == CLASSES and again.config.hop == 2
    torch.testing.assert_close(model.probabilities(batch), again.probabilities(batch))
    split = corpus.split("test")
    answers = predict_split(again, split, label_space_of(again))
    np.testing.assert_allclose(answers.scores, model.probabilities(batch), atol=1e-6)


def test_weights_of_transformers_load_and_save(corpus, tmp_path, capfd):
    """From its folder of 700 labels to six classes and, with a linear head, back into transformers."""
    theirs = rule.theirs("tiny", labels=700)
    theirs.save_pretrained(tmp_path / "hub")
    opened = open_emotion_model(tmp_path / "hub")
    given = rule.inputs(theirs, labels=700)
    with torch.no_grad():
        expected = rule.label_only(theirs, given)
        torch.testing.assert_close(rule.label_logits(opened, given), expected, atol=1e-5, rtol=0)
    opened.save_pretrained(tmp_path / "again")
    back = PerceiverForMultimodalAutoencoding.from_pretrained(tmp_path / "again")
    assert all(torch.equal(back.state_dict()[name], weight) for name, weight in theirs.state_dict().items())
    asked = checked({"family": "perceiver", "init": str(tmp_path / "hub")}, "recipe", PerceiverSection)
    with pytest.raises(MemofastError, match=r"names 700 labels, this training 4 others; add model.replace_labels=true"):
        start(asked, "single", CLASSES, corpus.split("train"))
    asked = asked.model_copy(update={"replace_labels": True, "label_head": "mlp"})
    capfd.readouterr()
    with pytest.warns(MemofastWarning, match="begin anew: 4 classes by a mlp head, .*hub has 700 by a linear one"):
        begun = start(asked, "single", CLASSES, corpus.split("train"))
    assert capfd.readouterr() == ("", "")  # no report of transformers' own
    assert begun.classes == CLASSES and begun.config.label_width == 700
    kept = {name: weight for name, weight in begun.state_dict().items() if ".label.classifier." not in name}
    assert all(torch.equal(theirs.state_dict()[name], weight) for name, weight in kept.items())
    begun.save_pretrained(tmp_path / "six")
    go_on = checked({"family": "perceiver", "init": str(tmp_path / "six")}, "recipe", PerceiverSection)
    continued = start(go_on, "single", CLASSES, corpus.split("train"))
    assert all(torch.equal(begun.state_dict()[name], weight) for name, weight in continued.state_dict().items())


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_as_many_labels_as_there_are_begin_anew(corpus, tmp_path, head):
    """Of a head of the same kind too, whose weights have another shape."""
    train = corpus.split("train")
    with torch.random.fork_rng():
        start(section(label_head=head), "single", [*CLASSES, "other"], train).save_pretrained(tmp_path / "m")
        given = section_of(tmp_path / "m", replace_labels=True, initializer_range=0.02)
        with pytest.warns(MemofastWarning, match=f"begin anew: 4 classes by a {head} head, .* has 5 by a {head} one"):
            begun = start(given, "single", CLASSES, train)
    classifier = begun.perceiver.output_postprocessor.modalities["label"]["classifier"]
    last = classifier if head == "linear" else classifier[2]
    assert last.weight.shape[0] == 4 and not last.bias.any() and 0.01 < float(last.weight.std()) < 0.03
    assert torch.equal(
        begun.perceiver.embeddings.latents, open_emotion_model(tmp_path / "m").perceiver.embeddings.latents
    )


def broken(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_checkpoints_of_other_kinds_are_refused(corpus, tmp_path):
    train = corpus.split("train")
    rule.theirs("tiny", labels=700, image_size=32).save_pretrained(tmp_path / "large")
    with pytest.raises(MemofastError, match=r"reads pictures 32 pixels wide, .* keeps them 16 wide; prepare it with"):
        start(section_of(tmp_path / "large"), "single", CLASSES, train)
    rule.theirs("tiny", labels=700, audio_samples_per_frame=128).save_pretrained(tmp_path / "fast")
    with pytest.raises(MemofastError, match=r"hears sound at 3200 Hz, .* keeps it at 1600 Hz; prepare it with --face"):
        start(section_of(tmp_path / "fast"), "single", CLASSES, train)
    with pytest.raises(MemofastError, match=r"m: no such checkpoint folder; give the folder that holds config\.json"):
        start(section_of(tmp_path / "m"), "single", CLASSES, train)
    rule.theirs("tiny", labels=700).save_pretrained(tmp_path / "m")
    with pytest.raises(MemofastError, match="has num_latents 8, the recipe 6; give the same"):
        start(section_of(tmp_path / "m", num_latents=6), "single", CLASSES, train)
    broken(tmp_path / "m", lambda found: found | {"num_latents": 9})
    with pytest.raises(MemofastError, match="another shape of perceiver"):
        open_emotion_model(tmp_path / "m")
    broken(tmp_path / "m", lambda found: found | {"num_latents": 8, "use_query_residual": False})
    with pytest.raises(MemofastError, match="use_query_residual"):
        open_emotion_model(tmp_path / "m")
    broken(tmp_path / "m", lambda found: found | {"use_query_residual": True, "num_cross_attention_heads": 2})
    with pytest.raises(MemofastError, match="num_cross_attention_heads is 1"):
        open_emotion_model(tmp_path / "m")


def section_of(folder, **given):
    return checked({"family": "perceiver", "init": str(folder), **given}, "recipe", PerceiverSection)


def test_corpora_that_it_cannot_read(corpus, tmp_path):
    with pytest.raises(MemofastError, match="has no prompts"):
        start(section(), "single", CLASSES, corpus.split("train"), prompt=section())
    with pytest.raises(MemofastError, match="text alone has none"):
        start(section(), "single", CLASSES, None)
    with pytest.raises(MemofastError, match=r"lasts 0.\d+ s, a window of 10 pictures 0.40 s; .*lower model.num_frames"):
        start(section(num_frames=10), "single", CLASSES, corpus.split("train"))
    with pytest.raises(MemofastError, match=r"^model: d_model 300 has no room .* padding; give sizes that go together"):
        start(section(d_model=300), "single", CLASSES, corpus.split("train"))
    for name, width, dtype, fingerprint, told in (
        ("visual", 256, "uint8", "raw-1-eyes", "256 numbers, no coloured squares"),
        ("visual", 24, "float16", "", "ready visual rows"),
        ("visual", 768, "uint8", "frames-1-10-side-16", "another rate than 25 a second"),
        ("speech", 320, "int16", "raw-1-16000-320", r"320 samples of sound a row at 16000 Hz, 20 ms, .*rate=48000"),
        ("speech", 0, "", "", "has no sound"),
    ):
        folder = tmp_path / f"{name}{width}{fingerprint}"
        other = shapes_corpus(folder, {"train": 4}, frames=(4, 5))
        lines = json.loads((folder / "corpus.json").read_text())
        del lines["stores"][name]
        if width:
            with FeatureWriter(folder / "other", width, dtype=dtype, fingerprint=fingerprint) as store:
                for id in other.split("train").ids:
                    store.put(id, np.zeros((4, width), dtype))
            lines["stores"][name] = "other"
        (folder / "corpus.json").write_text(json.dumps(lines))
        changed = type(other).open(folder)
        with pytest.raises(MemofastError, match=told):
            start(section(), "single", CLASSES, changed.split("train"))


def test_a_silent_sample_is_named(tmp_path):
    """Where a model would learn of it, or be asked of it, before anything is learnt."""
    folder = tmp_path / "c"
    corpus = shapes_corpus(folder, {"train": 4}, frames=(4, 5))
    lines = json.loads((folder / "corpus.json").read_text())
    with FeatureWriter(folder / "other", 64, dtype="int16") as store:
        for id in corpus.split("train").ids[1:]:
            store.put(id, np.zeros((4, 64), "int16"))
    lines["stores"]["speech"] = "other"
    (folder / "corpus.json").write_text(json.dumps(lines))
    split = type(corpus).open(folder).split("train")
    with pytest.raises(MemofastError, match=r"sample 'train00000' of split train .* has no sound, .* --drop-missing"):
        start(section(), "single", CLASSES, split)
    model = a_model(corpus)
    check_shortest(model, split, ["v", "va"])
    for conditions in (["va", "a"], None):
        with pytest.raises(MemofastError, match=r"'train00000' of split train .* has no speech rows, as 1 in"):
            check_shortest(model, split, conditions)
    model.config.num_frames = 5
    with pytest.raises(MemofastError, match=r"'train0000\d' of .* has 4 of the 5 rows that .*, [1-4] sam"):
        check_shortest(model, split, ["va"])


def test_short_clips_of_a_test_part_are_told_before_a_training(tmp_path):
    corpus = shapes_corpus(tmp_path / "c", {"train": 12, "test": 6}, frames=(4, 9))
    least = int(corpus.split("test").lengths[:, 1].min()) + 1
    train = corpus.split("train")
    long = [id for id, rows in zip(train.ids, train.lengths[:, 1], strict=True) if rows >= least]
    stores = {name: tmp_path / "c" / name for name in ("text", "visual", "speech")}
    write_corpus(tmp_path / "c", "c", stores, {"train": long, "test": list(corpus.split("test").ids)})
    overrides = [f"corpus={tmp_path / 'c'}", "folds.scheme=null", "folds.validation=null", f"model.num_frames={least}"]
    overrides += [f"model.{name}={value}" for name, value in SMALL.items() if name != "num_frames"]
    recipe = read("crema-d-perceiver", overrides)
    with pytest.raises(MemofastError, match=rf"of split test .* has {least - 1} of the {least} rows that the model"):
        make_fine_tuning_plan(recipe)
    with pytest.raises(MemofastError, match=r"train.compile is of families that one graph can hold, not of perc"):
        read("crema-d-perceiver", [*overrides, "train.compile=true"])


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_exported_programs_say_the_same(corpus, batch, tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
        runtime = pytest.importorskip("onnxruntime")
    model = a_model(corpus)
    model.save_pretrained(tmp_path / "m")
    path = tmp_path / f"m{suffix}"
    assert export_model(tmp_path / "m", path) == ["pixels", "sound"]
    rng = np.random.default_rng(0)
    pixels = rng.random((3, 4, 16, 16, 3)).astype(np.float32)
    sound = rng.standard_normal((3, 256)).astype(np.float32)
    given = torch.from_numpy(pixels), torch.from_numpy(sound)
    with torch.no_grad():
        expected = model.window_logits(patches_of(given[0]), given[1])
    if suffix == ".pt2":
        found = torch.export.load(path).module()(*given)
    else:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"pixels": pixels, "sound": sound})[0])
        assert session.get_modelmeta().custom_metadata_map["pooling"] == "mean"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(MemofastError, match="neither"):
        export_model(tmp_path / "m", tmp_path / "m.txt")


def test_the_family_is_known():
    family = FAMILIES["perceiver"]
    assert family.section is PerceiverSection and family.pre_training is None and family.export is not None
    assert PerceiverEmotionConfig().sample_rate == 48000 and PerceiverEmotionConfig().frame_width == 150528
