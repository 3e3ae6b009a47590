"""A network that learns with rows missing at random and makes them again, so that it can do without some.

Source: Yuan et al., "Transformer-based feature reconstruction network" (TFR-Net), ACM MM 2021, as MMSA 2.2.1 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.attending_layers import Encoder, LayerOptions, SampleEncoder
from memofast.model.sequence.batch_norm import BatchNorm
from memofast.model.sequence.network import COMPLETE_TEXT, Network, NetworkOptions, Shape
from memofast.model.sequence.packed_rows import PackedRows
from memofast.model.sequence.rows import Rows

Weight = Annotated[float, Field(ge=0, le=1e6)]
Kernel = Annotated[int, Field(ge=1, le=1025)]
Share = Annotated[float, Field(ge=0, lt=0.99)]
_ORDER = ("text", "speech", "visual")
_LETTERS = {"text": "l", "speech": "a", "visual": "v"}
_LEAST = 3  # layers over rows of one modality
_MOMENTS = 3  # that similarity compares
_UNKNOWN = 100  # [UNK] of bert-base-uncased


class TfrNetOptions(NetworkOptions):
    """width, heads, layers: of attention over rows. kernel_*: of the convolutions before. Dropout: text_dropout of
    hidden states; attention_dropout_* of weights over rows of that modality, attention_dropout of text and of own rows;
    embedding_, inner_, residual_dropout as `LayerOptions`; fusion_dropout of each modality's summary; head_dropout.
    summary_*: width of each direction of the GRUs, of gru_layers; hidden: of the layer before the answer. masked: as
    `LayerOptions`.

    missing_*: share of the rows that are missing in training; of text [CLS] and the last piece never are, others are
    read as unknown_piece. reconstruction_*: weight of the error of missing rows; similarity: weight, within those, of
    the distance between moments. temporal_heads: with compat, heads over samples.
    """

    kind: Literal["tfr_net"]
    width: Annotated[Width, Field(ge=4)] = 30
    heads: Layers = 6
    layers: Layers = 3
    kernel_text: Kernel = 1
    kernel_speech: Kernel = 5
    kernel_visual: Kernel = 3
    text_dropout: Dropout = 0.2
    attention_dropout: Dropout = 0.2
    attention_dropout_speech: Dropout = 0.1
    attention_dropout_visual: Dropout = 0.0
    embedding_dropout: Dropout = 0.2
    inner_dropout: Dropout = 0.2
    residual_dropout: Dropout = 0.2
    masked: bool = True
    summary_text: Width = 36
    summary_speech: Width = 20
    summary_visual: Width = 48
    gru_layers: Layers = 3
    fusion_dropout: Dropout = 0.2
    hidden: Width = 128
    head_dropout: Dropout = 0.0
    missing_text: Share = 0.2
    missing_speech: Share = 0.2
    missing_visual: Share = 0.2
    unknown_piece: Annotated[int, Field(ge=0, lt=2**20)] = _UNKNOWN
    reconstruction_text: Weight = 5.0
    reconstruction_speech: Weight = 2.0
    reconstruction_visual: Weight = 20.0
    similarity: Weight = 5.0
    temporal_heads: Layers = 25

    @model_validator(mode="after")
    def _whole(self) -> TfrNetOptions:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}; change one")
        for name in _ORDER:
            if not (kernel := getattr(self, f"kernel_{name}")) % 2:
                raise ValueError(f"kernel_{name} {kernel} is even, which would shift rows; give an odd one")
        return self


class TfrNet(Network):
    """Of each modality its rows after attention to themselves and to each other modality, side by side; a gated GRU
    over them, whose largest values answer. Rows that are missing in training are made again of the same.

    What makes them mixes channels of all steps, so that it is made for the longest sample. The original's also attends
    from sample to sample of a batch; here, as there in a batch of one, each sees itself alone.

    compat: padding is read as rows, but by the GRUs, and samples attend to those before them.
    """

    needs = ("text",)
    encodes = sized = True
    state_names = (
        (r".+\.(version|embed_positions\._float_tensor)", ""),
        (r".+\.num_batches_tracked", ""),
        *(
            (rf"align_subnet\.Model\.trans_{theirs}\.{part}", rf"{own}.{own_part}")
            for theirs, own in (
                *((f"{_LETTERS[a]}_with_{_LETTERS[b]}", f"crossmodal.{a}_{b}") for a in _ORDER for b in _ORDER),
                *((f"{letter}_mem", f"memory.{name}") for name, letter in _LETTERS.items()),
                *((f"{letter}_final", f"temporal.{name}") for name, letter in _LETTERS.items()),
            )
            for part, own_part in (
                (r"layers\.(\d+)\.self_attn\.in_proj_(.+)", r"layers.\1.qkv.\2"),
                (r"layers\.(\d+)\.self_attn\.out_proj\.(.+)", r"layers.\1.attended.\2"),
                (r"layers\.(\d+)\.fc1\.(.+)", r"layers.\1.inner.\2"),
                (r"layers\.(\d+)\.fc2\.(.+)", r"layers.\1.outer.\2"),
                (r"layers\.(\d+)\.layer_norms\.(.+)", r"layers.\1.norms.\2"),
                (r"layer_norm\.(.+)", r"norm.\1"),
            )
        ),
        *((rf"align_subnet\.Model\.proj_{of}\.(.+)", rf"projections.{name}.\1") for name, of in _LETTERS.items()),
        *(
            (rf"generator_{letter}\.Model\.linear\.(.+)", rf"generators.{name}.\1")
            for name, letter in (("text", "t"), ("speech", "a"), ("visual", "v"))
        ),
        *(
            (rf"fusion_subnet\.Model\.{theirs}_encoder\.{part}\.(.+)", rf"gates.{own}.{own_part}.\1")
            for own, theirs in (("text", "text"), ("speech", "audio"), ("visual", "vision"))
            for part, own_part in ((r"gru\.gru", "gru"), ("cnn", "gate"), ("fc", "output"))
        ),
        *(
            (rf"fusion_subnet\.Model\.classifier\.linear_trans_{part}\.(.+)", rf"{own}.\1")
            for part, own in (("norm", "norm"), ("hidden", "join"), ("final", "head"))
        ),
    )

    def __init__(self, options: TfrNetOptions, shape: Shape):
        super().__init__()
        self.options, width, self.lengths = options, options.width, shape.lengths
        self.names = names = [name for name in _ORDER if name in shape.widths]
        if options.compat and any(shape.lengths[name] % options.temporal_heads for name in names):
            raise MemofastError(
                f"model.network.temporal_heads {options.temporal_heads} do not divide the rows that samples are padded "
                f"to ({', '.join(str(shape.lengths[name]) for name in names)}); give a number that does"
            )
        self.losses = {}
        for name in names:
            weight = getattr(options, f"reconstruction_{name}")
            self.losses |= {f"{name}_reconstruction": weight, f"{name}_similarity": weight * options.similarity}
        self.projections = nn.ModuleDict(
            {
                name: nn.Conv1d(size, width, getattr(options, f"kernel_{name}"), padding="same", bias=False)
                for name, size in shape.widths.items()
                if size != width
            }
        )
        own = max(options.layers, _LEAST)
        self.memory = nn.ModuleDict({name: Encoder(self._layers("text"), own) for name in names})
        self.crossmodal = nn.ModuleDict(
            {
                f"{one}_{other}": Encoder(self._layers(other), options.layers)
                for one in names
                for other in names
                if one != other
            }
        )
        self.temporal = nn.ModuleDict(
            {name: SampleEncoder(self._over_samples(shape.lengths[name]), own) for name in names}
        )
        size = len(names) * width
        self.generators = nn.ModuleDict({name: nn.Linear(size, shape.widths[name]) for name in names})
        summaries = {name: getattr(options, f"summary_{name}") for name in names}
        self.gates = nn.ModuleDict(
            {name: GatedRecurrence(size, of, options.gru_layers) for name, of in summaries.items()}
        )
        self.norm = BatchNorm(sum(summaries.values()))
        self.join = nn.Linear(sum(summaries.values()), options.hidden)
        self.head = nn.Linear(options.hidden, shape.outputs)

    def _layers(self, over: str) -> LayerOptions:
        """Of layers that attend to rows of a modality."""
        options = self.options
        attention = options.attention_dropout if over == "text" else getattr(options, f"attention_dropout_{over}")
        dropout = (attention, options.embedding_dropout, options.inner_dropout, options.residual_dropout)
        return LayerOptions(options.width, options.heads, *dropout, options.masked, positions=True)

    def _over_samples(self, length: int) -> LayerOptions:
        options = self.options
        heads = options.temporal_heads if options.compat else 1
        dropout = (options.embedding_dropout, options.inner_dropout, options.residual_dropout)
        return LayerOptions(length, heads, options.attention_dropout, *dropout, options.masked)

    def unknown(self, lengths: Tensor, draws: Draws) -> Tensor:
        return self._missing("text", lengths, int(lengths.max()), draws)

    def _missing(self, name: str, lengths: Tensor, most: int, draws: Draws) -> Tensor:
        """[B, L] bool: which rows of a modality are missing at an update."""
        drawn = draws.chosen(lengths, most, getattr(self.options, f"missing_{name}"), _ORDER.index(name))
        if name == "text":
            place = torch.arange(most, device=lengths.device)
            drawn = drawn & (place > 0) & (place < lengths[:, None] - 1)
        return drawn

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        if lesson is None:
            return Answers(self._answer(self._together(rows, draws), rows, draws))
        missing, shown = {}, {}
        for name in self.names:
            one = rows[name]
            missing[name] = of = self._missing(name, one.lengths, one.values.shape[1], draws)
            shown[name] = one if name == "text" else one.with_values(one.values * ~of[..., None])
        together = self._together(shown, draws)
        outputs = self._answer(together, rows, draws)
        if lesson.epoch == 1:  # as the original, which first learns to answer
            return Answers(outputs, {name: outputs.new_zeros(()) for name in self.losses})
        complete = {**rows, "text": rows[COMPLETE_TEXT]}
        return Answers(outputs, self._losses(together, complete, missing, draws))

    def _together(self, rows: Mapping[str, Rows], draws: Draws) -> dict[str, Tensor]:
        """Of each modality its rows [B, L, M C] after attention to themselves and to the other modalities."""
        read = {name: rows[name].whole() if self.options.compat else rows[name] for name in self.names}
        packed = {name: PackedRows.of(self._projected(name, one, draws)) for name, one in read.items()}
        found = {}
        for name, one in packed.items():
            parts = [self.memory[name](one, draws)]
            others = [other for other in self.names if other != name]
            parts += [self.crossmodal[f"{name}_{other}"](one, draws, packed[other]) for other in others]
            together = one.with_values(torch.cat([part.values for part in parts], 1))
            found[name] = together.padded(read[name].values.shape[1])
        return found

    def _projected(self, name: str, rows: Rows, draws: Draws) -> Rows:
        values = draws.dropped(rows.values, self.options.text_dropout) if name == "text" else rows.values
        if name in self.projections:
            values = self.projections[name](values.transpose(1, 2)).transpose(1, 2)
        return rows.with_values(values)

    def _answer(self, together: Mapping[str, Tensor], rows: Mapping[str, Rows], draws: Draws) -> Tensor:
        summaries = []
        for name, values in together.items():
            summary = self.gates[name](Rows(values, rows[name].lengths), self.options.compat)
            summaries.append(draws.dropped(summary, self.options.fusion_dropout))
        joined = F.leaky_relu(self.join(self.norm(torch.cat(summaries, 1))))
        return self.head(draws.dropped(joined, self.options.head_dropout))

    def _losses(
        self, together: Mapping[str, Tensor], complete: Mapping[str, Rows], missing: Mapping[str, Tensor], draws: Draws
    ) -> dict[str, Tensor]:
        """By modality the error of missing rows [B, L] bool that are made again, and the distance of their moments."""
        found = {}
        for name, values in together.items():
            whole = complete[name].whole() if self.options.compat else complete[name]
            of = missing[name][whole.inside][:, None]
            again, wanted = (rows[whole.inside] * of for rows in (self._again(name, values, draws), whole.values))
            count = of.sum() * wanted.shape[1] + 1e-4
            found[f"{name}_reconstruction"] = F.smooth_l1_loss(again, wanted, reduction="sum") / count
            found[f"{name}_similarity"] = moment_distance(again, wanted) / count
        return found

    def _again(self, name: str, values: Tensor, draws: Draws) -> Tensor:
        """Rows [B, L, D] made of all that is known of them [B, L, C]."""
        channels = F.pad(values, (0, 0, 0, self.lengths[name] - values.shape[1])).transpose(1, 2)  # [B, C, lengths]
        mixed = self.temporal[name](channels, draws, self.options.compat)
        return self.generators[name](mixed.transpose(1, 2)[:, : values.shape[1]])


class GatedRecurrence(nn.Module):
    """The largest values [B, E] over rows of tanh(W [row; gate * tanh(state)]), with states of a bidirectional GRU and
    a gate by a convolution over them; 0 where a sample has no rows."""

    def __init__(self, size: int, width: int, layers: int):
        super().__init__()
        self.gru = nn.GRU(size, width, layers, batch_first=True, bidirectional=True)
        self.gate = nn.Conv1d(2 * width, 1, 3, padding=1)
        self.output = nn.Linear(2 * width + size, width)

    def forward(self, rows: Rows, padding: bool) -> Tensor:
        """padding: whether the largest may be of rows past a sample's end."""
        states = self._states(rows)
        gate = self.gate(states.transpose(1, 2)).transpose(1, 2).sigmoid()
        found = self.output(torch.cat((rows.values, states.tanh() * gate), 2)).tanh()
        if padding:
            return found.amax(1)
        found = found.masked_fill(~rows.inside[..., None], -1.0)  # no tanh is less
        return found.amax(1) * (rows.lengths > 0)[:, None]

    def _states(self, rows: Rows) -> Tensor:
        """[B, L, 2 E], 0 past a sample's end."""
        states = rows.values.new_zeros(*rows.values.shape[:2], 2 * self.gru.hidden_size)
        if not len(present := rows.lengths.nonzero().flatten()):
            return states
        packed = nn.utils.rnn.pack_padded_sequence(
            rows.values[present], rows.lengths[present].cpu(), batch_first=True, enforce_sorted=False
        )
        found, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=rows.values.shape[1]
        )
        return states.index_put((present,), found.to(states.dtype))


def moment_distance(one: Tensor, other: Tensor) -> Tensor:
    """The distances of means and of central moments up to the third of rows [n, C] and [n, C]."""
    means = one.mean(0), other.mean(0)
    apart = [means[0] - means[1]]
    centred = one - means[0], other - means[1]
    apart += [(centred[0] ** power).mean(0) - (centred[1] ** power).mean(0) for power in range(2, _MOMENTS + 1)]
    return torch.stack([torch.linalg.vector_norm(one) for one in apart]).sum()
