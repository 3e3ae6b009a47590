"""`--dry-run`: what a recipe resolves to, without training."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields

from torch import Tensor, nn

from memofast.data import Loader, PackedBatch
from memofast.devices import device_of_rank, precision_on
from memofast.objectives import Learner
from memofast.train.folder import resolved
from memofast.train.plan import Plan, make_model
from memofast.train.pre_training import PreTraining
from memofast.train.recipe_text import to_yaml
from memofast.train.report import feature_lines

_SHOWN = 8  # micro-batches
_STATE_BYTES = 16  # per parameter: weight, gradient, two moments of AdamW, fp32


def describe(plan: Plan) -> str:
    """The resolved recipe, the corpora, the shapes of the first update, parameters and memory."""
    train = plan.recipe.train
    loader = Loader(
        plan.streams(), capacity=plan.capacity, seed=train.seed, micro_batches=min(train.accumulate, _SHOWN),
        mixing=train.mixing, work=PreTraining(plan), prefetch=1,
    )  # fmt: skip
    with closing(iter(loader)) as updates:
        first = next(updates)
    device = device_of_rank(train.device)
    precision = precision_on(train.precision, device)
    learner = Learner(make_model(plan), plan.objectives)
    parameters, apart = _numbers(learner), {name: _numbers(module) for name, module in learner.objectives.items()}
    batch = first.micro_batches[0].batch
    activations = _activation_bytes(plan, batch, 2 if precision == "bf16" else 4)
    lines = ["# recipe", to_yaml(resolved(plan).plain()), "# corpora"]
    for part in plan.parts:
        mean = part.train.lengths.mean(0)
        lines.append(
            f"{part.corpus.name}: {len(part.train):,} training and {len(part.validation):,} validation samples "
            f"({part.train.excluded:,} and {part.validation.excluded:,} left out as too long); rows of a training "
            "sample on average "
            f"text {mean[0]:.1f}, visual {mean[1]:.1f}, speech {mean[2]:.1f}"
        )
        lines.append(f"  draws {', '.join(f'{name} {share:.0%}' for name, share in part.shares.items())}")
    lines += [*feature_lines(plan), *plan.said]
    lines += [
        "",
        f"# first of {train.updates:,} updates: {train.accumulate} micro-batches of up to "
        f"{train.samples} samples, {plan.capacity.text:,} text, {plan.capacity.visual:,} visual and "
        f"{plan.capacity.speech:,} speech rows",
    ]
    for micro_batch in first.micro_batches:
        lines.append(f"{micro_batch.corpus}: {_shapes(micro_batch.batch)}; targets {micro_batch.views[0].counts}")
    if train.accumulate > _SHOWN:
        lines.append("...")
    lines += [
        "",
        "# model",
        f"{parameters:,} parameters, {precision} on {device.type}",
        *(f"  {count:,} of them are of {name}, which the model does without" for name, count in apart.items()),
        f"memory: {parameters * _STATE_BYTES / 1e6:,.0f} MB for weights, gradients and optimiser, "
        f"about {activations / 1e6:,.0f} MB for the activations of a micro-batch"
        + (", and those of the face network" if plan.config.face else ""),
    ]
    return "\n".join(lines)


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shapes(batch: PackedBatch) -> str:
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)} | batch.targets
    return ", ".join(
        f"{name} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        for name, value in tensors.items()
        if isinstance(value, Tensor)
    )


def _activation_bytes(plan: Plan, batch: PackedBatch, element: int) -> int:
    """What backward needs of each row: per layer QKV, attention in and out, two sums and norms, the inner layer before
    and after GELU."""
    config = plan.config
    per_layer = 8 * config.hidden_size + 2 * config.intermediate_size
    return batch.rows * (config.num_hidden_layers * per_layer + 3 * config.hidden_size) * element
