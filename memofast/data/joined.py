"""Several views as one, so that a model reads all their samples in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import PackedBatch, StreamRows
from memofast.data.modality import FEATURES, MODALITIES
from memofast.data.view import Read, View


def joined(views: Sequence[View]) -> View:
    """One view of the samples of all, in turn. What an objective reads in several of them is one read.

    Args: views: none of fixed shape; all of the same modalities, targets and streams, as views of some samples of a
        batch are. Raises: `ValueError` for views of fixed shape.
    """
    if any(read.weights is not None for view in views for read in view.reads.values()):
        raise ValueError("views of fixed shape are not joined")
    with torch.autocast(views[0].batch.offsets.device.type, enabled=False):  # which would cast rows, or refuse them
        return _joined(views)


def _joined(views: Sequence[View]) -> View:
    batch = _joined_batch([view.batch for view in views], torch.cat([view.keys for view in views]))
    changed = {}
    if any(view.token_ids is not None for view in views):
        own = (view.batch.token_ids if view.token_ids is None else view.token_ids for view in views)
        changed["token_ids"] = torch.cat(list(own))
    if (added := next((view.added for view in views if view.added is not None), None)) is not None:
        rows = (added.new_zeros(len(v.batch.token_ids), added.shape[1]) if v.added is None else v.added for v in views)
        changed["added"] = torch.cat(list(rows))
    return View(
        batch,
        sources={name: _sources(views, name) for name in FEATURES if any(name in view.sources for view in views)},
        positions={name: _positions(views, name) for name in MODALITIES if any(name in v.positions for v in views)},
        tables={name: _entries(views, name) for name in {name: None for view in views for name in view.tables}},
        reads={name: _read(views, name) for name in {name: None for view in views for name in view.reads}},
        **changed,
    )


def _joined_batch(batches: Sequence[PackedBatch], keys: Tensor) -> PackedBatch:
    changed = {}
    for f in fields(PackedBatch):
        values = [getattr(batch, f.name) for batch in batches]
        if isinstance(values[0], Tensor):
            changed[f.name] = _offsets(values) if f.name.endswith("offsets") else torch.cat(values)
    first = batches[0]
    targets = {name: torch.cat([batch.targets[name] for batch in batches]) for name in first.targets}
    streams = {}
    for name, stream in first.streams.items():
        own = [batch.streams[name] for batch in batches]
        values, offsets = torch.cat([one.values for one in own]), _offsets([one.offsets for one in own])
        streams[name] = StreamRows(values, offsets, stream.modality)
    ids = None if first.ids is None else [id for batch in batches for id in batch.ids]
    longest = [batch.longest for batch in batches]
    changed |= {"sample_keys": keys, "longest": max(longest) if all(longest) else 0}
    return replace(first, **changed, targets=targets, streams=streams, ids=ids)


def _offsets(parts: Sequence[Tensor]) -> Tensor:
    """[sum of B, + 1] int32 of runs that follow each other, without waiting for the device."""
    return F.pad(torch.cat([part.diff() for part in parts]).cumsum(0), (1, 0)).to(torch.int32)


def _sources(views: Sequence[View], modality: str) -> Tensor:
    parts, begin = [], 0
    for view in views:
        rows = view.batch.rows_of(modality)
        own = view.sources.get(modality, torch.arange(len(rows), dtype=torch.int32, device=rows.device))
        parts.append(torch.where(own < 0, own, own + begin))
        begin += len(rows)
    return torch.cat(parts)


def _positions(views: Sequence[View], modality: str) -> Tensor:
    parts = []
    for view in views:
        offsets, rows = view.batch.offsets_of(modality), len(view.batch.rows_of(modality))
        row = torch.arange(rows, dtype=torch.int32, device=offsets.device)
        begin = torch.repeat_interleave(offsets[:-1], offsets.diff(), output_size=rows)
        parts.append(view.positions.get(modality, row - begin))
    return torch.cat(parts)


def _entries(views: Sequence[View], name: str) -> Tensor:
    return torch.cat([view.tables.get(name, torch.full_like(view.batch.token_ids, -1)) for view in views])


def _read(views: Sequence[View], name: str) -> Read:
    begin, reads, rows = 0, [], []
    for view in views:
        if name in view.reads:
            reads.append(view.reads[name])
            rows.append(reads[-1].rows + begin)
        begin += view.batch.rows
    labels = None if reads[0].labels is None else torch.cat([read.labels for read in reads])
    return Read(reads[0].head, torch.cat(rows), labels)
