"""A memory that reads a graph of all subsets of modalities.

Source: Zadeh et al., "Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable Dynamic Fusion
Graph", ACL 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.bounds import Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.memory_fusion import (
    LETTERS,
    ORDER,
    GatedMemory,
    LayerOptions,
    MemoryNetwork,
    MemoryOptions,
    TwoLayers,
    cell_names,
    changes,
    names_of,
)
from memofast.model.sequence.network import Shape
from memofast.model.sequence.rows import Rows

Vertex = tuple[str, ...]  # the modalities that it stands for
_WHOLE: Vertex = ()  # what the graph gives, which reads every vertex


class GraphMemoryFusionOptions(MemoryOptions):
    """vertex: width of what stands for several modalities; inner: of the layer before it. Others: as of
    `MemoryOptions`."""

    kind: Literal["graph_mfn"] = "graph_mfn"
    memory: Width = 300
    vertex: Width = 64
    inner: Width = 100
    proposal: LayerOptions = LayerOptions(width=32)
    retain: LayerOptions = LayerOptions(width=128, dropout=0.5)
    update: LayerOptions = LayerOptions(width=64, dropout=0.5)
    head: LayerOptions = LayerOptions(width=256)


class LinearLayers(nn.Module):
    """Linear layers with nothing between them, in a product each of their weights."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(read, given) for read, given in pairwise(widths))

    def as_one(self) -> tuple[Tensor, Tensor]:
        """Weight [outputs, inputs] and bias [outputs] of the one layer that they are together."""
        weight, bias = self.layers[0].weight, self.layers[0].bias
        for layer in self.layers[1:]:
            weight, bias = layer.weight @ weight, torch.addmv(layer.bias, layer.weight, bias)
        return weight, bias


class FusionGraph(nn.Module):
    """Vertices of one modality are given; one of several reads those of its parts, each times an efficacy, a number
    that all single ones together give for every edge."""

    def __init__(self, widths: Mapping[str, int], vertex: int, inner: int):
        super().__init__()
        vertices = _subsets(tuple(widths), len(widths))
        self.sources = {name: _subsets(name, len(name) - 1) for name in vertices if len(name) > 1} | {_WHOLE: vertices}
        self.widths = {name: widths[name[0]] if len(name) == 1 else vertex for name in vertices}
        self.edges = [(name, read) for name, sources in self.sources.items() for read in sources]
        self.vertices = nn.ModuleDict(
            {
                "_".join(name) or "whole": LinearLayers(sum(self.widths[one] for one in sources), inner, vertex)
                for name, sources in self.sources.items()
            }
        )
        self.efficacies = LinearLayers(sum(widths.values()), inner, vertex, len(self.edges))

    def forward(self, singles: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What all vertices give [L, B, vertex], and the efficacies [L, B, edges]. singles [L, B, C]: by modality."""
        efficacies = F.linear(torch.cat(list(singles), 2), *self.efficacies.as_one())
        layers = {name: self.vertices["_".join(name) or "whole"].as_one() for name in self.sources}
        weights = {
            (name, read): part
            for name, sources in self.sources.items()
            for read, part in zip(sources, layers[name][0].split([self.widths[one] for one in sources], 1), strict=True)
        }
        found = {name: bias.expand(*efficacies.shape[:2], -1) for name, (_, bias) in layers.items()}
        for (modality,), single in zip((name for name in self.widths if len(name) == 1), singles, strict=True):
            found[(modality,)] = single
        for read in self.widths:  # smaller ones first, so that what a vertex reads is there
            readers = [name for name in self.sources if (name, read) in weights]
            products = F.linear(found[read], torch.cat([weights[name, read] for name in readers]))
            for name, product in zip(readers, products.chunk(len(readers), 2), strict=True):
                edge = self.edges.index((name, read))
                found[name] = torch.addcmul(found[name], efficacies[..., edge : edge + 1], product)
        return found[_WHOLE], efficacies


def _subsets(names: Vertex, most: int) -> list[Vertex]:
    return list(chain.from_iterable(combinations(names, size) for size in range(1, most + 1)))


def _numbers(name: Vertex) -> str:
    """As the original numbers a vertex."""
    return "".join(str(ORDER.index(one)) for one in name)


class GraphMemoryFusion(MemoryNetwork):
    """Hidden states of two steps are the graph's single vertices, what it gives is what the memory reads."""

    state_names = (
        *cell_names(),
        *((rf"{letter}_transform\.(.+)", rf"singles.{name}.\1") for name, letter in LETTERS.items()),
        *(
            (
                rf"graph_mfn\.networks_{_numbers(name)}\.{layer}\.(.+)",
                rf"graph.vertices.{'_'.join(name)}.layers.{own}.\1",
            )
            for name in _subsets(ORDER, 3)
            for layer, own in (("0", 0), (r"1\.0", 1))
        ),
        (r"graph_mfn\.t_network\.0\.(.+)", r"graph.vertices.whole.layers.0.\1"),
        (r"graph_mfn\.t_network\.1\.0\.(.+)", r"graph.vertices.whole.layers.1.\1"),
        (r"graph_mfn\.efficacy_model\.([02])\.(.+)", r"graph.efficacies.layers.\1.\2"),
        (r"graph_mfn\.efficacy_model\.1\.0\.(.+)", r"graph.efficacies.layers.1.\1"),
        *names_of([("att2", "memory.proposal"), ("gamma1", "memory.retain"), ("gamma2", "memory.update")]),
        *names_of([("out", "head")]),
    )

    def __init__(self, options: GraphMemoryFusionOptions, shape: Shape):
        super().__init__(options, shape)
        sizes = {name: cell.hidden_size for name, cell in self.cells.items()}
        self.singles = nn.ModuleDict({name: nn.Linear(2 * size, size) for name, size in sizes.items()})
        self.graph = FusionGraph(sizes, options.vertex, options.inner)
        self.memory = GatedMemory(options.vertex, options)
        self.head = TwoLayers(self.width + options.memory, options.head, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        rows = self.steps(rows)
        hidden = {name: states for name, (states, _) in self.states(rows).items()}
        graph, _ = self.graphed(hidden)
        return Answers(self.head(self.ends(rows, [*hidden.values(), self.memory(graph, draws)]), draws))

    def graphed(self, hidden: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the graph gives of hidden states [L, B, C], and its efficacies; see `FusionGraph`."""
        return self.graph([F.relu(self.singles[name](changes(states))) for name, states in hidden.items()])
