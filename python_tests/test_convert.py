"""`memofast convert`, and files of the original wherever a model is asked for."""

import json
from pathlib import Path

import pytest
import torch
from mood_runs import SMALL, mood_corpus
from runs import here, small_corpus, small_recipe
from safetensors.torch import load_file

from memofast.inference.predictor import load
from memofast.metrics.predictions import Predictions
from memofast.model import MemoBertConfig, MemoBertForEmotion, MemoBertForPreTraining
from memofast.model.memobert import conversion

SIZES = {name: value for name, value in SMALL.items() if name != "head"} | {"visual_width": 4, "speech_width": 5}


def original(path: Path, kind=MemoBertForPreTraining, **options) -> dict[str, torch.Tensor]:
    """A file of the original of a model as small as the moods', and its tensors."""
    torch.manual_seed(1)
    given = conversion.to_original(kind(MemoBertConfig(**SIZES | options)))
    torch.save(given, path)
    return given


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    return mood_corpus(tmp_path_factory.mktemp("convert") / "moods")


def test_there_and_back_and_what_it_says(tmp_path):
    given = original(tmp_path / "in.pt", num_attention_heads=1) | {"vfom_output.output.0.bias": torch.ones(32)}
    torch.save(given, tmp_path / "in.pt")
    told = here(tmp_path, "convert", "in.pt", "--out", "model", "--heads", "2")
    assert told.returncode == 0, told.stderr
    assert "1 layers of 16, 2 attention heads" in told.stdout and "vfom_output.output.0.bias" in told.stdout
    assert json.loads((tmp_path / "model" / "config.json").read_text())["num_attention_heads"] == 2
    assert here(tmp_path, "convert", "model", "--out", "back.pt").returncode == 0
    assert json.loads((tmp_path / "back.json").read_text())["num_attention_heads"] == 2
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert [*back] == [*given] and all(torch.equal(back[name], given[name]) for name in given)


def test_mistakes_take_one_line_and_leave_nothing(tmp_path):
    original(tmp_path / "in.pt")
    MemoBertForPreTraining(MemoBertConfig(**SIZES)).save_pretrained(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for line, message in (
        ("nowhere.pt --out x", "no such file or folder"), ("in.pt --out model", "is there already"),
        ("in.pt --out x", "nothing says how many attention heads"), ("in.pt --out x --heads 3", "makes no heads whose"),
        ("in.pt --out x --heads 0", "--heads"), ("in.pt --out x --heads 2 --classes a,b", "is not fine-tuned"),
        ("in.pt --out nowhere/x --heads 2", "no folder nowhere"), ("model --out x", "name it FILE.pt"),
        ("model --out x.pt --heads 2", "says its own"), ("empty --out x.pt", "no config.json"),
        ("model/config.json --out x", "no whole file of tensors"),
    ):  # fmt: skip
        failed = here(tmp_path, "convert", *line.split())
        assert failed.returncode == 2 and message in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr
        assert failed.stderr.startswith("memofast convert: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_starts_a_pre_training_and_its_heads_too(tmp_path):
    corpus, updates = small_corpus(tmp_path), {"updates": 1, "warmup": 1, "lr": 1e-8}
    sizes = {"vocab_size": 124, "visual_width": 342, "speech_width": 96, "visual_positions": 80, "speech_positions": 80}
    further = {"matching": {"kind": "pooled", "outputs": 2}}
    given = original(tmp_path / "in.pt", **sizes, heads=further, num_attention_heads=1, projection_block=True)
    asked = {name: SIZES[name] for name in ("hidden_size", "num_hidden_layers", "intermediate_size")}
    asked |= {"visual_positions": 80, "speech_positions": 80, "num_attention_heads": 2}
    recipe = small_recipe(tmp_path, corpus, model=asked, objectives={"matching": {}}, train=updates)
    told = here(tmp_path, "pretrain", recipe, "model.init=in.pt")
    assert told.returncode == 0, told.stderr
    (run,) = (tmp_path / "runs").iterdir()
    (step,) = (run / "checkpoints").iterdir()
    found = load_file(step / "model.safetensors")
    for ours, theirs in (
        ("heads.matching.weight", "itm_output.weight"), ("heads.words.bias", "cls.predictions.bias"),
        ("memobert.embeddings.visual.block.weight", "uniter.img_embeddings.projs_linear.1.weight"),
    ):  # fmt: skip
        torch.testing.assert_close(found[ours], given[theirs], rtol=0, atol=1e-6)
    for other in ("model.projection_block=false", "model.position_encoding=sinusoid", "model.shared_types=true"):
        failed = here(tmp_path, "pretrain", recipe, "model.init=in.pt", other, "--dry-run")
        assert failed.returncode == 2 and f"set {other[: other.index('=')]}=" in failed.stderr


def test_a_file_starts_a_fine_tuning_and_is_evaluated_and_predicts(tmp_path, moods):
    """The classifier of a fine-tuned file is left behind where another training begins."""
    entries = {"emotion_head": "emocls_inner", "id2label": {0: "glad", 1: "calm"}}
    original(tmp_path / "tuned.pt", MemoBertForEmotion, **entries)
    (tmp_path / "tuned.json").write_text(json.dumps({"num_attention_heads": 2, "classes": ["glad", "calm"]}))
    train = ("train.epochs=1", "train.samples=8", "train.lr=1e-9", "train.precision=fp32", "baselines=false")
    told = here(tmp_path, "finetune", f"corpus={moods}", "model.init=tuned.pt", "model.head=small_vqa", *train)
    assert told.returncode == 0, told.stderr
    notes = [line for line in told.stderr.splitlines() if "no place for output (4 tensors)" in line]
    assert len(notes) == 1 and notes[0].startswith("note: ")
    (run,) = (tmp_path / "runs").iterdir()
    begun = MemoBertForEmotion.from_pretrained(run / "model")
    given = torch.load(tmp_path / "tuned.pt", weights_only=True)
    torch.testing.assert_close(begun.memobert.pooler.weight, given["uniter.pooler.dense.weight"], rtol=0, atol=1e-6)
    assert begun.config.emotion_head == "small_vqa" and begun.classes == ("calm", "glad")
    assert here(tmp_path, "convert", "tuned.pt", "--out", "model").returncode == 0
    told = here(tmp_path, "evaluate", "tuned.pt", "--corpus", moods, "--conditions", "va")
    assert told.returncode == 0, told.stderr
    (kept,) = (tmp_path / "tuned" / "evaluation" / "moods-test").rglob("test-va.npz")
    answers = Predictions.load(kept)
    assert answers.classes == ("glad", "calm")
    rows = {"visual": [[0.5, -1, 2, 0]], "speech": [[1.0] * 5, [0.5] * 5]}
    (answer,), (again,) = (load(tmp_path / name).predict(features=rows) for name in ("tuned.pt", "model"))
    assert answer.probabilities == again.probabilities and set(answer.probabilities) == {"glad", "calm"}
    assert answer.modalities == ("visual", "speech")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "it", "is"]))
    (tmp_path / "said.csv").write_text("id,text\none,so it is\ntwo,it\n")
    told = here(tmp_path, "predict", "said.csv", "--model", "tuned.pt", "--out", "said", "--vocab", "vocab.txt")
    assert told.returncode == 0, told.stderr
    assert len((tmp_path / "said" / "predictions.jsonl").read_text().splitlines()) == 2


def test_a_file_of_text_alone_takes_faces_and_speech_of_a_corpus(tmp_path, moods):
    given = original(tmp_path / "bert.pt", visual_width=0, speech_width=0)
    line = ("train.epochs=1", "train.samples=8", "train.lr=1e-9", "model.num_attention_heads=2", "--dry-run")
    told = here(tmp_path, "finetune", f"corpus={moods}", "model.init=bert.pt", "model.shared_types=true", *line)
    assert told.returncode == 0 and "trained on lva" in told.stdout, told.stderr
    assert given["uniter.embeddings.token_type_embeddings.weight"].shape == (2, 16)
