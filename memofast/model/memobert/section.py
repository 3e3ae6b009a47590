"""What a recipe says of a MemoBert model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from memofast.model.adapters.section import LoraSection
from memofast.model.bounds import Dropout, Layers, Rows, Width, Words
from memofast.model.face_networks.network import PARTS, WIDTHS
from memofast.model.folder import model_folder
from memofast.model.memobert.configuration import EMOTION_HEADS, POSITION_ENCODINGS, SIZES, MemoBertConfig
from memofast.sections import FilePath, Section

if TYPE_CHECKING:
    from typing import Self

Token = Annotated[int, Field(ge=0, lt=2**20)]
FeatureWidth = Annotated[int, Field(ge=0, le=2**16)]


class FaceSection(Section):
    """A network that makes rows of raw face crops, trained along.

    network: `denseface` or `resnet3d`, of clips; None: that of model.init. init: a DenseFace file to begin with; None:
    random weights, or those of model.init. side: to which crops are shrunk; None: as the file says, else as they are.
    frozen: first parts that keep their weights: of `denseface` stem and first block, two further blocks with the
    transitions before them, and the last norm; of `resnet3d` the stem and eight blocks. augment: whether to shift, turn
    and mirror the crops of a clip in training, with `noise` of up to so many grey levels.
    """

    network: Literal[tuple(WIDTHS)] | None = None
    init: FilePath | None = None
    side: Annotated[int, Field(ge=16, le=512)] | None = None
    frozen: Annotated[int, Field(ge=0, le=max(PARTS.values()))] | None = None
    augment: bool | None = None
    noise: Annotated[float, Field(ge=0, le=128)] | None = None


class MemoBertSection(Section):
    """Entries of `MemoBertConfig`; None: its default, the checkpoint's value, or for feature widths the corpora's.
    face: how raw faces become rows; None: they come ready, or as model.init makes them.

    init: folder of a BERT or memofast checkpoint, of a run (its best one), or a state dict of the original MEmoBERT;
    None: random weights. size: hidden_size, num_hidden_layers, num_attention_heads and intermediate_size of one of the
    original's configurations, where they are not given.
    """

    _no_entries: ClassVar[set[str]] = {"family", "init", "size", "face"}  # face: see `starting_faces`

    family: Literal["memobert"] = "memobert"
    init: FilePath | None = None
    size: Literal[tuple(SIZES)] | None = None
    vocab_size: Words | None = None
    hidden_size: Annotated[Width, Field(multiple_of=8)] | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    intermediate_size: Annotated[int, Field(ge=1, le=2**18)] | None = None
    hidden_dropout_prob: Dropout | None = None
    attention_probs_dropout_prob: Dropout | None = None
    max_position_embeddings: Rows | None = None
    visual_width: FeatureWidth | None = None
    speech_width: FeatureWidth | None = None
    visual_positions: Rows | None = None
    speech_positions: Rows | None = None
    position_encoding: Literal[POSITION_ENCODINGS] | None = None
    projection_block: bool | None = None
    shared_types: bool | None = None
    face: FaceSection | None = None
    visual_classes: Annotated[int, Field(ge=1, le=4096)] | None = None
    mask_token_id: Token | None = None
    initializer_range: Annotated[float, Field(gt=0, le=10)] | None = None

    @field_validator("init")
    @classmethod
    def _of_run(cls, init: str | None) -> str | None:
        return str(model_folder(Path(init))) if init else None

    def entries(self) -> dict[str, Any]:
        """What the recipe says about `MemoBertConfig`."""
        return SIZES.get(self.size, {}) | self.model_dump(exclude_none=True, exclude=self._no_entries)

    def spelt_out(self, config: MemoBertConfig) -> Self:
        """The section with every size of a model and every path."""
        found = self.model_copy(deep=True)
        for name in type(self).model_fields.keys() - self._no_entries:
            setattr(found, name, getattr(config, name))
        if (face := config.face) is not None:
            own = {name: face[name] for name in ("network", "side", "frozen", "augment", "noise")}
            begun = self.face.init if self.face else None
            found.face = FaceSection(**own, init=begun and str(Path(begun).resolve()))
        if self.init:
            found.init = str(Path(self.init).resolve())
        return found


class MemoBertEmotionSection(MemoBertSection):
    """Entries of `MemoBertConfig`, see `MemoBertSection`; init: a memofast or BERT checkpoint folder, None: random
    weights of these sizes.

    head: `emocls`, dropout and a linear map; `emocls_inner`, the original's emocls with an inner layer; `vqa`, the
    original's classifier of twice the width; `small_vqa`, the same of the model's own. freeze: lowest layers that keep
    their weights, with the embeddings; `all`: everything but the head, which with `emocls` is a linear probe. lora: all
    keep them but for adapters, the head and what init does not have.
    """

    _no_entries: ClassVar[set[str]] = MemoBertSection._no_entries | {"head", "freeze", "lora"}

    head: Literal[EMOTION_HEADS] = "vqa"
    freeze: Annotated[int, Field(ge=0, le=1000)] | Literal["all"] = 0
    lora: LoraSection | None = None

    @model_validator(mode="after")
    def _adapts_something(self) -> MemoBertEmotionSection:
        check_lora(self.lora, self.init, self.freeze)
        return self


def check_lora(lora: LoraSection | None, init: str | None, freeze: Any) -> None:
    """Raises: `ValueError` where adapters go together with no start, or another choice of what is trained."""
    if lora and not init:
        raise ValueError("lora adapts a checkpoint; add model.init=FOLDER, or lora=null")
    if lora and freeze:
        raise ValueError("freeze is of a training of weights, lora keeps them all; leave one out")


class PromptSection(Section):
    """Fine-tuning by a prompt in place of a head, from a pre-trained model.init.

    template: a name of `memofast.data.prompt.TEMPLATES`, or word pieces with one [MASK]. words: a word piece
    for each class; None: the class's own name where bert-base-uncased has it. answers: among the `classes`' words, or
    among all of the `vocabulary` as the original.
    soft_from_words: unused tokens of the template begin as the mean of the classes' words.
    """

    template: str | Annotated[list[Token], Field(min_length=1, max_length=512)] = "iam"
    position: Literal["before", "after"] = "before"
    prefix: bool = False
    words: dict[str, Token] | None = None
    answers: Literal["classes", "vocabulary"] = "classes"
    soft_from_words: bool = False
