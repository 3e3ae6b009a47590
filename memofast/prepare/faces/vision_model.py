"""Rows of faces by any transformers model of pictures, from a local folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from memofast.errors import MemofastError
from memofast.prepare.faces.detection import COLOUR_CROP, CROP, Face
from memofast.prepare.pretrained import Pretrained, load_pretrained, preprocessing, read_config

_BATCH = 32  # faces at once
_BICUBIC = 3  # PIL's number for it
_GREY = (0.299, 0.587, 0.114)
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


class VisionModel:
    """One row per face, and soft labels where the model is a classifier (softmax of its logits, classes as its config
    names them).

    Args: row: `pooled`, the model's own pooled output; `cls`, the first of its last hidden states; `mean`, their mean.
        None: pooled where the checkpoint has what that takes, else cls where the model has such a token, else mean.
        labels: False leaves soft labels out.
    """

    dtype, colour, side, labeller = "float16", True, CROP, {}

    def __init__(self, path: Path, row: str | None, labels: bool, device: torch.device):
        self._path, self._device = path, device
        config = read_config(path, "--face model")
        classifies = labels and _is_classifier(config)
        pretrained = _load(path, classifies)
        self._whole = pretrained.model.to(device)
        body = _body(self._whole, classifies, path)
        if getattr(body, "main_input_name", "") != "pixel_values":
            raise MemofastError(f"{path} holds a {config.model_type} model, which sees no pictures; give one that does")
        names = config.id2label if classifies else {}
        self.classes = tuple(str(names[number]) for number in sorted(names))
        self._input = read_face_input(path, body.config)
        self._seen: Any = None
        body.register_forward_hook(self._keep)
        output, _ = self._run(np.zeros((1, COLOUR_CROP, COLOUR_CROP, 3), np.uint8))
        self._row = _choose_row(row, output, pretrained, path)
        self.width = _rows_of(output, self._row).shape[1]
        self.name = f"{config.model_type} {self._row}"
        self.normalisation = self._input.described
        self.fingerprint = pretrained.fingerprint({"row": self._row, **asdict(self._input)})

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, np.ndarray | None]:
        """Faces with colour crops -> rows [n, width] float32, soft labels [n, classes] float32."""
        rows, labels = [], []
        for first in range(0, len(faces), _BATCH):
            output, logits = self._run(np.stack([face.colour for face in faces[first : first + _BATCH]]))
            rows.append(_rows_of(output, self._row).cpu().numpy())
            if logits is not None:
                labels.append(logits.softmax(1).cpu().numpy())
        return np.concatenate(rows), np.concatenate(labels) if labels else None

    def _keep(self, _module, _given, output) -> None:
        self._seen = output

    @torch.inference_mode()
    def _run(self, crops: np.ndarray) -> tuple[Any, torch.Tensor | None]:
        """Crops [n, side, side, 3] uint8 RGB -> what the model's body gives, and the logits of a classifier."""
        pixels = self._input(torch.from_numpy(crops).to(self._device))
        try:
            logits = self._whole(pixel_values=pixels).logits if self.classes else self._whole(pixel_values=pixels)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            size = "x".join(map(str, self._input.size))
            raise MemofastError(f"the model at {self._path} does not run on pictures of {size} ({error})") from error
        seen, self._seen = self._seen, None
        return seen, logits if self.classes else None


@dataclass(frozen=True)
class FaceInput:
    """How crops become a model's input: scaled to `size` (height, width), whole, for a crop holds nothing but the face;
    times `scale`, less `mean`, over `std`, which are per channel."""

    size: tuple[int, int]
    resize: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """Crops [n, side, side, 3] uint8 RGB -> [n, channels, height, width] float32."""
        pixels = crops.permute(0, 3, 1, 2).float()
        if len(self.mean) == 1:
            pixels = (pixels * pixels.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
        pixels = F.interpolate(pixels, self.size, mode=self.resize, align_corners=False, antialias=True).clamp(0, 255)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels * self.scale - mean) / std

    @property
    def described(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.size[0]}x{self.size[1]}, (x * {self.scale:.6g} - [{mean}]) / [{std}]"


def read_face_input(folder: Path, config: Any) -> FaceInput:
    """What preprocessor_config.json says, .5 for mean and standard deviation and the size of `config` where it is
    silent.

    Raises: MemofastError where its numbers are none.
    """
    settings = preprocessing(folder, "image_processor")
    channels = getattr(config, "num_channels", 3)
    given = settings.get("crop_size") if settings.get("do_center_crop") else None
    given = given or settings.get("size") or getattr(config, "image_size", None) or 224
    try:
        size = _height_and_width(given)
        scale = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
        mean, std = (0.0,) * channels, (1.0,) * channels
        if settings.get("do_normalize", True):
            mean, std = (_per_channel(settings.get(name, 0.5), channels) for name in ("image_mean", "image_std"))
    except (TypeError, ValueError, KeyError) as error:
        raise MemofastError(f"{folder}: the preprocessor's size, mean or std is not readable ({error})") from error
    resize = "bicubic" if settings.get("resample") == _BICUBIC else "bilinear"
    return FaceInput(size, resize, scale, mean, std)


def _height_and_width(given: Any) -> tuple[int, int]:
    if isinstance(given, dict):
        given = [given["height"], given["width"]] if "height" in given else given["shortest_edge"]
    return (given, given) if isinstance(given, int) else (int(given[0]), int(given[1]))


def _per_channel(given: Any, channels: int) -> tuple[float, ...]:
    values = tuple(map(float, given)) if isinstance(given, list) else (float(given),) * channels
    if len(values) != channels:
        raise ValueError(f"{len(values)} values for {channels} channels")
    return values


def _is_classifier(config: Any) -> bool:
    """Whether its logits are of one class per picture."""
    names = config.architectures or [""]
    return names[0].endswith("ForImageClassification") and config.problem_type != "multi_label_classification"


def _load(path: Path, classifies: bool) -> Pretrained:
    from transformers import AutoModel, AutoModelForImageClassification

    pretrained = load_pretrained(AutoModelForImageClassification if classifies else AutoModel, path)
    towers = getattr(pretrained.model, "vision_model", None)  # of models of pictures and text, as CLIP
    if towers is None or classifies:
        return pretrained
    return Pretrained(towers, frozenset(name.removeprefix("vision_model.") for name in pretrained.absent))


def _body(model: Any, classifies: bool, path: Path) -> Any:
    if not classifies:
        return model
    body = model.base_model if model.base_model is not model else getattr(model, "vision_model", None)
    if body is None:
        raise MemofastError(f"the classifier at {path} has no body of its own to take rows from; add labels=no")
    return body


def _choose_row(row: str | None, output: Any, pretrained: Pretrained, path: Path) -> str:
    pools = getattr(output, "pooler_output", None) is not None and not any("pooler" in n for n in pretrained.absent)
    has_class = any(name.endswith(_CLASS_TOKENS) for name, _ in pretrained.model.named_parameters())
    if row is None:
        return "pooled" if pools else "cls" if has_class else "mean"
    if (row == "pooled" and not pools) or (row == "cls" and not has_class):
        raise MemofastError(
            f"the model at {path} gives no {row} row; it gives {'pooled' if pools else 'cls' if has_class else 'mean'}"
        )
    return row


def _rows_of(output: Any, row: str) -> torch.Tensor:
    """[n, width], of hidden states [n, tokens, width] or [n, width, height, width]."""
    if row == "pooled":
        return output.pooler_output.flatten(1)
    hidden = output.last_hidden_state
    if row == "cls":
        return hidden[:, 0]
    return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))
