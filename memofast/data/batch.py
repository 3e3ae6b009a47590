"""The packed batch: a run of rows per modality and an offset array for each, with no padding anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from memofast.data.modality import MODALITIES
from memofast.ops.faults import describe


@dataclass(frozen=True)
class Capacity:
    """Upper limits of a batch; the sampler never exceeds any of them. longest: see `PackedBatch`, for all batches there
    will be.

    streams: rows by stream.
    """

    samples: int
    text: int
    visual: int
    speech: int
    longest: int = 0
    streams: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def rows(self) -> int:
        return self.text + self.visual + self.speech

    def of(self, modality: str) -> int:
        """Rows of one modality."""
        return getattr(self, modality)


@dataclass
class StreamRows:
    """Rows of a store beside the modalities, packed like them. values [rows, width] fp16/bf16/fp32, width a multiple of
    8; offsets [B+1] int32.

    modality: what they were made of, so that they are hidden where it is.
    """

    values: Tensor
    offsets: Tensor
    modality: str

    def map(self, function: Callable[[Tensor], Tensor]) -> StreamRows:
        return replace(self, values=function(self.values), offsets=function(self.offsets))


def rounded_length(rows: int) -> int:
    """A bound for samples of so many rows that few batches differ in: attention's kernels are chosen by it."""
    return -(-rows // 32) * 32


def pad_rows(rows: Tensor, offsets: Tensor, length: int | None = None, fill: float = 0) -> Tensor:
    """Packed rows as one row of a table per sample.

    Args: rows [N, ...]; offsets [B+1] int32; length L: None for the longest sample; fill: value past a sample's end.
    Returns: [B, L, ...]. Raises: `ValueError` where a sample is longer than `length`.
    """
    begins = offsets.to(torch.int64)
    lengths = begins[1:] - begins[:-1]
    longest = int(lengths.max()) if lengths.numel() else 0
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"length must be at least {longest}, the longest sample, got {length}")
    inside = torch.arange(length, device=rows.device) < lengths[:, None]
    padded = rows.new_full((lengths.numel(), length, *rows.shape[1:]), fill)
    padded[inside] = rows[: int(begins[-1])]
    return padded


def unpad_rows(padded: Tensor, lengths: Tensor) -> Tensor:
    """The inverse of `pad_rows`: [B, L, ...] and lengths [B] -> [sum of lengths, ...]."""
    return padded[torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]]


@dataclass
class PaddedBatch:
    """A batch in the usual layout, for interchange and tests.

    token_ids, word_ids [B, T] int32, padded with 0 and -1; visual [B, V, Dv], speech [B, S, Ds], padded with 0, None
    where the corpus has none; text_lengths, visual_lengths, speech_lengths [B] int32; sample_keys [B] int64; targets:
    `label` [B], `emotions` [B, classes], `value` and `value_*` [B], `lexicon` [B, T] padded with -1, `part_of_speech`
    with 4, `polarity` with 2, `soft_labels` [B, V, classes] with 0. streams: by name rows [B, R, width] padded with 0,
    lengths [B] int32, modality.
    """

    token_ids: Tensor
    word_ids: Tensor
    text_lengths: Tensor
    visual_lengths: Tensor
    speech_lengths: Tensor
    sample_keys: Tensor
    visual: Tensor | None = None
    speech: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    ids: list[str] | None = None
    streams: dict[str, tuple[Tensor, Tensor, str]] = field(default_factory=dict)


_TARGET_ROWS = {  # whose rows a target follows, and its padding
    "soft_labels": ("visual", 0), "lexicon": ("text", -1), "part_of_speech": ("text", 4), "polarity": ("text", 2),
}  # fmt: skip
OF_TOKENS = {name: fill for name, (modality, fill) in _TARGET_ROWS.items() if modality == "text"}
_NAN = float("nan")
_SAMPLE_FILL = {"label": -1, "emotions": 0, "value": _NAN, "wanted": 0}  # padding of what a sample has
_SAMPLE_FILL |= {f"value_{modality}": _NAN for modality in MODALITIES}


@dataclass
class PackedBatch:
    """B samples, their rows packed per modality; the joint sequence of a sample is `text, visual, speech`.

    token_ids, word_ids [sum T] int32: WordPiece ids with [CLS] and [SEP]; index of the word in its sentence, -1 at
    special tokens. visual [sum V, Dv], speech [sum S, Ds] bf16/fp16/fp32: feature rows, width a multiple of 8; None
    where the corpus has none. text_offsets, visual_offsets, speech_offsets, offsets [B+1] int32: first row of each
    sample, per modality and jointly. sample_keys [B] int64: stable hash of the sample id, the random numbers' name for
    the sample.
    targets: labels per sample (`label` [B] int64, `emotions` [B, classes], `value` [B] float32, and what one modality
        alone says, `value_text`, `value_visual`, `value_speech` [B] float32), soft labels per visual row (`soft_labels`
        [sum V, classes]), lexicon classes, parts of speech and polarities per token (`lexicon`, `part_of_speech`,
        `polarity` [sum T] int32), what a fine-tuning asks for (`wanted` [B, classes] fp32); where samples may show the
        rows of others, or none, whose rows they are (`visual_of`, `speech_of` [B] int64, sample keys; their own where
        there are none).
    ids: sample ids, for messages; None where they were not kept.
    longest: no sample has more joint rows than this; 0: unknown.
    streams: rows beside the modalities, as far as a model reads them.
    """

    token_ids: Tensor
    word_ids: Tensor
    text_offsets: Tensor
    visual_offsets: Tensor
    speech_offsets: Tensor
    offsets: Tensor
    sample_keys: Tensor
    visual: Tensor | None = None
    speech: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    ids: list[str] | None = None
    longest: int = 0
    streams: dict[str, StreamRows] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return self.sample_keys.numel()

    @property
    def rows(self) -> int:
        """Packed rows of the joint sequence, unused capacity included."""
        features = sum(rows.shape[0] for rows in (self.visual, self.speech) if rows is not None)
        return self.token_ids.shape[0] + features

    def rows_of(self, modality: str) -> Tensor | None:
        """Token ids, or the feature rows of a modality; None where there are none."""
        return self.token_ids if modality == "text" else getattr(self, modality)

    def offsets_of(self, modality: str) -> Tensor:
        """[B+1] int32: first row of each sample among those of one modality."""
        return getattr(self, f"{modality}_offsets")

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedBatch:
        return self.map(Tensor.pin_memory)

    def map(self, function: Callable[[Tensor], Tensor]) -> PackedBatch:
        """The batch with `function` of each of its tensors."""
        own = {f.name: function(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        targets = {name: function(value) for name, value in self.targets.items()}
        streams = {name: stream.map(function) for name, stream in self.streams.items()}
        return replace(self, **own, targets=targets, streams=streams)

    def select(self, samples: Tensor, whose: Mapping[str, Tensor] | None = None) -> PackedBatch:
        """Some of the samples [k] int64, in this order, as a batch of their own. whose: by modality [k] int64, the
        samples whose rows are taken; none: their own."""
        whose = dict.fromkeys(MODALITIES, samples) | dict(whose or {})
        picked = {modality: _picked(self.offsets_of(modality), whose[modality]) for modality in MODALITIES}
        joint = sum(offsets.diff() for _, offsets in picked.values())
        targets = {
            name: values[picked[_TARGET_ROWS[name][0]][0] if name in _TARGET_ROWS else samples]
            for name, values in self.targets.items()
        }
        streams = {}
        for name, stream in self.streams.items():
            rows, offsets = _picked(stream.offsets, whose[stream.modality])
            streams[name] = replace(stream, values=stream.values[rows], offsets=offsets)
        text, visual, speech = (picked[modality][0] for modality in MODALITIES)
        return replace(
            self,
            token_ids=self.token_ids[text],
            word_ids=self.word_ids[text],
            visual=None if self.visual is None else self.visual[visual],
            speech=None if self.speech is None else self.speech[speech],
            **{f"{modality}_offsets": offsets for modality, (_, offsets) in picked.items()},
            offsets=_offsets(joint),
            longest=max(self.longest, rounded_length(int(joint.max())))
            if self.longest and len(joint)
            else self.longest,
            sample_keys=self.sample_keys[samples],
            targets=targets,
            ids=None if self.ids is None else [self.ids[sample] for sample in samples.tolist()],
            streams=streams,
        )

    def rows_as_stream(self, modality: str, selected: Tensor) -> StreamRows:
        """The rows of one modality of the selected samples [B] bool, the others have none; of text its ids [n, 1]."""
        values = self.rows_of(modality)[self.rows_of_samples(modality, selected)]
        lengths = torch.where(selected, self.offsets_of(modality).diff(), 0)
        return StreamRows(values[:, None] if values.dim() == 1 else values, _offsets(lengths), modality)

    def rows_of_samples(self, modality: str, selected: Tensor) -> Tensor:
        """Rows [n] int64 of one modality of the selected samples [B] bool, ascending."""
        lengths = self.offsets_of(modality).diff().to(torch.int64)
        return torch.repeat_interleave(selected, lengths).nonzero().flatten()

    def keeping(self, kept: Mapping[str, Tensor], streams: Mapping[str, StreamRows]) -> PackedBatch:
        """The same samples with some rows alone, and further streams. kept: by modality ascending rows [n] int64; none:
        all."""
        changed, targets = {}, dict(self.targets)
        for modality, rows in kept.items():
            changed[modality] = self.rows_of(modality)[rows]
            own = torch.searchsorted(rows, self.offsets_of(modality).to(torch.int64))
            changed[f"{modality}_offsets"] = own.to(torch.int32)
        for name in targets:
            if name in _TARGET_ROWS and _TARGET_ROWS[name][0] in kept:
                targets[name] = targets[name][kept[_TARGET_ROWS[name][0]]]
        offsets = [changed.get(f"{modality}_offsets", self.offsets_of(modality)) for modality in MODALITIES]
        joint = torch.stack(offsets).sum(0).to(torch.int32)
        return replace(self, **changed, offsets=joint, targets=targets, streams={**self.streams, **streams})

    def joint_rows(self, modality: str, rows: Tensor) -> Tensor:
        """Where rows of one modality lie in the joint sequence.

        Args: modality `text`, `visual` or `speech`; rows [M] int32, indices into that modality's rows.
        Returns: [M] int64. Rows past the modality's last offset map to the joint sequence's last row.
        """
        own = self.offsets_of(modality).to(torch.int64)
        rows = rows.to(torch.int64)
        sample = torch.searchsorted(own[1:], rows, right=True).clamp(max=max(self.samples - 1, 0))
        before = torch.zeros_like(own[:-1])
        for name in MODALITIES[: MODALITIES.index(modality)]:
            lengths = self.offsets_of(name).to(torch.int64)
            before = before + lengths[1:] - lengths[:-1]
        joint = self.offsets.to(torch.int64)[sample] + before[sample] + rows - own[sample]
        return joint.clamp(max=max(self.rows - 1, 0))

    def to_padded(self) -> PaddedBatch:
        """The same batch, every sample padded to the longest of each modality."""
        offsets = {name: self.offsets_of(name) for name in MODALITIES}
        targets = dict(self.targets)
        for name, (modality, fill) in _TARGET_ROWS.items():
            if name in targets:
                targets[name] = pad_rows(targets[name], offsets[modality], fill=fill)
        return PaddedBatch(
            token_ids=pad_rows(self.token_ids, self.text_offsets),
            word_ids=pad_rows(self.word_ids, self.text_offsets, fill=-1),
            **{f"{name}_lengths": own[1:] - own[:-1] for name, own in offsets.items()},
            sample_keys=self.sample_keys,
            visual=None if self.visual is None else pad_rows(self.visual, self.visual_offsets),
            speech=None if self.speech is None else pad_rows(self.speech, self.speech_offsets),
            targets=targets,
            ids=self.ids,
            streams={
                name: (pad_rows(stream.values, stream.offsets), stream.offsets.diff(), stream.modality)
                for name, stream in self.streams.items()
            },
        )

    @classmethod
    def from_padded(cls, padded: PaddedBatch) -> PackedBatch:
        """The inverse of `to_padded`; what lies past a sample's length is dropped."""
        lengths = {name: getattr(padded, f"{name}_lengths") for name in MODALITIES}
        offsets = {f"{name}_offsets": _offsets(own) for name, own in lengths.items()}
        targets = dict(padded.targets)
        for name, (modality, _) in _TARGET_ROWS.items():
            if name in targets:
                targets[name] = unpad_rows(targets[name], lengths[modality])
        joint = lengths["text"] + lengths["visual"] + lengths["speech"]
        return cls(
            token_ids=unpad_rows(padded.token_ids, lengths["text"]),
            word_ids=unpad_rows(padded.word_ids, lengths["text"]),
            **offsets,
            offsets=_offsets(joint),
            sample_keys=padded.sample_keys,
            visual=None if padded.visual is None else unpad_rows(padded.visual, lengths["visual"]),
            speech=None if padded.speech is None else unpad_rows(padded.speech, lengths["speech"]),
            targets=targets,
            ids=padded.ids,
            longest=rounded_length(int(joint.max())) if joint.numel() else 0,
            streams={
                name: StreamRows(unpad_rows(rows, lengths), _offsets(lengths), modality)
                for name, (rows, lengths, modality) in padded.streams.items()
            },
        )

    def padded_to(self, capacity: Capacity) -> PackedBatch:
        """The same samples in tensors of fixed shape: rows are zero and samples empty (the last offset repeated) past
        the end.

        Padding of targets: `label` and `lexicon` -1, `emotions` and `soft_labels` 0, `value` and `value_*` NaN.
        Raises: `ValueError` where the batch exceeds the capacity.
        """
        rows = {modality: capacity.of(modality) for modality in MODALITIES}
        targets = {}
        for name, values in self.targets.items():
            modality, fill = _TARGET_ROWS.get(name, ("samples", _SAMPLE_FILL.get(name, -1)))
            targets[name] = _extended(values, rows.get(modality, capacity.samples), fill, name)
        offsets = {f.name: getattr(self, f.name) for f in fields(self) if f.name.endswith("offsets")}
        last = {name: _extended(own, capacity.samples + 1, own[-1], "samples") for name, own in offsets.items()}
        return replace(
            self,
            **last,
            token_ids=_extended(self.token_ids, capacity.text, 0, "text"),
            word_ids=_extended(self.word_ids, capacity.text, -1, "text"),
            visual=None if self.visual is None else _extended(self.visual, capacity.visual, 0, "visual"),
            speech=None if self.speech is None else _extended(self.speech, capacity.speech, 0, "speech"),
            sample_keys=_extended(self.sample_keys, capacity.samples, 0, "samples"),
            targets=targets,
            longest=capacity.longest,
            streams={
                name: replace(
                    stream,
                    values=_extended(stream.values, capacity.streams[name], 0, name),
                    offsets=_extended(stream.offsets, capacity.samples + 1, stream.offsets[-1], "samples"),
                )
                for name, stream in self.streams.items()
            },
        )

    def copy_from(self, batch: PackedBatch) -> None:
        """Take over the samples of a batch that fits into these tensors, in place and without waiting for a copy to
        end.

        Afterwards offsets repeat the last one past the batch's samples; other tensors keep there what they held, which
        nothing reads.
        Raises: `ValueError` where it does not fit.
        """
        for f in fields(self):
            own, values = getattr(self, f.name), getattr(batch, f.name)
            if isinstance(own, Tensor):
                copy_rows(own, values, f.name)
                if f.name.endswith("offsets"):
                    own[values.shape[0] :].fill_(int(values[-1]))
        for name, own in self.targets.items():
            copy_rows(own, batch.targets[name], name)
        for name, own in self.streams.items():
            copy_rows(own.values, batch.streams[name].values, name)
            copy_rows(own.offsets, batch.streams[name].offsets, name)
            own.offsets[batch.streams[name].offsets.shape[0] :].fill_(int(batch.streams[name].offsets[-1]))
        self.ids = batch.ids


def copy_rows(out: Tensor, rows: Tensor, what: str) -> None:
    """Write `rows` [n, ...] over the first n of `out`, asynchronously where they are page-locked; `what` they are, for
    the error."""
    if rows.shape[0] > out.shape[0]:
        raise ValueError(
            f"{what}: the batch has {rows.shape[0]} rows, its capacity on {describe(out.device)} is {out.shape[0]}; "
            "make batches of fewer samples or rows"
        )
    out[: rows.shape[0]].copy_(rows, non_blocking=True)


def _picked(offsets: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n] int64 of some samples, one after the other, and their offsets [k+1] int32."""
    begins = offsets.to(torch.int64)
    lengths = begins.diff()[samples]
    own = _offsets(lengths)
    within = torch.arange(int(own[-1]), device=offsets.device) - torch.repeat_interleave(own[:-1], lengths)
    return torch.repeat_interleave(begins[:-1][samples], lengths) + within, own


def _offsets(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def _extended(values: Tensor, rows: int, fill: Tensor | float, what: str) -> Tensor:
    missing = rows - values.shape[0]
    if missing < 0:
        raise ValueError(
            f"{what}: the batch has {values.shape[0]} rows, its capacity is {rows}; make batches of fewer samples or "
            "rows"
        )
    return torch.cat((values, values.new_empty((missing, *values.shape[1:])).copy_(torch.as_tensor(fill))))
