"""Where batches end and which stream is drawn, at the very boundaries."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from memofast.data import Capacity, Stream, runs_by_length
from memofast.data.sampling import Filling, Streams, check_fits
from memofast.errors import MemofastError

LENGTHS = np.array([(3, 5, 1), (4, 2, 0), (2, 3, 9), (1, 7, 2), (6, 0, 4)])


@pytest.mark.parametrize(
    ("capacity", "end"),
    [
        (Capacity(9, 9, 10, 10), 3),  # exactly full in all three
        (Capacity(9, 8, 10, 10), 2),
        (Capacity(9, 9, 9, 10), 2),
        (Capacity(9, 9, 10, 9), 2),
        (Capacity(9, 10, 17, 12), 4),
        (Capacity(9, 16, 17, 16), 5),
        (Capacity(3, 99, 99, 99), 3),
        (Capacity(2, 99, 99, 99), 2),
        (Capacity(5, 99, 99, 99), 5),
    ],
)
def test_a_run_fills_its_capacity_to_the_last_row(capacity, end):
    assert Filling(LENGTHS, capacity).run(0) == end


@pytest.mark.parametrize(("rows", "end"), [(7, 4), (6, 3), (1, 2), (0, 1), (11, 5), (10, 4)])
def test_a_run_fills_its_streams_to_the_last_row(rows, end):
    streams = {"raw": np.array([2, 2, 2, 2, 2]), "gloves": np.array([0, 1, 5, 1, 4])}
    capacity = Capacity(9, 99, 99, 99, streams={"gloves": rows, "raw": 10})
    assert Filling(LENGTHS, capacity, streams).run(0) == end
    assert Filling(LENGTHS, Capacity(9, 99, 99, 99, streams={"gloves": 99, "raw": 9}), streams).run(0) == 4


def test_a_sample_whose_stream_is_longer_than_a_batch_is_named_with_it():
    streams = {"raw": np.array([0, 3, 1, 9, 2])}
    split = SimpleNamespace(
        lengths=LENGTHS, stream_lengths=streams, ids=list("abcde"), corpus=SimpleNamespace(name="c")
    )
    check_fits(split, Capacity(1, 6, 7, 9, streams={"raw": 9}), np.arange(5))
    check_fits(split, Capacity(1, 6, 7, 9, streams={"raw": 3}), np.array([0, 1, 2, 4]))
    with pytest.raises(
        MemofastError,
        match=r"^sample 'd' of corpus c has 1 text, 7 visual, 2 speech, 9 raw rows; .* 6, 7, 9, 8 \(1 such",
    ):
        check_fits(split, Capacity(1, 6, 7, 9, streams={"raw": 8}), np.arange(5))


def test_a_run_from_the_middle_counts_its_own_rows():
    filling = Filling(LENGTHS, Capacity(9, 7, 12, 11))
    assert [filling.run(start) for start in range(5)] == [2, 4, 4, 5, 5]  # from 1 and from 3 exactly full


def test_runs_by_length_fill_their_rows_and_a_long_sample_is_alone():
    joint = LENGTHS.sum(1)
    assert joint.tolist() == [9, 6, 14, 10, 10]
    for rows, runs in (
        (15, [[1, 0], [3], [4], [2]]),
        (14, [[1], [0], [3], [4], [2]]),
        (20, [[1, 0], [3, 4], [2]]),
        (13, [[1], [0], [3], [4], [2]]),
        (49, [[1, 0, 3, 4, 2]]),
        (48, [[1, 0, 3, 4], [2]]),
    ):
        assert [run.tolist() for run in runs_by_length(LENGTHS, rows)] == runs


def test_a_sample_as_long_as_a_batch_fits():
    split = SimpleNamespace(lengths=LENGTHS, stream_lengths={}, ids=list("abcde"), corpus=SimpleNamespace(name="c"))
    check_fits(split, Capacity(1, 6, 7, 9), np.arange(5))
    for capacity in (Capacity(1, 5, 7, 9), Capacity(1, 6, 6, 9), Capacity(1, 6, 7, 8)):
        with pytest.raises(MemofastError, match="raise the capacity"):
            check_fits(split, capacity, np.arange(5))


def streams_of(make_corpus, weights):
    split = make_corpus().split("train")
    streams = [Stream(split, weight, f"o{number}") for number, weight in enumerate(weights)]
    return Streams(streams, Capacity(4, 60, 60, 60), 7, 1, "update")


@pytest.mark.parametrize("weights", [(1.0, 6.0, 3.0), (3.0, 1.0, 0.0), (0.0, 1.0, 9.0)])
def test_streams_are_drawn_by_unequal_weights(make_corpus, weights):
    streams = streams_of(make_corpus, weights)
    drawn = Counter(streams._draw(step)[0] for step in range(1, 4001))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(drawn[number] - 4000 * share) <= 5 * (4000 * share * (1 - share)) ** 0.5


def test_a_word_at_a_threshold_belongs_to_the_next_stream(make_corpus, monkeypatch):
    streams = streams_of(make_corpus, (1.0, 5.0, 2.0))
    edges = [2**32 // 8, 2**32 * 6 // 8]
    for word, stream in ((0, 0), (edges[0] - 1, 0), (edges[0], 1), (edges[1] - 1, 1), (edges[1], 2), (2**32 - 1, 2)):
        monkeypatch.setattr("memofast.data.sampling._C", SimpleNamespace(philox=lambda *_, word=word: (word, 0, 0, 0)))
        assert streams._draw(1) == [stream]
