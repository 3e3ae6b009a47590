"""The configuration of networks over rows."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PretrainedConfig

from memofast.data.modality import MODALITIES
from memofast.model.folder import ConfigFile
from memofast.model.sequence.networks import NETWORKS, Options
from memofast.sections import checked


class SequenceConfig(PretrainedConfig):
    """A network and what it reads.

    network: `kind` and options, see `networks.NETWORKS`. inputs: of each modality that is read as rows its `name` in
    the corpus, true `width` and the modality that it is `of`, in the order text, visual, speech. lengths: rows that
    samples are padded to by modality, read with `compat` alone. text_encoder: the configuration of a text encoder over
    word pieces. embedding, vocab_size: width and entries of a table of word pieces. standardised_on: where the columns'
    means and deviations were measured, in words. problem_type: as `MemoBertConfig` has it.
    """

    model_type = "sequence"

    def __init__(
        self,
        network: dict[str, Any] | None = None,
        inputs: list[dict] | None = None,
        lengths: dict[str, int] | None = None,
        text_encoder: dict[str, Any] | None = None,
        embedding: int | None = None,
        vocab_size: int = 30522,
        standardised_on: str = "",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.network = network or {"kind": "recurrent_fusion"}
        self.inputs = inputs or []
        self.lengths = lengths or {}
        self.text_encoder = text_encoder
        self.embedding = embedding
        self.vocab_size = vocab_size
        self.standardised_on = standardised_on

    def options(self) -> Any:
        """The network's options. Raises: `MemofastError` for a network that is none, or wrong options."""
        kind = self.network.get("kind")
        source = "config.json, network"
        return checked(self.network, source, NETWORKS[kind][0])


class _Input(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[^.]+$")]
    width: Annotated[int, Field(ge=1, le=2**18)]
    of: Literal[MODALITIES]


class SequenceFile(ConfigFile):
    """What is read of a folder's `config.json`."""

    network: Options
    inputs: Annotated[list[_Input], Field(default_factory=list, max_length=3)]
    lengths: dict[Literal[MODALITIES], Annotated[int, Field(ge=1, le=2**20)]] = Field(default_factory=dict)
    text_encoder: dict[str, Any] | None = None
    embedding: Annotated[int, Field(ge=1, le=2**16)] | None = None
    vocab_size: Annotated[int, Field(ge=5, le=2**20)] = 30522
    standardised_on: str = ""
    problem_type: str | None = None
    id2label: dict[str, str] | None = None
