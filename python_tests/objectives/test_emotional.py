"""Emotional faces: which are hidden, in any batch, and what is asked there; losses of feature rows beside it."""

import pytest
import torch
from packed_batches import random_batch, select, small_config

from memofast import objectives
from memofast.data import Capacity, Facts
from memofast.errors import MemofastError
from memofast.objectives import Statistics
from memofast.ops.philox import Purpose, draw, stream_key

CONFIG = small_config()
RNG = torch.tensor([5, 17])
NEUTRAL = 2


def built(kind="emotional_visual_regression", **options):
    return objectives.build({"mine": {"kind": kind, "neutral": NEUTRAL, **options}})["mine"]


def batch_of(lengths, neutral=0.5, seed=0):
    """About this share of the faces is neutral."""
    batch = random_batch(CONFIG, lengths, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(batch.visual.shape[0], generator=generator) < neutral
    batch.targets["soft_labels"][:, NEUTRAL] = torch.where(chosen, 0.9, 0.0)
    return batch


def hidden(batch, objective, rng=RNG, purpose=Purpose.MASK):
    """By sample key the places that are hidden, as its view says."""
    (view,) = objectives.views_for(batch, objective, rng, purpose)
    read, offsets = view.reads["mine"], batch.visual_offsets.tolist()
    rows = (view.sources["visual"] == -1).nonzero().flatten()
    assert read.labels.tolist() == rows.tolist() and torch.equal(read.rows, batch.joint_rows("visual", rows.int()))
    kept = view.sources["visual"] >= 0
    assert torch.equal(view.sources["visual"][kept], torch.arange(len(kept), dtype=torch.int32)[kept])
    assert list(view.sources) == ["visual"] and view.token_ids is None
    return {
        int(key): [row - offsets[b] for row in rows.tolist() if offsets[b] <= row < offsets[b + 1]]
        for b, key in enumerate(batch.sample_keys)
    }


LENGTHS = [(3, 9, 4), (2, 0, 7), (5, 2, 2), (1, 13, 0), (4, 1, 1), (3, 30, 11)]


@pytest.mark.parametrize("kind", ["emotional_visual_regression", "emotional_visual_emotion"])
def test_a_mask_is_the_words_of_its_faces(kind):
    """Worked out again face by face: below the threshold and not neutral; else the one that a word names."""
    batch, objective = batch_of([(2, n, 1) for n in (1, 3, 8, 40)] * 9), built(kind)
    key, starts = stream_key(RNG, Purpose.MASK, objective.site), batch.visual_offsets.tolist()
    alone = 0
    for sample, places in enumerate(hidden(batch, objective).values()):
        length, name = starts[sample + 1] - starts[sample], batch.sample_keys[sample]
        zero = torch.zeros(length, dtype=torch.int64)
        words = draw(key, name, torch.arange(length), zero)[:, 0].tolist()
        labels = batch.targets["soft_labels"][starts[sample] : starts[sample + 1]].argmax(1).tolist()
        wanted = [place for place in range(length) if labels[place] != NEUTRAL and words[place] < 2**32 * 3 // 10]
        if not wanted:
            wanted = [int(draw(key, name, zero[:1], zero[:1] + 1)[0, 0]) * length >> 32]
            alone += labels[wanted[0]] == NEUTRAL
        assert places == wanted
    assert alone > 0


@pytest.mark.parametrize("probability", ["3/10", "1/2", 1])
def test_the_share_that_is_hidden(probability):
    clips, length = 200, 60
    batch, objective = batch_of([(1, length, 0)] * clips, 0.4), built(probability=probability)
    found = hidden(batch, objective)
    emotional = batch.targets["soft_labels"].argmax(1).reshape(clips, length) != NEUTRAL
    p = objective.options.probability[0] / objective.options.probability[1]
    taken, able = sum(map(len, found.values())), int(emotional.sum())
    assert all(bool(emotional[b][places].all()) for b, places in enumerate(found.values()))
    assert abs(taken - able * p) <= 5 * (able * p * (1 - p)) ** 0.5
    (room,) = objective.room(Capacity(clips, clips, clips * length, 0))
    assert taken <= room.reads <= clips * length + 127


def test_of_a_neutral_clip_any_face_is_hidden_and_one_alone():
    found = hidden(batch_of([(1, 5, 0)] * 2000, 1.0), built())
    counts = torch.bincount(torch.tensor([place for (place,) in found.values()]), minlength=5)
    assert (counts - 400).abs().max() <= 5 * (2000 * 4 / 25) ** 0.5


def test_a_mask_depends_on_seed_step_purpose_name_and_sample_alone():
    batch = batch_of(LENGTHS, 0.2, seed=3)
    whole = hidden(batch, built())
    assert [bool(places) for places in whole.values()] == [n > 0 for _, n, _ in LENGTHS]
    for samples in ([5, 3, 0, 2], [0], [3, 5]):
        part = hidden(select(batch, samples), built())
        assert part == {key: whole[key] for key in part}
    for changed in (
        hidden(batch, built(), RNG + torch.tensor([1, 0])),
        hidden(batch, built(), RNG + torch.tensor([0, 1])),
        hidden(batch, built(), purpose=Purpose.VALIDATION_MASK),
    ):
        assert changed != whole


def test_only_chosen_samples_are_hidden_beside_others_masks():
    batch, mine = batch_of([(3, 12, 0)] * 12), torch.arange(12) % 3 == 1
    two = {"span_visual_regression": objectives.build({"span_visual_regression": {}})["span_visual_regression"]}
    two["mine"] = built()
    (view,) = objectives.views_of(batch, two, {"span_visual_regression": ~mine, "mine": mine}, RNG)
    rows = mine.repeat_interleave(12)
    for name, own in (("mine", rows), ("span_visual_regression", ~rows)):
        (alone,) = objectives.views_for(batch, two[name], RNG)
        assert torch.equal(view.sources["visual"][own], alone.sources["visual"][own])
        wanted = alone.reads[name].labels
        assert torch.equal(view.reads[name].labels, wanted[own[wanted]])


def test_samples_without_a_label_for_each_face_are_not_eligible():
    batch = batch_of(LENGTHS)
    batch.targets["soft_labels"][10] = 0
    assert built().eligible(Facts.of_batch(batch)).tolist() == [True, False, False, True, True, True]
    assert built().needs == ("visual rows", "soft_labels") and built().heads["visual_features"].kind == "rows"


def test_the_neutral_class_is_never_guessed():
    named, classes = built(neutral="calm"), {"soft_labels": ["joy", "anger", "calm"]}
    with pytest.raises(MemofastError, match="objective mine: which class is 'calm' is not known here"):
        hidden(batch_of(LENGTHS), named)
    named.name_classes(classes)
    assert hidden(batch_of(LENGTHS), named) == hidden(batch_of(LENGTHS), built())
    for neutral, message in (("clam", "no class 'clam'; did you mean calm"), ("neutral", "they are joy, anger, calm"),
                             (3, "3 classes of soft labels, from 0 to 2, no 3"), (-1, "no -1")):  # fmt: skip
        with pytest.raises(MemofastError, match=rf"objectives\.mine\.neutral: .*{message}") as error:
            built(neutral=neutral).name_classes(classes)
        assert "\n" not in str(error.value)
    with pytest.raises(MemofastError, match="there are 8 classes of soft labels, from 0 to 7, no 8"):
        hidden(batch_of(LENGTHS), built(neutral=8))
    with pytest.raises(MemofastError, match="mine: probability: 0 hides one face of each clip"):
        built(probability=0)


@pytest.mark.parametrize("kind", ["span_visual_regression", "emotional_visual_regression"])
def test_losses_of_rows_and_their_trivial_predictors(kind):
    batch = batch_of(LENGTHS)
    given = {"neutral": NEUTRAL} if kind.startswith("emotional") else {}
    statistics = Statistics(200, {"visual": 21})
    statistics.add(batch)
    for loss in ("mse", "l1", "cosine"):
        objective = objectives.build({"mine": {"kind": kind, "loss": loss, **given}})["mine"]
        views = objectives.views_for(batch, objective, RNG)
        wanted = batch.visual[views[0].reads["mine"].labels, :21]
        guess = torch.randn(len(wanted), 21, generator=torch.Generator().manual_seed(1))

        def by_hand(guess, wanted=wanted, loss=loss):
            if loss == "cosine":
                cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(guess, wanted, strict=True)]
                return sum(1 - cosine for cosine in cosines)
            return float(((guess - wanted) ** 2 if loss == "mse" else (guess - wanted).abs()).sum()) / 21

        found = objective.loss([guess], views)
        assert float(found.total) == pytest.approx(by_hand(guess), rel=1e-5) and found.count == len(wanted) > 5
        mean = batch.visual[:, :21].mean(0).expand(len(wanted), -1)
        assert float(objective.trivial(statistics, views).total) == pytest.approx(by_hand(mean), rel=1e-4)
