"""Drawing objectives per sample, masking for several at once, and where their views are read."""

import pytest
import torch
from packed_batches import assigned, random_batch, select, shared_views, small_config

from memofast import objectives, ops
from memofast.data.view import moved
from memofast.errors import MemofastError
from memofast.ops.philox import Purpose

CONFIG = small_config()
NAMES = ("whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression")
BUILT = objectives.build({**dict.fromkeys(NAMES), "whole_word_mlm": {"at_least_one": True}}, CONFIG)
SHARES = dict(zip(NAMES, (2, 1, 1, 1), strict=True))
RNG = torch.tensor([5, 17])
MODALITY = dict(zip(NAMES, ("text", "visual", "visual", "speech"), strict=True))


def test_shares_are_met_among_what_each_sample_can_serve():
    full, faceless, wordless = [(8, 6, 6)] * 4000, [(8, 0, 6)] * 3000, [(1, 6, 6)] * 3000
    batch = random_batch(small_config(visual_width=8, speech_width=8), full + faceless + wordless)
    drawn = assigned(batch, BUILT, SHARES, RNG)
    assert drawn.dtype == torch.int8
    for rows, expected in (
        (drawn[:4000], (0.4, 0.2, 0.2, 0.2)),
        (drawn[4000:7000], (2 / 3, 0, 0, 1 / 3)),
        (drawn[7000:], (0, 1 / 3, 1 / 3, 1 / 3)),
    ):
        for index, share in enumerate(expected):
            count = int((rows == index).sum())
            spread = (len(rows) * share * (1 - share)) ** 0.5
            assert abs(count - len(rows) * share) <= 5 * spread


def test_unequal_and_fractional_shares_are_met_each_by_its_own_objective():
    batch = random_batch(small_config(visual_width=8, speech_width=8), [(8, 6, 6)] * 8000)
    shares = dict(zip(NAMES, (0.1, 0.55, 0.05, 0.3), strict=True))
    drawn = assigned(batch, BUILT, shares, RNG)
    for index, share in enumerate(shares.values()):
        assert abs(int((drawn == index).sum()) - 8000 * share) <= 5 * (8000 * share * (1 - share)) ** 0.5
    drawn = assigned(batch, BUILT, shares | {NAMES[1]: 0}, RNG)
    assert not (drawn == 1).any() and abs(int((drawn == 3).sum()) - 8000 * 2 / 3) <= 5 * (8000 * 2 / 9) ** 0.5


def test_a_draw_depends_on_seed_step_purpose_and_sample_alone():
    batch = random_batch(CONFIG, [(8, 6, 6)] * 60)
    drawn = assigned(batch, BUILT, SHARES, RNG)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1)).tolist()
    assert torch.equal(assigned(select(batch, order), BUILT, SHARES, RNG), drawn[order])
    assert not torch.equal(assigned(batch, BUILT, SHARES, RNG + torch.tensor([0, 1])), drawn)
    assert not torch.equal(assigned(batch, BUILT, SHARES, RNG, purpose=Purpose.VALIDATION_MASK), drawn)


def test_samples_that_nothing_can_serve_are_left_out():
    batch = random_batch(CONFIG, [(2, 0, 0), (8, 0, 0)])
    assert assigned(batch, BUILT, SHARES, RNG).tolist() == [-1, 0]
    assert assigned(batch, BUILT, {"span_visual_emotion": 1}, RNG).tolist() == [-1, -1]


@pytest.mark.parametrize("shares", [(0.38, 0.285, 0.194, 0.141), (1301, 877, 412, 655), (1 / 3000, 0.5, 0.4, 0.1)])
def test_shares_of_any_numbers_are_met(shares):
    """Those that have no small common denominator, and one so small that 1000 parts hold none of it."""
    batch = random_batch(CONFIG, [(4, 3, 3)] * 12000, seed=4)
    drawn = assigned(batch, BUILT, dict(zip(NAMES, shares, strict=True)), RNG)
    for index, share in enumerate(shares):
        mean = 12000 * share / sum(shares)
        assert int((drawn == index).sum()) > 0 and abs(int((drawn == index).sum()) - mean) <= 5 * mean**0.5


def test_a_share_that_would_never_be_drawn_is_refused():
    with pytest.raises(MemofastError, match="too far apart"):
        assigned(random_batch(CONFIG), BUILT, dict(zip(NAMES, (1e-12, 1, 1, 1), strict=True)), RNG)


@pytest.mark.parametrize("shares", [{}, {"whole_word_mlm": -1, "span_visual_emotion": 2}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(MemofastError, match="shares"):
        assigned(random_batch(CONFIG), BUILT, shares, RNG)


def rows_masked(batch, view, name):
    """Rows within its modality that an objective reads."""
    own = batch.offsets_of(MODALITY[name])
    joint = batch.joint_rows(MODALITY[name], torch.arange(int(own[-1]), dtype=torch.int32))
    places = torch.searchsorted(joint, view.reads[name].rows)
    assert torch.equal(joint[places], view.reads[name].rows)
    return places


def test_masks_of_several_objectives_merge_by_sample():
    batch = random_batch(CONFIG, [(9, 15, 20)] * 40)
    assignment = assigned(batch, BUILT, SHARES, RNG)
    (mixed,) = shared_views(batch, BUILT, SHARES, RNG)
    assert mixed.batch is batch and mixed.draw == 0
    assert sorted(mixed.reads) == sorted(NAMES)
    for index, name in enumerate(NAMES):
        modality = MODALITY[name]
        (alone,) = objectives.views_for(batch, BUILT[name], RNG)
        assert list(alone.reads) == [name]
        seen = [view.token_ids if modality == "text" else view.sources[modality] for view in (mixed, alone)]
        mine = torch.repeat_interleave(assignment == index, batch.offsets_of(modality).diff())
        assert torch.equal(seen[0][mine], seen[1][mine])
        rows = rows_masked(batch, alone, name)
        assert torch.equal(rows_masked(batch, mixed, name), rows[mine[rows]])
        assert torch.equal(mixed.reads[name].labels, alone.reads[name].labels[mine[rows]])
        assert mixed.counts[name] == int(mine[rows].sum()) > 0
    untouched = torch.repeat_interleave(assignment != 0, batch.text_offsets.diff())
    assert torch.equal(mixed.token_ids[untouched], batch.token_ids[untouched])


def test_targets_point_at_the_masked_rows_of_the_joint_sequence():
    lengths = [(12, 36, 64), (5, 0, 30), (3, 20, 40)]
    batch = random_batch(small_config(visual_positions=64, speech_positions=64), lengths)
    for name in NAMES:
        modality = MODALITY[name]
        (view,) = objectives.views_for(batch, BUILT[name], RNG)
        read = view.reads[name]
        before = {"text": (0, 0, 0), "visual": (12, 5, 3), "speech": (48, 5, 23)}[modality]
        own = batch.offsets_of(modality).tolist()
        masked = (view.token_ids != batch.token_ids) if modality == "text" else view.sources[modality] == -1
        expected, places = {}, {}
        for row in range(own[-1]):
            sample = next(b for b in range(3) if own[b] <= row < own[b + 1])
            expected[row] = int(batch.offsets[sample]) + before[sample] + row - own[sample]
            places[expected[row]] = row
        rows = [places[joint] for joint in read.rows.tolist()]
        assert read.rows.dtype == torch.int64 and rows == sorted(set(rows)) and read.count == len(rows) > 0
        if modality == "text":
            assert set(masked.nonzero().flatten().tolist()) <= set(rows)  # one in ten keeps its word
            assert torch.equal(read.labels, batch.token_ids[rows].long())
        else:
            assert masked.nonzero().flatten().tolist() == rows == read.labels.tolist()


def test_published_mask_sizes():
    wide = small_config(visual_positions=64, speech_positions=64)
    for faces, frames, most in ((14, 19, (1, 1)), (15, 20, (3, 3)), (36, 64, (6, 9))):
        batch = random_batch(wide, [(5, faces, frames)] * 50)
        for name, limit in zip(NAMES[1::2], most, strict=True):
            rows = objectives.views_for(batch, BUILT[name], RNG)[0].reads[name].labels
            own = torch.searchsorted(batch.offsets_of(MODALITY[name])[1:].long(), rows, right=True)
            counts = torch.bincount(own, minlength=50)
            assert counts.max() == limit
            if limit <= 3:
                assert counts.min() == limit


def test_validation_masks_never_change():
    batch = random_batch(CONFIG)
    rng, objective = objectives.validation_rng(5), BUILT[NAMES[1]]
    assert rng.tolist() == [5, 0]
    first, again = (objectives.views_for(batch, objective, rng, Purpose.VALIDATION_MASK)[0] for _ in range(2))
    assert torch.equal(first.sources["visual"], again.sources["visual"])
    (training,) = objectives.views_for(batch, objective, rng)
    assert not torch.equal(first.sources["visual"], training.sources["visual"])


def test_a_missing_target_is_named():
    batch = random_batch(CONFIG, soft_labels=False)
    with pytest.raises(MemofastError, match="span_visual_emotion: the corpus has no soft_labels"):
        objectives.views_for(batch, BUILT["span_visual_emotion"], RNG)


def test_a_batch_without_the_modality_has_no_targets():
    batch = random_batch(CONFIG, [(8, 0, 0), (9, 0, 0)])
    (view,) = objectives.views_for(batch, BUILT["span_speech_regression"], RNG)
    assert view.counts == {"span_speech_regression": 0}
    assert "speech" not in view.sources


def test_moving_keeps_everything():
    batch = random_batch(CONFIG)
    views = objectives.views_for(batch, BUILT["whole_word_mlm"], RNG)
    (ours,), (other,) = views, moved(views, "cpu")
    assert other.counts == ours.counts and other.reads["whole_word_mlm"].head == "words"
    assert torch.equal(other.token_ids, ours.token_ids)
    assert torch.equal(other.reads["whole_word_mlm"].labels, ours.reads["whole_word_mlm"].labels)


def test_emotion_policies_read_the_lexicon():
    built = objectives.build(
        {"emotion": {"kind": "whole_word_mlm", "policy": "emotion_word", "at_least_one": False}}, CONFIG
    )
    assert isinstance(built["emotion"].policy, ops.TokenPolicy)
    batch = random_batch(CONFIG, [(20, 0, 0)] * 30, lexicon=True)
    batch.targets["lexicon"][batch.word_ids < 0] = -1
    rows = objectives.views_for(batch, built["emotion"], RNG)[0].reads["emotion"].rows  # text alone
    assert (batch.targets["lexicon"][rows] >= 0).float().mean() > 0.9
