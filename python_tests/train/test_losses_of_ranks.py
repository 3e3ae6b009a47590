"""Losses that compare the samples of all ranks: those of one process on the union of their micro-batches."""

import pytest
import torch
from threads_as_ranks import on_ranks

from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.further_losses import Seen, Setting, further_loss
from memofast.train.loss_checks import lines_on_losses
from memofast.train.loss_sections import (
    ApclSection,
    DistSection,
    FeaturesSection,
    SpclSection,
    SupervisedContrastSection,
)
from memofast.train.teachers import Taught

CLASSES, WIDTH, KEYS = 3, 5, torch.arange(20, 40)
TEACHERS = [{"path": "a run"}]  # which is not read: what it says is given
SECTIONS = {
    "supervised_contrast": SupervisedContrastSection(kind="supervised_contrast"),
    "spcl": SpclSection(kind="spcl", pool=4, support=2, centres="random", anchors="all"),
    "spcl_curriculum": SpclSection(kind="spcl", pool=5, support=3, curriculum=True, form="decoupled"),
    "apcl": ApclSection(kind="apcl"),
    "dist": DistSection(kind="dist", queue=6, teachers=TEACHERS),
    "feature_distillation": FeaturesSection(kind="feature_distillation", teachers=TEACHERS),
}


def made(name, gather):
    draw = torch.Generator().manual_seed(5)
    taught = None
    section = SECTIONS[name].model_copy(update={"gather": gather})
    if hasattr(section, "teachers"):
        width = WIDTH if name == "feature_distillation" else CLASSES
        taught = Taught(KEYS, [torch.randn(len(KEYS), width, generator=draw)])
    loss = further_loss(section, Setting(CLASSES, WIDTH, 3, 4, KEYS), taught)
    if loss.by_epoch:
        everything = KEYS, torch.arange(len(KEYS)) % CLASSES, torch.randn(len(KEYS), WIDTH, generator=draw)
        loss.begin(1, everything, torch.tensor([3, 1]))
    return loss


def seen_of(counts, update):
    """Of each rank samples of its own, those of all in the order of ranks."""
    draw, found = torch.Generator().manual_seed(update), []
    places = torch.randperm(len(KEYS), generator=draw)[: sum(counts)].split(list(counts))
    for own in places:
        z, outputs = (torch.randn(len(own), width, generator=draw) for width in (WIDTH, CLASSES))
        found.append(Seen(outputs, z, own % CLASSES, KEYS[own], torch.tensor([3, update])))
    return found


def stepped(loss, seen, share, group=None):
    """The loss, and gradients of the rows where it counts so much."""
    outputs, z = seen.outputs.clone().requires_grad_(), seen.representation.clone().requires_grad_()
    own = Seen(outputs, z, seen.labels, seen.keys, seen.rng)
    value = loss(own if group is None else own.of_ranks(group))
    value = value + 0 * (outputs.sum() + z.sum())  # either may be of no use to a loss
    gradients = torch.autograd.grad(value * share, [outputs, z])
    return value.detach(), gradients


@pytest.mark.parametrize("counts", [(3, 0, 5), (2, 6)], ids=str)
@pytest.mark.parametrize("name", SECTIONS)
def test_ranks_together_are_one_process_on_the_union(name, counts):
    """Over three updates, as what is kept of one counts in the next."""
    steps = [seen_of(counts, update) for update in (1, 2, 3)]

    def work(rank, group):
        loss = made(name, "ranks")
        assert loss.gathers
        found = [stepped(loss, seen[rank], counts[rank] / sum(counts), group) for seen in steps]
        return found, loss.state_dict()

    together, alone = on_ranks(len(counts), work), made(name, None)
    assert not alone.gathers
    for number, seen in enumerate(steps):
        parts = [[getattr(one, field) for one in seen] for field in ("outputs", "representation", "labels", "keys")]
        value, gradients = stepped(alone, Seen(*map(torch.cat, parts), seen[0].rng), 1.0)
        assert value > 0 and any(gradient.abs().max() > 1e-3 for gradient in gradients)
        of_ranks = [found[number] for found, _ in together]
        for rank_value, _ in of_ranks:
            torch.testing.assert_close(rank_value, value, rtol=1e-5, atol=1e-6)
        for ours, wanted in zip(zip(*(own for _, own in of_ranks), strict=True), gradients, strict=True):
            torch.testing.assert_close(torch.cat(ours), wanted, rtol=1e-4, atol=1e-6)
    for _, state in together:
        for key, kept in alone.state_dict().items():
            torch.testing.assert_close(state[key], kept, rtol=1e-5, atol=1e-6)


def test_how_many_samples_are_compared_is_told(monkeypatch):
    losses = {"near": {"kind": "supervised_contrast", "gather": "ranks"}}
    recipe = FineTuneRecipe(corpus="x", losses=losses, train={"samples": 1, "accumulate": 3})
    said = list(lines_on_losses(recipe))
    assert any("gather: ranks changes nothing with one process" in line for line in said)
    assert any("of which a batch has one" in line for line in said)
    monkeypatch.setenv("WORLD_SIZE", "2")
    (_, line) = lines_on_losses(recipe)
    assert "compares 2 samples at a time" in line and "the 6 of an update" in line
