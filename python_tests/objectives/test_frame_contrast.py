"""Contrast of hidden rows: what is hidden and compared, the loss by hand, and the guess beside it."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, small_config

from memofast import objectives
from memofast.data import Capacity
from memofast.data.view import padded
from memofast.errors import MemofastError
from memofast.objectives import Statistics

CONFIG = small_config()
RNG = torch.tensor([5, 17])
LENGTHS = [(3, 4, 3), (2, 0, 2), (5, 3, 0), (1, 1, 6), (4, 5, 1)]
ALL = {"policy": "independent", "ratio": 1}
AMONG = ["micro_batch", "sample", "other_samples"]


def built(modality="visual", **options):
    return objectives.build({"mine": {"kind": f"span_{modality}_contrast", **options}})["mine"]


def batch_with_equal_rows():
    """Faces 1, 6 and 9 are alike, in three samples, and 10 and 12 in one."""
    batch = random_batch(CONFIG, LENGTHS)
    batch.visual[[6, 9]], batch.visual[12] = batch.visual[1].clone(), batch.visual[10].clone()
    return batch


def by_hand(batch, predictions, rows, among, similarity, temperature):
    """Row by row. rows: within the modality, of each prediction."""
    sample = [b for b, (one, other) in enumerate(pairwise(batch.visual_offsets.tolist())) for _ in range(one, other)]
    there, total, right, seen = batch.visual[:, : predictions.shape[1]], 0.0, 0, 0
    for row, prediction in zip(rows, predictions, strict=True):
        scores = {}
        for other in rows:
            wrong = not torch.equal(there[other], there[row])
            wrong &= among == "micro_batch" or (sample[other] == sample[row]) == (among == "sample")
            if other == row or wrong:
                cosine = similarity == "cosine"
                pair = (F.normalize(x, dim=0) if cosine else x for x in (prediction, there[other]))
                scores[other] = float(torch.dot(*pair)) / temperature
        total += math.log(sum(math.exp(score - scores[row]) for score in scores.values()))
        right += max(scores, key=scores.get) == row
        seen += len(scores)
    return total, right, seen


@pytest.mark.parametrize("among", AMONG)
@pytest.mark.parametrize(
    ("options", "temperature"),
    [
        ({}, 21**0.5),
        ({"temperature": 1}, 1),
        ({"similarity": "cosine"}, 0.1),
        ({"similarity": "cosine", "temperature": 0.5}, 0.5),
    ],
)
def test_the_loss_by_hand(among, options, temperature):
    objective, batch = built(**ALL, among=among, **options), batch_with_equal_rows()
    (view,) = objectives.views_for(batch, objective, RNG)
    predictions = 0.2 * batch.visual[:, :21] + 0.3 * torch.randn(13, 21, generator=torch.Generator().manual_seed(2))
    loss = objective.loss([predictions.bfloat16()], [view])
    similarity = options.get("similarity", "dot")
    expected = by_hand(batch, predictions.bfloat16().float(), range(13), among, similarity, temperature)
    assert float(loss.total) == pytest.approx(expected[0], rel=1e-5) and loss.count == 13
    assert [float(loss.metrics[name]) for name in ("accuracy", "candidates")] == list(expected[1:])
    assert {"micro_batch": 13 * 13 - 6 - 2, "sample": 16 + 9 + 1 + 25 - 2}.get(among, 169 - 51 - 6 + 13) == expected[2]


def test_products_are_exact_under_autocast():
    objective, batch = built(**ALL), batch_with_equal_rows()
    views, predictions = objectives.views_for(batch, objective, RNG), batch.visual[:, :21] * 3
    exact = objective.loss([predictions], views)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective.loss([predictions], views)
    assert float(rounded.total) == pytest.approx(float(exact.total), rel=1e-6)


def test_rows_that_are_equal_have_one_label():
    batch, objective = batch_with_equal_rows(), built(**ALL)
    read = objectives.views_for(batch, objective, RNG)[0].reads["mine"]
    assert read.labels.tolist() == [0, 1, 2, 3, 4, 5, 1, 7, 8, 1, 10, 11, 10] and read.head == "visual_contrast"
    assert torch.equal(read.rows, batch.joint_rows("visual", torch.arange(13, dtype=torch.int32)))
    half = built(policy="independent", ratio="1/2")
    view = objectives.views_for(batch, half, RNG)[0]
    hidden = (view.sources["visual"] == -1).nonzero().flatten()
    shown = batch.visual[hidden]
    firsts = [next(int(r) for r in hidden if torch.equal(batch.visual[r], row)) for row in shown]
    assert view.reads["mine"].labels.tolist() == firsts and 0 < len(firsts) < 13


@pytest.mark.parametrize("among", AMONG)
def test_what_fills_a_fixed_capacity_is_nobodys_answer(among):
    objective, batch = built(**ALL, among=among), batch_with_equal_rows()
    views = objectives.views_for(batch, objective, RNG)
    wide = padded(views, [Capacity(7, 20, 16, 16)], [{"mine": 16}])
    predictions = torch.randn(13, 21, generator=torch.Generator().manual_seed(2))
    leaves = [predictions.clone().requires_grad_(), F.pad(predictions, (0, 0, 0, 3), value=2.0).requires_grad_()]
    exact, filled = (objective.loss([leaf], seen) for leaf, seen in zip(leaves, (views, wide), strict=True))
    torch.testing.assert_close(filled.total, exact.total)
    assert filled.metrics == exact.metrics
    for loss in (exact, filled):
        loss.total.backward()
    torch.testing.assert_close(leaves[1].grad[:13], leaves[0].grad)
    assert not leaves[1].grad[13:].any()


@pytest.mark.parametrize("modality", ["visual", "speech"])
@pytest.mark.parametrize("policy", ["span", "independent", "single_span", "mixed"])
def test_rows_are_hidden_as_those_of_the_regression(modality, policy):
    batch = random_batch(CONFIG, [(3, 31, 43), (2, 3, 0), (5, 17, 4)] * 6)
    regression = objectives.build({"mine": {"kind": f"span_{modality}_regression", "policy": policy}})["mine"]
    ours, theirs = (objectives.views_for(batch, one, RNG)[0] for one in (built(modality, policy=policy), regression))
    assert torch.equal(ours.sources[modality], theirs.sources[modality])
    assert torch.equal(ours.reads["mine"].rows, theirs.reads["mine"].rows)
    assert torch.equal(ours.reads["mine"].labels, theirs.reads["mine"].labels)  # no two rows are equal


def test_the_share_of_rows_hidden():
    batch = random_batch(CONFIG, [(2, 40, 1)] * 250)
    for ratio, share in (("3/10", 0.3), ("1/20", 0.05)):
        read = objectives.views_for(batch, built(policy="independent", ratio=ratio), RNG)[0].reads["mine"]
        assert abs(read.count - 10_000 * share - 250 * (1 - share) ** 40) <= 5 * (10_000 * share) ** 0.5


@pytest.mark.parametrize("among", AMONG)
def test_the_guess_is_uniform_over_what_is_compared(among):
    objective, batch = built(**ALL, among=among), batch_with_equal_rows()
    views = objectives.views_for(batch, objective, RNG)
    guess, alike = objective.trivial(Statistics(9, {}), views), objective.loss([torch.zeros(13, 21)], views)
    assert float(guess.total) == pytest.approx(float(alike.total), rel=1e-6) and guess.count == 13
    assert guess.metrics["candidates"] == alike.metrics["candidates"]
    if among == "sample":  # of 4, 3, 1 and 5 faces, of which the last sample has two that are alike
        counts = [4] * 4 + [3] * 3 + [1] + [4, 5, 4, 5, 5]
        assert float(guess.total) == pytest.approx(sum(map(math.log, counts)), rel=1e-6)
        assert float(guess.metrics["accuracy"]) == pytest.approx(sum(1 / count for count in counts), rel=1e-6)
    assert objective.couples == (among != "sample")


def test_a_batch_without_faces_reads_nothing():
    batch = random_batch(CONFIG, [(5, 0, 3), (2, 0, 1)])
    views = objectives.views_for(batch, built(), RNG)
    assert views[0].counts == {"mine": 0} and not built().can_be_of(batch)
    assert float(built().trivial(Statistics(9, {}), views).total) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature: input should be greater than or equal to 0.001, got 0"),
        ({"among": "batch"}, "among: input should be 'micro_batch', 'sample' or 'other_samples', got 'batch'"),
        ({"similarity": "euclid"}, "similarity: input should be 'dot' or 'cosine'"),
        ({"policy": "mixed", "ratio": 0.5}, "ratio has no effect with policy mixed"),
        ({"shows": ["text", "speech"]}, "shows: visual rows are what it is about"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(MemofastError, match=message):
        built(**options)
