"""One epoch of the packed loader with span masks, against the original's way of loading, the same tidied, and one
memcpy of the same features."""

import random

import numpy as np
import pytest
import random_corpus
import torch
from baseline_loader import OriginalSpanLoader, SpanLoader, write

from memofast.data import Capacity, Loader, Stream, View
from memofast.ops import SpanPolicy, span_mask

SAMPLES, BATCH = 4000, 256


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    samples = random_corpus.draw(SAMPLES, pieces=(16, 16), faces=(24, 36), sound=(30, 46))
    write(folder / "original", samples)
    return random_corpus.write(folder, samples).split("train"), folder / "original"


class Masking:
    """The loader's work: span masks of the faces."""

    def places(self, draw, step):
        return None

    def views(self, micro_batch, step):
        batch = micro_batch.batch
        masked = span_mask(
            batch.visual_offsets, batch.sample_keys, torch.tensor([1, step]), SpanPolicy(), rows=batch.visual.shape[0],
            site=1,
            backend="auto",
        )  # fmt: skip
        return [View(batch, sources={"visual": masked.source})]


def test_the_two_rivals_give_the_same_batches(loaders):
    split, folder = loaders
    batches = []
    for rival in (OriginalSpanLoader(folder), SpanLoader(folder)):
        random.seed(3)
        batches.append(rival.batch(split.ids[:BATCH]))
    original, tidied = batches
    assert original.keys() == tidied.keys()
    for name, values in original.items():
        assert torch.equal(values, tidied[name]), name


@pytest.mark.parametrize("threads", [1, 2])
def test_span_task_loader(side_by_side, loaders, threads):
    split, folder = loaders
    capacity = Capacity(BATCH, *(BATCH * split.lengths.max(0)).tolist())
    loader = Loader([Stream(split)], capacity=capacity, seed=1, work=Masking(), prefetch=4, threads=threads)
    updates = iter(loader)
    ids = np.random.default_rng(2).permutation(split.ids).tolist()

    def ours():
        assert sum(next(updates).micro_batches[0].batch.samples for _ in range(16)) == SAMPLES

    def epoch_of(rival):
        return lambda: [len(rival.batch(ids[start : start + BATCH])) for start in range(0, SAMPLES, BATCH)]

    rows = split.lengths.sum(0)
    size = int(rows[1]) * 342 * 2 + int(rows[2]) * 768 * 2
    source, target = torch.ones(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)

    def copy():
        target.copy_(source)

    side_by_side(
        ours,
        {
            "original": epoch_of(OriginalSpanLoader(folder)),
            "original, tidied": epoch_of(SpanLoader(folder)),
            "memcpy": copy,
        },
        rounds=4,
        target={"original": 75},
        beside=("memcpy",),
        samples=SAMPLES,
        batch=BATCH,
        threads=threads,
        gigabytes=2 * size / 1e9,
    )
    updates.close()
