"""Towers in a fine-tuning: they learn, go on to the same bits, learn by further losses, evaluate and predict; mistakes
are one line."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
import yaml
from rich.console import Console
from runs import here
from seen_talks import small_encoders, tower_recipe, write_seen_talks
from tiny_models import save_bert, save_roberta, save_speech_model, save_video_model, save_vit

from memofast.data import Corpus
from memofast.errors import MemofastError, MemofastWarning
from memofast.inference.dialogues import as_read
from memofast.inference.predictor import load
from memofast.model.families import open_emotion_model
from memofast.prepare.text.word_pieces import WordPieces
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.trainer import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    write_seen_talks(folder / "corpus")
    return folder, small_encoders(folder)


@pytest.fixture(scope="module")
def ran(place):
    """What the command said, and the folder of its run."""
    folder, towers = place
    recipe = tower_recipe(folder / "recipe.yaml", folder / "corpus", towers)
    done = here(folder, "finetune", recipe, "train.epochs=6", "modalities.evaluate=[l, v, a, lva]")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return done.stdout, run


def plan_of(place, *overrides, towers=None, corpus=None, file="own.yaml", **sections):
    folder, every = place
    recipe = tower_recipe(folder / file, corpus or folder / "corpus", every if towers is None else towers, **sections)
    return make_fine_tuning_plan(read(str(recipe), list(overrides)))


def test_it_learns_and_says_how_it_reads(ran):
    said, run = ran
    results = json.loads((run / "results.json").read_text())
    rows = {row["condition"]: row for row in results["rows"] if row["split"] == "test"}
    assert set(rows) == {"l", "v", "a", "lva"}
    assert rows["lva"]["selected on validation"]["pooled"]["wa"]["mean"] > 0.7, rows["lva"]
    assert "read in dialogues: up to 2 earlier utterances, 40 rows, asked after it" in said
    kept = (run / "config.yaml").read_text()
    assert all(f"init: {run.parents[1]}/{name}" in kept for name in ("bert", "videomae", "data2vec"))


def test_it_evaluates_and_predicts(ran, place):
    _, run = ran
    done = here(run.parent, "evaluate", run, "--corpus", place[0] / "corpus", "--split", "test", "--out", "evaluated")
    assert done.returncode == 0, done.stderr
    predictor, model = load(run), open_emotion_model(run)
    assert predictor.modalities == ("text", "visual", "speech")
    pictures, sound = np.full((5, 768), 190, np.uint8), np.full((3, 320), 900, np.int16)
    (found,) = predictor.predict(text="so good", features={"visual": pictures, "speech": sound})
    assert set(found.importance) == {"text", "visual", "speech"}
    (words,) = predictor.predict(text="so good")
    assert words.modalities == ("text",) and sum(words.probabilities.values()) == pytest.approx(1)
    (heard,) = predictor.predict(features={"speech": sound})
    assert heard.probabilities != words.probabilities
    split = as_read(model, Corpus.open(place[0] / "corpus").split("test"))
    rows = split.lengths[:, 0]
    assert (split.corpus.stores["text"].lengths.max() <= 40) and len({*rows}) > 3
    assert [one.text for one in predictor.predict_many(["good", "bad so"])] == ["good", "bad so"]


@pytest.fixture(scope="module")
def whole(place):
    """What a run that nothing interrupts comes to."""
    plan = plan_of(place, "train.epochs=1")
    fine_tune(plan, place[0] / "whole", Console(quiet=True))
    return plan, [one[-1].scores for one in answers(plan, place[0] / "whole")]


@pytest.mark.parametrize("cut", [1, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(whole, tmp_path, monkeypatch, cut):
    plan, expected = whole
    updates = iter(range(cut))

    def interrupted(self, update, real=Trainer.update):
        if next(updates, None) is None:
            raise KeyboardInterrupt
        torch.rand(7)  # what others draw meanwhile changes nothing
        return real(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(plan, tmp_path / "cut", Console(quiet=True))
    fine_tune(plan, tmp_path / "cut", Console(quiet=True))
    for one, scores in zip(answers(plan, tmp_path / "cut"), expected, strict=True):
        np.testing.assert_array_equal(one[-1].scores, scores)


def test_further_losses_and_teachers(ran, place, tmp_path):
    losses = {
        "contrast": {"kind": "supervised_contrast", "weight": 0.1},
        "prototypes": {"kind": "spcl", "pool": 16, "support": 4},
        "teacher": {"kind": "dist", "queue": 8, "teachers": [{"path": str(ran[1]), "condition": "l"}]},
    }
    towers = {name: place[1][name] | {"train": "frozen"} for name in ("visual", "speech")}
    plan = plan_of(
        place, "train.loss.detached=true", "train.decode=nearest_centre", towers=towers, losses=losses, context=None
    )
    fine_tune(plan, tmp_path / "run", Console(quiet=True))
    logged = (tmp_path / "run" / "fixed" / "seed-42" / "metrics.jsonl").read_text()
    assert all(f'"{name}"' in logged for name in losses)
    opened = open_emotion_model(tmp_path / "run")
    assert opened.represents == 16 and set(opened.reads) == {"visual", "speech"}
    before = open_emotion_model(ran[1]).towers["visual"].encoder.state_dict()
    assert set(opened.towers["visual"].encoder.state_dict()) == set(before)


def test_samples_of_which_nothing_is_read_are_told(place):
    folder, towers = place
    (note,) = plan_of(place, towers={"speech": towers["speech"]}, context=None).notes
    corpus = Corpus.open(folder / "corpus")
    lacking = sum((corpus.split(name).lengths[:, 2] == 0).sum() for name in corpus.splits)
    assert lacking and note.startswith(f"{lacking} of 48 samples have none of what the model reads")
    assert [line.partition(" of ")[0] for line in plan_of(place).notes] == ["1"]


def test_another_run_goes_on_from_what_one_has_learnt(ran, place, tmp_path):
    """With other losses and what it trains of it; the map to the answers stays where the classes do."""
    _, run = ran
    frozen = {"text": {"train": "frozen"}, "init": str(run)}
    losses = {"near": {"kind": "supervised_contrast", "weight": 0.1}}
    plan = plan_of(place, "train.epochs=1", towers=frozen, losses=losses, context={"utterances": 2, "tokens": 40})
    begun = start_model(plan.recipe, plan.target, plan.folds[0].train)
    before, batch = open_emotion_model(run), plan.folds[0].test.pack(range(9))
    assert torch.equal(begun.eval()(batch), before(batch))
    trained = {name.split(".")[1] for name, p in begun.named_parameters() if p.requires_grad and ".encoder." in name}
    assert trained == {"visual", "speech"} and plan.recipe.model.width == 8
    fine_tune(plan, tmp_path / "run", Console(quiet=True))
    after = open_emotion_model(tmp_path / "run")
    texts, pictures = (
        [
            torch.equal(own, after.state_dict()[name])
            for name, own in before.state_dict().items()
            if name.startswith(part)
        ]
        for part in ("towers.text.encoder.", "towers.visual.encoder.")
    )
    assert all(texts) and not all(pictures)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plan.resolved().plain()))
    assert read(str(tmp_path / "run.yaml"), []).model == plan.resolved().model
    with pytest.warns(MemofastWarning, match=r"names calm, glad, not calm, cross: the map to the answers begins anew"):
        other = plan_of(place, "target.map={calm: calm, glad: cross}", towers={"init": str(run)})
    assert other.target.classes == ("calm", "cross")

    def refused(*overrides, **towers):
        with pytest.raises(MemofastError) as error:
            plan_of(place, *overrides, towers={"init": str(run)} | towers, file="wrong.yaml")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "model.width is 16, that of model.init" in refused("model.width=16")
    assert "model.fusion is {" in refused("model.fusion.kind=mean")
    assert "leave text.init out" in refused(text=place[1]["text"])
    assert "leave speech.pool out" in refused(speech={"pool": "first"})
    assert "holds a 'bert' model" in refused(init=place[1]["text"]["init"])


def test_one_modality_alone(place, tmp_path):
    plan = plan_of(place, "train.epochs=1", towers={"speech": place[1]["speech"]}, context=None)
    assert plan.train == ("a",) and plan.evaluate == ("a",)
    fine_tune(plan, tmp_path / "run", Console(quiet=True))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta")
    return save_roberta(folder / "roberta", ["speaker 1 : so good bad feels", "speaker 2 : so so", "speaker 3 4"])


def test_a_roberta_reads_a_corpus_of_its_own_word_pieces(place, roberta, tmp_path):
    towers = {"text": {"init": str(roberta)}}
    with pytest.raises(MemofastError, match=r"has other word pieces than corpus .* prepare it with --vocab"):
        plan_of(place, towers=towers)
    corpus = write_seen_talks(tmp_path / "corpus", roberta)
    for name in ("tokenizer.json",):
        shutil.copy(roberta / name, corpus / name)
    plan = plan_of(place, towers=towers, corpus=corpus)
    assert len(plan.notes) == 1 and "have none of what the model reads" in plan.notes[0]
    pieces = WordPieces(roberta)
    names = {number: piece for piece, number in pieces.vocabulary.items()}
    split = plan.folds[0].train
    text = "".join(names[piece] for piece in split.pack([2]).token_ids.tolist()).replace("Ġ", " ")
    said = [plan.corpus.stores["text"].read(split.ids[number])["utf8"].tobytes().decode() for number in range(3)]
    assert text == (
        f"<s> speaker 1 :{said[0]} speaker 2 :{said[1]}</s> speaker 3 :{said[2]}</s> speaker 3 feels<mask></s>"
    )
    fine_tune(plan, tmp_path / "run", Console(quiet=True))
    model = open_emotion_model(tmp_path / "run")
    assert model.longest == {"text": 64}  # 66 positions, of which padding takes two
    lone = torch.cat([model(split.pack([number])) for number in range(6)])
    torch.testing.assert_close(model(split.pack(range(6))), lone, rtol=1e-4, atol=1e-5)
    bare = shutil.copytree(roberta, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    note, _ = plan_of(place, towers={"text": {"init": str(bare)}}, corpus=corpus).notes
    assert "is not known" in note and "tokenizer.json" in note


def test_mistakes_are_one_line(place, tmp_path):
    folder, towers = place
    recipe = tower_recipe(folder / "wrong.yaml", folder / "corpus", {"text": {"init": towers["speech"]["init"]}})
    done = here(tmp_path, "finetune", recipe)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "holds a 'data2vec-audio' model; give an encoder of text" in done.stderr and not (tmp_path / "runs").exists()

    def refused(*overrides, **options):
        with pytest.raises(MemofastError) as error:
            plan_of(place, *overrides, file="wrong.yaml", **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    def of(name, folder, **options):
        return refused(towers={name: {"init": str(folder)}}, context=None, **options)

    assert "reads no modality; give text.init" in refused(towers={})
    assert "'full', 'frozen' or 'lora'" in refused("model.text.train=slow")
    assert "model.text.init: " in of("text", tmp_path / "nowhere")
    assert "no config.json" in of("speech", tmp_path)
    assert "holds a 'bert' model; give an encoder of sound" in of("speech", towers["text"]["init"])
    assert "holds a 'vit' model; give an encoder of several pictures" in of("visual", save_vit(tmp_path / "vit"))
    remote = shutil.copytree(towers["text"]["init"], tmp_path / "remote")
    config = json.loads((remote / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    assert "Python code" in of("text", remote)
    for name, sections in towers.items():
        fewer = shutil.copytree(sections["init"], tmp_path / f"fewer-{name}")
        layers = json.loads((fewer / "config.json").read_text())
        (fewer / "config.json").write_text(json.dumps(layers | {"num_hidden_layers": 1}))
        assert "of layers that its config.json does not count" in of(name, fewer)
    cached = {name: own | {"train": "frozen"} for name, own in towers.items()}
    hidden = [f"model.cache.path={tmp_path / 'cache'}", "train.hide=0.3"]
    assert "each of which model.cache would keep" in refused(*hidden, towers=cached)
    (remote / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "weights lack" in of("text", remote)
    (remote / "config.json").write_text(json.dumps(config | {"model_type": "own"}))
    assert "'own'" in of("text", remote) or "own" in of("text", remote)
    bare = save_speech_model(tmp_path / "bare", "wav2vec2", normalise=None)
    assert "has no preprocessor_config.json" in of("speech", bare)
    (bare / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000, "do_normalize": True}))
    assert "hears sound at 8000 Hz" in of("speech", bare) and "--speech raw,rate=8000" in of("speech", bare)
    wrong = {"size": {"shortest_edge": 16}, "crop_size": {"height": 8, "width": 8}}
    small = save_video_model(tmp_path / "small", "videomae", wrong)
    assert "makes pictures of 8 pixels out of 16, the encoder sees 16" in of("visual", small)
    assert "context is read by model.text" in refused(towers={"visual": towers["visual"]}, context={"tokens": 40})
    assert "no prompts" in refused("prompt={}", context=None) or "prompt" in refused("prompt={}", context=None)
    assert "somewhere: no such checkpoint folder" in refused("model.init=somewhere", towers={}, context=None)
    assert "context.tokens 600" in refused("context.tokens=600")
    assert "train.compile is of families that one graph can hold, not of towers" in refused("train.compile=true")
    short = save_bert(tmp_path / "short", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (short / name).unlink(missing_ok=True)
    assert "vocabulary ends at 4" in of("text", short)


@pytest.mark.parametrize(
    ("name", "kind", "sizes"),
    [
        ("speech", "ASTModel", {"max_length": 32, "num_mel_bins": 16}),  # of spectra
        ("text", "GPT2Model", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20}),  # that looks back alone
        ("text", "BartModel", {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20}),
        ("visual", "CLIPVisionModel", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}),
    ],
)
def test_encoders_of_another_kind(place, tmp_path, name, kind, sizes):
    model = getattr(transformers, kind)
    model(model.config_class(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(MemofastError, match=rf"model\.{name}\.init: .* model; give an encoder of"):
        plan_of(place, towers={name: {"init": str(tmp_path)}}, context=None)


def test_a_corpus_that_does_not_keep_what_is_read(place, tmp_path):
    from talks import two_talks, write_talks

    faces = write_talks(tmp_path / "talks", two_talks(), {"train": ["d1"], "validation": ["d10"]})
    for name, told in (("visual", "has ready visual rows"), ("speech", "has no sound, which model.speech reads")):
        with pytest.raises(MemofastError, match=told):
            plan_of(place, "folds.test=null", towers={name: place[1][name]}, corpus=faces, context=None)
