"""Text emotion models from small tables: what is learnt, what never gets into training, interruptions, bad input."""

import json
import re
import sys

import mood_runs
import pytest
from rich.console import Console
from text_emotion import GIVEN_AWAY, sentences, write_bert, write_table

from memofast import cli
from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.model.families import open_emotion_model
from memofast.text_emotion.merged_text import TextSource
from memofast.text_emotion.training import EmotionTextRun, train_emotion_text
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.trainer import Trainer

program = mood_runs.program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT, 210 sentences to train on and 42 to evaluate; five evaluated ones stand in train too, one of them
    changed a little."""
    folder = tmp_path_factory.mktemp("text_emotion")
    write_bert(folder / "bert")
    held_out = sentences(42, 2)
    leaks = [
        held_out[0],
        (held_out[1][0].upper() + "!", held_out[1][1]),
        *held_out[2:4],
        (held_out[4][0] + " home", "sad"),
    ]
    write_table(folder / "train.csv", sentences(210, 1) + leaks)
    write_table(folder / "dev.csv", held_out)
    return folder


def a_run(folder, out, **tuning):
    options = {
        "metric": "weighted_f1",
        "epochs": 12,
        "samples": 8,
        "lr": 1e-2,
        "patience": 20,
        "precision": "fp32",
        "device": "cpu",
    } | tuning
    return EmotionTextRun(
        [TextSource("table", folder / "train.csv")],
        [TextSource("table", folder / "dev.csv")],
        folder / "bert",
        out,
        validation=0.15,
        tuning=Tuning(**options),
    )


@pytest.fixture(scope="module")
def trained(folder):
    out = folder / "run"
    return out, train_emotion_text(a_run(folder, out), Console(quiet=True))


def test_it_learns_what_gives_emotions_away(trained):
    out, report = trained
    scores = report["splits"]["evaluated_table"]
    assert scores["samples"] == 42 and scores["weighted_f1"] > 0.9 > 0.5 > scores["majority"]["weighted_f1"]
    assert report["classes"] == list(GIVEN_AWAY) == list(open_emotion_model(out).classes)
    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "model" / "vocab.txt").is_file()


def test_a_finished_training_is_not_repeated_and_keeps_no_checkpoints(folder, trained):
    out, report = trained
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "checkpoints" not in before
    (out / ".checkpoints.deleted").mkdir()  # of one that was killed as it removed them
    assert train_emotion_text(a_run(folder, out), Console(quiet=True)) == report
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_options_that_cannot_be_read_are_one_line(folder, tmp_path, refused):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "training.json").write_text('{"seed": 1,\n"oops"')
    line = refused(f"table={folder / 'train.csv'}", "--init", folder / "bert", "--out", tmp_path / "o")
    assert "training.json is not the options of a training" in line


def test_near_duplicates_of_what_is_evaluated_are_in_no_other_split(trained):
    out, report = trained
    counts, evaluated = report["counts"]["table=train.csv"], report["counts"]["evaluated table=dev.csv"]
    assert evaluated == {"read": 42, "unmapped": 0, "evaluated": 42}
    assert report["text"] == {"removed": {}, "encodings": {}}
    assert counts["read"] == 215 and counts["like_evaluated"] == 5
    assert counts["train"] + counts["validation"] + counts["like_validation"] == 210
    corpus = Corpus.open(out / "corpus")
    assert set(corpus.splits) == {"train", "validation", "evaluated_table"}
    rules = {rule["rule"]: rule["dropped"] for rule in corpus.description["rules"]}
    assert rules["like_evaluated"] == 5


def test_dialogues_are_not_divided(trained):
    corpus = Corpus.open(trained[0] / "corpus")
    groups = [{int(id.rsplit("/s", 1)[1]) // 3 for id in corpus.split(name).ids} for name in ("train", "validation")]
    assert not groups[0] & groups[1]


def test_an_interrupted_training_ends_with_the_same_model(folder, trained, tmp_path, monkeypatch):
    out, report = trained
    updates = iter(range(20))

    def interrupted(self, update, whole=Trainer.update):
        if next(updates, None) is None:
            raise KeyboardInterrupt
        return whole(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_emotion_text(a_run(folder, tmp_path / "run"), Console(quiet=True))
    assert not (tmp_path / "run" / "model").exists()
    again = train_emotion_text(a_run(folder, tmp_path / "run"), Console(quiet=True))
    assert again == report
    weights = [(path / "model" / "model.safetensors").read_bytes() for path in (out, tmp_path / "run")]
    assert weights[0] == weights[1]


def test_training_stops_where_validation_gets_no_better(folder, tmp_path):
    report = train_emotion_text(a_run(folder, tmp_path / "run", lr=1e-9, patience=2), Console(quiet=True))
    assert report["updates"] == 3 * (report["updates"] // 3) < 12 * report["counts"]["table=train.csv"]["train"] / 8


def test_balanced_class_weights_and_smoothing(folder, tmp_path):
    run = a_run(folder, tmp_path / "run", class_weights="balanced", smoothing=0.1)
    assert train_emotion_text(run, Console(quiet=True))["splits"]["validation"]["ua"] > 0.8


def test_the_evaluated_file_itself_is_refused(folder, tmp_path):
    run = a_run(folder, tmp_path / "run")
    with pytest.raises(MemofastError, match="same data"):
        train_emotion_text(
            EmotionTextRun(run.evaluated, run.evaluated, run.init, run.out, tuning=run.tuning), Console(quiet=True)
        )


@pytest.fixture
def refused(folder, monkeypatch, capsys, tmp_path):
    """Run `memofast emotion-text train` and return its one line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["memofast", "emotion-text", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and "Traceback" not in error
        (line,) = [line for line in error.splitlines() if line.startswith("memofast emotion-text: ")]
        return line

    return run


def test_bad_input_is_one_line(folder, tmp_path, refused):
    train, rest = f"table={folder / 'train.csv'}", ["--init", folder / "bert", "--out", tmp_path / "out"]
    bliss = write_table(tmp_path / "bliss.csv", [("so fine", "bliss")])
    calm = write_table(tmp_path / "calm.csv", [(text, "neutral") for text, _ in sentences(30, 5)])
    assert "'bliss' of corpus table" in refused(f"table={bliss}", *rest)
    init = ["--init", folder / "bert"]
    assert "class happy has no sentence in train" in refused(f"table={calm}", *init, "--out", tmp_path / "calm")
    assert "KIND=PATH" in refused("train.csv", *rest)
    assert "config.json" in refused(train, "--init", tmp_path, "--vocab", folder / "bert", "--out", tmp_path / "o2")
    assert "no class set 'nine'" in refused(train, *rest, "--classes", "nine")
    assert "--metric" in refused(train, *rest, "--metric", "best")
    assert "no source is of that kind" in refused(train, *init, "--out", tmp_path / "o3", "--validate-on", "meld")


def test_other_options_in_the_same_folder_are_refused(folder, trained, refused):
    line = refused(f"table={folder / 'train.csv'}", "--init", folder / "bert", "--out", trained[0])
    assert "was begun with another" in line


def test_an_evaluation_says_what_it_learnt_from(trained, folder, program, tmp_path):
    out, report = trained
    seen = sentences(210, 1)[:9]
    heard = [*seen, *sentences(42, 2)[20:]]
    table = write_table(tmp_path / "other.csv", [(f"{text}!", {"anger": "angry"}.get(e, e)) for text, e in heard])
    columns = ["-c", "id=id", "-c", "text=text", "-c", "label=label", "--voice", "none"]
    program("prepare", f"test={table}", "--out", tmp_path / "other", "--vocab", folder / "bert", *columns)
    for model in (out, out / "model"):
        told = program(
            "evaluate", model, "--corpus", tmp_path / "other", "--map", "angry=anger", "--out", tmp_path / "e"
        )
        score = report["splits"]["validation"]["weighted_f1"]
        line = "run: fold -, seed 0; its checkpoint was selected on validation data of table=train.csv "
        line += f"(weighted F1 {score:.3f})"
        assert line in told and "selected on another corpus" in told
        counts = re.findall(r"run: (\d+) of these 31 samples have sentences that (stand|chose)", told)
        assert sum(int(count) for count, _ in counts) >= 9 and "is not known" not in told


def test_a_part_of_a_corpus():
    assert TextSource.parse("isear:200=a/b.csv").most == 200
    for given in ("isear:=b.csv", "isear:x=b.csv", "isear:0=b.csv", "isear="):
        with pytest.raises(MemofastError, match="KIND:MOST=PATH"):
            TextSource.parse(given)
