"""Frame order: which rows change places, what is asked there, and the loss over a clip's own shuffled places."""

import math

import pytest
import torch
from packed_batches import random_batch, select, small_config

from memofast import objectives
from memofast.data import Capacity, Read, View
from memofast.errors import MemofastError
from memofast.objectives import Statistics
from memofast.ops.philox import Purpose, draw, stream_key

CONFIG = small_config(visual_positions=200, speech_positions=200)
RNG = torch.tensor([5, 17])
LENGTHS = [(3, 9, 4), (2, 0, 7), (5, 2, 2), (1, 13, 0), (4, 1, 1), (3, 30, 11)]
MODALITIES = {"visual_order": "visual", "speech_order": "speech"}


def built(name="visual_order", **options):
    return objectives.build({name: options})[name]


def shuffles(batch, objective, rng=RNG, purpose=Purpose.MASK):
    """By sample key: the places in it that take part and where their contents came from, as its view says."""
    (view,) = objectives.views_for(batch, objective, rng, purpose)
    read, modality = view.reads[objective.name], MODALITIES.get(objective.name, "visual")
    own, source = batch.offsets_of(modality).tolist(), view.sources[modality]
    joint = batch.joint_rows(modality, torch.arange(own[-1], dtype=torch.int32)).tolist()
    place = {row: number for number, row in enumerate(joint)}
    found = {key: ([], []) for key in batch.sample_keys.tolist()}
    assert read.rows.tolist() == sorted(set(read.rows.tolist())) and read.count == len(read.rows)
    for row, label in zip(read.rows.tolist(), read.labels.tolist(), strict=True):
        at = place[row]
        sample = next(b for b in range(batch.samples) if own[b] <= at < own[b + 1])
        assert int(source[at]) == own[sample] + label  # the content that is read there is that of the place to be told
        key = int(batch.sample_keys[sample])
        found[key][0].append(at - own[sample])
        found[key][1].append(label)
    untouched = torch.ones(len(source), dtype=torch.bool)
    untouched[[place[row] for row in read.rows.tolist()]] = False
    assert torch.equal(source[untouched], torch.arange(len(source), dtype=torch.int32)[untouched])
    return found


@pytest.mark.parametrize("name", MODALITIES)
def test_rows_change_places_within_a_clip(name):
    batch = random_batch(CONFIG, LENGTHS)
    column = 1 if name == "visual_order" else 2
    found = list(shuffles(batch, built(name)).values())
    for (places, origins), length in zip(found, LENGTHS, strict=True):
        assert sorted(origins) == places and (len(places) >= 2) == (length[column] >= 2)
        assert not places or max(places) < length[column]
    assert found[4 if column == 1 else 3] == ([], [])
    assert sorted(found[2][0]) == [0, 1]  # two rows: both take part


def test_a_shuffle_is_the_words_of_its_clip():
    """Worked out again row by row: taken below the threshold, or the two smallest; then sorted by the third word."""
    batch, objective = random_batch(CONFIG, [(2, n, 0) for n in (2, 3, 9, 40, 77)] * 6), built(slots=60)
    key = stream_key(RNG, Purpose.MASK, objective.site)
    for sample, (places, origins) in enumerate(shuffles(batch, objective).values()):
        length = min(int(batch.visual_offsets.diff()[sample]), 60)
        words = draw(key, batch.sample_keys[sample], torch.arange(length), torch.zeros(length, dtype=torch.int64))
        taken = [row for row in range(length) if int(words[row, 0]) < 2**32 * 3 // 20]
        if len(taken) < 2:
            others = sorted(set(range(length)) - set(taken), key=lambda row: int(words[row, 1]))
            taken = sorted([*taken, *others][:2])
        assert places == taken and origins == sorted(taken, key=lambda row: int(words[row, 2]))


def test_a_shuffle_depends_on_seed_step_purpose_name_and_sample_alone():
    batch, objective = random_batch(CONFIG, LENGTHS, seed=3), built()
    whole = shuffles(batch, objective)
    for samples in ([5, 3, 0, 2], [0], [3, 5]):
        part = shuffles(select(batch, samples), objective)
        assert part == {key: whole[key] for key in part}
    again = {"as_before": objectives.build({"visual_order": {}})["visual_order"]}["as_before"]
    assert shuffles(batch, again) == whole
    other = objectives.build({"other": {"kind": "visual_order"}})["other"]
    for changed in (
        shuffles(batch, objective, RNG + torch.tensor([1, 0])),
        shuffles(batch, objective, RNG + torch.tensor([0, 1])),
        shuffles(batch, objective, purpose=Purpose.VALIDATION_MASK),
        shuffles(batch, other),
    ):
        assert changed != whole


def test_only_chosen_samples_are_shuffled_and_others_masks_stay():
    batch = random_batch(CONFIG, [(3, 12, 0)] * 30)
    two = objectives.build({"span_visual_regression": {}, "visual_order": {}})
    mine = torch.arange(30) % 3 == 1
    (view,) = objectives.views_of(batch, two, {"span_visual_regression": ~mine, "visual_order": mine}, RNG)
    alone = [objectives.views_for(batch, objective, RNG)[0] for objective in two.values()]
    rows = mine.repeat_interleave(12)
    assert torch.equal(view.sources["visual"][rows], alone[1].sources["visual"][rows])
    assert torch.equal(view.sources["visual"][~rows], alone[0].sources["visual"][~rows])
    own = mine[torch.searchsorted(batch.offsets[1:].long(), alone[1].reads["visual_order"].rows, right=True)]
    assert torch.equal(view.reads["visual_order"].rows, alone[1].reads["visual_order"].rows[own])
    assert torch.equal(view.reads["visual_order"].labels, alone[1].reads["visual_order"].labels[own])
    assert 2 * 10 <= view.counts["visual_order"] < alone[1].counts["visual_order"]


@pytest.mark.parametrize(("probability", "slots"), [("3/20", 64), ("1/2", 40), ("0", 64), ("1", 50)])
def test_the_share_that_is_shuffled(probability, slots):
    clips, length = 300, 70
    batch, objective = random_batch(CONFIG, [(1, length, 0)] * clips), built(probability=probability, slots=slots)
    found = list(shuffles(batch, objective).values())
    assert all(len(places) >= 2 and max(places) < slots and sorted(origins) == places for places, origins in found)
    p = objective.options.probability[0] / objective.options.probability[1]
    taken = sum(len(places) for places, _ in found)
    if p in (0, 1):
        assert taken == clips * (2 if p == 0 else slots)
    else:
        assert abs(taken - clips * slots * p) <= 5 * (clips * slots * p * (1 - p)) ** 0.5
    reached = {place for places, _ in found for place in places}
    assert reached == set(range(slots))
    room = objective.room(Capacity(clips, clips, clips * length, 0))
    assert len(room) == 1 and taken <= room[0].reads <= clips * length + 127
    if p == 0:  # any two of a clip alike: each place in 2 of 64 clips
        counts = torch.bincount(torch.tensor([place for places, _ in found for place in places]), minlength=slots)
        assert counts.max() <= 300 * 2 / 64 + 6 * (300 * 2 / 64) ** 0.5


def test_every_order_of_a_clip_is_as_likely():
    batch, objective = random_batch(CONFIG, [(1, 3, 0)] * 3000), built(probability=1)
    drawn = [tuple(origins) for _, origins in shuffles(batch, objective).values()]
    orders = {order: drawn.count(order) for order in set(drawn)}
    assert len(orders) == 6
    assert all(abs(count - 500) <= 5 * (3000 * 5 / 36) ** 0.5 for count in orders.values())


def test_options():
    assert built().options.slots == 64 and built("speech_order").options.slots == 128
    assert (
        built().heads["visual_order"].outputs == 64
        and built("speech_order", slots=9).heads["speech_order"].outputs == 9
    )
    assert built("speech_order").heads["speech_order"].modality == "speech"
    with pytest.raises(
        MemofastError, match=r"objectives\.visual_order: slots: input should be greater than or equal to 2"
    ):
        built(slots=1)


def by_hand():
    """Two clips of 5 and 4 faces in slots of 6, of which places 0, 3, 4 and 1, 2 were shuffled."""
    batch = random_batch(CONFIG, [(2, 5, 0), (3, 4, 1)])
    labels = torch.tensor([4, 0, 3, 2, 1])
    view = View(batch, reads={"visual_order": Read("visual_order", torch.tensor([2, 5, 6, 11, 12]), labels)})
    logits = torch.tensor([
        [1.0, 9.0, 9.0, 0.5, -1.0, 9.0], [2.0, 9.0, 9.0, 0.0, 1.0, 9.0], [0.0, 9.0, 9.0, 0.25, 0.5, 9.0],
        [9.0, 1.0, 3.0, 9.0, 9.0, 9.0], [9.0, 0.5, 0.75, 9.0, 9.0, 9.0],
    ])  # fmt: skip
    return view, logits


def test_the_loss_is_over_the_clips_own_shuffled_places():
    view, logits = by_hand()
    given = [
        (-1.0, (1.0, 0.5, -1.0)),
        (2.0, (2.0, 0.0, 1.0)),
        (0.25, (0.0, 0.25, 0.5)),
        (3.0, (1.0, 3.0)),
        (0.5, (0.5, 0.75)),
    ]
    expected = sum(math.log(sum(math.exp(one) for one in all_)) - right for right, all_ in given)
    loss = built(slots=6).loss([logits], [view])
    assert float(loss.total) == pytest.approx(expected, rel=1e-6) and loss.count == 5
    assert float(loss.metrics["accuracy"]) == 2  # the second and the fourth


@pytest.mark.parametrize("rows", [15, 16, 30])
def test_entries_without_a_read_are_candidates_of_no_clip(rows):
    """Also where a batch fills its capacity to the last row, which those entries name."""
    view, logits = by_hand()
    exact = built(slots=6).loss([logits.requires_grad_()], [view])
    (gradient,) = torch.autograd.grad(exact.total, logits)
    capacity = Capacity(2, 5, 9, rows - 14)
    room = view.padded_to(capacity, view.batch.padded_to(capacity), {"visual_order": 9})
    assert room.batch.rows == rows and view.batch.rows == 15
    placed = torch.cat((logits.detach(), torch.full((4, 6), 7.0))).requires_grad_()
    filled = built(slots=6).loss([placed], [room])
    torch.testing.assert_close(filled.total, exact.total)
    assert filled.count == 5 and filled.metrics == exact.metrics
    (placed_gradient,) = torch.autograd.grad(filled.total, placed)
    torch.testing.assert_close(placed_gradient[:5], gradient)
    assert not placed_gradient[5:].any()


def test_the_trivial_predictor_guesses_among_the_shuffled_places():
    view, _ = by_hand()
    loss = built(slots=6).trivial(Statistics(9, {}), [view])
    assert float(loss.total) == pytest.approx(3 * math.log(3) + 2 * math.log(2)) and loss.count == 5


@pytest.mark.parametrize("name", MODALITIES)
def test_as_the_original_has_it_positions_move_and_one_row_is_enough(name):
    batch, modality = random_batch(CONFIG, LENGTHS), MODALITIES[name]
    objective = built(name, original=True, probability="1/3")
    (view,) = objectives.views_for(batch, objective, RNG)
    lengths = batch.offsets_of(modality).diff()
    own = torch.cat([torch.arange(n) for n in lengths.tolist()])
    assert torch.equal(view.positions[modality], own[view.sources[modality].long()].int())
    counts = [len(places) for places, _ in shuffles(batch, objective).values()]
    assert [count >= 1 for count in counts] == [n >= 1 for n in lengths.tolist()] and 1 in counts
    mine = torch.arange(batch.samples) % 2 == 0
    other = objectives.build({"other": {"kind": name, "original": True, "probability": 1}})["other"]
    two = {name: objective, "other": other}
    (both,) = objectives.views_of(batch, two, {name: mine, "other": ~mine}, RNG)
    rows = mine.repeat_interleave(lengths)
    (alone,) = objectives.views_for(batch, other, RNG)
    for one, kept in ((view, rows), (alone, ~rows)):
        assert torch.equal(both.positions[modality][kept], one.positions[modality][kept])
        assert torch.equal(both.sources[modality][kept], one.sources[modality][kept])
    assert not objectives.views_for(batch, built(name), RNG)[0].positions


def test_as_the_original_has_it_the_answer_is_sought_among_all_slots():
    view, logits = by_hand()
    loss = built(slots=6, original=True).loss([logits], [view])
    expected = torch.nn.functional.cross_entropy(logits, view.reads["visual_order"].labels, reduction="sum")
    assert float(loss.total) == pytest.approx(float(expected)) and float(loss.metrics["accuracy"]) == 0
    trivial = built(slots=6, original=True).trivial(Statistics(9, {}), [view])
    assert float(trivial.total) == pytest.approx(5 * math.log(6))
