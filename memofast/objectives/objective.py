"""What an objective is: inputs that it changes, heads that it reads, a loss at what it reads, and a trivial predictor
to beat."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split
from memofast.data.facts import Facts
from memofast.data.modality import MODALITIES
from memofast.data.view import View
from memofast.model.heads import Head
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose
from memofast.sections import Section


@dataclass
class LossSum:
    """Sums over targets, so that micro-batches and ranks add up before anything is divided.

    total: scalar fp32, the sum of the loss over targets, with its graph. count: number of targets.
    metrics: name -> scalar tensor, sum over targets; divided by count it is the value to show (`accuracy`). A metric
    `NAME.PART` is one of fewer targets, whose number is the metric `targets.PART`.
    """

    total: Tensor
    count: int
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Room(NamedTuple):
    """What bounds one view of an objective at a capacity: that of its batch, and how often it reads; parts: through
    each of its further heads."""

    capacity: Capacity
    reads: int
    parts: Mapping[str, int] = {}

    def by_name(self, objective: str) -> dict[str, int]:
        """Most reads by their names in a view."""
        return {objective: self.reads} | {f"{objective}.{part}": reads for part, reads in self.parts.items()}


class ObjectiveOptions(Section):
    """shows: the modalities that its samples show, the others have no rows, text [CLS] alone; None: whatever a sample
    has."""

    shows: list[Literal["text", "visual", "speech"]] | None = Field(None, min_length=1)

    @field_validator("shows")
    @classmethod
    def _each_shown_once(cls, shows: list[str] | None) -> list[str] | None:
        if shows is not None and len(set(shows)) < len(shows):
            raise ValueError("names a modality twice")
        return shows


class Objective:
    """One thing that is trained; subclasses say what.

    Args: name: in recipe, logs and tables. options: its section of the recipe.
    Class attributes: metrics: names in its `LossSum`. predictor: what its trivial predictor is called; None: it has
    none, and no ratio is shown. parts: what it reads through further heads; a view's read of one is named
    `objective.part`.
    couples: the loss compares the samples of a micro-batch, so that it depends on which ones those are. partners:
    samples may show others' rows. by_dropout: its views differ by dropout alone, which validation then keeps. of_words:
    it is also given the number of word pieces and which one is [MASK].
    """

    Options: ClassVar[type[ObjectiveOptions]] = ObjectiveOptions
    metrics: ClassVar[tuple[str, ...]] = ()
    predictor: ClassVar[str | None] = None
    parts: ClassVar[tuple[str, ...]] = ()
    couples: ClassVar[bool] = False
    partners: ClassVar[bool] = False
    by_dropout: ClassVar[bool] = False
    of_words: ClassVar[bool] = False

    def __init__(self, name: str, options: ObjectiveOptions):
        self.name, self.options = name, options

    @property
    def site(self) -> int:
        """Site of its random numbers: a hash of the name, so that other objectives do not shift it."""
        return zlib.crc32(self.name.encode()) & 0x7FFFFFFF

    @property
    def heads(self) -> Mapping[str, Head]:
        """The heads that it asks the model to own, by name; objectives that name the same head share it."""
        raise NotImplementedError

    @property
    def gathers(self) -> bool:
        """Whether its loss compares the samples of all ranks, which then exchange rows in every step."""
        return False

    @property
    def tables(self) -> Mapping[str, int]:
        """The input tables that it asks the model to own: name -> entries; see `View.tables`."""
        return {}

    @property
    def classes(self) -> Mapping[str, tuple[str, int]]:
        """Of targets whose classes it tells: name -> the option that says how many there are at most, and its value."""
        return {}

    @property
    def rebuilds(self) -> tuple[str, ...]:
        """Modalities whose feature rows are its targets, so that nothing that is trained may make them."""
        return ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What a corpus must have for it, in words, for messages."""
        raise NotImplementedError

    @property
    def hides(self) -> tuple[str, ...]:
        """Modalities that its samples do not show."""
        shows = self.options.shows
        return () if shows is None else tuple(name for name in MODALITIES if name not in shows)

    def check_shows(self) -> None:
        """Raises: `ValueError` where a modality that it needs is not shown."""
        if wanting := next((name for name in self.hides if f"{name} rows" in self.needs), None):
            raise ValueError(f"shows: {wanting} rows are what it is about; add them to {', '.join(self.options.shows)}")

    def rows_shown(self, facts: Facts) -> np.ndarray:
        """Rows [n, 3] that samples show of themselves, [CLS] among them."""
        least = np.array([name == "text" for name in MODALITIES], facts.lengths.dtype)
        return np.where([name in self.hides for name in MODALITIES], least, facts.lengths)

    def name_classes(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Told, before anything is drawn, what the classes of the corpora's targets are called. Raises: `MemofastError`
        where an option names another one."""
        return None

    def eligible(self, facts: Facts) -> np.ndarray:
        """Which samples it can serve: [n] bool; the same before and after packing."""
        raise NotImplementedError

    def can_be_of(self, batch: PackedBatch) -> bool:
        """Whether a batch has what the objective needs, in whatever sample."""
        raise NotImplementedError

    def places(
        self, split: Split, pool: np.ndarray, indices: np.ndarray, seed: int, epoch: int, purpose: Purpose
    ) -> Mapping[str, np.ndarray] | None:
        """By modality [k] int64, indices into the split: whose rows each of the samples `indices` [k] shows; None
        without `partners`. What it `hides` is hidden besides. Another name than a modality's shows nothing, and tells
        `views` a sample by target `NAME_of`.

        A function of (seed, purpose, epoch, sample key) and of the pool, the indices [n] of the samples that take part.
        """
        return None

    def rewritten(self, batch: PackedBatch, selected: Tensor, rng: Tensor, purpose: Purpose) -> PackedBatch:
        """The batch that the first view is of, with what the objective shows of the selected samples [B] bool: the same
        samples in the same order, the others as they were. Args: rng, purpose: as of `views`."""
        return batch

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        """Change the selected samples [B] bool in the shared first view, note what is read there, and return further
        views of them.

        Args: rng [2] int64, seed and update; purpose: of masks. There are as many further views for every batch, some
            without samples.
        """
        raise NotImplementedError

    def room(self, capacity: Capacity) -> list[Room]:
        """Of the first view and of each further one, for batches of this capacity, but for one batch in 10^15."""
        raise NotImplementedError

    def loss(self, outputs: Sequence[Tensor], views: Sequence[View], module: nn.Module | None = None) -> LossSum:
        """The loss over all reads; 0 where there are none, with a graph all the same.

        Args: outputs: of its head [n, ...] in any float type, one for each view that it reads, followed by those of the
            `parts` read there; views: those; module: what `module` made.
        """
        if outputs[0].shape[0] == 0:
            nothing = sum(output.float().sum() for output in outputs) + zero_of(module)
            return LossSum(nothing, 0, {name: torch.zeros_like(nothing) for name in self.metrics})
        return self.scored(outputs, views) if module is None else self.scored(outputs, views, module)

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        """`loss` where something is read; an objective with a module takes it as a third argument."""
        raise NotImplementedError

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum | None:
        """The loss, at the same reads, of a predictor that looks at no input; None where there is no such predictor."""
        return None

    def module(self) -> nn.Module | None:
        """A new module of its own state, whose parameters are trained beside the model's; None where it has none."""
        return None


def zero_of(module: nn.Module | None) -> Tensor | float:
    """A zero that depends on every parameter of a module, so that each has a gradient in every step, as DDP needs."""
    return 0.0 if module is None else sum(parameter.flatten()[:0].sum() for parameter in module.parameters())
