"""Face and speech rows of the dialogue: own first, zeros between, whole utterances, nothing of others or of what comes
later; a batch is its samples."""

import numpy as np
import pytest
import torch
from talks import PIECES, two_talks, write_talks

from memofast.data import Corpus
from memofast.data.conversations import in_dialogues, samples_cut, utterances_alone
from memofast.data.dialogue import Context
from memofast.data.dialogue_rows import joined, that_fit
from memofast.evaluate.simple_inputs import inputs_of

VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}
COUNTS = {"d1-9": 3, "d1-8": 1, "d1-7": 2, "d1-6": 4, "d10-9": 5, "d10-8": 2}  # in each dialogue 9 is said first


def faces(counts=COUNTS, width=3):
    """Row n of the i-th sample is [10 i + n, ...], which no other one has."""
    return {
        id: [[10.0 * (place + 1) + row] * width for row in range(count)]
        for place, (id, count) in enumerate(counts.items())
    }


def written(folder, counts=COUNTS, **rows):
    return write_talks(folder, two_talks(), rows=rows or {"visual": faces(counts), "speech": faces(counts, 9)})


def opened(folder, **options) -> Corpus:
    return in_dialogues(Corpus.open(folder), Context(**options), VOCABULARY)


def shown(corpus, modality="visual", split="train") -> dict[str, list[float]]:
    """First column of each sample's rows, packed by itself."""
    split = corpus.split(split)
    packed = {id: split.pack([n]).rows_of(modality) for n, id in enumerate(split.ids)}
    return {id: [] if rows is None else rows[:, 0].tolist() for id, rows in packed.items()}


@pytest.mark.parametrize(
    ("own", "earlier", "later", "most", "kept"),
    [
        (3, [2, 4], [], 20, (2, 0)),
        (3, [2, 4], [], 11, (2, 0)),  # 3 + 1 + 2 + 1 + 4
        (3, [2, 4], [], 10, (1, 0)),
        (3, [2, 4], [], 5, (0, 0)),
        (3, [4, 1], [], 6, (0, 0)),  # the nearest does not fit, and nothing farther is read in its place
        (3, [0, 2], [], 6, (2, 0)),
        (3, [2, 2], [3], 9, (0, 1)),
        (3, [2, 2], [3], 10, (1, 1)),
        (9, [1], [], 4, (0, 0)),
        (0, [1], [1], 40, (0, 0)),
    ],
)
def test_utterances_are_read_whole_the_nearest_first(own, earlier, later, most, kept):
    assert that_fit(own, earlier, later, most) == kept


def test_own_rows_first_then_those_before_from_the_nearest_on(tmp_path):
    corpus = opened(written(tmp_path / "talks"), visual=40, speech=8)
    assert shown(corpus) == {
        "d1-9": [10, 11, 12],
        "d1-8": [20, 0, 10, 11, 12],
        "d1-7": [30, 31, 0, 20, 0, 10, 11, 12],
        "d1-6": [40, 41, 42, 43, 0, 30, 31, 0, 20, 0, 10, 11, 12],
        "d10-9": [50, 51, 52, 53, 54],
        "d10-8": [60, 61, 0, 50, 51, 52, 53, 54],
    }
    speech = shown(corpus, "speech")
    assert speech["d1-7"] == [30, 31, 0, 20, 0, 10, 11, 12] and speech["d1-6"] == [40, 41, 42, 43, 0, 30, 31]
    assert samples_cut(corpus) == {"text": 0, "visual": 0, "speech": 1}
    alone = utterances_alone(corpus)
    assert shown(alone)["d1-6"] == [40, 41, 42, 43] and alone.split("train").lengths.max() < 9
    assert corpus.stores["visual"].read("d1-6")["rows"].shape == (4, 3)


def test_utterances_asked_for_and_later_ones(tmp_path):
    folder = written(tmp_path / "talks")
    assert shown(opened(folder, visual=40, utterances=1))["d1-6"] == [40, 41, 42, 43, 0, 30, 31]
    assert shown(opened(folder, visual=40, utterances=0))["d1-6"] == [40, 41, 42, 43]
    assert shown(opened(folder, visual=40, utterances=1, later=1))["d1-8"] == [20, 0, 10, 11, 12, 0, 30, 31]
    assert shown(opened(folder))["d1-6"] == [40, 41, 42, 43]


def test_what_has_no_rows(tmp_path):
    """It has none of others', and others read past it."""
    counts = {id: count for id, count in COUNTS.items() if id not in ("d1-8", "d10-8")}
    corpus = opened(written(tmp_path / "talks", counts), visual=40)
    found = shown(corpus)
    assert found["d1-8"] == found["d10-8"] == []
    assert found["d1-7"] == [20, 21, 0, 10, 11, 12]
    assert corpus.split("train").lengths[:, 1].tolist() == [len(rows) for rows in found.values()]
    empty = faces() | {"d1-8": np.zeros((0, 3)), "d10-8": np.zeros((0, 3))}
    corpus = opened(written(tmp_path / "empty", visual=empty), visual=40)
    assert {id: len(rows) for id, rows in shown(corpus).items()} == {id: len(rows) for id, rows in found.items()}
    assert samples_cut(corpus)["visual"] == 0  # those without rows lack nothing


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_a_batch_is_its_samples(tmp_path, dtype):
    split = opened(written(tmp_path / "talks"), visual=40, speech=9, later=1).split("train")
    order = [5, 1, 3, 0, 2, 4, 3]
    batch = split.pack(order, dtype=dtype)
    for column, modality in enumerate(("visual", "speech"), 1):
        offsets = getattr(batch, f"{modality}_offsets")
        assert offsets.diff().tolist() == split.lengths[order, column].tolist()
        for place, index in enumerate(order):
            rows = batch.rows_of(modality)[slice(*offsets[place : place + 2].tolist())]
            assert torch.equal(rows, split.pack([index], dtype=dtype).rows_of(modality))


def test_zeros_between_are_zero_in_used_memory(tmp_path):
    split = opened(written(tmp_path / "talks"), visual=40).split("train")
    for _ in range(3):
        batch = split.pack([3, 3, 3], dtype=torch.float32)
        assert batch.visual.reshape(3, 13, -1)[:, [4, 7, 9]].abs().sum() == 0
        batch.visual.fill_(7)


def test_what_comes_later_and_other_dialogues_change_nothing(tmp_path):
    found = shown(opened(written(tmp_path / "talks"), visual=40))
    for number, changed in enumerate(COUNTS):
        own = faces() | {changed: [[-1.0] * 3, [-2.0] * 3]}
        rows = shown(opened(written(tmp_path / str(number), visual=own), visual=40))
        name, place = changed.rsplit("-", 1)
        for id in COUNTS:
            reads = id.rsplit("-", 1)[0] == name and int(id.rsplit("-", 1)[1]) <= int(place)
            assert (rows[id] != found[id]) == reads, (changed, id)


def test_simple_baselines_see_its_own_rows(tmp_path):
    folder = written(tmp_path / "talks")
    ids = list(COUNTS)
    with_context, without = (inputs_of(corpus, ids) for corpus in (opened(folder, visual=40), Corpus.open(folder)))
    np.testing.assert_array_equal(with_context.numbers["visual"], without.numbers["visual"])
    assert with_context.words == without.words


def test_rows_that_a_corpus_does_not_have_are_not_read(tmp_path):
    """A model that reads both is evaluated on words and faces alone."""
    corpus = opened(written(tmp_path / "talks", visual=faces()), visual=40, speech=40)
    assert corpus.stores.keys() == {"text", "visual"}
    assert samples_cut(corpus).keys() == {"text", "visual"}


def test_rows_put_together():
    rows = [np.full((count, 2), float(count)) for count in (2, 1, 0, 3)]
    assert joined(rows[0], rows[1:])[:, 0].tolist() == [2, 2, 0, 1, 0, 3, 3, 3]
    assert joined(rows[0], []).tolist() == rows[0].tolist()
