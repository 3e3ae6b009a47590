"""Losses, their normalisation, their gradients, and the trivial predictors beside them."""

import math

import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, select, shared_views, small_config
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from memofast import objectives
from memofast.data import Capacity
from memofast.data.view import copy_views, padded
from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner
from memofast.train import optimisation

CONFIG = small_config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
NAMES = ("whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression")
BUILT = objectives.build({**dict.fromkeys(NAMES), "whole_word_mlm": {"at_least_one": True}}, CONFIG)
SHARES = dict(zip(NAMES, (2, 1, 1, 1), strict=True))
RNG = torch.tensor([5, 17])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MemoBertForPreTraining(CONFIG).eval()


@pytest.fixture
def mixed():
    return shared_views(random_batch(CONFIG, [(9, 15, 20)] * 24), BUILT, SHARES, RNG)


def joint_ids(batch):
    """Token ids by joint row, -1 at rows of other modalities."""
    ids = torch.full((batch.rows,), -1)
    ids[batch.joint_rows("text", torch.arange(len(batch.token_ids), dtype=torch.int32))] = batch.token_ids.long()
    return ids


def test_losses_are_those_of_the_formulas(model, mixed):
    (view,) = mixed
    batch, reads = view.batch, view.reads
    sums = Learner(model, BUILT)(mixed)
    with torch.no_grad():
        hidden = model.memobert(view).hidden
    rows = {name: hidden[reads[name].rows] for name in NAMES}
    own = {name: reads[name].labels for name in NAMES}

    def transformed(head, x):
        return head.transform.norm(F.gelu(head.transform.dense(x)))

    heads, embeddings = model.heads, model.memobert.embeddings
    logits = transformed(heads.words, rows[NAMES[0]]) @ embeddings.word.weight.T + heads.words.bias
    expected = {NAMES[0]: F.cross_entropy(logits, joint_ids(batch)[reads[NAMES[0]].rows])}
    for name, modality in ((NAMES[1], "visual"), (NAMES[3], "speech")):
        head, width = getattr(heads, f"{modality}_features"), CONFIG.feature_width(modality)
        out = transformed(head, rows[name]) @ getattr(embeddings, modality).projection.weight + head.bias
        expected[name] = F.mse_loss(out, getattr(batch, modality)[own[name], :width])
    out = heads.visual_emotions.classifier(transformed(heads.visual_emotions, rows[NAMES[2]])).log_softmax(-1)
    expected[NAMES[2]] = F.kl_div(out, batch.targets["soft_labels"][own[NAMES[2]]], reduction="batchmean") / 8
    for name in NAMES:
        assert sums[name].count == reads[name].count > 0
        torch.testing.assert_close(sums[name].total / sums[name].count, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    accuracy = sums[NAMES[0]].metrics["accuracy"] / sums[NAMES[0]].count
    right = logits.argmax(-1) == joint_ids(batch)[reads[NAMES[0]].rows]
    assert float(accuracy) == pytest.approx(float(right.float().mean()))


def test_sums_over_micro_batches_add_up(model, mixed):
    batch, learner = mixed[0].batch, Learner(model, BUILT)
    parts = [list(range(10)), list(range(10, 24))]
    whole = learner(mixed)
    halves = [learner(shared_views(select(batch, samples), BUILT, SHARES, RNG)) for samples in parts]
    for name in NAMES:
        assert sum(half[name].count for half in halves) == whole[name].count
        torch.testing.assert_close(sum(half[name].total for half in halves), whole[name].total, rtol=1e-5, atol=1e-6)


def fixed_shapes(views):
    batch = views[0].batch
    rows = {name: getattr(batch, f"{name}_offsets")[-1].item() for name in ("text", "visual", "speech")}
    capacity = Capacity(batch.samples + 3, **{name: count + 17 for name, count in rows.items()})
    return padded(views, *objectives.padding_of(views, BUILT, capacity))


def test_fixed_shapes_change_neither_losses_nor_gradients(model, mixed):
    results = []
    for views in (mixed, fixed_shapes(mixed)):
        model.train().zero_grad()
        sums = Learner(model, BUILT)(views, RNG)
        torch.stack([loss.total / max(loss.count, 1) for loss in sums.values()]).sum().backward()
        results.append((sums, {name: p.grad.clone() for name, p in model.named_parameters()}))
    model.eval().zero_grad()
    (exact, gradients), (filled, padded_gradients) = results
    for name in NAMES:
        assert filled[name].count == exact[name].count > 0
        torch.testing.assert_close(filled[name].total, exact[name].total, rtol=1e-5, atol=1e-6)
        for metric, value in exact[name].metrics.items():
            assert filled[name].metrics[metric] == value
    for name, gradient in gradients.items():
        torch.testing.assert_close(padded_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_what_an_earlier_batch_left_behind_changes_nothing(model, mixed):
    """A smaller batch copied over a larger one in tensors of fixed shape gives the smaller one's losses."""
    small = shared_views(random_batch(CONFIG, [(7, 11, 13)] * 18), BUILT, SHARES, RNG)
    placed = fixed_shapes(mixed)
    copy_views(placed, small)
    results = []
    for views in (small, placed):
        model.train().zero_grad()
        sums = Learner(model, BUILT)(views, RNG)
        torch.stack([loss.total for loss in sums.values()]).sum().backward()
        results.append((sums, {name: p.grad.clone() for name, p in model.named_parameters()}))
    model.eval().zero_grad()
    (exact, gradients), (left_over, left_over_gradients) = results
    for name in NAMES:
        assert left_over[name].count == exact[name].count > 0
        torch.testing.assert_close(left_over[name].total, exact[name].total, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(left_over_gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_more_targets_than_the_capacity_are_refused(mixed):
    read, what = mixed[0].reads[NAMES[0]], f"objective {NAMES[0]}"
    with pytest.raises(ValueError, match=f"^{what} has {read.count} targets, its capacity is {read.count - 1}$"):
        read.padded_to(read.count - 1, 0, what)


def test_no_number_leaves_the_device_in_a_step_of_fixed_shapes(mixed):
    """Fake tensors have shapes and no values: whatever asks for a value, and so would wait for a GPU, raises."""
    (view,) = fixed_shapes(mixed)
    with FakeTensorMode() as mode:
        model = MemoBertForPreTraining(CONFIG).train()
        view = view.on(view.batch.map(mode.from_tensor), mode.from_tensor)
        sums = Learner(model, BUILT)([view], mode.from_tensor(RNG))
        torch.stack([loss.total for loss in sums.values()]).sum().backward()
        optimisation.clip(model, 5.0)
        with pytest.raises(DataDependentOutputException):
            sums[NAMES[0]].total.item()


def test_initial_losses_are_near_their_expected_values(model):
    batch = random_batch(CONFIG, [(20, 30, 40)] * 40)
    for name in NAMES:
        sums = Learner(model, BUILT)(objectives.views_for(batch, BUILT[name], RNG))[name]
        loss = float(sums.total.detach()) / sums.count
        if name == "whole_word_mlm":
            assert loss == pytest.approx(math.log(CONFIG.vocab_size), rel=0.05)
        elif name == "span_visual_emotion":
            labels = batch.targets["soft_labels"]
            entropy = float(-(labels * labels.log()).sum(-1).mean())
            assert loss == pytest.approx((math.log(8) - entropy) / 8, abs=0.01)
        else:
            assert loss == pytest.approx(1.0, rel=0.15)  # features are standard normal


def test_objectives_without_a_part_in_a_batch_have_a_loss_of_zero(model):
    batch = random_batch(CONFIG, [(9, 0, 0), (6, 0, 0)])
    sums = Learner(model, BUILT)(shared_views(batch, BUILT, SHARES, RNG))
    assert sums[NAMES[0]].count >= 2
    assert [(float(sums[name].total.detach()), sums[name].count) for name in NAMES[1:]] == [(0.0, 0)] * 3
    assert sums["span_visual_emotion"].metrics == {"accuracy": 0}


@pytest.mark.parametrize("name", NAMES)
def test_no_targets_means_a_loss_of_zero_that_backpropagates_zeros(name):
    torch.manual_seed(0)
    model = MemoBertForPreTraining(CONFIG).train()
    batch = random_batch(CONFIG, [(2, 0, 0), (1, 0, 0)])
    if name == "span_visual_emotion":
        batch.targets["soft_labels"] = torch.zeros(0, 8)
    sums = Learner(model, BUILT)(objectives.views_for(batch, BUILT[name], RNG), RNG)[name]
    assert (float(sums.total.detach()), sums.count) == (0.0, 0)
    sums.total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_gradients_are_finite_in_bf16_with_half_precision_features(mixed):
    torch.manual_seed(0)
    model = MemoBertForPreTraining(CONFIG).train()
    batch, learner = mixed[0].batch, Learner(model, BUILT)
    batch.visual, batch.speech = batch.visual.half(), batch.speech.half()
    exact = learner(mixed, RNG)
    with torch.autocast("cpu", torch.bfloat16):
        sums = learner(mixed, RNG)
    for name in NAMES:
        assert sums[name].total.dtype == torch.float32
        torch.testing.assert_close(sums[name].total, exact[name].total, rtol=0.03, atol=1e-3)
    sum(loss.total / loss.count for loss in sums.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_losses_of_a_model_wrapped_for_several_processes(mixed, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = MemoBertForPreTraining(CONFIG).train()
        learner = Learner(model, BUILT)
        wrapped = torch.nn.parallel.DistributedDataParallel(learner)
        for name in NAMES:  # each leaves other heads unused, which must not stop the reduction
            views = objectives.views_for(mixed[0].batch, BUILT[name], RNG)
            gradients = []
            for run in (learner, wrapped):
                model.zero_grad()
                run(views, RNG)[name].total.backward()
                gradients.append([p.grad.clone() for p in model.parameters()])
            torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    finally:
        torch.distributed.destroy_process_group()


def test_a_few_steps_reduce_every_loss():
    torch.manual_seed(0)
    config = small_config(hidden_dropout_prob=0.05)
    model = MemoBertForPreTraining(config).train()
    batch = random_batch(config, [(9, 15, 20)] * 16)
    views = shared_views(batch, BUILT, SHARES, RNG)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = last = None
    for step in range(60):
        sums = Learner(model, BUILT)(views, torch.tensor([5, step]))
        last = {name: float(loss.total.detach()) / loss.count for name, loss in sums.items()}
        first = first or last
        sum(loss.total / loss.count for loss in sums.values()).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert all(last[name] < 0.9 * first[name] for name in NAMES), (first, last)


def test_trivial_predictors(mixed):
    batch, reads = mixed[0].batch, mixed[0].reads
    statistics = objectives.Statistics(
        CONFIG.vocab_size, {"visual": CONFIG.visual_width, "speech": CONFIG.speech_width}
    )
    half = random_batch(CONFIG, [(9, 15, 20)] * 8, seed=4)
    for part in (half, batch):
        statistics.add(part)
    sums = {name: BUILT[name].trivial(statistics, mixed) for name in NAMES}
    assert {name: loss.count for name, loss in sums.items()} == mixed[0].counts

    pieces = torch.cat([b.token_ids[b.word_ids >= 0] for b in (half, batch)]).long()
    frequency = (torch.bincount(pieces, minlength=CONFIG.vocab_size) + 1).double()
    labels = joint_ids(batch)[reads[NAMES[0]].rows]
    expected = {NAMES[0]: -(frequency / frequency.sum()).log()[labels].sum()}
    for name, modality in ((NAMES[1], "visual"), (NAMES[3], "speech")):
        width = CONFIG.feature_width(modality)
        mean = torch.cat([getattr(b, modality)[:, :width] for b in (half, batch)]).mean(0)
        wanted = getattr(batch, modality)[reads[name].labels, :width]
        expected[name] = ((wanted - mean) ** 2).mean(-1).sum()
    mean = torch.cat([b.targets["soft_labels"] for b in (half, batch)]).mean(0)
    wanted = batch.targets["soft_labels"][reads[NAMES[2]].labels]
    expected[NAMES[2]] = (wanted * (wanted.log() - mean.log())).sum() / 8
    for name in NAMES:
        torch.testing.assert_close(sums[name].total.double(), expected[name].double(), rtol=1e-4, atol=1e-6, msg=name)


def test_trivial_predictors_of_data_without_a_modality():
    text_only = random_batch(CONFIG, [(9, 0, 0), (6, 0, 0)])
    views = shared_views(text_only, BUILT, SHARES, RNG)
    statistics = objectives.Statistics(
        CONFIG.vocab_size, {"visual": CONFIG.visual_width, "speech": CONFIG.speech_width}
    )
    statistics.add(text_only)
    sums = {name: BUILT[name].trivial(statistics, views) for name in NAMES}
    assert [sums[name].count for name in NAMES[1:]] == [0, 0, 0]
    assert sums[NAMES[0]].total > 0


def test_soft_labels_of_another_number_of_classes_are_refused(model):
    batch = random_batch(small_config(visual_classes=7))
    views = objectives.views_for(batch, BUILT["span_visual_emotion"], RNG)
    with pytest.raises(MemofastError, match=r"set model\.visual_classes to 7"):
        Learner(model, BUILT)(views)
