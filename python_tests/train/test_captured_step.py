"""The step replayed from CUDA graphs against the same step run operation by operation."""

import itertools
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.distributed as dist
from runs import final_weights, losses, pretrain, small_corpus, small_recipe, the_run

from memofast.model import MemoBertConfig
from memofast.ops import backends, library
from memofast.train import optimisation
from memofast.train.captured_step import CapturedStep, Places, can_be_captured, kind_of
from memofast.train.plan import make_model, make_plan
from memofast.train.processes import distributed
from memofast.train.recipe import read
from memofast.train.step import Step


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("captured"))


def trained(folder, corpus, *overrides, resume_at=None, **train):
    folder.mkdir()
    recipe = small_recipe(folder, corpus, train={"device": "cuda", "updates": 40, "log_every": 1, **train})
    if resume_at:
        # validation saves too, and of all that is saved the last two stay
        first = pretrain(folder, recipe, *overrides, f"train.save_every={resume_at}", "train.updates=40")
        assert first.returncode == 0, first.stderr
        assert (the_run(folder) / "checkpoints" / f"step-{resume_at:08}").is_dir()
        for later in (the_run(folder) / "checkpoints").glob("step-*"):
            if int(later.name[5:]) > resume_at:
                for file in later.iterdir():
                    file.unlink()
                later.rmdir()
        result = pretrain(folder, "--resume", the_run(folder))
    else:
        result = pretrain(folder, recipe, *overrides)
    assert result.returncode == 0, result.stderr
    return the_run(folder)


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", ["update", "sample"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_replayed_steps_learn_the_same(corpus, tmp_path, mixing, accumulate):
    options = {"mixing": mixing, "accumulate": accumulate, "precision": "fp32"}
    replayed = losses(trained(tmp_path / "graphs", corpus, **options))
    eager = losses(trained(tmp_path / "eager", corpus, graphs=False, **options))
    for a, b in zip(replayed, eager, strict=True):
        assert [a[k] for k in ("step", "objective", "targets")] == [b[k] for k in ("step", "objective", "targets")]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.mark.gpu
def test_a_resumed_run_repeats_the_bits(corpus, tmp_path):
    """Warm-up and capture begin anew after a resume, so replayed and plain updates must agree to the bit."""
    whole = trained(tmp_path / "whole", corpus, "validate.every=40")
    resumed = trained(tmp_path / "resumed", corpus, "validate.every=40", resume_at=20)
    assert losses(resumed) == losses(whole)
    for name, weight in final_weights(whole).items():
        assert torch.equal(weight, final_weights(resumed)[name]), name


@pytest.mark.parametrize(("mixing", "graphs"), [("update", 4), ("sample", 1)])
def test_one_graph_per_objective_or_one_for_all(corpus, tmp_path, mixing, graphs):
    """Over many batches drawn as a run draws them: whatever else differs among them must not make a graph of its own."""
    plan = make_plan(read(str(small_recipe(tmp_path, corpus, train={"mixing": mixing}))))
    with closing(iter(plan.loader(torch.device("cpu")))) as drawn:
        parts = [part for update in itertools.islice(drawn, 60) for part in update.micro_batches]
    assert len(plan.recipe.objectives) == 4
    assert len({kind_of(part.batch, part.extra, True) for part in parts}) == graphs


def without(batch, modality):
    """As of a corpus that lacks it."""
    kept = [name for name in ("text", "visual", "speech") if name != modality]
    nothing = torch.zeros_like(batch.offsets)
    joint = sum(getattr(batch, f"{name}_offsets") for name in kept)
    targets = {name: value for name, value in batch.targets.items() if modality != "visual" or name != "soft_labels"}
    return replace(batch, **{modality: None, f"{modality}_offsets": nothing}, offsets=joint, targets=targets)


def gradients(model, run):
    """The loss of a backward pass, and what it leaves in every parameter."""
    model.zero_grad()
    total, _ = run()
    assert total.dtype == torch.float32
    return total, [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lacking", [None, "speech", "visual"])
def test_what_is_captured_gives_the_same_gradients(corpus, tmp_path, precision, lacking):
    """Forward and backward in tensors of fixed shape that earlier batches have filled, as a graph replays them."""
    plan = make_plan(read(str(small_recipe(tmp_path, corpus, train={"mixing": "sample"}))))
    cpu, corrupt = torch.device("cpu"), plan.corruption()
    model = make_model(plan).train()
    step = Step(model, optimisation.adamw(model, plan.recipe.train), 1.0, precision, cpu)
    places = Places(plan.capacity, cpu)
    close = {"rtol": 1e-4, "atol": 1e-6} if precision == "fp32" else {"rtol": 2e-2, "atol": 2e-3}
    with closing(iter(plan.loader(cpu))) as drawn:
        updates = list(itertools.islice(drawn, 6))
    for update in updates:
        (micro_batch,) = update.micro_batches
        batch = without(micro_batch.batch, lacking) if lacking else micro_batch.batch
        corruption = corrupt(replace(micro_batch, batch=batch), update.step)
        factors = {name: 1 / max(count, 1) for name, count in corruption.counts.items()}
        rng, shape = torch.tensor([1, update.step]), places.take(batch, corruption, True)
        shape.weights.copy_(torch.tensor(list(factors.values())))
        placed = (shape.batch, shape.corruption, shape.weights, rng, True)
        wanted = gradients(model, partial(step.add_gradients, batch, corruption, factors, rng, True))
        torch.testing.assert_close(gradients(model, partial(step._backward, *placed)), wanted, **close)
    assert len(places.shapes) == 1


@pytest.mark.parametrize(
    ("sizes", "cuda", "triton", "captured"),
    [
        ({}, True, True, True),
        ({"hidden_size": 48, "num_attention_heads": 6}, True, True, True),  # heads for Triton alone
        ({}, False, True, False),  # no Triton kernel of the norms
        ({"hidden_size": 2048, "num_attention_heads": 32}, True, True, False),  # too wide for embed
        ({"hidden_size": 160, "num_attention_heads": 1}, True, True, False),  # a head too wide for attention
    ],
)
def test_what_can_be_captured(monkeypatch, sizes, cuda, triton, captured):
    """On an H200's row of the table, with these kernels installed; tensors of no device stand for its own."""
    monkeypatch.setattr(backends, "_generation", lambda device: "sm_90")
    monkeypatch.setattr(backends, "_order", backends._installed(cuda, triton))
    config = MemoBertConfig(**{"hidden_size": 64, "num_attention_heads": 2, **sizes})
    assert can_be_captured(config, "bf16", torch.device("meta")) == captured
    monkeypatch.setattr(library, "_debugging", True)
    assert not can_be_captured(config, "bf16", torch.device("meta"))


def weights_after(plan, device, kind, wrap, updates=24):
    """Of `updates` steps of this kind on the batches of the plan's own loader."""
    model = make_model(plan).to(device).train()
    options = plan.recipe.train
    optimiser = optimisation.adamw(model, options)
    optimisation.set_capturable(optimiser, device if kind is CapturedStep else None)
    room = (plan.capacity,) if kind is CapturedStep else ()
    step = kind(wrap(model), optimiser, options.clip, "fp32", device, *room)
    with closing(iter(plan.loader(device))) as drawn:
        for update in itertools.islice(drawn, updates):
            (micro_batch,) = update.micro_batches
            factors = {name: 1 / max(count, 1) for name, count in micro_batch.extra.counts.items()}
            rng = torch.tensor([1, update.step])
            step.add_gradients(micro_batch.batch, micro_batch.extra, factors, rng, True)
            step.clip()
            step.apply(1e-4)
    return [parameter.detach().cpu() for parameter in model.parameters()]


@pytest.fixture
def one_rank():
    """A group of this process alone, of the backend named."""
    yield lambda backend: dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    dist.destroy_process_group()


def check_under_ddp(folder, corpus, device, kind):
    plan = make_plan(read(str(small_recipe(folder, corpus, train={"device": device.type}))))
    plain = weights_after(plan, device, Step, lambda model: model)
    for a, b in zip(weights_after(plan, device, kind, lambda model: distributed(model, device)), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_steps_under_ddp(corpus, tmp_path, one_rank):
    one_rank("gloo")
    check_under_ddp(tmp_path, corpus, torch.device("cpu"), Step)


@pytest.mark.gpu
def test_replayed_steps_under_ddp(corpus, tmp_path, one_rank):
    one_rank("nccl")
    check_under_ddp(tmp_path, corpus, torch.device("cuda", 0), CapturedStep)
