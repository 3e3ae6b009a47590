"""Prediction of films with what was said in them before: as a corpus of the same dialogue, in time, film by film."""

import csv
import json
import re
import wave
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import here
from talks import MODEL, PIECES, two_talks, write_talks, write_vocabulary

from memofast.data import Corpus, Split
from memofast.data.conversations import samples_cut
from memofast.data.dialogue import Context, Telling
from memofast.data.folds import write_groups
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.inference import heard_dialogues, load
from memofast.inference.dialogues import as_read, with_context
from memofast.inference.heard_dialogues import HeardDialogues, Moment, as_said
from memofast.inference.prediction import OF_DIALOGUES
from memofast.inference.preparation import keep_preparation
from memofast.inference.segments import Cutting
from memofast.inference.watching import Utterance
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.prepare.run.extraction import Extracted
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.table import Columns
from memofast.prepare.text.word_pieces import WordPieces

LINES = ["good so", "well", "bad"]


@pytest.mark.parametrize(
    "options", [{}, {"query": "before", "utterances": 1}, {"query": None, "tokens": 18}, {"speakers": False}]
)
def test_a_film_is_read_as_a_corpus_of_its_dialogue(tmp_path, options):
    talks, context = two_talks(), Context(**options)
    corpus = with_context(Corpus.open(write_talks(tmp_path / "talks", talks)), context)
    pieces = WordPieces(corpus.path)
    said = HeardDialogues(Telling(context, pieces.vocabulary))
    split, cut = corpus.split("train"), 0
    for place in range(4):  # films in turn
        for film, utterances in talks.items():
            if place < len(utterances):
                speaker, words, _ = utterances[place]
                moment, found = Moment(film, (float(place),), speaker), pieces(words)
                if found.ids:
                    tokens, ids, notes = said.text(found.ids, found.words, moment)
                    batch = split.pack([split.ids.index(f"{film}-{9 - place}")])
                    assert tokens.tolist() == batch.token_ids.tolist() and ids.tolist() == batch.word_ids.tolist()
                    assert not notes or re.fullmatch(r"the last \d+ of \d+ word pieces said before are read", *notes)
                    cut += len(notes)
                said.hear(found.ids, moment)
    assert cut == samples_cut(corpus)["text"] and (cut > 0) == (context.tokens == 18)


@pytest.mark.parametrize("options", [{"visual": 40}, {"visual": 9, "speech": 40, "utterances": 2}, {"speech": 6}])
def test_rows_of_a_film_are_those_of_a_corpus_of_its_dialogue(tmp_path, options):
    talks, context, counts = two_talks(), Context(**options), iter([3, 1, 0, 4, 5, 2, 1, 3, 0, 6, 1])
    ids = [f"{film}-{9 - place}" for film, said in talks.items() for place in range(len(said))]
    draw = np.random.default_rng(5)
    rows = {m: {id: draw.normal(size=(next(counts), 8)).astype("f2") for id in ids[n:]} for n, m in enumerate(FEATURES)}
    corpus = with_context(Corpus.open(write_talks(tmp_path / "talks", talks, rows=rows)), context)
    said = HeardDialogues(Telling(context, WordPieces(corpus.path).vocabulary))
    split, cut = corpus.split("train"), Counter()
    for place in range(4):
        for film in (film for film, utterances in talks.items() if place < len(utterances)):
            id, moment = f"{film}-{9 - place}", Moment(film, (float(place),))
            own = {modality: by_id[id] for modality, by_id in rows.items() if id in by_id}
            (found, notes), batch = said.rows(own, moment), split.pack([split.ids.index(id)])
            assert found.keys() == own.keys()
            for modality in own:
                np.testing.assert_array_equal(found[modality], batch.rows_of(modality).numpy())
            cut.update(note.split()[0] for note in notes)
            said.hear([], moment, own)
    assert cut == Counter({m: count for m, count in samples_cut(corpus).items() if m in context.rows and count})


def test_a_film_is_answered_as_evaluation_answers_its_dialogue(tmp_path):
    """Rows of sound are made of the film; each sentence has a tone of its own."""
    (tmp_path / "films").mkdir()
    time = np.arange(6 * 16_000) / 16_000
    tones = np.select([time < 2, time < 4], [300 + 80 * time, 900 - 100 * time], 1500.0)
    samples = (9000 * np.sin(2 * np.pi * np.cumsum(tones) / 16_000)).astype("<i2")
    with wave.open(str(tmp_path / "films" / "film.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    cues = [f"{n + 1}\n00:00:0{2 * n},100 --> 00:00:0{2 * n + 1},900\n{text}.\n" for n, text in enumerate(LINES)]
    (tmp_path / "films" / "film.srt").write_text("\n".join(cues))
    vocabulary = write_vocabulary(tmp_path / "words") / "vocab.txt"
    asked = ["--vocab", vocabulary, "--face", "none", "--speech", "logmel", "--voice", "none", "--workers", "1"]
    done = here(tmp_path, "prepare", "films", "--out", "corpus", *asked)
    assert done.returncode == 0, done.stderr
    corpus = Corpus.open(tmp_path / "corpus")
    ids = sorted(corpus.stores["text"].ids)
    assert len(ids) == 3
    write_groups(corpus.path, "dialogue", dict.fromkeys(ids, "film"))
    write_groups(corpus.path, "position", {id: str(place) for place, id in enumerate(ids)})
    corpus, context = Corpus.open(corpus.path), {"speakers": False, "speech": 70, "tokens": 60}
    folder = model_in(tmp_path / "model", corpus.width("speech"), **context)
    keep_preparation(corpus, ("la",), folder, None)
    predictor = load(folder, device="cpu")
    split = as_read(predictor.model, Split.of_ids(corpus, "all", ids))
    with torch.inference_mode():
        wanted = predictor.model.probabilities(split.pack(range(3)))
    assert split.lengths[:, 2].tolist() == [30, 61, 61]  # 30 rows each: of two before there is no room
    done = here(tmp_path, "predict", "films", "--model", folder, "--out", "said", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "said/predictions.jsonl").read_text().splitlines())}
    found = [[rows[id]["probabilities"][name] for name in predictor.classes] for id in ids]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    without = as_read(SimpleNamespace(context=Context(**context | {"speech": 0}), streams={}), split)
    assert without.lengths[2, 2] < split.lengths[2, 2]


COLUMNS = ["text=line", "dialogue=talk", "position=turn", "speaker=by", "label=felt"]
TABLE = """id,line,talk,turn,by,felt
u10,good so,1,10,Bob,glad
u11,well,1,11,Ann,calm
u9,soft bad,1,9,Ann,calm
v,bad,2,0,,glad
w,so so,,,Cid,glad
u2,good,1,2,Ann,calm
"""


def test_a_table_of_dialogues_is_answered_as_evaluation_answers_its_corpus(tmp_path):
    (tmp_path / "said.csv").write_text(TABLE)
    columns = [part for column in COLUMNS for part in ("-c", column)]
    vocabulary = write_vocabulary(tmp_path / "words") / "vocab.txt"
    asked = ["--vocab", vocabulary, *columns, "--split", "validation=0.5", "--split-by", "dialogue"]
    done = here(tmp_path, "prepare", "said.csv", "--out", "corpus", *asked)
    assert done.returncode == 0, done.stderr
    assert "groups: dialogue 2, position 5, speaker 3" in " ".join(done.stderr.split())
    corpus = Corpus.open(tmp_path / "corpus")
    predictor = load(model_in(tmp_path / "model", tokens=60), device="cpu")
    split = as_read(predictor.model, Split.of_ids(corpus, "all", sorted(corpus.stores["text"].ids)))
    with torch.inference_mode():
        wanted = predictor.model.probabilities(split.pack(range(len(split.ids)))).numpy()
    line = ["predict", "said.csv", "--model", tmp_path / "model", "--device", "cpu", *columns]
    done = here(tmp_path, *line, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "note: 1 utterance is of no dialogue, nor of a film with others, and read without" in done.stderr
    assert "note: who speaks is not known in 1 of 5 utterances of dialogues\n" in done.stderr
    assert "columns not read: felt; read: id, text=line, dialogue=talk" in done.stderr
    rows = list(map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["u2", "u9", "u10", "u11", "v", "w"]  # as they are said
    found = {row["id"]: [row["probabilities"][name] for name in predictor.classes] for row in rows}
    np.testing.assert_allclose([found[id] for id in split.ids], wanted, atol=1e-5)
    assert [bool(row["notes"]) for row in rows] == [False, False, False, False, True, False]  # nobody says v
    assert [[row[name] for name in OF_DIALOGUES] for row in rows[3:]] == [
        ["1", 11, "Ann"], ["2", 0, None], [None, None, "Cid"]
    ]  # fmt: skip
    lines = list(csv.DictReader((tmp_path / "out/predictions.csv").open()))
    assert [[line[name] for name in OF_DIALOGUES] for line in lines[4:]] == [["2", "0", ""], ["", "", "Cid"]]
    torch.manual_seed(0)
    alone = here(tmp_path, *line[:3], model_in(tmp_path / "alone", in_dialogues=False), *line[4:], "--out", "by")
    assert "reads utterances alone, and nothing of the dialogues of 5 of them" in alone.stderr
    said = map(json.loads, (tmp_path / "by/predictions.jsonl").read_text().splitlines())
    assert [row["id"] for row in said] == [row["id"] for row in rows]


def written(said, words, moment):
    found = [PIECES.index(word) for word in words.split()]
    tokens, *_, notes = said.text(found, range(len(found)), moment)
    said.hear(found, moment)
    return " ".join(PIECES[token] for token in tokens), notes


def test_many_utterances_of_one_dialogue_are_looked_through_once(monkeypatch):
    said = HeardDialogues(Telling(Context(utterances=2, query=None), {p: number for number, p in enumerate(PIECES)}))
    counted = []
    monkeypatch.setattr(heard_dialogues, "speaker_numbers", lambda names: counted.append(len(names)))
    for place in range(500):
        text, _ = written(said, "so", Moment("d", (place, 0.0), f"s{place * place % 7}"))
    assert text == "[CLS] speaker 1 : so speaker 2 : so [SEP] speaker 3 : so [SEP]" and not counted


def test_what_came_out_of_turn_and_speakers_that_are_not_known():
    said = HeardDialogues(Telling(Context(query=None), {piece: number for number, piece in enumerate(PIECES)}))
    written(said, "well", Moment("film", (9.0,), "1"))
    text, notes = written(said, "bad", Moment("film", (1.0,)))
    assert text == "[CLS] speaker : bad [SEP]" and "no number" in notes[0]
    text, _ = written(said, "good", Moment("film", (5.0,), "3"))
    assert text == "[CLS] speaker : bad [SEP] speaker 1 : good [SEP]"
    text, notes = written(said, "so", Moment())
    assert text == "[CLS] speaker 1 : so [SEP]" and notes == ()


@pytest.mark.parametrize(
    ("of", "moment"),
    [
        ({}, Moment("film a.mp4", (2.5,), "face 3")),
        ({"by_itself": True, "speaker": "Ann"}, Moment(None, (2.5,), "Ann")),
        ({"speaker": "Ann"}, Moment("film a.mp4", (2.5,), "Ann")),
        ({"dialogue": "a.mp4", "position": 4}, Moment("dialogue a.mp4", (4, 2.5))),  # faces have numbers in a file
        ({"dialogue": "7", "position": 4, "speaker": "Ann"}, Moment("dialogue 7", (4, 2.5), "Ann")),
    ],
)
def test_where_and_by_whom_it_is_said(of, moment):
    assert Moment.of(Clip("x", Path("a.mp4"), None, 2.0, 4.0, **of), 2.5, 3) == moment


def test_utterances_of_a_dialogue_wait_for_earlier_ones_and_are_never_lost():
    places = {"a": 2, "b": 0, "c": 1, "d": 4, "e": 3}
    clips = [Clip(id, dialogue="1", position=place) for id, place in places.items()] + [Clip("x", Path("x.wav"))]
    come = [Utterance(Extracted(clip)) for clip in clips]
    assert [one.clip.id for one in as_said(come, clips)] == ["b", "c", "a", "e", "d", "x"]
    assert [one.clip.id for one in as_said(come[1:], clips)] == ["b", "c", "x", "d", "e"]  # a did not come


def model_in(folder: Path, speech_width: int = 0, in_dialogues: bool = True, **context) -> Path:
    torch.manual_seed(0)
    named = {"id2label": {0: "calm", 1: "glad"}, "label2id": {"calm": 0, "glad": 1}}
    own = {name: value for name, value in MODEL.items() if name != "head"}
    read = Context(**context).plain() if in_dialogues else None
    config = MemoBertConfig(**own, **named, visual_width=0, speech_width=speech_width, context=read)
    MemoBertForEmotion(config).save_pretrained(folder)
    return write_vocabulary(folder)


def test_predictions_of_films_and_sentences(tmp_path):
    predictor = load(model_in(tmp_path / "model", tokens=60), device="cpu")
    clips = [Clip(f"a{n}", Path("a.mp4"), None, n, n + 1.0, line) for n, line in enumerate(LINES)]
    film = {row.id: row for row in predictor.stream(clips)}
    assert all("no number" in row.notes[0] for row in film.values())
    apart = [Clip(clip.id, Path(f"{clip.id}.mp4"), None, clip.start, clip.end, clip.text) for clip in clips]
    alone = {row.id: row for row in predictor.stream(apart)}
    assert film["a0"].probabilities == pytest.approx(alone["a0"].probabilities)
    assert film["a2"].probabilities != pytest.approx(alone["a2"].probabilities, abs=1e-5)
    other = {
        row.id: row for row in predictor.stream([*clips[:2], Clip("a2", Path("a.mp4"), None, 2, 3.0, "good good")])
    }
    for name in ("a0", "a1"):
        assert other[name].probabilities == pytest.approx(film[name].probabilities)
    said = [row.probabilities["calm"] for row in predictor.predict_many(LINES)]
    one = [predictor.predict(text=line)[0].probabilities["calm"] for line in LINES]
    np.testing.assert_allclose(said, one, atol=1e-6)
    together = predictor.predict_many(LINES, speakers=["Bob", None, "Bob"])
    assert together[0].probabilities["calm"] == pytest.approx(said[0], abs=1e-6)
    assert [bool(row.notes) for row in together] == [False, True, False]
    (tmp_path / "said.csv").write_text("text,d,s\ngood so,1,Bob\nwell,1,\nbad,1,Bob\n")
    columns = Columns(dialogue="d", speaker="s")
    table = list(predictor.stream(predictor.clips(str(tmp_path / "said.csv"), Cutting(), columns=columns)))
    for row, wanted in zip(together, table, strict=True):
        assert row.probabilities == pytest.approx(wanted.probabilities, abs=1e-6) and row.text == wanted.text
    for row, wanted in zip(predictor.predict_many(LINES, speakers=["Bob ", " ", "Bob"]), together, strict=True):
        assert (row.probabilities, row.notes) == (pytest.approx(wanted.probabilities), wanted.notes)
    wrong = {"the str 'Bob'": "Bob", "3 sentences, not 1;": ["Bob"], "the int 1, no name": [1, "Bob", None]}
    for told, speakers in wrong.items():
        with pytest.raises(MemofastError, match=told):
            predictor.predict_many(LINES, speakers=speakers)
    alone = load(model_in(tmp_path / "alone", in_dialogues=False), device="cpu")
    with pytest.raises(MemofastError, match="reads utterances alone, no dialogue; leave speakers out"):
        alone.predict_many(LINES, speakers=[None] * 3)
    (row,) = predictor.predict(text="good " * 70)
    assert row.notes == ("the first 48 of 70 words are read",)  # 64 rows: 10 of marks, 6 for longer numbers


def test_texts_of_no_film_are_told(tmp_path):
    (tmp_path / "texts.csv").write_text("id,text\na,good so\nb,well\n")
    for earlier, told in ((3, True), (0, False)):
        predictor, lines = load(model_in(tmp_path / str(earlier), utterances=earlier, tokens=60), device="cpu"), []
        assert len(predictor.clips(str(tmp_path / "texts.csv"), Cutting(), tell=lines.append)) == 2
        assert [line.partition(" and read")[0] for line in lines] == [
            "note: 2 utterances are of no dialogue, nor of a film with others,"
        ] * told
    names = ["a.mp4", "b.mp4", "a.mp4", "c.mp4"]
    clips = [Clip(str(place), Path(name)) for place, name in enumerate(names)]
    (line,) = heard_dialogues.notes_on_dialogues(clips, Context(), tmp_path)
    nan = [Clip("a", dialogue="nan", speaker="Ann"), Clip("b", dialogue="nan", speaker="ann")]
    taken, differ = sorted(heard_dialogues.notes_on_dialogues(nan, Context(), tmp_path))
    assert taken.startswith("dialogue 'nan' (2) is taken for a dialogue") and "'Ann' (1), 'ann' (1) differ" in differ
    (nobody,) = heard_dialogues.notes_on_dialogues([Clip("a", dialogue="d")], Context(), tmp_path)
    assert nobody.endswith("in 1 of 1 utterances of dialogues; -c speaker=COLUMN names them")
    assert line.startswith("2 utterances are of no") and line.endswith("; -c dialogue=COLUMN names a table's")


def test_later_utterances_are_not_known(tmp_path):
    with pytest.raises(MemofastError, match=r"reads 2 later utterances.*context.later=0"):
        load(model_in(tmp_path / "model", tokens=60, later=2), device="cpu")
