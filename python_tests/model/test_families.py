"""A family is one folder and one line in a table: a second one is opened, predicted with and evaluated by code that
names no model."""

import ast
import json
from pathlib import Path

import mood_runs
import numpy as np
import pytest
from means_family import MEANS, NOTHING, MeansModel, means_model
from mood_runs import mood_corpus, mood_model
from transformers import BertConfig

import memofast
from memofast.data import Corpus
from memofast.data.conditions import keep
from memofast.errors import MemofastError
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.model import MemoBertForEmotion, MemoBertForPreTraining, families
from memofast.model.compatibility import check_widths, check_words, conditions_for
from memofast.model.families import export_model, open_emotion_model, open_encoder
from memofast.model.folder import model_folder

program = mood_runs.program
PACKAGE = Path(memofast.__file__).parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return mood_corpus(tmp_path_factory.mktemp("families") / "moods")


@pytest.fixture
def folder(corpus, tmp_path, monkeypatch) -> Path:
    """A model of the second family, which is in the table."""
    monkeypatch.setitem(families.FAMILIES, MEANS.name, MEANS)
    return means_model(tmp_path / "means", Corpus.open(corpus).split("train"))


def test_the_model_type_says_which_family(folder, tmp_path):
    assert type(open_emotion_model(folder)) is MeansModel
    assert type(open_emotion_model(mood_model(tmp_path / "other"))) is MemoBertForEmotion


@pytest.mark.parametrize("condition", [None, "v"])
def test_a_split_is_predicted_as_sample_by_sample(folder, corpus, condition):
    model, split = open_emotion_model(folder), Corpus.open(corpus).split("test")
    found = predict_split(model, split, label_space_of(model), condition=condition)
    assert found.classes == ("calm", "glad", NOTHING) and label_space_of(model).classes == ("calm", "glad")
    assert found.truth.tolist() == [number // 2 % 2 for number in range(36, 48)]
    for number, scores in enumerate(found.scores):
        batch = split.pack([number])
        alone = model.probabilities(batch if condition is None else keep(batch, condition))
        np.testing.assert_allclose(scores, alone[0], atol=1e-6)
    assert found.scores.std(0).min() > 1e-3


def test_what_it_reads_decides_on_conditions_and_corpora(folder, corpus, tmp_path):
    model, opened = open_emotion_model(folder), Corpus.open(corpus)
    assert conditions_for(model, opened) == ("l", "v", "lv")
    with pytest.raises(MemofastError, match="condition la needs speech rows"):
        conditions_for(model, opened, ["la"])
    wide = Corpus.open(mood_corpus(tmp_path / "wide", "wide", width=6))
    with pytest.raises(MemofastError, match=r"reads visual rows 4 wide, corpus .* has 6"):
        check_widths(model, folder, wide)
    check_words(model, opened.split("train"))
    model.config.vocab_size = 102
    with pytest.raises(MemofastError, match="has word piece 102, but the model's vocabulary ends at 101"):
        check_words(model, opened.split("train"))


def test_a_model_that_shares_nothing_with_a_corpus(folder, corpus, monkeypatch):
    monkeypatch.setattr(MeansModel, "reads", {"speech": 7})
    mute = Corpus.open(corpus)
    mute.stores.pop("speech")
    with pytest.raises(MemofastError, match=r"the model reads speech, corpus .* has text, visual"):
        conditions_for(open_emotion_model(folder), mute)


def test_evaluate_and_predict_ask_no_more_than_the_contract(program, folder, corpus, tmp_path, monkeypatch, capsys):
    capsys.readouterr()  # of saving
    error = program.fails("evaluate", folder, "--corpus", corpus, "--out", tmp_path / "out")
    assert "sample 'moods38' of split test" in error and "4 samples have more than the 2 that the model reads" in error
    monkeypatch.setattr(MeansModel, "longest", {"visual": 3})
    said = program("evaluate", folder, "--corpus", corpus, "--out", tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setitem(families.FAMILIES, MEANS.name, MEANS)
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["condition"] for row in rows] == ["l", "v", "lv"] and "12 samples" in said
    (found,) = memofast.load(folder, device="cpu").predict(features={"visual": (rows := np.eye(5, 4))})
    assert list(found.probabilities) == ["calm", "glad", NOTHING] and found.modalities == ("visual",)
    (cut,) = memofast.load(folder, device="cpu").predict(features={"visual": rows[:2]})
    assert found.probabilities == cut.probabilities  # it reads two rows of faces


def test_what_a_family_lacks_is_said_in_one_line(program, folder, corpus, tmp_path):
    error = program.fails("extract", folder, "--corpus", corpus, "--split", "test", "--out", tmp_path / "x.npz")
    assert f"{folder} holds a means model, which has no hidden states; give one of memobert" in error
    error = program.fails("export", folder, "--out", tmp_path / "x.onnx")
    assert f"{folder} holds a means model, which cannot be exported; give one of memobert" in error
    assert not list(tmp_path.glob("x.*"))


def test_folders_that_hold_no_model_of_any_family(folder, tmp_path):
    for name, text in {"empty": None, "broken": "{", "untyped": "{}", "list": "[]"}.items():
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "config.json").write_text(text)
    BertConfig().save_pretrained(tmp_path / "bert")
    kinds = "'memobert' or 'lstm_fusion' or 'memobert-flow' or 'sequence' or 'perceiver' or 'towers' or 'means'"
    for name, message in {
        "nowhere": "no such checkpoint folder", "empty": "no config.json", "broken": "not valid JSON",
        "untyped": f"holds a None model, not {kinds}; give a memofast checkpoint",
        "list": "holds a None model",
        "bert": f"holds a 'bert' model, not {kinds}; start from it with from_bert",
    }.items():  # fmt: skip
        for opens in (open_emotion_model, open_encoder, lambda place: export_model(place, tmp_path / "x.pt2")):
            with pytest.raises(MemofastError) as refused:
                opens(tmp_path / name)
            assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_stands_for_its_model_and_a_pre_training_for_its_best_checkpoint(folder, tmp_path):
    (tmp_path / "run").mkdir()
    folder.rename(tmp_path / "run" / "model")
    assert type(open_emotion_model(tmp_path / "run")) is MeansModel
    for step in (100, 200, 300):
        place = tmp_path / "pre" / "checkpoints" / f"step-{step:08}"
        place.mkdir(parents=True)
        (place / "trainer.json").write_text('{"best": 200}')
    (place.parent / "step-x").mkdir()
    assert model_folder(tmp_path / "pre").name == "step-00000200"
    (place / "trainer.json").write_text("{}")
    assert model_folder(tmp_path / "pre").name == "step-00000300"


def test_hidden_states_come_from_any_checkpoint_of_memobert(tmp_path):
    config = open_emotion_model(mood_model(tmp_path / "tuned")).config
    config.visual_positions = 7
    MemoBertForPreTraining(config).save_pretrained(tmp_path / "pre")
    for name in ("tuned", "pre"):
        encoder = open_encoder(tmp_path / name)
        assert encoder.width == 16 and not encoder.training
        assert encoder.reads == {"text": 110, "visual": 4, "speech": 5}
    assert encoder.longest == {"text": 512, "visual": 7, "speech": 512}


def test_no_other_room_names_memobert():
    """Training and objectives are those of MemoBert alone as yet."""
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        if room in ("model", "train", "objectives"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not [name for name in names if "memobert" in name.lower()], path
