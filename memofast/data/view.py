"""What one forward pass reads of a micro-batch, and the rows of the joint sequence where somebody reads its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch, copy_rows
from memofast.data.modality import FEATURES, MODALITIES

DRAWS = 16  # views of one sample whose random numbers differ


@dataclass
class Read:
    """Where one objective reads a forward pass.

    head: name of the model's head that it reads through. rows [n] int64: rows of the joint sequence, ascending.
    labels [n] int64: what is true there; its meaning is the objective's. weights [n] fp32: 1 at reads, 0 at entries
    that only fill a fixed capacity; None: all are reads. count: number of reads, known on the host; None: as many as
    there are entries. targets: what the sum of the loss is divided by, known on the host; None: as many as are read.
    spare: joint row that entries without a read name.
    """

    head: str
    rows: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None
    count: int | None = None
    spare: int = 0
    targets: int | None = None

    def __post_init__(self):
        if self.count is None:
            self.count = self.rows.numel()
        if self.targets is None:
            self.targets = self.count

    def map(self, function: Callable[[Tensor], Tensor]) -> Read:
        moved = {name: function(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def padded_to(self, room: int, spare: int, what: str) -> Read:
        """The same reads in tensors of `room` entries; those added weigh nothing and name joint row `spare`, the
        batch's last.

        Raises: `ValueError` where there are more reads; `what` they are, for the message.
        """
        missing = room - self.count
        if missing < 0:
            raise ValueError(f"{what} has {self.count} targets, its capacity is {room}")
        ones = torch.ones(self.count, device=self.rows.device)
        labels, weights = (None if values is None else F.pad(values, (0, missing)) for values in (self.labels, ones))
        return replace(
            self, rows=F.pad(self.rows, (0, missing), value=spare), labels=labels, weights=weights, spare=spare
        )

    def copy_from(self, read: Read, what: str) -> None:
        """Take over other reads of the same head in place, as `padded_to` would lay them out."""
        copy_rows(self.rows, read.rows, what)
        if self.labels is not None:
            copy_rows(self.labels, read.labels, what)
        self.rows[read.count :].fill_(self.spare)
        self.weights[: read.count].fill_(1)
        self.weights[read.count :].fill_(0)
        self.count, self.targets = read.count, read.targets

    def sum(self, values: Tensor) -> Tensor:
        """Sum over reads of values [n], fp32 under autocast too, which would round a product of vectors."""
        return (values.float() if self.weights is None else values.float() * self.weights).sum()


@dataclass
class View:
    """What one forward pass reads.

    batch: the micro-batch, or another one made of it. token_ids [sum T] int32: read in place of the batch's own; None:
    those.
    sources: by feature modality [rows] int32, the row of the batch that each row reads, -1 for the mask vector; none:
    its own.
    positions: by modality [rows] int32, the position that each row has; none: its place in its sample. tables: by name
    of an input table [sum T] int32, the entry that each token adds to its embedding before the norm, -1 none. added
    [sum T, C]: what is added there beside.
    reads: by objective, and `objective.part` for what it reads through further heads. draw: below `DRAWS`; views of one
    sample that differ in it draw other dropout.
    """

    batch: PackedBatch
    token_ids: Tensor | None = None
    sources: dict[str, Tensor] = field(default_factory=dict)
    positions: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, Tensor] = field(default_factory=dict)
    added: Tensor | None = None
    reads: dict[str, Read] = field(default_factory=dict)
    draw: int = 0

    def __post_init__(self):
        if not 0 <= self.draw < DRAWS:
            raise ValueError(f"draw is one of {DRAWS} that views of a sample may have, from 0, not {self.draw}")

    @classmethod
    def of(cls, seen: View | PackedBatch) -> View:
        """A view as it is; a batch as a view of all of it."""
        return seen if isinstance(seen, cls) else cls(seen)

    @property
    def keys(self) -> Tensor:
        """[B] int64: the samples' names for random numbers of the model, which are others for another `draw`."""
        keys, mask = self.batch.sample_keys, self.draw * 0x9E3779B97F4A7C15 % 2**64
        return keys ^ (mask - 2**64 if mask >= 2**63 else mask) if self.draw else keys

    @property
    def readers(self) -> list[str]:
        """The objectives that read the view, in order."""
        return [name for name in self.reads if "." not in name]

    @property
    def counts(self) -> dict[str, int]:
        """Targets per objective, known on the host."""
        return {name: self.reads[name].targets for name in self.readers}

    def on(self, batch: PackedBatch, function: Callable[[Tensor], Tensor]) -> View:
        """The view of `batch`, which is its own one moved, with `function` of all its tensors."""
        return replace(
            self,
            batch=batch,
            token_ids=None if self.token_ids is None else function(self.token_ids),
            sources={name: function(values) for name, values in self.sources.items()},
            positions={name: function(values) for name, values in self.positions.items()},
            tables={name: function(entries) for name, entries in self.tables.items()},
            added=None if self.added is None else function(self.added),
            reads={name: read.map(function) for name, read in self.reads.items()},
        )

    def padded_to(self, capacity: Capacity, batch: PackedBatch, room: Mapping[str, int]) -> View:
        """The view of `batch`, its own one padded to this capacity, in tensors of fixed shape. room: most reads by
        objective.

        Raises: `ValueError` where an objective has more reads than there is room.
        """
        sources = {name: _own_rows(values, capacity.of(name)) for name, values in self.sources.items()}
        positions = {name: _zeros_after(values, capacity.of(name)) for name, values in self.positions.items()}
        tables = {name: _zeros_after(entries, capacity.text) for name, entries in self.tables.items()}
        reads = {
            name: read.padded_to(room[name], batch.rows - 1, f"objective {name}") for name, read in self.reads.items()
        }
        token_ids, added = (
            None if values is None else _zeros_after(values, capacity.text) for values in (self.token_ids, self.added)
        )
        changed = {"token_ids": token_ids, "sources": sources, "positions": positions, "tables": tables, "added": added}
        return replace(self, batch=batch, **changed, reads=reads)

    def copy_from(self, view: View) -> None:
        """Take over another view of the same objectives in place, its batch apart; what it does not fill keeps what it
        held and weighs nothing."""
        pairs = [(self.token_ids, view.token_ids, "token_ids"), (self.added, view.added, "added")]
        pairs += [(own, view.sources[name], f"sources of {name}") for name, own in self.sources.items()]
        pairs += [(own, view.positions[name], f"positions of {name}") for name, own in self.positions.items()]
        pairs += [(own, view.tables[name], f"entries of {name}") for name, own in self.tables.items()]
        for own, values, what in pairs:
            if own is not None:
                copy_rows(own, values, what)
        for name, own in self.reads.items():
            own.copy_from(view.reads[name], f"targets of {name}")

    @property
    def kind(self) -> tuple:
        """What decides the shapes of the view at a capacity: draw, reads, modalities, targets and streams that there
        are."""
        batch = self.batch
        return (
            self.draw,
            tuple((name, read.head) for name, read in self.reads.items()),
            *(None if (rows := batch.rows_of(name)) is None else (rows.shape[1], rows.dtype) for name in FEATURES),
            self.token_ids is None,
            *(name in self.sources for name in FEATURES),
            *(name in self.positions for name in MODALITIES),
            tuple(self.tables),
            self.added is None,
            *((name, *values.shape[1:]) for name, values in batch.targets.items()),
            *((name, stream.values.shape[1], stream.values.dtype) for name, stream in batch.streams.items()),
        )


def moved(views: Sequence[View], device: torch.device | str, non_blocking: bool = False) -> list[View]:
    """Views on a device; those of one batch stay views of one batch."""
    return _mapped(views, lambda tensor: tensor.to(device, non_blocking=non_blocking))


def pinned(views: Sequence[View]) -> list[View]:
    """Views in page-locked memory (with CUDA)."""
    return _mapped(views, lambda tensor: tensor if tensor.is_pinned() else tensor.pin_memory())


def _mapped(views: Sequence[View], function: Callable[[Tensor], Tensor]) -> list[View]:
    batches = {id(view.batch): view.batch for view in views}
    batches = {key: batch.map(function) for key, batch in batches.items()}
    return [view.on(batches[id(view.batch)], function) for view in views]


def padded(views: Sequence[View], capacities: Sequence[Capacity], rooms: Sequence[Mapping[str, int]]) -> list[View]:
    """Views in tensors of fixed shape, see `View.padded_to`; those of one batch stay views of one batch.

    Args: capacities, rooms: of each view.
    """
    batches: dict[int, PackedBatch] = {}
    for view, capacity in zip(views, capacities, strict=True):
        if id(view.batch) not in batches:
            batches[id(view.batch)] = view.batch.padded_to(capacity)
    return [
        view.padded_to(capacity, batches[id(view.batch)], room)
        for view, capacity, room in zip(views, capacities, rooms, strict=True)
    ]


def copy_views(own: Sequence[View], views: Sequence[View]) -> None:
    """Take over other views of the same kind in place, each batch once."""
    copied = set()
    for mine, view in zip(own, views, strict=True):
        if id(mine.batch) not in copied:
            copied.add(id(mine.batch))
            mine.batch.copy_from(view.batch)
        mine.copy_from(view)


def _own_rows(values: Tensor, rows: int) -> Tensor:
    """[n] int32 extended to `rows` entries, each of which reads its own row."""
    extended = torch.arange(rows, dtype=torch.int32, device=values.device)
    extended[: values.numel()] = values
    return extended


def _zeros_after(values: Tensor, rows: int) -> Tensor:
    extended = values.new_zeros(rows, *values.shape[1:])
    extended[: values.shape[0]] = values
    return extended
