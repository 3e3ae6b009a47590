"""Drawing objectives per sample, masking for several at once, and the targets that follow."""

import pytest
import torch
from packed_batches import random_batch, select, small_config

from memofast import objectives, ops
from memofast.errors import MemofastError
from memofast.ops.philox import Purpose

CONFIG = small_config()
NAMES = ("whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression")
BUILT = objectives.build({**dict.fromkeys(NAMES), "whole_word_mlm": {"at_least_one": True}}, CONFIG)
SHARES = dict(zip(NAMES, (2, 1, 1, 1), strict=True))
RNG = torch.tensor([5, 17])


def test_shares_are_met_among_what_each_sample_can_serve():
    full, faceless, wordless = [(8, 6, 6)] * 4000, [(8, 0, 6)] * 3000, [(1, 6, 6)] * 3000
    batch = random_batch(small_config(visual_width=8, speech_width=8), full + faceless + wordless)
    drawn = objectives.assign(batch, BUILT, SHARES, RNG)
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


def test_a_draw_depends_on_seed_step_purpose_and_sample_alone():
    batch = random_batch(CONFIG, [(8, 6, 6)] * 60)
    drawn = objectives.assign(batch, BUILT, SHARES, RNG)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1)).tolist()
    assert torch.equal(objectives.assign(select(batch, order), BUILT, SHARES, RNG), drawn[order])
    assert not torch.equal(objectives.assign(batch, BUILT, SHARES, RNG + torch.tensor([0, 1])), drawn)
    assert not torch.equal(objectives.assign(batch, BUILT, SHARES, RNG, Purpose.VALIDATION_MASK), drawn)


def test_samples_that_nothing_can_serve_are_left_out():
    batch = random_batch(CONFIG, [(2, 0, 0), (8, 0, 0)])
    assert objectives.assign(batch, BUILT, SHARES, RNG).tolist() == [-1, 0]
    assert objectives.assign(batch, BUILT, {"span_visual_emotion": 1}, RNG).tolist() == [-1, -1]


@pytest.mark.parametrize("shares", [{}, {"whole_word_mlm": -1, "span_visual_emotion": 2}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(MemofastError, match="shares"):
        objectives.assign(random_batch(CONFIG), BUILT, shares, RNG)


def test_masks_of_several_objectives_merge_by_sample():
    batch = random_batch(CONFIG, [(9, 15, 20)] * 40)
    assignment = objectives.assign(batch, BUILT, SHARES, RNG)
    mixed = objectives.corrupt(batch, BUILT, assignment, RNG)
    assert sorted(mixed.targets) == sorted(NAMES)
    inputs = {
        "text": mixed.inputs.token_ids,
        "visual": mixed.inputs.visual_source,
        "speech": mixed.inputs.speech_source,
    }
    for index, name in enumerate(NAMES):
        modality = BUILT[name].modality
        offsets = getattr(batch, f"{modality}_offsets")
        alone = objectives.corrupt(batch, {name: BUILT[name]}, name, RNG)
        seen = alone.inputs.token_ids if modality == "text" else getattr(alone.inputs, f"{modality}_source")
        mine = torch.repeat_interleave(assignment == index, offsets.diff())
        assert torch.equal(inputs[modality][mine], seen[mine])
        rows = alone.targets[name].rows.long()
        assert torch.equal(mixed.targets[name].rows.long(), rows[mine[rows]])
        assert mixed.counts[name] == int(mine[rows].sum()) > 0
    untouched = torch.repeat_interleave(assignment != 0, batch.text_offsets.diff())
    assert torch.equal(mixed.inputs.token_ids[untouched], batch.token_ids[untouched])


def test_targets_point_at_the_masked_rows_of_the_joint_sequence():
    lengths = [(12, 36, 64), (5, 0, 30), (3, 20, 40)]
    batch = random_batch(small_config(visual_positions=64, speech_positions=64), lengths)
    for name in NAMES:
        corruption = objectives.corrupt(batch, BUILT, name, RNG)
        targets = corruption.targets[name]
        before = {"text": (0, 0, 0), "visual": (12, 5, 3), "speech": (48, 5, 23)}[BUILT[name].modality]
        own = getattr(batch, f"{BUILT[name].modality}_offsets").tolist()
        expected = []
        for row in targets.rows.tolist():
            sample = next(b for b in range(3) if own[b] <= row < own[b + 1])
            expected.append(int(batch.offsets[sample]) + before[sample] + row - own[sample])
        assert targets.joint.tolist() == expected
        if BUILT[name].modality == "text":
            assert torch.equal(targets.labels, batch.token_ids[targets.rows.long()].long())
        else:
            source = getattr(corruption.inputs, f"{BUILT[name].modality}_source")
            assert torch.equal((source == -1).nonzero().flatten().int(), targets.rows)


def test_published_mask_sizes():
    wide = small_config(visual_positions=64, speech_positions=64)
    for faces, frames, most in ((14, 19, (1, 1)), (15, 20, (3, 3)), (36, 64, (6, 9))):
        batch = random_batch(wide, [(5, faces, frames)] * 50)
        for name, limit in zip(NAMES[1::2], most, strict=True):
            modality = BUILT[name].modality
            rows = objectives.corrupt(batch, BUILT, name, RNG).targets[name].rows.long()
            own = torch.searchsorted(getattr(batch, f"{modality}_offsets")[1:].long(), rows, right=True)
            counts = torch.bincount(own, minlength=50)
            assert counts.max() == limit
            if limit <= 3:
                assert counts.min() == limit


def test_validation_masks_never_change():
    batch = random_batch(CONFIG)
    rng = objectives.validation_rng(5)
    first, again = (objectives.corrupt(batch, BUILT, NAMES[1], rng, Purpose.VALIDATION_MASK) for _ in range(2))
    assert torch.equal(first.inputs.visual_source, again.inputs.visual_source)
    training = objectives.corrupt(batch, BUILT, NAMES[1], rng)
    assert not torch.equal(first.inputs.visual_source, training.inputs.visual_source)


def test_a_missing_target_is_named():
    batch = random_batch(CONFIG, soft_labels=False)
    with pytest.raises(MemofastError, match="span_visual_emotion: the corpus has no soft_labels"):
        objectives.corrupt(batch, BUILT, "span_visual_emotion", RNG)


def test_a_batch_without_the_modality_has_no_targets():
    batch = random_batch(CONFIG, [(8, 0, 0), (9, 0, 0)])
    corruption = objectives.corrupt(batch, BUILT, "span_speech_regression", RNG)
    assert corruption.counts == {"span_speech_regression": 0}
    assert corruption.inputs.speech_source is None


def test_moving_keeps_everything():
    batch = random_batch(CONFIG)
    corruption = objectives.corrupt(batch, BUILT, "whole_word_mlm", RNG)
    moved = corruption.to("cpu")
    assert moved.counts == corruption.counts
    assert moved.targets["whole_word_mlm"].objective is BUILT["whole_word_mlm"]
    assert torch.equal(moved.inputs.token_ids, corruption.inputs.token_ids)


def test_emotion_policies_read_the_lexicon():
    built = objectives.build(
        {"emotion": {"kind": "whole_word_mlm", "policy": "emotion_word", "at_least_one": False}}, CONFIG
    )
    assert isinstance(built["emotion"].policy, ops.TokenPolicy)
    batch = random_batch(CONFIG, [(20, 0, 0)] * 30, lexicon=True)
    batch.targets["lexicon"][batch.word_ids < 0] = -1
    rows = objectives.corrupt(batch, built, "emotion", RNG).targets["emotion"].rows.long()
    assert (batch.targets["lexicon"][rows] >= 0).float().mean() > 0.9
