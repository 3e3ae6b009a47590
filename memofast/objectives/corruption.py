"""Which objective serves which sample, and what the model reads and predicts in consequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch, copy_rows
from memofast.errors import MemofastError
from memofast.objectives.objective import Inputs, Objective, Targets
from memofast.ops.philox import Purpose, below, draw, stream_key

_LARGEST_TOTAL = 2**30


@dataclass
class Corruption:
    """Masked inputs of one batch and the targets of each of its objectives (present even where it has none)."""

    inputs: Inputs
    targets: dict[str, Targets] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Targets per objective, known on the host."""
        return {name: targets.count for name, targets in self.targets.items()}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Corruption:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Corruption:
        return self._map(Tensor.pin_memory)

    def padded_to(self, capacity: Capacity, batch: PackedBatch) -> Corruption:
        """The same corruption in tensors of fixed shape, for `batch`, which was padded to this capacity. An objective that batches of its kind cannot
        serve, as they lack its modality or its labels, stays without targets.

        Raises: `ValueError` where an objective has more targets than its capacity.
        """
        inputs = Inputs(
            *(
                None if values is None else _own_rows(values, rows, fill)
                for values, rows, fill in (
                    (self.inputs.token_ids, capacity.text, False),
                    (self.inputs.visual_source, capacity.visual, True),
                    (self.inputs.speech_source, capacity.speech, True),
                )
            )
        )
        padded = {}
        for name, targets in self.targets.items():
            objective = targets.objective
            room = objective.most_targets(capacity) if objective.can_be_of(batch) else 0
            padded[name] = targets.padded_to(room, batch.rows - 1)
        return Corruption(inputs, padded)

    def fits(self, capacity: Capacity) -> bool:
        """Whether `padded_to` would hold all targets."""
        return all(targets.count <= targets.objective.most_targets(capacity) for targets in self.targets.values())

    def copy_from(self, corruption: Corruption) -> None:
        """Take over another corruption of the same objectives in place; what it does not fill keeps what it held and weighs nothing."""
        for name, own in vars(self.inputs).items():
            if own is not None:
                copy_rows(own, getattr(corruption.inputs, name), name)
        for name, own in self.targets.items():
            own.copy_from(corruption.targets[name])

    def _map(self, move: Callable[[Tensor], Tensor]) -> Corruption:
        def moved(item):
            copied = copy(item)
            vars(copied).update({name: move(value) for name, value in vars(item).items() if isinstance(value, Tensor)})
            return copied

        return Corruption(moved(self.inputs), {name: moved(targets) for name, targets in self.targets.items()})


def _own_rows(values: Tensor, rows: int, own: bool) -> Tensor:
    """[n] int32 extended to `rows` entries: each reads its own row, or zero."""
    extended = torch.arange(rows, dtype=torch.int32, device=values.device) if own else values.new_zeros(rows)
    extended[: values.numel()] = values
    return extended


def validation_rng(seed: int) -> Tensor:
    """The [2] int64 (seed, step 0) of validation; with `Purpose.VALIDATION_MASK` its masks never change."""
    return torch.tensor([seed, 0], dtype=torch.int64)


def assign(
    batch: PackedBatch,
    objectives: Mapping[str, Objective],
    shares: Mapping[str, float],
    rng: Tensor,
    purpose: Purpose = Purpose.MASK,
) -> Tensor:
    """Draw an objective for each sample among those it can serve, in proportion to their shares.

    Args: shares: weight per objective name, missing means 0; rng [2] int64; purpose: of the masks that follow, so that validation
        draws of its own.
    Returns: [B] int8, index of the objective in the order of `objectives`, -1 where none can serve the sample.
    """
    weights = torch.tensor(_whole_shares([shares.get(name, 0) for name in objectives]), device=rng.device)
    eligible = torch.stack([objective.eligible_in(batch) for objective in objectives.values()], dim=1)
    ends = (eligible * weights).cumsum(1)
    key = stream_key(rng, Purpose.OBJECTIVE, int(purpose))
    origin = torch.zeros_like(batch.sample_keys)
    drawn = below(draw(key, batch.sample_keys, origin, origin)[:, 0], ends[:, -1])
    index = (ends <= drawn[:, None]).sum(1)
    return torch.where(ends[:, -1] > 0, index, -1).to(torch.int8)


def corrupt(
    batch: PackedBatch,
    objectives: Mapping[str, Objective],
    assignment: Tensor | str,
    rng: Tensor,
    purpose: Purpose = Purpose.MASK,
) -> Corruption:
    """Mask a batch for its objectives; a sample's masks depend on (rng, purpose, objective, sample key) alone.

    Args: assignment: [B] int8 of `assign`, or the name of the one objective of the whole batch (samples it cannot serve are left alone);
        rng [2] int64; purpose: `Purpose.MASK`, or `Purpose.VALIDATION_MASK` with `validation_rng`.
    Raises: `MemofastError` where the batch lacks what the named objective needs.
    """
    corruption = Corruption(Inputs())
    if isinstance(assignment, str):
        objective = objectives[assignment]
        if missing := objective.target_names - batch.targets.keys():
            raise MemofastError(
                f"objective {assignment}: the corpus has no {', '.join(sorted(missing))}; leave the objective out for it"
            )
        chosen = {assignment: objective.eligible_in(batch)}
    else:
        chosen = {name: assignment == index for index, name in enumerate(objectives)}
    for name, selected in chosen.items():
        targets = objectives[name].corrupt(batch, corruption.inputs, selected, rng, purpose)
        corruption.targets[name] = targets
    return corruption


def _whole_shares(shares: list[float]) -> list[int]:
    """Shares as integers in the same proportion, so that no rounding can differ between machines."""
    fractions = [Fraction(str(share)).limit_denominator(1000) for share in shares]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    if min(whole, default=0) < 0 or not 0 < sum(whole) <= _LARGEST_TOTAL:
        raise MemofastError(
            f"shares of objectives must not be negative and not all zero, got {shares}; correct the recipe"
        )
    return whole
