"""What a recipe says of towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from memofast.data.modality import MODALITIES
from memofast.files import read_json
from memofast.model.adapters.section import LoraSection
from memofast.model.bounds import Dropout, Width
from memofast.model.folder import model_folder
from memofast.model.fusion.kinds import Options
from memofast.model.fusion.side_by_side import ConcatOptions
from memofast.model.towers.configuration import POOLINGS, TRAINED
from memofast.sections import FilePath, Section


class TowerSection(Section):
    """init: folder of a transformers encoder; None: this modality is not read. train: `full`; `frozen`: it keeps its
    weights and reads without dropout; `lora`: it keeps them but for adapters, which lora says."""

    init: FilePath | None = None
    train: Literal[TRAINED] = "full"
    lora: LoraSection | None = None

    @field_validator("init")
    @classmethod
    def _of_run(cls, init: str | None) -> str | None:
        return str(model_folder(Path(init))) if init else None

    @model_validator(mode="after")
    def _adapts_as_it_says(self) -> TowerSection:
        if self.train == "lora" and self.lora is None:
            raise ValueError("train lora needs to know of which maps; add lora={target_modules: all-linear}")
        if self.train != "lora" and self.lora is not None:
            raise ValueError(f"lora says how adapters are made, of which train {self.train} makes none; set train=lora")
        return self


class TextTowerSection(TowerSection):
    """Of text: an encoder trained on masked words."""


class SoundTowerSection(TowerSection):
    """Of sound itself. spec_augment: whether training hides stretches of a clip as the encoder's configuration says.
    pool: the mean of its rows, or the first one alone."""

    spec_augment: bool = False
    pool: Literal[POOLINGS] = "mean"


class PictureTowerSection(TowerSection):
    """Of pictures. pool: the mean of its rows, or the first; None: the class row, of an encoder that has one, else the
    mean."""

    pool: Literal[POOLINGS] | None = None


class CacheSection(Section):
    """Where the vectors of fixed encoders are kept. path: a folder, made where there is none; several runs and
    processes may share it. dtype: of the numbers; what is computed anew is rounded to it, too."""

    path: FilePath
    dtype: Literal["float32", "float16"] = "float32"


class TowersSection(Section):
    """Encoders of transformers by modality, see `TowersConfig` for the other entries. fusion: None given: the vectors
    side by side as they are. cache: of what fixed encoders make; None: they make it in every epoch.

    init: a run of towers to go on from, whose towers, width and fusion these then are; of each modality `train` alone
    is said here. None: each tower begins with an encoder of its own.
    """

    family: Literal["towers"]
    init: FilePath | None = None
    text: TextTowerSection = TextTowerSection()
    visual: PictureTowerSection = PictureTowerSection()
    speech: SoundTowerSection = SoundTowerSection()
    width: Width = 768
    fusion: Options = ConcatOptions(depth=0)
    head_dropout_prob: Dropout = 0.1
    cache: CacheSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _joins_as_before(cls, values: Any) -> Any:
        """Width and fusion that are not said are those of the run, as far as its folder is there and says them."""
        if not isinstance(values, dict) or not isinstance(values.get("init"), str):
            return values
        try:
            found = read_json(model_folder(Path(values["init"])) / "config.json")
        except (OSError, ValueError):  # who opens it says so
            return values
        found = found if isinstance(found, dict) else {}
        return {name: found[name] for name in ("width", "fusion") if name in found} | values

    @field_validator("init")
    @classmethod
    def _of_run(cls, init: str | None) -> str | None:
        return str(model_folder(Path(init))) if init else None

    @model_validator(mode="after")
    def _goes_on_as_it_was(self) -> TowersSection:
        for name in MODALITIES if self.init else ():
            own = getattr(self, name)
            told = {key: getattr(own, key) for key in type(own).model_fields if key != "train"}
            if given := [key for key, value in told.items() if value != type(own).model_fields[key].default]:
                raise ValueError(f"init says what towers are like; leave {name}.{given[0]} out")
        return self

    @model_validator(mode="after")
    def _has_something_to_keep(self) -> TowersSection:
        read = self.towers or ({name: getattr(self, name) for name in MODALITIES} if self.init else {})
        if self.cache and all(own.train != "frozen" for own in read.values()):
            raise ValueError("cache keeps what frozen encoders make; set text.train=frozen, or leave it out")
        return self

    @model_validator(mode="after")
    def _is_kept_in_one_type(self) -> TowersSection:
        kept = {own.lora.dtype for own in self.towers.values() if own.lora}
        if len(kept) > 1:
            raise ValueError(f"lora.dtype is one for all adapters, not {' and '.join(sorted(kept))}; give the same")
        return self

    @model_validator(mode="after")
    def _reads_something(self) -> TowersSection:
        if not self.towers and not self.init:
            raise ValueError("reads no modality; give text.init, visual.init or speech.init, folders of encoders")
        return self

    @property
    def towers(self) -> dict[str, TowerSection]:
        """Those that are read, by modality."""
        return {name: own for name in MODALITIES if (own := getattr(self, name)).init}

    @property
    def tokenizer(self) -> str | None:
        """The folder in whose word pieces a corpus has its words; None: text is not read."""
        return self.text.init
