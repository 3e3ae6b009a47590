"""Low-rank adapters on a MemoBert: which of its maps take them, and what they draw dropout by."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError, MemofastWarning
from memofast.model.adapters.base import Base
from memofast.model.adapters.dropout import Draws, of_samples
from memofast.model.adapters.kept import TRAINED, Adaptation, merge_adapters, read_saved, saved_file
from memofast.model.adapters.lora import adapted, read_section
from memofast.model.adapters.section import LoraSection
from memofast.model.folder import in_one_line
from memofast.model.memobert.encoder import MemoBertLayer
from memofast.model.weights import stored_in, stored_weights

if TYPE_CHECKING:
    from memofast.model.memobert.pre_training import MemoBertPreTrainedModel

    Model = TypeVar("Model", bound=MemoBertPreTrainedModel)

_MAPS = ("qkv", "attention_output", "intermediate", "output")
_ENCODER = "memobert."


def adapt(model: MemoBertPreTrainedModel, section: LoraSection, init: str) -> None:
    """Put adapters on the encoder of an emotion model that begins with a checkpoint. Its head is trained as a whole,
    and so is what the checkpoint does not have.

    Raises: `MemofastError` as `lora.adapted`.
    """
    encoder = model.memobert
    whole = tuple(name for name in model.state_dict() if not name.startswith(_ENCODER) or name not in model.given)
    own = {name.removeprefix(_ENCODER) for name in whole if name.startswith(_ENCODER)}
    if not model.config.speech_width:  # of a table that a text model has but for the row of speech, nothing is learnt
        encoder.embeddings.types.weight.requires_grad_(False)
    maps = {name: linear for name, linear in _maps(encoder).items() if f"{name}.weight" not in own}
    draws = Draws()
    lora = adapted(encoder, section, maps, own, Base.of(Path(init)), "model.lora", draws)
    if lora.config.lora_dropout:
        for layer in encoder.modules():
            if isinstance(layer, MemoBertLayer):
                layer.draws = draws
                layer.register_forward_pre_hook(_note)
    model.adapted = Adaptation({".": lora}, whole)


def _maps(encoder: nn.Module) -> dict[str, nn.Linear]:
    """Those of the layers and the pooler: what `memobert.linear` asks whether it is plain, or calls."""
    layers = {name: module for name, module in encoder.named_modules() if isinstance(module, MemoBertLayer)}
    found = {f"{name}.{end}": getattr(layer, end) for name, layer in layers.items() for end in _MAPS}
    return found | {"pooler": encoder.pooler}


def _note(layer: MemoBertLayer, given: tuple[Any, ...]) -> None:
    """Tell the adapters' dropout, before a layer is called, which rows it will meet."""
    hidden, view, rng, *read = given
    offsets: dict[int, Tensor] = {view.batch.samples: of_samples(view.batch.samples, hidden.device)}  # of the pooler
    for rows in read:
        if rows is not None:
            offsets[rows.rows.shape[0]] = rows.offsets
    offsets[hidden.shape[0]] = view.batch.offsets
    layer.draws.note(rng, view.keys, offsets)


def open_adapted(kind: type[Model], folder: Path) -> Model:
    """A trained model of adapters, merged with what they adapt, in evaluation mode.

    Raises: `MemofastError` where that is missing or has changed, and where a file of the folder is damaged or of
        another model.
    """
    kind.read_config(folder)
    config_class = kind.config_class
    config = in_one_line(
        folder, lambda: config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    )
    section = read_section(folder)
    base = Base.read(folder).found(folder)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore", category=MemofastWarning):
        # what there is to be told of its start was told when it was trained
        model = in_one_line(f"{folder}, which adapts {base}", lambda: _of_base(kind, base, config, folder))
        adapt(model, section, str(base))
    read_saved(model, folder)
    merge_adapters(model)
    return model.eval()


def _of_base(kind: type[Model], path: Path, config: Any, folder: Path) -> Model:
    entries = {name: value for name, value in config.to_dict().items() if name not in ("model_type", "dtype")}
    if (foreign := kind.from_foreign(path, **entries)) is not None:
        return foreign
    _check_sizes(kind, config, folder, path)
    model = kind(config)
    model.begin_with(kind.encoder_class.from_pretrained(path))
    return model


def _check_sizes(kind: type[Model], config: Any, folder: Path, base: Path) -> None:
    """Raises: `MemofastError`, before memory is taken for it, where a model has what neither folder holds."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in kind(config).state_dict().items()}
    there = {_ENCODER + name.removeprefix(_ENCODER): one.shape for name, one in stored_weights(base).items()}
    there |= {name: one.shape for name, one in stored_in(saved_file(folder, TRAINED)).items()}
    for name, shape in wanted.items():
        if there.get(name) != shape:
            raise MemofastError(
                f"{folder}: neither it nor {base}, which it adapts, has {name} as {list(shape)}; restore its "
                "config.json"
            )
