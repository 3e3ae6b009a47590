"""Modality conditions: what of a sample a model may see. Source: MEmoBERT's seven conditions of missing modalities."""

from dataclasses import replace

import torch
from torch import Tensor

from memofast.data.batch import OF_TOKENS, PackedBatch, StreamRows
from memofast.data.modality import LETTERS

CONDITIONS = ("l", "v", "a", "lv", "la", "va", "lva")  # language (text), visual, acoustic (speech)


def condition_of(modalities: tuple[str, ...]) -> str:
    """The condition with exactly these modalities of `text`, `visual`, `speech`."""
    return "".join(letter for letter, name in LETTERS.items() if name in modalities)


def modalities_of(condition: str) -> tuple[str, ...]:
    """Those of `text`, `visual`, `speech` that a condition shows."""
    return tuple(name for letter, name in LETTERS.items() if letter in condition)


def keep(batch: PackedBatch, condition: str) -> PackedBatch:
    """The batch with only the modalities of a condition, and the streams made of them; without `l` a sample's text is
    [CLS] alone."""
    if condition not in CONDITIONS:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}")
    changed: dict[str, Tensor | None] = {}
    if "l" not in condition:
        first = batch.text_offsets[:-1].to(torch.int64)
        batch = _of_text(batch, first, torch.arange(batch.samples + 1, dtype=torch.int32, device=first.device))
    targets = dict(batch.targets)
    for letter, modality in LETTERS.items():
        if letter != "l" and letter not in condition:
            changed |= {modality: None, f"{modality}_offsets": torch.zeros_like(batch.offsets)}
    if "v" not in condition:
        targets.pop("soft_labels", None)
    streams = {
        name: stream if stream.modality in modalities_of(condition) else _emptied(stream)
        for name, stream in batch.streams.items()
    }
    kept = replace(batch, **changed, targets=targets, streams=streams)
    return replace(kept, offsets=kept.text_offsets + kept.visual_offsets + kept.speech_offsets)


def cls_alone(batch: PackedBatch, hidden: Tensor) -> PackedBatch:
    """The batch, without spare rows, where the text of the samples `hidden` [B] bool is [CLS] alone."""
    begins = batch.text_offsets[:-1].to(torch.int64)
    lengths = torch.where(hidden, 1, batch.text_offsets.diff().to(torch.int64))
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    rows = torch.arange(int(ends[-1]), device=begins.device) + torch.repeat_interleave(begins - ends[:-1], lengths)
    kept = _of_text(batch, rows, ends.to(torch.int32))
    return replace(kept, offsets=kept.text_offsets + kept.visual_offsets + kept.speech_offsets)


def _of_text(batch: PackedBatch, rows: Tensor, offsets: Tensor) -> PackedBatch:
    """The batch with some of its text rows [n] int64; joint offsets are still the former ones."""
    targets = {name: values[rows] if name in OF_TOKENS else values for name, values in batch.targets.items()}
    return replace(
        batch, token_ids=batch.token_ids[rows], word_ids=batch.word_ids[rows], text_offsets=offsets, targets=targets
    )


def _emptied(stream: StreamRows) -> StreamRows:
    return replace(stream, values=stream.values[:0], offsets=torch.zeros_like(stream.offsets))
