"""The step replayed from CUDA graphs against the same step run operation by operation."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import yaml
from every_objective import EVERY, KINDS, corpus_of_every_objective
from replays import check_replays
from runs import final_weights, first_updates, losses, pretrain, small_corpus, small_recipe, the_run

from memofast.data import Draw, MicroBatch
from memofast.data.view import pinned
from memofast.train import optimisation, trainer
from memofast.train.captured_step import CapturedStep, Places, kind_of
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
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


def task_of(folder, corpus, objectives=None, model=None, **train):
    """Pre-training by the small recipe, its objectives in place of these where they are given."""
    path = small_recipe(folder, corpus, model=model or {}, train=train)
    if objectives:
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"objectives": objectives}))
    return PreTraining(make_plan(read(str(path))))


@pytest.mark.parametrize(("mixing", "graphs"), [("update", 4), ("sample", 1)])
def test_one_graph_per_objective_or_one_for_all(corpus, tmp_path, mixing, graphs):
    """Over many batches as a run draws them: whatever else differs among them must not make a graph of its own."""
    task = task_of(tmp_path, corpus, mixing=mixing)
    parts = [part for update in first_updates(task, 60) for part in update.micro_batches]
    assert len(task.objectives) == 4
    assert len({kind_of(part.views, True) for part in parts}) == graphs


def test_the_last_micro_batch_of_an_update_has_a_graph_of_its_own(corpus, tmp_path):
    """Ranks exchange gradients in it alone, so that no other one's graph may be replayed for it."""
    task = task_of(tmp_path, corpus, accumulate=3)
    places = Places(task.capacity, task.objectives, torch.device("cpu"))
    taken = []
    for update in first_updates(task, 2):
        for last, part in zip((False, False, True), update.micro_batches, strict=True):
            assert kind_of(part.views, last)[0] == last
            taken.append(places.take(part.views, last))
    assert [shape is taken[0] for shape in taken] == [True, True, False] * 2
    assert [shape is taken[2] for shape in taken] == [False, False, True] * 2 and len(places.shapes) == 2


def without(batch, modality):
    """As of a corpus that lacks it."""
    kept = [name for name in ("text", "visual", "speech") if name != modality]
    nothing = torch.zeros_like(batch.offsets)
    joint = sum(getattr(batch, f"{name}_offsets") for name in kept)
    targets = {name: value for name, value in batch.targets.items() if modality != "visual" or name != "soft_labels"}
    return replace(batch, **{modality: None, f"{modality}_offsets": nothing}, offsets=joint, targets=targets)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lacking", [None, "speech", "visual"])
def test_what_is_captured_gives_the_same_gradients(corpus, tmp_path, precision, lacking):
    task = task_of(tmp_path, corpus, mixing="sample", samples=9)  # 48 samples: the last batch of an epoch has three
    batches = []
    for update in first_updates(task, 7):
        (micro_batch,) = update.micro_batches
        batch = without(micro_batch.batch, lacking) if lacking else micro_batch.batch
        batches.append((task.views(replace(micro_batch, batch=batch), update.step), update.step))
    check_replays(task, batches, precision, kinds=1)


def test_options_of_the_model_are_captured(corpus, tmp_path):
    options = {"position_encoding": "sinusoid", "projection_block": True, "shared_types": True}
    task = task_of(tmp_path, corpus, model=options, mixing="sample", samples=9)
    check_replays(task, [(u.micro_batches[0].views, u.step) for u in first_updates(task, 7)], "fp32", kinds=1)


@pytest.fixture(scope="module")
def able(tmp_path_factory):
    """A corpus that serves every kind of objective."""
    return corpus_of_every_objective(tmp_path_factory.mktemp("every"))


TWICE = {  # kinds that are there in another way too
    "order_of_speech_alone": {"kind": "speech_order", "shows": ["speech"]},
    "emotion_by_label": {"kind": "utterance_emotion", "targets": "label"},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_objective_in_one_step_is_captured(able, tmp_path, precision):
    """With further views, which hold other samples in every batch, in some of them none."""
    task = task_of(tmp_path, able, EVERY | TWICE, mixing="sample", samples=20)
    batches = [(update.micro_batches[0].views, update.step) for update in first_updates(task, 5)]
    names = {name for views, _ in batches for name, count in views[0].counts.items() if count}
    assert names == EVERY.keys() | TWICE.keys()
    seconds = {tuple(view.batch.samples for view in views[1:]) for views, _ in batches}
    assert len({len(views) for views, _ in batches}) == 1 and len(seconds) > 2
    check_replays(task, batches, precision, kinds=1)


@pytest.fixture(scope="module")
def one_an_update(able, tmp_path_factory):
    return task_of(tmp_path_factory.mktemp("kinds"), able, EVERY, mixing="update", samples=9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_is_captured(one_an_update, kind):
    """In a step of its own, for batches of other sizes, one after another in the same tensors."""
    (stream,) = [one for one in one_an_update.streams() if one.objective == kind]
    batches, chosen = [], stream.chosen
    for step, samples in enumerate((chosen[:7], chosen[7:16], chosen[16:19]), 1):
        draw = Draw(stream, samples, step)
        batch = stream.split.pack(samples, one_an_update.places(draw, step))
        batches.append((one_an_update.views(MicroBatch(batch, draw), step), step))
    assert all(views[0].counts[kind] for views, _ in batches)
    check_replays(one_an_update, batches, "fp32", kinds=1)


@pytest.mark.parametrize(
    ("world", "gathers", "partial", "made"),
    [(1, True, True, "captured"), (2, False, False, "captured"), (2, True, False, "plain"), (2, False, True, "plain")],
)
def test_what_ranks_tell_one_another_on_the_host_is_not_captured(monkeypatch, world, gathers, partial, made):
    for name, kind in (("CapturedStep", "captured"), ("Step", "plain")):
        monkeypatch.setattr(trainer, name, lambda *_, kind=kind: kind)
    monkeypatch.setattr(optimisation, "set_capturable", lambda optimiser, device: optimiser.append(device))
    device, told = torch.device("cuda"), []
    ranks = SimpleNamespace(world=world, wrap=lambda *learner: learner)
    objectives = {"plain": SimpleNamespace(gathers=False), "one": SimpleNamespace(gathers=gathers)}
    task = SimpleNamespace(partial=partial, capturable=lambda *_: True, capacity=None, objectives=objectives)
    options = SimpleNamespace(compile=False, clip=1.0, graphs=True)
    run = SimpleNamespace(
        learner=None, options=options, processes=ranks, device=device, task=task, optimiser=told, precision="fp32"
    )
    assert trainer.Trainer._step(run) == made and told == [device if made == "captured" else None]


def weights_after(task, device, kind, wrap, updates=24):
    """Of `updates` steps of this kind on the batches of the task."""
    learner, options = task.learner().to(device).train(), task.options
    optimiser = optimisation.adamw(learner, options)
    optimisation.set_capturable(optimiser, device if kind is CapturedStep else None)
    room = (task.capacity, task.objectives) if kind is CapturedStep else ()
    step = kind(wrap(learner), optimiser, options.clip, "fp32", device, *room)
    for update in first_updates(task, updates):
        (micro_batch,) = update.micro_batches
        factors = {name: 1 / max(count, 1) for name, count in micro_batch.views[0].counts.items()}
        views = pinned(micro_batch.views) if device.type == "cuda" else micro_batch.views
        step.add_gradients(views, factors, torch.tensor([1, update.step]), True)
        step.clip()
        step.apply(lambda _: 1e-4)
    return [parameter.detach().cpu() for parameter in learner.parameters()]


@pytest.fixture
def one_rank():
    """A group of this process alone, of the backend named."""
    yield lambda backend: dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    dist.destroy_process_group()


def check_under_ddp(folder, corpus, device, kind):
    task = task_of(folder, corpus, device=device.type)
    plain = weights_after(task, device, Step, lambda learner: learner)
    for a, b in zip(weights_after(task, device, kind, lambda one: distributed(one, device)), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_steps_under_ddp(corpus, tmp_path, one_rank):
    one_rank("gloo")
    check_under_ddp(tmp_path, corpus, torch.device("cpu"), Step)


@pytest.mark.gpu
def test_replayed_steps_under_ddp(corpus, tmp_path, one_rank):
    one_rank("nccl")
    check_under_ddp(tmp_path, corpus, torch.device("cuda", 0), CapturedStep)
