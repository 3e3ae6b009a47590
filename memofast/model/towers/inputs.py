"""What an encoder's folder says of how its sound and pictures are made, held against what a corpus keeps."""

from __future__ import annotations

from math import isqrt, prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PretrainedConfig

from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.sections import checked

PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers


class _Sound(BaseModel):
    """Of transformers' Wav2Vec2FeatureExtractor, with its defaults."""

    model_config = ConfigDict(strict=True, extra="ignore")

    sampling_rate: Annotated[int, Field(ge=100, le=192_000)] = 16_000
    do_normalize: bool = True


_Pixels = Annotated[int, Field(ge=1, le=2**12)]


class _Size(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    shortest_edge: _Pixels | None = None
    height: _Pixels | None = None
    width: _Pixels | None = None

    @property
    def side(self) -> int | None:
        """Of the square that a square becomes; None for what is none."""
        if self.shortest_edge is not None:
            return self.shortest_edge
        return self.height if self.height == self.width else None


_Three = Annotated[list[float], Field(min_length=3, max_length=3)]


class _Pictures(BaseModel):
    """Of transformers' VideoMAEImageProcessor, with its defaults."""

    model_config = ConfigDict(strict=True, extra="ignore")

    do_resize: bool = True
    size: _Size = _Size(shortest_edge=224)
    resample: Literal[2, 3] = 2
    do_center_crop: bool = True
    crop_size: _Size = _Size(height=224, width=224)
    do_rescale: bool = True
    rescale_factor: Annotated[float, Field(gt=0, le=1e3)] = 1 / 255
    do_normalize: bool = True
    image_mean: _Three = [0.5, 0.5, 0.5]
    image_std: _Three = [0.5, 0.5, 0.5]


def sound_of(folder: Path, config: PretrainedConfig, corpus: Corpus) -> dict[str, Any]:
    """Entries of a `SoundEntry` beside its encoder's.

    Raises: `MemofastError` where the folder does not say how sound is made, or the corpus keeps none, or at another
        rate.
    """
    told = checked(*_preprocessor("speech", folder), _Sound)
    rate = told.sampling_rate
    prepare = "--speech raw" if rate == 16_000 else f"--speech raw,rate={rate}"
    _check_raw(corpus, "speech", "sound", prepare)
    stored = corpus.width("speech")
    kept = _stored_rate(corpus)
    if (kept or rate) != rate:
        raise MemofastError(
            f"model.speech.init: {folder} hears sound at {rate} Hz, corpus {corpus.path} keeps it at {kept} Hz; "
            f"prepare it with {prepare}"
        )
    return {
        "rate": rate, "stored": stored, "normalise": told.do_normalize,
        "shortest": receptive_field(config.conv_kernel, config.conv_stride),
    }  # fmt: skip


def pictures_of(folder: Path, config: PretrainedConfig, corpus: Corpus) -> dict[str, Any]:
    """Entries of a `PictureEntry` beside its encoder's.

    Raises: `MemofastError` where the folder does not say how pictures are made, or makes others than its encoder sees,
        or the corpus keeps none.
    """
    source, where = _preprocessor("visual", folder)
    told = checked(source, where, _Pictures)
    _check_raw(corpus, "visual", "pictures", f"--face frames,side={config.image_size}")
    stored = corpus.width("visual")
    channels = 3 if _is_square(stored, 3) else 1
    if not _is_square(stored, channels):
        raise MemofastError(
            f"corpus {corpus.path} keeps pictures of {stored} numbers, no squares; prepare it with --face "
            f"frames,side={config.image_size}"
        )
    size = told.size.side if told.do_resize else isqrt(stored // channels)
    crop = told.crop_size.side if told.do_center_crop else size
    if size is None or crop is None or crop > size or crop != config.image_size:
        raise MemofastError(
            f"{where}: makes pictures of {crop} pixels out of {size}, the encoder sees {config.image_size}; give the "
            "folder of a whole model"
        )
    if getattr(config, "num_channels", 3) != 3:
        raise MemofastError(f"model.visual.init: {folder} sees {config.num_channels} colours, not 3; give another one")
    return {
        "frames": config.num_frames, "stored": stored, "channels": channels, "resize": size, "crop": crop,
        "resample": _RESAMPLE[told.resample], "scale": told.rescale_factor if told.do_rescale else 1.0,
        "mean": told.image_mean if told.do_normalize else [0.0] * 3,
        "std": told.image_std if told.do_normalize else [1.0] * 3,
    }  # fmt: skip


def receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Samples that the first row of convolutions sees."""
    return 1 + sum((kernel - 1) * prod(strides[:layer]) for layer, kernel in enumerate(kernels))


def rows_of_sound(samples: int, kernels: list[int], strides: list[int]) -> int:
    """Rows that convolutions make of so many samples."""
    return (samples - receptive_field(kernels, strides)) // prod(strides) + 1


def lines_on_inputs(towers: dict[str, dict[str, Any]], corpus: Corpus) -> list[str]:
    """What becomes of a corpus's pictures and sound on the way into the encoders, where it is not only their format."""
    lines = []
    if (entry := towers.get("visual")) is not None:
        side = isqrt(entry["stored"] // entry["channels"])
        if side != entry["resize"]:
            lines.append(
                f"pictures are scaled from {side} to {entry['resize']} pixels ({entry['resample']}); prepare --face "
                f"frames,side={entry['crop']} keeps them in the encoder's size"
            )
        if entry["channels"] == 1:
            lines.append("pictures are grey and shown to the encoder as grey ones in colour")
    if "speech" in towers and _stored_rate(corpus) is None:
        lines.append(f"corpus {corpus.path} does not say the rate of its sound; read as {towers['speech']['rate']} Hz")
    return lines


def _preprocessor(modality: str, folder: Path) -> tuple[dict[str, Any], str]:
    """What a folder says of its inputs, without what it leaves open, and where."""
    path = next((folder / name for name in PREPROCESSORS if (folder / name).is_file()), None)
    if path is None:
        raise MemofastError(
            f"model.{modality}.init: {folder} has no {PREPROCESSORS[0]}, which says how its inputs are made; fetch it "
            "too"
        )
    try:
        found = read_json(path)
    except (OSError, ValueError):
        raise MemofastError(f"{path}: not valid JSON; fetch it again") from None
    if not isinstance(found, dict):
        raise MemofastError(f"{path}: no mapping of entries; fetch it again")
    found = {name: {"shortest_edge": value} if name == "size" and isinstance(value, int) else value
             for name, value in found.items() if value is not None}  # fmt: skip
    if isinstance(found.get("crop_size"), int):
        found["crop_size"] = dict.fromkeys(("height", "width"), found["crop_size"])
    return found, str(path)


def _check_raw(corpus: Corpus, modality: str, what: str, prepare: str) -> None:
    if modality not in corpus.stores:
        raise MemofastError(
            f"corpus {corpus.path} has no {what}, which model.{modality} reads; prepare it with {prepare}, or leave "
            f"model.{modality} out"
        )
    if modality not in corpus.raw:
        raise MemofastError(
            f"corpus {corpus.path} has ready {modality} rows, model.{modality} reads {what} as they are; prepare it "
            f"with {prepare}"
        )


def _stored_rate(corpus: Corpus) -> int | None:
    """Hz of a corpus's raw sound, None where its store does not say how it was made."""
    fingerprint = corpus.stores["speech"].meta.get("fingerprint", "")
    if not fingerprint.startswith("raw-1-"):
        return None
    return int(fingerprint.split("-")[2])


def _is_square(stored: int, channels: int) -> bool:
    side = isqrt(stored // channels)
    return stored == channels * side * side
