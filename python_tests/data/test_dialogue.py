"""Texts in their dialogues: what is written, what is cut, and where the question is read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from talks import MASK, PIECES

from memofast.data.batch import Capacity, PackedBatch, PaddedBatch
from memofast.data.conditions import keep
from memofast.data.dialogue import Context, PieceWording, Telling, asked_rows, own_word_rows, speaker_numbers
from memofast.errors import MemofastError

VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}


def of(text: str) -> np.ndarray:
    return np.array([VOCABULARY[piece] for piece in text.split()], np.int32)


def words(pieces) -> str:
    return " ".join(PIECES[piece] for piece in pieces)


def test_words_are_spelt_by_the_longest_pieces():
    wording = PieceWording(VOCABULARY)
    assert words(wording.mark(2)) == "speaker 2 :"
    assert words(wording.mark(100)) == "speaker 1 ##0 ##0 :"
    assert words(wording.mark(None)) == "speaker :"
    assert words(wording.query(3)) == "speaker 3 feels [MASK]"
    assert words(wording.query(None)) == "speaker feels [MASK]"
    assert words(wording.pieces("soft")) == "so ##ft"
    with pytest.raises(MemofastError, match="no word piece for '7'"):
        wording.mark(7)
    lacking = {piece: number for piece, number in VOCABULARY.items() if piece != "feels"}
    with pytest.raises(MemofastError, match="no word piece for 'feels'"):
        Telling(Context(), lacking)
    assert not len(Telling(Context(query=None), lacking).query(1))


def test_speakers_are_numbered_as_they_begin_to_speak():
    assert speaker_numbers(["Cid", None, "Ann", "Cid", "Bob"]) == [1, None, 2, 1, 3]


@pytest.mark.parametrize(
    ("query", "found", "at"),
    [
        ("after", "[CLS] speaker 1 : bad [SEP] speaker 2 : good so [SEP] well [SEP] speaker 2 feels [MASK] [SEP]", 9),
        ("before", "[CLS] speaker 2 feels [MASK] [SEP] speaker 1 : bad [SEP] speaker 2 : good so [SEP] well [SEP]", 14),
        (None, "[CLS] speaker 1 : bad [SEP] speaker 2 : good so [SEP] well [SEP]", 9),
    ],
)
def test_what_is_written(query, found, at):
    telling = Telling(Context(query=query), VOCABULARY)
    text, begin = telling.text(of("speaker 1 : bad"), of("good so"), of("well"), 2)
    assert (words(text), begin) == (found, at)
    alone, begin = telling.text(of(""), of("good so"), of(""), 2)
    assert len(alone) == telling.alone(np.array([2]), [2])[0] == len(text) - 5 - 2
    assert words(alone[begin : begin + 2]) == "good so"


def test_the_earliest_are_cut_first_then_the_latest_never_its_own():
    """Texts of 20 rows alone, with 4 earlier and 2 later pieces that need a [SEP] each: 28."""
    rooms = {}
    for tokens in (40, 28, 27, 25, 24, 23, 22, 21, 20, 3):
        telling = Telling(Context(tokens=tokens), VOCABULARY)
        earlier, later = telling.room(np.array([20]), np.array([4]), np.array([2]))
        rooms[tokens] = int(earlier[0]), int(later[0])
    assert rooms == {
        40: (4, 2), 28: (4, 2), 27: (3, 2), 25: (1, 2), 24: (0, 2), 23: (0, 2), 22: (0, 1), 21: (0, 0), 20: (0, 0),
        3: (0, 0),
    }  # fmt: skip
    earlier, later = Telling(Context(tokens=23), VOCABULARY).room(np.array([20]), np.array([4]), np.array([0]))
    assert (earlier[0], later[0]) == (2, 0)


def a_batch(query: str) -> PackedBatch:
    """A question of 3 texts of different lengths, of which one says [MASK] itself and one is [CLS] alone; faces."""
    telling = Telling(Context(query=query), VOCABULARY)
    texts = [
        telling.text(of("bad"), of("[MASK] so"), of(""), 2)[0],
        of("[CLS]"),
        telling.text(of(""), of("well"), of(""), 1)[0],
    ]
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.int32)
    padded = torch.zeros(3, int(lengths.max()), dtype=torch.int32)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = torch.from_numpy(text)
    faces = torch.tensor([2, 1, 0], dtype=torch.int32)
    none = torch.zeros(3, dtype=torch.int32)
    return PackedBatch.from_padded(
        PaddedBatch(padded, padded.clone(), lengths, faces, none, torch.arange(3), visual=torch.ones(3, 2, 8))
    )


@pytest.mark.parametrize("query", ["before", "after"])
def test_the_question_is_read_not_a_mask_that_is_said(query):
    batch = a_batch(query)
    rows = asked_rows(batch, MASK, query)
    text = batch.joint_rows("text", torch.arange(len(batch.token_ids), dtype=torch.int32))
    joint = torch.full((batch.rows,), -1, dtype=torch.int32)
    joint[text] = batch.token_ids
    assert [PIECES[joint[row]] for row in rows] == ["[MASK]", "[CLS]", "[MASK]"]
    before = joint[rows - 1]
    assert [PIECES[before[row]] for row in (0, 2)] == ["feels", "feels"]
    hidden = keep(batch, "v")
    assert torch.equal(asked_rows(hidden, MASK, query), hidden.offsets[:-1].long())
    padded = batch.padded_to(Capacity(5, len(batch.token_ids) + 4, len(batch.visual) + 2, 0, longest=64))
    assert torch.equal(asked_rows(padded, MASK, query)[:3], rows)


def test_rows_of_its_own_words_alone():
    """A text of two words of its own among others', one of none, and one of a single word; faces between."""
    batch = a_batch("after")
    words = torch.full_like(batch.token_ids, -1)
    begins = batch.text_offsets.tolist()
    words[begins[0] + 4 : begins[0] + 6] = torch.tensor([0, 1])
    words[begins[2] + 3] = 0
    batch = replace(batch, word_ids=words)
    first, second, third = batch.offsets[:-1].tolist()
    wanted = [first + 4, first + 5, second, third + 3]
    assert own_word_rows(batch).tolist() == wanted
    assert own_word_rows(keep(batch, "v")).tolist() == keep(batch, "v").offsets[:-1].tolist()
    padded = batch.padded_to(Capacity(5, len(batch.token_ids) + 4, len(batch.visual) + 2, 0, longest=64))
    assert own_word_rows(padded)[:4].tolist() == wanted
