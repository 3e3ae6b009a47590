import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch

from memofast.data import Capacity, Loader, Stream, View
from memofast.data.sampling import shuffled
from memofast.errors import MemofastError

CAPACITY = Capacity(samples=6, text=40, visual=40, speech=40)


def take(loader, updates):
    iterator = iter(loader)
    try:
        return [next(iterator) for _ in range(updates)]
    finally:
        iterator.close()


def content(update):
    return update.step, [(m.corpus, m.objective, m.batch.ids, m.batch.speech.tolist()) for m in update.micro_batches]


class Work:
    """A loader's work: samples show their own rows unless told whose; `views` makes the views."""

    def __init__(self, views, places=lambda draw, step: None):
        self.views, self.places = views, places


@pytest.fixture
def split(make_corpus):
    return make_corpus().split("train")


@pytest.fixture
def streams(make_corpus):
    one, two = make_corpus("one").split("train"), make_corpus("two", samples=20, seed=9).split("train")
    return [
        Stream(one, 2.0, "mlm"),
        Stream(one, 1.0, "vision", eligible=one.lengths[:, 1] > 0),
        Stream(two, 1.0, "mlm"),
    ]


def test_shuffle_is_fixed():
    assert shuffled(np.arange(10) - 5, seed=1, epoch=0).tolist() == [9, 4, 1, 7, 6, 2, 3, 8, 5, 0]
    assert shuffled(np.arange(10) - 5, seed=1, epoch=1).tolist() == [5, 1, 0, 3, 9, 8, 6, 2, 4, 7]


@pytest.mark.parametrize("world", [1, 2])
def test_each_id_once_per_epoch_over_all_ranks_and_threads(split, world):
    loaders = [
        Loader([Stream(split)], capacity=CAPACITY, seed=5, micro_batches=2, rank=r, world=world, threads=2)
        for r in range(world)
    ]
    iterators = [iter(loader) for loader in loaders]
    seen = []
    while len(seen) < 3 * len(split):
        for iterator in iterators:
            for micro_batch in next(iterator).micro_batches:
                batch = micro_batch.batch
                assert 1 <= batch.samples <= 6
                assert max(batch.token_ids.shape[0], batch.visual.shape[0], batch.speech.shape[0]) <= 40
                seen += batch.ids
    epochs = [seen[i * len(split) : (i + 1) * len(split)] for i in range(3)]
    for order in epochs:
        assert sorted(order) == split.ids
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_are_as_full_as_they_can_be(split):
    loader = Loader([Stream(split)], capacity=CAPACITY, seed=5)
    lengths = dict(zip(split.ids, split.lengths.tolist(), strict=True))
    batches = [update.micro_batches[0].batch for update in take(loader, 5)]
    for batch, following in itertools.pairwise(batches):
        more = np.array([lengths[id] for id in [*batch.ids, following.ids[0]]]).sum(0)
        assert batch.samples == 6 or (more > 40).any()


@pytest.mark.parametrize("mixing", ["update", "sample"])
def test_ranks_together_are_one_process(streams, mixing):
    settings = {"capacity": CAPACITY, "seed": 11, "micro_batches": 4, "mixing": mixing}
    whole = [content(update) for update in take(Loader(streams, **settings), 12)]
    ranks = [
        [content(update) for update in take(Loader(streams, **settings, rank=r, world=2, prefetch=3, threads=2), 12)]
        for r in range(2)
    ]
    for (step, micro_batches), *shares in zip(whole, *ranks, strict=True):
        assert [share[0] for share in shares] == [step, step]
        assert shares[0][1] + shares[1][1] == micro_batches
        if mixing == "update":
            assert len({(corpus, objective) for corpus, objective, *_ in micro_batches}) == 1
    if mixing == "sample":
        assert any(len({m[:2] for m in [(c, o) for c, o, *_ in update[1]]}) > 1 for update in whole)


@pytest.mark.parametrize("mixing", ["update", "sample"])
def test_resumes_at_the_exact_position(streams, mixing):
    settings = {"capacity": CAPACITY, "seed": 3, "micro_batches": 2, "mixing": mixing}
    whole = [content(update) for update in take(Loader(streams, **settings), 40)]
    first = Loader(streams, **settings, prefetch=4)
    assert [content(update) for update in take(first, 17)] == whole[:17]
    state = json.loads(json.dumps(first.state_dict()))
    assert [content(update) for update in take(Loader(streams, **settings, state=state), 23)] == whole[17:]
    assert [content(update) for update in take(first, 3)] == whole[17:20]  # an iterator of the same loader goes on, too


def test_streams_are_drawn_by_weight_and_serve_only_eligible_samples(streams):
    loader = Loader(streams, capacity=Capacity(1, 40, 40, 40), seed=1, prefetch=50, threads=2)
    drawn = Counter()
    for update in take(loader, 600):
        micro_batch = update.micro_batches[0]
        drawn[micro_batch.corpus, micro_batch.objective] += 1
        if micro_batch.objective == "vision":
            assert micro_batch.batch.visual.shape[0] > 0
    shares = [drawn[key] / 600 for key in (("one", "mlm"), ("one", "vision"), ("two", "mlm"))]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=4 * 0.5 / 600**0.5)


def test_work_is_done_in_the_background(split):
    threads = set()

    def views(micro_batch, step):
        threads.add(threading.current_thread())
        return [View(micro_batch.batch, draw=step), View(micro_batch.batch)]

    updates = take(Loader([Stream(split)], capacity=CAPACITY, seed=5, work=Work(views)), 3)
    for step, update in enumerate(updates, 1):
        (micro_batch,) = update.micro_batches
        assert [view.draw for view in micro_batch.views] == [step, 0]
        assert all(view.batch is micro_batch.batch for view in micro_batch.views)
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_error_in_the_background_surfaces_at_its_update(split):
    def views(micro_batch, step):
        if step == 3:
            raise RuntimeError("third")
        return []

    loader = Loader([Stream(split)], capacity=CAPACITY, seed=5, work=Work(views), prefetch=4)
    iterator = iter(loader)
    assert [next(iterator).step, next(iterator).step] == [1, 2]
    with pytest.raises(RuntimeError, match="third"):
        next(iterator)
    assert loader.state_dict()["updates"] == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("memofast-loader")]


def test_samples_show_whose_rows_the_work_says(split):
    """Before packing, of the very draw: each sample's faces are those of the one before it in the split."""
    seen = []

    def places(draw, step):
        seen.append((step, draw.epoch))
        return {"visual": draw.indices - 1 if draw.indices.min() else draw.indices}

    settings = {"capacity": CAPACITY, "seed": 5, "work": Work(lambda *_: [], places)}
    updates = take(Loader([Stream(split, room=lambda i, epoch: np.full((len(i), 3), 12))], **settings), 12)
    for update in updates:
        (micro_batch,) = update.micro_batches
        drawn = micro_batch.draw.indices
        assert micro_batch.batch.ids == [split.ids[i] for i in drawn] and 1 <= len(drawn) <= 3  # 40 rows of 12 each
        shown = drawn - 1 if drawn.min() else drawn
        expected = split.pack(shown)
        assert torch.equal(micro_batch.batch.visual, expected.visual)
        assert torch.equal(micro_batch.batch.targets["visual_of"], expected.sample_keys)
        assert torch.equal(micro_batch.batch.speech, split.pack(drawn).speech)
    assert {(u.step, u.micro_batches[0].draw.epoch) for u in updates} <= set(seen)
    assert {epoch for _, epoch in seen} == {0, 1}


def test_batches_stay_as_they_are_while_memory_is_recycled(split):
    kept = take(Loader([Stream(split)], capacity=CAPACITY, seed=5), 30)
    again = take(Loader([Stream(split)], capacity=CAPACITY, seed=5), 30)
    assert [content(update) for update in kept] == [content(update) for update in again]


def test_wrong_settings_are_refused(make_corpus, split):
    settings = {"capacity": CAPACITY, "seed": 1}
    with pytest.raises(MemofastError, match=r"sample 'clip\d+' of corpus demo has .* raise the capacity"):
        Loader([Stream(split)], capacity=Capacity(6, 40, 4, 40), seed=1)
    with pytest.raises(MemofastError, match="3 micro-batches cannot be shared equally by 2 ranks"):
        Loader([Stream(split)], **settings, micro_batches=3, world=2)
    with pytest.raises(MemofastError, match="stream demo/train for vision has no samples"):
        Loader([Stream(split, objective="vision", eligible=np.zeros(len(split), bool))], **settings)
    with pytest.raises(MemofastError, match="no stream"):
        Loader([], **settings)
    with pytest.raises(MemofastError, match="weights"):
        Loader([Stream(split, 0.0)], **settings)
    state = Loader([Stream(split)], **settings).state_dict()
    with pytest.raises(MemofastError, match="has seed 1, the run 2"):
        Loader([Stream(split)], capacity=CAPACITY, seed=2, state=state)
    with pytest.raises(MemofastError, match=r"data changed .*demo/train"):
        Loader([Stream(split, eligible=np.arange(len(split)) > 0)], **settings, state=state)


def test_corpora_of_different_widths_are_refused(make_corpus, split, tmp_path):
    other = make_corpus("other").split("train")
    other.corpus.stores["visual"].columns["rows"] = ("float16", 14)
    with pytest.raises(MemofastError, match="visual rows are 13 wide in corpus demo and 14 wide in other"):
        Loader([Stream(split), Stream(other)], capacity=CAPACITY, seed=1)


_PROGRAM = """
import sys, time
from memofast.data import Capacity, Corpus, Loader, Stream
class Slow:
    def places(self, draw, step):
        return None
    def views(self, micro_batch, step):
        time.sleep(0.01)
        return []
split = Corpus.open(sys.argv[1]).split("train")
loader = Loader([Stream(split)], capacity=Capacity(6, 40, 40, 40), seed=1, prefetch=8, threads=2,
                work=Slow())
updates = iter(loader)
next(updates)
if sys.argv[2] == "raise":
    raise SystemExit(7)
if sys.argv[2] == "wait":
    print("ready", flush=True)
    for update in updates:
        pass
"""


@pytest.mark.parametrize(("how", "code"), [("exit", 0), ("raise", 7)])
def test_program_ends_while_batches_are_prepared(make_corpus, how, code):
    path = make_corpus().path
    assert subprocess.run([sys.executable, "-c", _PROGRAM, path, how], timeout=60).returncode == code


def test_interrupt_ends_the_program(make_corpus):
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, make_corpus().path, "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in errors


def test_dtype_option(split):
    loader = Loader([Stream(split)], capacity=CAPACITY, seed=1, dtype=torch.bfloat16)
    assert take(loader, 1)[0].micro_batches[0].batch.visual.dtype == torch.bfloat16
