"""Prediction of films with what was said in them before: as a corpus of the same dialogue, in time, film by film."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talks import MODEL, PIECES, two_talks, write_talks, write_vocabulary

from memofast.data import Corpus
from memofast.data.dialogue import Context, Telling
from memofast.errors import MemofastError
from memofast.inference import load
from memofast.inference.dialogues import with_context
from memofast.inference.film_dialogues import FilmDialogues, Moment
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.prepare.sources.clips import Clip
from memofast.prepare.text.word_pieces import WordPieces

TRACKS = {"Bob": 7, "Ann": 2, "Cid": 5}


@pytest.mark.parametrize(
    "options", [{}, {"query": "before", "utterances": 1}, {"query": None, "tokens": 18}, {"speakers": False}]
)
def test_a_film_is_read_as_a_corpus_of_its_dialogue(tmp_path, options):
    talks, context = two_talks(), Context(**options)
    corpus = with_context(Corpus.open(write_talks(tmp_path / "talks", talks)), context)
    pieces = WordPieces(corpus.path)
    said = FilmDialogues(Telling(context, pieces.vocabulary))
    split = corpus.split("train")
    for place in range(4):  # films in turn
        for film, utterances in talks.items():
            if place < len(utterances):
                speaker, words, _ = utterances[place]
                moment, found = Moment(film, float(place), TRACKS[speaker]), pieces(words)
                if found.ids:
                    tokens, ids, notes = said.text(found.ids, found.words, moment)
                    batch = split.pack([split.ids.index(f"{film}-{9 - place}")])
                    assert tokens.tolist() == batch.token_ids.tolist() and ids.tolist() == batch.word_ids.tolist()
                    assert notes == ()
                said.hear(found.ids, moment)


def written(said, words, moment):
    found = [PIECES.index(word) for word in words.split()]
    tokens, *_, notes = said.text(found, range(len(found)), moment)
    said.hear(found, moment)
    return " ".join(PIECES[token] for token in tokens), notes


def test_what_came_out_of_turn_and_speakers_that_are_not_known():
    said = FilmDialogues(Telling(Context(query=None), {piece: number for number, piece in enumerate(PIECES)}))
    written(said, "well", Moment("film", 9.0, 1))
    text, notes = written(said, "bad", Moment("film", 1.0))
    assert text == "[CLS] speaker : bad [SEP]" and "no number" in notes[0]
    text, _ = written(said, "good", Moment("film", 5.0, 3))
    assert text == "[CLS] speaker : bad [SEP] speaker 1 : good [SEP]"
    text, notes = written(said, "so", Moment())
    assert text == "[CLS] speaker 1 : so [SEP]" and notes == ()


def model_in(folder: Path, **context) -> Path:
    torch.manual_seed(0)
    named = {"id2label": {0: "calm", 1: "glad"}, "label2id": {"calm": 0, "glad": 1}}
    own = {name: value for name, value in MODEL.items() if name != "head"}
    config = MemoBertConfig(**own, **named, visual_width=0, speech_width=0, context=Context(**context).plain())
    MemoBertForEmotion(config).save_pretrained(folder)
    return write_vocabulary(folder)


def test_predictions_of_films_and_sentences(tmp_path):
    predictor = load(model_in(tmp_path / "model", tokens=60), device="cpu")
    lines = ["good so", "well", "bad"]
    clips = [Clip(f"a{n}", Path("a.mp4"), None, n, n + 1.0, line) for n, line in enumerate(lines)]
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
    said = [row.probabilities["calm"] for row in predictor.predict_many(lines)]
    one = [predictor.predict(text=line)[0].probabilities["calm"] for line in lines]
    np.testing.assert_allclose(said, one, atol=1e-6)
    (row,) = predictor.predict(text="good " * 70)
    assert row.notes == ("the first 48 of 70 words are read",)  # 64 rows: 10 of marks, 6 for longer numbers


def test_later_utterances_are_not_known(tmp_path):
    with pytest.raises(MemofastError, match=r"reads 2 later utterances.*context.later=0"):
        load(model_in(tmp_path / "model", tokens=60, later=2), device="cpu")
