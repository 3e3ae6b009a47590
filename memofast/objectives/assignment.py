"""Which objective serves which sample, and the views that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split
from memofast.data.facts import Facts
from memofast.data.modality import MODALITIES
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.objectives.objective import Objective
from memofast.ops.philox import Purpose, below, sample_words

_LARGEST_TOTAL = 2**30


def validation_rng(seed: int) -> Tensor:
    """The [2] int64 (seed, step 0) of validation; with `Purpose.VALIDATION_MASK` its masks never change."""
    return torch.tensor([seed, 0], dtype=torch.int64)


def eligible(facts: Facts, objectives: Mapping[str, Objective]) -> np.ndarray:
    """Which sample each objective can serve: [n, objectives] bool, in their order."""
    return np.stack([objective.eligible(facts) for objective in objectives.values()], axis=1)


def assign(
    able: np.ndarray,
    sample_keys: Tensor,
    objectives: Mapping[str, Objective],
    shares: Mapping[str, float],
    rng: Tensor,
    purpose: Purpose = Purpose.MASK,
) -> Tensor:
    """Draw an objective for each sample among those it can serve, in proportion to their shares.

    Args: able [B, objectives] bool of `eligible`; sample_keys [B] int64; shares: weight per objective name, missing
        means 0; rng [2] int64;
        purpose: of the masks that follow, so that validation draws of its own.
    Returns: [B] int8, index of the objective in the order of `objectives`, -1 where none can serve the sample.
    """
    weights = torch.tensor(_whole_shares([shares.get(name, 0) for name in objectives]))
    ends = (torch.from_numpy(able) * weights).cumsum(1)
    words = sample_words(rng, Purpose.OBJECTIVE, int(purpose), sample_keys)
    drawn = below(words[:, 0], ends[:, -1])
    index = (ends <= drawn[:, None]).sum(1)
    return torch.where(ends[:, -1] > 0, index, -1).to(torch.int8)


def chosen_by(assignment: Tensor, objectives: Mapping[str, Objective]) -> dict[str, Tensor]:
    """The samples of each objective [B] bool, from `assign`."""
    return {name: assignment == index for index, name in enumerate(objectives)}


def places_of(
    chosen: Mapping[str, Tensor],
    objectives: Mapping[str, Objective],
    split: Split,
    pool: np.ndarray,
    indices: np.ndarray,
    seed: int,
    epoch: int,
    purpose: Purpose = Purpose.PARTNER,
) -> dict[str, np.ndarray] | None:
    """By modality [B] int64, indices into the split: whose rows each sample shows, -1 for none; None where no objective
    asks for others' or hides any. Beside the modalities what `Objective.places` adds.

    Args: chosen: of each objective its samples [B] bool; pool: indices of all samples that take part; indices [B] of
        the samples themselves.
    """
    shown: dict[str, np.ndarray] = {}
    for name, selected in chosen.items():
        owners = dict(objectives[name].places(split, pool, indices, seed, epoch, purpose) or {})
        owners |= {modality: np.full_like(indices, -1) for modality in objectives[name].hides}
        for modality, own in owners.items():
            before = shown.get(modality, indices)
            shown[modality] = np.where(selected.cpu().numpy(), own, before)
    return shown or None


def rows_shown(split: Split, shown: Mapping[str, np.ndarray], indices: np.ndarray) -> np.ndarray:
    """Rows [k, 3] that samples come to show, from `places_of`."""
    lengths = split.lengths[indices].copy()
    for column, modality in enumerate(MODALITIES):
        if modality in shown:
            owners = shown[modality]
            lengths[:, column] = np.where(owners < 0, modality == "text", split.lengths[owners, column])
    return lengths


def views_of(
    batch: PackedBatch,
    objectives: Mapping[str, Objective],
    chosen: Mapping[str, Tensor],
    rng: Tensor,
    purpose: Purpose = Purpose.MASK,
) -> list[View]:
    """The first view of a batch, which objectives of disjoint samples share, and whatever further views they ask for.

    A sample's masks depend on (rng, purpose, objective, sample key) alone.

    Args: chosen: of each objective its samples [B] bool; rng [2] int64; purpose: `Purpose.MASK`, or
        `Purpose.VALIDATION_MASK` with `validation_rng`.
    """
    chosen = {name: selected.to(batch.sample_keys.device) for name, selected in chosen.items()}
    for name, selected in chosen.items():
        batch = objectives[name].rewritten(batch, selected, rng, purpose)
    first = View(batch)
    further = [
        view for name, selected in chosen.items() for view in objectives[name].views(first, selected, rng, purpose)
    ]
    return [first, *further]


def views_for(batch: PackedBatch, objective: Objective, rng: Tensor, purpose: Purpose = Purpose.MASK) -> list[View]:
    """The views of a batch that serves one objective; samples that it cannot serve are left alone.

    Raises: `MemofastError` where the batch lacks what the objective needs.
    """
    facts = Facts.of_batch(batch)
    if missing := [need for need in objective.needs if " " not in need and need not in facts.targets]:
        raise MemofastError(
            f"objective {objective.name}: the corpus has no {', '.join(missing)}; leave the objective out for it"
        )
    selected = torch.from_numpy(objective.eligible(facts))
    return views_of(batch, {objective.name: objective}, {objective.name: selected}, rng, purpose)


def padding_of(
    views: Sequence[View], objectives: Mapping[str, Objective], capacity: Capacity
) -> tuple[list[Capacity], list[dict[str, int]]]:
    """Capacities and most reads of each view at a capacity of the micro-batch, as `data.view.padded` takes them."""
    capacities, rooms = [capacity], [{}]
    for name in views[0].readers:
        first, *further = objectives[name].room(capacity)
        capacities[0] = _wider(capacities[0], first.capacity)
        able = objectives[name].can_be_of(views[0].batch)
        rooms[0] |= {key: reads if able else 0 for key, reads in first.by_name(name).items()}
        for room in further:
            capacities.append(room.capacity)
            rooms.append(room.by_name(name))
    streams = capacities[0].streams  # a further view may be of some of the first one's samples, with all they have
    return [replace(own, streams={**streams, **own.streams}) for own in capacities], rooms


def _wider(one: Capacity, other: Capacity) -> Capacity:
    """Room for what fits either."""
    names = {**one.streams, **other.streams}
    streams = {name: max(one.streams.get(name, 0), other.streams.get(name, 0)) for name in names}
    most = {name: max(getattr(one, name), getattr(other, name)) for name in ("samples", *MODALITIES, "longest")}
    return Capacity(**most, streams=streams)


def _whole_shares(shares: list[float]) -> list[int]:
    """Shares as integers in the same proportion, so that no rounding can differ between machines: as simple ones as
    there are, else in parts of `_LARGEST_TOTAL`."""
    exact = [Fraction(str(share)) for share in shares]
    total = sum(exact)
    if min(exact, default=Fraction(0)) < 0 or not total:
        raise MemofastError(
            f"shares of objectives must not be negative and not all zero, got {shares}; correct the recipe"
        )
    simple = [share.limit_denominator(1000) for share in exact]
    scale = math.lcm(*(share.denominator for share in simple))
    near = all(abs(rough - share) <= share / 1000 for rough, share in zip(simple, exact, strict=True))
    if near and sum(simple) * scale <= _LARGEST_TOTAL:
        return [int(share * scale) for share in simple]
    parts = [int(share / total * _LARGEST_TOTAL) for share in exact]
    if any(share and not part for share, part in zip(exact, parts, strict=True)):
        raise MemofastError(f"shares of objectives are too far apart, got {shares}; leave out the smallest")
    return parts
