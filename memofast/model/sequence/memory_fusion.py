"""An LSTM of each modality, and a memory that is told what changed between their cells.

Source: Zadeh et al., "Memory Fusion Network for Multi-view Sequential Learning", AAAI 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.network import Network, NetworkOptions, Shape
from memofast.model.sequence.recurrences import cell_states, gated_memory
from memofast.model.sequence.rows import Rows, aligned
from memofast.sections import Section

ORDER = ("text", "speech", "visual")  # of states that are joined, as the original has them
LETTERS = {"text": "l", "speech": "a", "visual": "v"}  # of the original's names


class LayerOptions(Section):
    """Of a network of two layers: its inner units, and dropout of them."""

    width: Width
    dropout: Dropout = 0.0


class HiddenSizes(Section):
    """Of each modality's LSTM."""

    text: Width = 256
    visual: Width = 256
    speech: Width = 32


class MemoryOptions(NetworkOptions):
    """hidden: size of each modality's LSTM. memory: size. proposal: proposes a memory. retain, update: gates of the
    memory before and of the proposal. head: gives the answer."""

    hidden: HiddenSizes = HiddenSizes()
    memory: Width = 400
    proposal: LayerOptions = LayerOptions(width=64)
    retain: LayerOptions = LayerOptions(width=256, dropout=0.7)
    update: LayerOptions = LayerOptions(width=32, dropout=0.5)
    head: LayerOptions = LayerOptions(width=128)


class MemoryFusionOptions(MemoryOptions):
    """attention: weighs cells of a step and of the step before. Others: as of `MemoryOptions`."""

    kind: Literal["mfn"] = "mfn"
    attention: LayerOptions = LayerOptions(width=32, dropout=0.2)


class TwoLayers(nn.Module):
    """outer(dropout(relu(inner(x))))."""

    def __init__(self, inputs: int, options: LayerOptions, outputs: int):
        super().__init__()
        self.dropout = options.dropout
        self.inner, self.outer = nn.Linear(inputs, options.width), nn.Linear(options.width, outputs)

    def forward(self, values: Tensor, draws: Draws) -> Tensor:
        """values [B, D], or steps [L, B, D]."""
        inner = F.relu(self.inner(values))
        mask = self.mask(values.shape, draws)
        return self.outer(inner if mask is None else inner * mask)

    def mask(self, shape: torch.Size, draws: Draws) -> Tensor | None:
        """Of dropout of the inner units, for values of this shape."""
        return step_mask(draws, (*shape[:-1], self.inner.out_features), self.dropout)


def step_mask(draws: Draws, shape: tuple[int, ...], p: float) -> Tensor | None:
    """`Draws.mask` of values [B, C], or of steps [L, B, C]."""
    if len(shape) == 2:
        return draws.mask(shape, p)
    mask = draws.mask((shape[1], shape[0], shape[2]), p)
    return None if mask is None else mask.transpose(0, 1).contiguous()


def changes(states: Tensor) -> Tensor:
    """States of the step before, 0 at first, and of each step [L, B, 2 C]."""
    return torch.cat([F.pad(states[:-1], (0, 0, 0, 0, 1, 0)), states], 2)


def names_of(parts: Iterable[tuple[str, str]], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Patterns of the original's two-layer networks, by its name and ours."""
    layers = (("fc1", "inner"), ("fc2", "outer"))
    return tuple(
        (rf"{prefix}{theirs}_{layer}\.(.+)", rf"{own}.{own_layer}.\1")
        for theirs, own in parts
        for layer, own_layer in layers
    )


def cell_names(prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Patterns of the original's LSTMs."""
    return tuple((rf"{prefix}lstm_{letter}\.(.+)", rf"cells.{name}.\1") for name, letter in LETTERS.items())


class GatedMemory(nn.Module):
    """m_t = g_1 m_(t-1) + g_2 tanh(proposal(x_t)), g_i = sigmoid(gate_i([x_t; m_(t-1)]))."""

    def __init__(self, inputs: int, options: MemoryOptions):
        super().__init__()
        size = options.memory
        self.proposal = TwoLayers(inputs, options.proposal, size)
        self.retain = TwoLayers(inputs + size, options.retain, size)
        self.update = TwoLayers(inputs + size, options.update, size)

    def forward(self, read: Tensor, draws: Draws) -> Tensor:
        """Memories [L, B, M]. read x [L, B, D]."""
        gates, width = (self.retain, self.update), read.shape[2]
        inner = [layers.inner for layers in (self.proposal, *gates)]
        weight = torch.cat([gate.inner.weight for gate in gates])  # of one product for all three, as x is wide
        of_read = torch.cat([self.proposal.inner.weight, weight[:, :width]])
        units = F.linear(read, of_read, torch.cat([layer.bias for layer in inner]))
        proposed, gating = units.split([inner[0].out_features, len(weight)], 2)
        mask = self.proposal.mask(read.shape, draws)
        proposed = F.relu(proposed) if mask is None else F.relu(proposed) * mask
        proposals = self.proposal.outer(proposed).tanh()
        mask, outer = self._mask(read.shape, draws), (self.retain.outer, self.update.outer)
        return gated_memory(proposals, gating, mask, weight[:, width:], outer)

    def _mask(self, shape: torch.Size, draws: Draws) -> Tensor | None:
        gates = (self.retain, self.update)
        masks = [gate.mask(shape, draws) for gate in gates]
        if all(mask is None for mask in masks):
            return None
        one = self.proposal.inner.weight.new_ones(())
        whole = [
            one.expand(*shape[:-1], gate.inner.out_features) if mask is None else mask
            for mask, gate in zip(masks, gates, strict=True)
        ]
        return torch.cat(whole, 2)


class MemoryNetwork(Network):
    """LSTMs of modalities that a memory reads, without what lies between; all modalities in the same steps of a sample.

    Raises: `MemofastError` with `compat` for padded lengths that differ.
    """

    def __init__(self, options: MemoryOptions, shape: Shape):
        super().__init__()
        self.options, self.order = options, tuple(name for name in ORDER if name in shape.widths)
        if options.compat and len(set(shape.lengths.values())) > 1:
            padded = ", ".join(f"{name} {length}" for name, length in shape.lengths.items())
            raise MemofastError(
                f"model.network.compat: the original reads as many rows of every modality, the corpus has {padded}; "
                "import an aligned one, or leave compat out"
            )
        sizes = {name: getattr(options.hidden, name) for name in self.order}
        self.cells = nn.ModuleDict({name: nn.LSTMCell(shape.widths[name], size) for name, size in sizes.items()})
        self.width = sum(sizes.values())

    def steps(self, rows: Mapping[str, Rows]) -> dict[str, Rows]:
        """Rows of all modalities in common steps."""
        return {name: one.whole() for name, one in rows.items()} if self.options.compat else aligned(rows)

    def states(self, rows: Mapping[str, Rows]) -> dict[str, tuple[Tensor, Tensor]]:
        """By modality hidden and cell states [L, B, C]."""
        return {name: cell_states(self.cells[name], rows[name].values.transpose(0, 1)) for name in self.order}

    def ends(self, rows: Mapping[str, Rows], states: Sequence[Tensor]) -> Tensor:
        """Of states [L, B, C] those of each sample's last step, joined; 0 where it has no rows."""
        return torch.cat([rows[self.order[0]].last(one.transpose(0, 1)) for one in states], 1)


class AttendedMemory(MemoryNetwork):
    """Attention over the cells of two steps gives what the memory reads."""

    def __init__(self, options: MemoryFusionOptions, shape: Shape):
        super().__init__(options, shape)
        self.attention = TwoLayers(2 * self.width, options.attention, 2 * self.width)
        self.memory = GatedMemory(2 * self.width, options)

    def fused(self, rows: Mapping[str, Rows], draws: Draws) -> Tensor:
        """Last hidden states and memory [B, sum of hidden + memory] of rows in common steps; 0 where a sample has
        none."""
        states = self.states(rows)
        cells = changes(torch.cat([states[name][1] for name in self.order], 2))
        attended = self.attention(cells, draws).softmax(2) * cells
        memories = self.memory(attended, draws)
        return self.ends(rows, [*(states[name][0] for name in self.order), memories])


class MemoryFusion(AttendedMemory):
    """Hidden states and memory of a sample's last step give the answer."""

    state_names = (
        *cell_names(),
        *names_of([("att1", "attention"), ("out", "head")]),
        *names_of([("att2", "memory.proposal"), ("gamma1", "memory.retain"), ("gamma2", "memory.update")]),
    )

    def __init__(self, options: MemoryFusionOptions, shape: Shape):
        super().__init__(options, shape)
        self.head = TwoLayers(self.width + options.memory, options.head, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        return Answers(self.head(self.fused(self.steps(rows), draws), draws))
