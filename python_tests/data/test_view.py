"""Views in tensors of fixed shape, taken over by others, moved; one view and two, of one batch and of two."""

import pytest
import torch
from packed_batches import random_batch, small_config

from memofast.data import Capacity, Read, View
from memofast.data.view import copy_views, moved, padded, pinned

CONFIG = small_config()
CAPACITY = Capacity(9, text=60, visual=75, speech=59, longest=64)
SMALL = Capacity(4, text=30, visual=42, speech=40, longest=64)


def two_views(lengths=None, seed=0, samples=(2, 0)):
    """A view of a batch with everything a view can have, and one of two of its samples."""
    batch = random_batch(CONFIG, lengths, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)

    def integers(n, high):
        return torch.randint(high, (n,), generator=generator, dtype=torch.int32)

    text, visual, speech = (len(batch.rows_of(name)) for name in ("text", "visual", "speech"))
    first = View(
        batch,
        token_ids=integers(text, 200),
        sources={"speech": integers(speech, speech) - 1},
        positions={"visual": integers(visual, 40), "text": integers(text, 60)},
        added=torch.randn(text, 3, generator=generator),
        reads={
            "words": Read("words", torch.tensor([1, 4, 8]), torch.tensor([7, 5, 9])),
            "none": Read("matching", torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
        },
    )
    chosen = batch.select(torch.tensor(samples, dtype=torch.int64))
    rows = chosen.offsets[:-1].to(torch.int64)
    return [first, View(chosen, reads={"contrast": Read("pooled", rows)}, draw=3)]


def fixed(views):
    return padded(views, [CAPACITY, SMALL], [{"words": 5, "none": 2}, {"contrast": 4}])


def assert_placed(placed, views):
    """What a view holds at the beginning of its tensors, and what stands after it."""
    for capacity, own, view in zip((CAPACITY, SMALL), placed, views, strict=True):
        assert own.batch.samples == capacity.samples and own.batch.rows == capacity.rows and own.draw == view.draw
        used = view.batch.samples
        assert own.batch.offsets.tolist()[: used + 1] == view.batch.offsets.tolist()
        assert set(own.batch.offsets.tolist()[used:]) == {int(view.batch.offsets[-1])}
        for name, read in view.reads.items():
            room = own.reads[name]
            assert room.head == read.head and room.count == read.count and room.rows.dtype == torch.int64
            spare = len(room.rows) - read.count
            assert room.rows.tolist() == read.rows.tolist() + [capacity.rows - 1] * spare
            assert room.weights.tolist() == [1.0] * read.count + [0.0] * spare
            if read.labels is not None:
                assert room.labels[: read.count].tolist() == read.labels.tolist()
    first, own = views[0], placed[0]
    text, visual, speech = (len(first.batch.rows_of(name)) for name in ("text", "visual", "speech"))
    assert torch.equal(own.token_ids[:text], first.token_ids) and own.token_ids.shape == (60,)
    assert torch.equal(own.added[:text], first.added) and own.added.shape == (60, 3)
    assert torch.equal(own.sources["speech"][:speech], first.sources["speech"]) and len(own.sources["speech"]) == 59
    assert torch.equal(own.positions["visual"][:visual], first.positions["visual"])
    assert torch.equal(own.positions["text"][:text], first.positions["text"]) and len(own.positions["text"]) == 60


def test_fixed_shapes_begin_with_what_there_is():
    views = two_views()
    placed = fixed(views)
    assert_placed(placed, views)
    speech = len(views[0].batch.speech)
    assert placed[0].sources["speech"][speech:].tolist() == list(range(speech, 59))  # each row reads itself
    assert not placed[0].positions["visual"][len(views[0].batch.visual) :].any()
    assert placed[0].reads["words"].labels.tolist() == [7, 5, 9, 0, 0] and placed[1].reads["contrast"].labels is None
    assert placed[0].counts == {"words": 3, "none": 0} and placed[1].counts == {"contrast": 2}


def test_fixed_shapes_take_over_smaller_and_larger_views():
    placed = fixed(two_views())
    tensors = [(own.batch.visual, own.batch.offsets, own.reads) for own in placed]
    for lengths, samples in (([(12, 3, 7), (6, 4, 2)], (1,)), (None, ()), (None, (4, 1, 0))):
        views = two_views(lengths, seed=5, samples=samples)
        copy_views(placed, views)
        assert_placed(placed, views)
    for own, (visual, offsets, reads) in zip(placed, tensors, strict=True):  # in place
        assert own.batch.visual is visual and own.batch.offsets is offsets and own.reads is reads


def test_an_empty_further_view_is_padded_like_any_other():
    views = two_views(samples=())
    placed = fixed(views)
    assert_placed(placed, views)
    assert placed[1].batch.offsets.tolist() == [0] * 5 and not placed[1].reads["contrast"].weights.any()
    assert not placed[1].batch.visual.any() and not placed[1].batch.token_ids.any()


def test_what_does_not_fit_is_named():
    views = two_views()
    with pytest.raises(ValueError, match=r"^objective words has 3 targets, its capacity is 2$"):
        padded(views, [CAPACITY, SMALL], [{"words": 2, "none": 2}, {"contrast": 4}])
    placed = fixed(views)
    views[1].reads["contrast"] = Read("pooled", torch.arange(5))
    with pytest.raises(ValueError, match=r"^targets of contrast: the batch has 5 rows, its capacity on cpu is 4;"):
        copy_views(placed, views)


def test_views_of_one_batch_stay_views_of_one_batch():
    first, other = two_views()
    twin = View(first.batch, draw=1, reads={"contrast": Read("pooled", torch.tensor([0, 21]))})
    calls = []
    views = [first, twin, other]
    for changed in (
        moved(views, "cpu"),
        padded(views, [CAPACITY, CAPACITY, SMALL], [{"words": 5, "none": 2}, {"contrast": 4}, {"contrast": 4}]),
        padded(views, [CAPACITY, CAPACITY, SMALL], [{"words": 3, "none": 0}, {"contrast": 2}, {"contrast": 2}]),
    ):
        assert changed[0].batch is changed[1].batch is not changed[2].batch
        assert [view.draw for view in changed] == [0, 1, 3]
    copies = [changed[0].batch, changed[2].batch]
    for batch in copies:
        copy_from = batch.copy_from
        batch.copy_from = lambda given, own=batch, run=copy_from: calls.append(own) or run(given)
    copy_views(changed, views)
    assert len(calls) == 2 and calls[0] is copies[0] and calls[1] is copies[1]  # each once


def test_every_tensor_is_moved():
    views = two_views()
    doubled = views[0].on(views[0].batch.map(lambda tensor: tensor * 2), lambda tensor: tensor * 2)
    for mine, own in ((doubled, views[0]),):
        assert torch.equal(mine.token_ids, own.token_ids * 2) and torch.equal(mine.added, own.added * 2)
        assert torch.equal(mine.sources["speech"], own.sources["speech"] * 2)
        assert torch.equal(mine.positions["visual"], own.positions["visual"] * 2)
        assert torch.equal(mine.reads["words"].rows, own.reads["words"].rows * 2)
        assert torch.equal(mine.reads["words"].labels, own.reads["words"].labels * 2)
        assert torch.equal(mine.batch.speech, own.batch.speech * 2)
    again = moved(views, torch.device("cpu"))
    assert again[0].counts == views[0].counts and torch.equal(again[1].batch.visual, views[1].batch.visual)


@pytest.mark.gpu
def test_pinned_memory_arrives_on_the_device():
    views = two_views()
    for view in pinned(views):
        assert view.batch.visual.is_pinned() and all(read.rows.is_pinned() for read in view.reads.values())
    there = moved(pinned(views), "cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(there[0].added.cpu(), views[0].added) and there[1].batch.offsets.is_cuda


def test_kinds_differ_where_shapes_do():
    def kinds(**changes):
        view = two_views()[0]
        for name, value in changes.items():
            setattr(view, name, value)
        return view.kind

    own = kinds()
    assert own == two_views([(30, 2, 1)], seed=9, samples=())[0].kind and hash(own) == hash(kinds())
    read = Read("words", torch.tensor([1]), torch.tensor([2]))
    assert kinds(reads={"words": read, "none": Read("matching", torch.tensor([3]))}) == own  # fewer or more reads
    changed = [
        kinds(draw=1),
        kinds(token_ids=None),
        kinds(sources={}),
        kinds(sources={"visual": torch.arange(3)}),
        kinds(positions={"visual": torch.arange(3)}),
        kinds(added=None),
        kinds(reads={"words": read}),
        kinds(reads={"words": read, "none": Read("pooled", torch.tensor([3]))}),
    ]
    other = random_batch(CONFIG, soft_labels=False)
    changed += [
        kinds(batch=batch)
        for batch in (random_batch(CONFIG, [(3, 0, 5)]), other, random_batch(CONFIG, dtype=torch.float16))
    ]
    assert len({own, *changed}) == len(changed) + 1


def test_sums_count_reads_alone():
    values = torch.tensor([0.5, 8.0, -2.25, 100.0])
    read = Read("words", torch.tensor([1, 2, 3]))
    assert read.count == 3 and float(read.sum(values[:3])) == 6.25
    room = read.padded_to(4, 9, "objective o")
    assert float(room.sum(values)) == 6.25 and room.rows.tolist() == [1, 2, 3, 9]
    with torch.autocast("cpu", torch.bfloat16):
        assert float(room.sum(torch.tensor([1.0009765625, 0, 0, 7.0]))) == 1.0009765625  # 1 + 2^-10: not rounded
    assert room.sum(torch.tensor([True, False, True, True])) == 2


@pytest.mark.parametrize("draw", [-1, 16])
def test_there_are_sixteen_draws(draw, make_corpus):
    batch = make_corpus().split("train").pack([0, 3])
    assert View(batch, draw=15).draw == 15
    with pytest.raises(ValueError, match="16"):
        View(batch, draw=draw)


def test_keys_of_a_draw():
    batch = random_batch(CONFIG)
    assert View(batch).keys is batch.sample_keys
    masks = [int((View(batch, draw=draw).keys ^ batch.sample_keys).unique()) for draw in range(1, 16)]
    assert len(set(masks)) == 15 and masks[:2] == [0x9E3779B97F4A7C15 - 2**64, 2 * 0x9E3779B97F4A7C15 - 2**64]
