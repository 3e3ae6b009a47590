"""The configuration of LSTM fusion."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PretrainedConfig

from memofast.data.modality import MODALITIES
from memofast.model.folder import ConfigFile


class LstmFusionConfig(PretrainedConfig):
    """Sizes of an LSTM for each input and of what joins them.

    inputs: of each feature modality or stream its `name`, true `width` and the modality that it is `of`, in the order
    in which they are joined (a list, as config.json sorts the keys of mappings).
    hidden_size: of each direction of each LSTM, and of the layer that joins them; num_hidden_layers: of each LSTM.
    hidden_dropout_prob: before both linear maps. problem_type: as `MemoBertConfig` has it.

    Raises `ValueError` for no input, or one of no modality.
    """

    model_type = "lstm_fusion"

    def __init__(
        self,
        inputs: list[dict] | None = None,
        hidden_size: int = 64,
        num_hidden_layers: int = 1,
        hidden_dropout_prob: float = 0.1,
        **kwargs,
    ):
        if inputs is not None and (not inputs or any(entry["of"] not in MODALITIES for entry in inputs)):
            raise ValueError(f"inputs name feature rows, each of {', '.join(MODALITIES)}; got {inputs}")
        super().__init__(**kwargs)
        self.inputs = inputs or []
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.hidden_dropout_prob = hidden_dropout_prob


class _Input(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[^.]+$")]
    width: Annotated[int, Field(ge=1, le=2**18)]
    of: Literal[MODALITIES]


class LstmFusionFile(ConfigFile):
    """What is read of a folder's `config.json`."""

    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1000)]
    hidden_size: Annotated[int, Field(ge=1, le=2**16)] = 64
    num_hidden_layers: Annotated[int, Field(ge=1, le=1000)] = 1
    hidden_dropout_prob: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    problem_type: str | None = None
    id2label: dict[str, str] | None = None
