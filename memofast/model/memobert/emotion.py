"""The encoder with a head that names the emotion of each sample, or emotions, or a value."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from memofast.data.batch import PackedBatch, pad_rows
from memofast.data.dialogue import asked_rows, own_word_rows
from memofast.data.view import View
from memofast.errors import MemofastError, MemofastWarning
from memofast.model.adapters.kept import holds_adapters
from memofast.model.memobert import original
from memofast.model.memobert.adapting import open_adapted
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.encoder import ReadRows
from memofast.model.memobert.folder_config import read_config
from memofast.model.memobert.heads import EmotionHead
from memofast.model.memobert.pre_training import MemoBertModel, MemoBertPreTrainedModel, first_rows
from memofast.model.memobert.prompt import MemoBertForPrompt
from memofast.model.problems import EmotionOutputs

if TYPE_CHECKING:
    from typing import Self


class MemoBertForEmotion(EmotionOutputs, MemoBertPreTrainedModel):
    """Logits of emotion classes, or a value, from each sample's pooled [CLS] row. Source: MEmoBERT, arXiv 2111.00865,
    fine-tuning."""

    encoder_class = MemoBertModel

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        self.memobert = self.encoder_class(config)
        self.emotion = EmotionHead(config)
        self.post_init()

    @classmethod
    def start(cls, path: str | os.PathLike, classes: Sequence[str], **overrides) -> Self:
        """A model for these classes with the encoder of a BERT or memofast checkpoint folder, or of a file of the
        original; the head is random, from torch's generator.

        Raises `MemofastError` where there is none of these.
        """
        named = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
        named["tables"] = {}  # which objectives of a pre-training read alone
        if (foreign := super().from_foreign(path, **named, **overrides)) is not None:
            return foreign
        encoder = cls.encoder_class.from_pretrained(path)
        if cls.__name__ in (encoder.config.architectures or ()):
            before = ", ".join(encoder.config.id2label.values())
            told = f"{path} is fine-tuned ({before}): its encoder is taken, and its outputs begin anew"
            warnings.warn(told, MemofastWarning, stacklevel=2)
        model = cls(cls.config_class(**{**encoder.config.to_dict(), **named, **overrides}))
        model.begin_with(encoder)
        return model.eval()

    @classmethod
    def from_fine_tuned(cls, path: str | os.PathLike, classes: Sequence[str] | None = None) -> Self:
        """A fine-tuned model of the original with its classifier, in evaluation mode.

        classes: their names; None: those that lie beside the file, else their numbers, which are all that it says.
        Raises `MemofastError` where the file is no such model.
        """
        checkpoint, found = original.read_original(Path(path))
        asked = original.emotion_entries(Path(path), found, classes)
        return cls._from_foreign(checkpoint, {"heads": found.heads} | asked, str(path))

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, classes]; rng as in `MemoBertModel.forward`. Only the rows that are read, of [CLS], of a
        context's question or of the utterance's words, pass through the last layer's second half."""
        return self.named(self.represented(seen, rng=rng), seen, rng=rng)

    @property
    def represents(self) -> int:
        """As `family.EmotionModel.represents`: the width of pooled rows."""
        return self.config.hidden_size

    @property
    def linear(self) -> nn.Linear | None:
        """As `family.EmotionModel.linear`: with head `emocls`."""
        return self.emotion.classifier if self.emotion.widen is None else None

    def represented(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """The pooled row of each sample [B, C]."""
        view = View.of(seen)
        if self.context is not None and self.context.pool == "words":
            return self.memobert.pooled(self._mean_of_words(view, rng))
        hidden = self.memobert.encode(view, rng, ReadRows.of(view.batch, [self._read_rows(view)]))
        return self.memobert.pooled(hidden)

    def _mean_of_words(self, view: View, rng: Tensor | None) -> Tensor:
        """Mean of the last layer's rows of each utterance's own words [B, C]; 0 where a sample has no text."""
        read = ReadRows.of(view.batch, [own_word_rows(view.batch)])
        hidden = self.memobert.encode(view, rng, read)
        counts = read.offsets.diff().clamp(min=1)[:, None]
        return pad_rows(hidden, read.offsets).sum(1) / counts.to(hidden.dtype)

    def named(self, representation: Tensor, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, classes] of pooled rows [B, C]."""
        return self.emotion(representation, View.of(seen).keys, rng)

    def _read_rows(self, view: View) -> Tensor:
        if self.context is None or self.context.query is None:
            return first_rows(view.batch)
        return asked_rows(view.batch, self.config.mask_token_id, self.context.query)


def open_emotion_model(folder: Path) -> MemoBertForEmotion | MemoBertForPrompt:
    """A trained emotion model, with a head or a prompt, in evaluation mode, from its own folder, or a fine-tuned one of
    the original from its file.

    Raises `MemofastError` where there is no model, or one without either.
    """
    if folder.is_file():
        return MemoBertForEmotion.from_fine_tuned(folder)
    prompted = read_config(folder).get("prompt")
    if holds_adapters(folder):
        return open_adapted(MemoBertForPrompt if prompted else MemoBertForEmotion, folder)
    if prompted:
        return MemoBertForPrompt.from_pretrained(folder).eval()
    model, found = MemoBertForEmotion.from_pretrained(folder, output_loading_info=True)
    if any(name.startswith("emotion.") for name in found["missing_keys"]):
        raise MemofastError(
            f"{folder} holds a model without an emotion head; train one with memofast finetune or emotion-text train"
        )
    return model.eval()
