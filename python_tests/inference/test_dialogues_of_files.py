"""Dialogues of tables whose rows have films or sounds: answered as evaluation answers the corpus that is prepared of
them, in whatever order, with rows of which a corpus keeps nothing."""

import json
import wave
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import here
from talks import write_vocabulary
from test_heard_dialogues import model_in

from memofast.data import Corpus, Split
from memofast.data.conditions import keep
from memofast.inference import films, load
from memofast.inference.dialogues import as_read
from memofast.inference.prediction import Prediction
from memofast.inference.preparation import keep_preparation

COLUMNS = {"text": "line", "dialogue": "talk", "position": "turn", "speaker": "by"}
# a dialogue goes over two films, and not in the order of their times; `gone` is in no corpus, nor who says it
TABLE = """id,file,start,end,line,talk,turn,by
a1,a.wav,4,5.5,good,1,1,Bob
a0,a.wav,2,3.9,so soft,1,0,Ann
b3,b.wav,0,1.9,,1,3,Cid
a4,a.wav,0,1.9,well,1,4,Ann
gone,c.wav,0,1,,1,2,Zoe
c5,c.wav,0,1,bad so,1,5,Eve
b6,b.wav,2,1,well,1,6,Bob
b7,b.wav,2,3.5,bad,1,7,
v0,b.wav,3,4,good,2,0,Bob
v1,a.wav,1,2,so,2,1,Cid
w,a.wav,0,1,so,,,Bob
x,a.wav,2,3,bad,,,
"""


def write_sound(path, tones):
    samples = (9000 * np.sin(2 * np.pi * np.cumsum(np.repeat(tones, 16_000) / 16_000))).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes(samples.tobytes())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_sound(folder / "a.wav", [300, 800, 500, 1500, 900, 1200])
    write_sound(folder / "b.wav", [700, 400, 600, 1000])
    (folder / "said.csv").write_text(TABLE)
    vocabulary = write_vocabulary(folder / "words") / "vocab.txt"
    asked = ["--vocab", vocabulary, "--face", "none", "--speech", "logmel", "--voice", "none", "--workers", "1"]
    done = here(folder, "prepare", "said.csv", "--out", "corpus", *asked, *named())
    assert done.returncode == 0, done.stderr
    return folder


def named():
    return [part for field, column in COLUMNS.items() for part in ("-c", f"{field}={column}")]


def test_clips_of_dialogues_have_no_timeline_of_one_bar(tmp_path, monkeypatch):
    row, drawn, told = Prediction("a", "calm", {"calm": 1.0}, ("text",), start=0.0, end=1.0), [], []
    monkeypatch.setattr(films, "draw_timeline", lambda rows, classes, path, title: drawn.append(path.name))
    rows = [replace(row, id=f"{n}", file=f"{n}.wav", dialogue="d") for n in range(3)]
    rows += [replace(row, file="film.wav", id=f"f{n}", dialogue="d") for n in range(2)] + [replace(row, file="x.wav")]
    console = SimpleNamespace(print=told.append)
    films._draw(SimpleNamespace(rows=rows), SimpleNamespace(classes=("calm",)), tmp_path, console)
    assert drawn == ["film.png", "x.png"]
    assert told == ["no timeline of 3 files that are one utterance of a dialogue each"]
    films._draw(SimpleNamespace(rows=rows[:1]), SimpleNamespace(classes=("calm",)), tmp_path, console)
    assert drawn[2:] == ["timeline.png"]
    films._draw(SimpleNamespace(rows=rows[:3]), SimpleNamespace(classes=("calm",)), tmp_path / "none", console)
    assert not drawn[3:] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("reads", ["la", "l"])
def test_rows_with_sound_are_answered_as_evaluation_answers_their_corpus(prepared, tmp_path, reads):
    corpus = Corpus.open(prepared / "corpus")
    ids = sorted(corpus.stores["text"].ids)
    assert "gone" not in ids and len(ids) == 11
    speech = {"speech": 250} if "a" in reads else {}
    folder = model_in(tmp_path / "model", corpus.width("speech") if speech else 0, tokens=60, utterances=3, **speech)
    keep_preparation(corpus, (reads,), folder, None)
    predictor = load(folder, device="cpu")
    split = as_read(predictor.model, Split.of_ids(corpus, "all", ids))
    with torch.inference_mode():
        wanted = predictor.model.probabilities(keep(split.pack(range(len(ids))), reads)).numpy()
    asked = ["--model", folder, "--out", tmp_path / "out", "--device", "cpu"]
    done = here(prepared, "predict", "said.csv", *asked, *named())
    assert done.returncode == 0, done.stderr
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())}
    there = [id for id in ids if id in rows]
    assert set(ids) - set(there) == (set() if speech else {"b3"})  # nothing is there for a model of words
    found = np.array([[rows[id]["probabilities"][name] for name in predictor.classes] for id in there])
    np.testing.assert_allclose(found, wanted[[ids.index(id) for id in there]], atol=1e-5)


def test_a_row_without_words_is_in_no_dialogue_where_nothing_else_is_of_it(tmp_path):
    """`prepare` drops it, and with it who says it alone."""
    predictor = load(model_in(tmp_path / "model", tokens=60), device="cpu")
    lines = {"good so": "Ann", "": "Zoe", "bad": "Bob"}
    with_all = predictor.predict_many(list(lines), speakers=list(lines.values()))
    first, last = predictor.predict_many(["good so", "bad"], speakers=["Ann", "Bob"])
    assert [with_all[0].probabilities, with_all[2].probabilities] == [
        pytest.approx(first.probabilities), pytest.approx(last.probabilities)
    ]  # fmt: skip
