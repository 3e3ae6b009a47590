"""What every sequence network is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import model_validator
from torch import Tensor, nn

from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.rows import Rows
from memofast.sections import Section

COMPLETE_TEXT = "complete_text"
"""Beside `text`, rows of word pieces none of which is `Network.unknown`."""


class NetworkOptions(Section):
    """Options of a network beside its `kind`.

    compat: compute as the original does, padding and all, to repeat its numbers; without it every sample is read over
    its true rows, and what it gives does not depend on the batch.
    """

    compat: bool = False


class AlignedOptions(NetworkOptions):
    """aligned: with compat, rows of faces and speech are read over the length of the text, as originals read aligned
    corpora."""

    aligned: bool = False

    @model_validator(mode="after")
    def _of_compat(self) -> AlignedOptions:
        if self.aligned and not self.compat:
            raise ValueError("aligned is how an original reads rows, with compat=true; leave it out")
        return self


@dataclass(frozen=True)
class Shape:
    """What a network is made for. widths: of the rows of each modality that it reads, in the order text, visual,
    speech. outputs: classes, or 1 value. kind: of the answer, as `EmotionModel.kind`. lengths: rows by modality that
    samples are padded to, of the original's arrays; for `compat` and networks that are `sized`. text_encoder: width of
    the hidden states of word pieces, [CLS] first, that stand for the rows of text; 0: text is rows of a store, or not
    read."""

    widths: Mapping[str, int]
    outputs: int
    kind: str
    lengths: Mapping[str, int] = field(default_factory=dict)
    text_encoder: int = 0


class Network(nn.Module):
    """A network over rows. A subclass is made as `Network(options, shape)`.

    needs: modalities without which it cannot be made. encodes: whether text has to be hidden states of a text encoder.
    pooled: whether it reads one row of text a sample, tanh(W h + b) of the encoder's [CLS]. adapts: whether it changes
    the text encoder's rows, see `adapted`. sized: whether it is made for the longest sample. learns_of_modalities:
    whether it learns from labels of single modalities, which a corpus must then have. losses: as of `EmotionModel`.
    state_names: patterns and replacements of the original's parameter names, see `originals.renamed`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    encodes: ClassVar[bool] = False
    pooled: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    sized: ClassVar[bool] = False
    learns_of_modalities: ClassVar[bool] = False
    state_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    losses: Mapping[str, float] = {}

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        """Args: rows: by modality, standardised. draws: for dropout. lesson: in training, where `losses` are asked
        for."""
        raise NotImplementedError

    def learning_state(self, keys: Tensor) -> nn.Module | None:
        """What it keeps of the training samples, keys [n] int64, over updates; None: nothing."""
        return None

    def unknown(self, lengths: Tensor, draws: Draws) -> Tensor | None:
        """[B, L] bool: word pieces of samples of these lengths [B] that are read as `unknown_piece` of its options in
        training, where `COMPLETE_TEXT` is read beside; None: none ever."""
        return None

    def adapted(self, words: Rows, rows: Mapping[str, Rows], draws: Draws) -> Rows:
        """Rows of word pieces between the text encoder's embeddings and its layers, changed by other modalities."""
        return words
