"""What the rest of the package may know of a model, of whatever family it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data import Corpus, PackedBatch, Split, View
from memofast.data.dialogue import Context
from memofast.sections import Section

ANSWERS = "emotion"  # name of the loss of a model's answers


class Reader(Protocol):
    """A model over packed batches.

    reads: width of a row of each modality or stream that the model reads, as it is stored; of `text` the number of word
    pieces that it knows.
    streams: names of the streams among them, and the modality that each is made of.
    raw: modalities whose rows it reads raw, pixels of a face or samples of sound.
    longest: most rows of a sample, of those modalities for which there is a bound; of `text` with [CLS] and [SEP].
    """

    @property
    def reads(self) -> Mapping[str, int]: ...

    @property
    def streams(self) -> Mapping[str, str]: ...

    @property
    def raw(self) -> frozenset[str]: ...

    @property
    def longest(self) -> Mapping[str, int]: ...

    def to(self, device: torch.device | str) -> Reader: ...

    def eval(self) -> Reader: ...


@dataclass
class Lesson:
    """What a forward pass in training may learn from. wanted [B, outputs]: see `CorpusLabels.wanted`; known [n] int64:
    samples of which it is known. modalities: by modality [B, outputs], what it alone says of each sample, NaN where
    unknown. update, epoch: numbers, from 1. keys [B] int64 of the samples. state: module of what the network keeps over
    the samples of a training, see `EmotionModel.learning_state`. error: of values, as torch's functional losses."""

    wanted: Tensor
    known: Tensor
    modalities: Mapping[str, Tensor]
    update: int
    epoch: int
    keys: Tensor
    state: nn.Module | None = None
    error: Callable[..., Tensor] = F.l1_loss


@dataclass
class Answers:
    """outputs [B, outputs]: logits or values. losses: by name in `EmotionModel.losses`: of each sample [B], or one that
    compares the samples of a batch, a scalar; only with a lesson. modalities: what is said from one modality alone
    [B, outputs]. representation [B, width]: what the outputs were made of, where somebody asks for it."""

    outputs: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    modalities: dict[str, Tensor] = field(default_factory=dict)
    representation: Tensor | None = None


class EmotionModel(Reader, Protocol):
    """A model that names the emotion of each sample, or emotions, or a value; also an `nn.Module` that
    `save_pretrained` keeps in a folder.

    classes: what it was trained to name, in order; `value` alone for a regression. outputs: names of all it gives out:
    the classes, then what is none of them, as `another word` of a prompt. kind: `single`, one class of several;
    `multi`, any number of them; `regression`, a value.
    context: what it reads of the dialogue around an utterance; None: the utterance alone.
    losses: weight of each loss that it learns by beside that of its answers, by name, and under `ANSWERS` of that one,
    where it is not 1; a model that has any also has `answer(view, rng=, lesson=)`, whose `Answers` carry them.
    represents: width of the representation of a sample that its answers are made of, for losses that compare samples,
    0: it gives none; a model that has one also has `represented(view, rng=)`, [B, width], and `named(representation,
    view, rng=)`, the answers [B, outputs] made of it. linear: the map from one to the other, where in evaluation there
    is nothing else.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    @property
    def kind(self) -> str: ...

    @property
    def context(self) -> Context | None: ...

    @property
    def losses(self) -> Mapping[str, float]: ...

    @property
    def represents(self) -> int: ...

    @property
    def linear(self) -> nn.Linear | None: ...

    def learning_state(self, keys: Tensor) -> nn.Module | None:
        """What learning keeps of the training samples, keys [n] int64, from update to update, to be saved beside the
        model; None: nothing."""
        ...

    def __call__(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, outputs], or values [B, 1]. rng [2] int64: seed and update, needed in training mode with
        dropout."""
        ...

    def probabilities(self, batch: PackedBatch) -> Tensor:
        """Probabilities [B, outputs] float32, of sum 1 where a sample has one class; of a regression the values [B, 1].
        Without gradients."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def save_pretrained(self, folder: Path) -> None: ...


class HiddenRows(Protocol):
    """hidden [N, width]: last layer's rows of the joint sequence. pooled [B, width]."""

    hidden: Tensor
    pooled: Tensor


class Encoder(Reader, Protocol):
    """A model without its heads. width: of its hidden states."""

    @property
    def width(self) -> int: ...

    def __call__(self, batch: PackedBatch) -> HiddenRows: ...


class Start(Protocol):
    """Makes the emotion model that a training starts from; what is random in it comes from torch's generator."""

    def __call__(
        self, section: Section, kind: str, classes: Sequence[str], train: Split | None, prompt: Section | None = None
    ) -> EmotionModel:
        """Args: section: what a recipe says of it. train: what will be learnt from, whose feature rows it shall suit;
            None: text alone. prompt: a recipe's section on prompts, for families that have them.

        Raises: `MemofastError` for a section, checkpoint or corpus that do not go together, and a prompt where there
            are none.
        """
        ...


@dataclass(frozen=True)
class PreTraining:
    """How a family is pre-trained.

    section: of a recipe. model: class of the encoder with its heads, made of a configuration. capturable: as of
    `Family`, of a configuration.
    configured: the configuration for corpora that are read together; raises `MemofastError` where section, checkpoint
    and corpora do not go together. begun: the model at update 0, whose fresh parts suit the rows of the splits, of
    training data; what is random in it comes from torch's generator. notes: lines on what begins anew beside a
    checkpoint.
    """

    section: type[Section]
    model: Callable[[Any], nn.Module]
    configured: Callable[[Section, Sequence[Corpus]], Any]
    begun: Callable[[Section, Any, Sequence[Split]], nn.Module]
    notes: Callable[[Section, Any], list[str]]
    capturable: Callable[[Any, str, torch.device], bool]


@dataclass(frozen=True)
class Family:
    """A kind of model and how to reach it. A family is a folder beside this file, and a line in `families.py`.

    name: `model_type` in `config.json`. section: of a recipe. start: see `Start`. open: a trained emotion model from
    its own folder, in evaluation mode. capturable: whether its training step, at a precision on a device, can become
    CUDA graphs.
    pre_training: how it is pre-trained; open_encoder: an encoder from a model's folder, for `memofast extract`;
    export: writes an emotion model for other runtimes and returns the names of the program's inputs; to_file: writes a
    model's folder as a file of the system that the family is of, and returns lines on it; notes: lines on how a model
    reads a corpus, where people would not expect it; None for a family that has no such thing.
    in_dialogues: modalities of which its models read context, see `EmotionModel.context`. compiled: whether
    `torch.compile` may be tried on them.
    """

    name: str
    section: type[Section]
    start: Start
    open: Callable[[Path], EmotionModel]
    capturable: Callable[[EmotionModel, str, torch.device], bool]
    pre_training: PreTraining | None = None
    open_encoder: Callable[[Path], Encoder] | None = None
    export: Callable[[EmotionModel, Path], list[str]] | None = None
    to_file: Callable[[Path, Path], list[str]] | None = None
    notes: Callable[[EmotionModel, Corpus], list[str]] | None = None
    in_dialogues: tuple[str, ...] = ()
    compiled: bool = True
