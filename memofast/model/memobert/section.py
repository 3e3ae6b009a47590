"""What a recipe says of a MemoBert model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from memofast.model.folder import model_folder
from memofast.sections import Section


class MemoBertSection(Section):
    """Entries of `MemoBertConfig`; None: its default, the checkpoint's value, or for feature widths the corpora's.

    init: folder of a BERT or memofast checkpoint, of a run (its best one), or a state dict of the original MEmoBERT;
    None: random weights.
    """

    family: Literal["memobert"] = "memobert"
    init: str | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    hidden_dropout_prob: float | None = Field(None, ge=0, lt=1)
    attention_probs_dropout_prob: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int | None = None
    visual_width: int | None = None
    speech_width: int | None = None
    visual_positions: int | None = None
    speech_positions: int | None = None
    visual_classes: int | None = None
    mask_token_id: int | None = None
    initializer_range: float | None = Field(None, gt=0)

    @field_validator("init")
    @classmethod
    def _of_run(cls, init: str | None) -> str | None:
        return str(model_folder(Path(init))) if init else None

    def entries(self) -> dict[str, Any]:
        """What the recipe says about `MemoBertConfig`."""
        return self.model_dump(exclude_none=True, exclude={"family", "init"})


class MemoBertEmotionSection(MemoBertSection):
    """Entries of `MemoBertConfig`, see `MemoBertSection`; init: a memofast or BERT checkpoint folder, None: random
    weights of these sizes.

    head: `emocls`, dropout and a linear map, or `vqa`, the original's classifier of twice the width. freeze: lowest
    layers that keep their weights, with the embeddings; `all`: everything but the head, which with `emocls` is a linear
    probe.
    """

    head: Literal["emocls", "vqa"] = "vqa"
    freeze: int | Literal["all"] = 0


class PromptSection(Section):
    """Fine-tuning by a prompt in place of a head, from a pre-trained model.init.

    template: a name of `memofast.model.memobert.prompt.TEMPLATES`, or word pieces with one [MASK]. words: a word piece
    for each class; None: the class's own name where bert-base-uncased has it. answers: among the `classes`' words, or
    among all of the `vocabulary` as the original.
    soft_from_words: unused tokens of the template begin as the mean of the classes' words.
    """

    template: str | list[int] = "iam"
    position: Literal["before", "after"] = "before"
    prefix: bool = False
    words: dict[str, int] | None = None
    answers: Literal["classes", "vocabulary"] = "classes"
    soft_from_words: bool = False
