"""Perceivers in folders: ours, and those that transformers' PerceiverForMultimodalAutoencoding wrote."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from memofast.errors import MemofastError
from memofast.model.folder import in_one_line, load_whole, model_type, read_checked
from memofast.model.perceiver.configuration import PerceiverEmotionConfig, PerceiverFile
from memofast.model.perceiver.emotion import PerceiverForEmotion
from memofast.model.weights import check_stored, stored_weights

LABEL_HEAD = r"perceiver\.output_postprocessor\.modalities\.label\."
_CLASSIFIER = "perceiver.output_postprocessor.modalities.label.classifier."
_PADDING = "perceiver.input_preprocessor.padding."


def entries_of(folder: Path) -> dict[str, Any]:
    """Entries of `PerceiverEmotionConfig` that a folder says, and that its weights tell where transformers wrote it.

    Raises: `MemofastError` where it holds no multimodal Perceiver.
    """
    found = read_checked(folder, {PerceiverEmotionConfig.model_type: PerceiverFile})
    if not found:
        model_type(folder)  # which says what is missing
    if found.get("model_type") != PerceiverEmotionConfig.model_type:
        raise MemofastError(f"{folder} holds a {found.get('model_type')!r} model, not 'perceiver'; give one of those")
    entries = {name: found[name] for name in PerceiverFile.model_fields if found.get(name) is not None}
    entries.pop("dtype", None), entries.pop("torch_dtype", None)
    stored = stored_weights(folder)
    if (padding := stored.get(f"{_PADDING}label")) is None or f"{_PADDING}image" not in stored:
        raise MemofastError(
            f"{folder} holds a Perceiver of another kind: its weights lack {_PADDING}image; give a multimodal one, as "
            "transformers' PerceiverForMultimodalAutoencoding saves it"
        )
    mask = stored.get("perceiver.input_preprocessor.mask.label")
    if mask is not None and len(mask.shape) == len(padding.shape) == 2:
        entries |= {"d_model": mask.shape[1], "label_width": mask.shape[1] - padding.shape[1]}
    entries["label_head"] = "linear" if f"{_CLASSIFIER}weight" in stored else "mlp"
    outputs = stored.get(_CLASSIFIER + ("weight" if entries["label_head"] == "linear" else "2.weight"))
    if outputs is not None and "id2label" not in entries:
        entries["num_labels"] = outputs.shape[0]
    return {name: value for name, value in entries.items() if name not in ("hidden_act", "use_query_residual")}


def config_of(folder: Path, entries: dict[str, Any]) -> PerceiverEmotionConfig:
    """Raises: `MemofastError` for entries that make no model."""
    entries = {**entries}
    if entries.get("id2label"):
        entries["id2label"] = {int(number): name for number, name in entries["id2label"].items()}
    return in_one_line(folder, lambda: PerceiverEmotionConfig(**entries))


def load(folder: Path, config: PerceiverEmotionConfig, may_begin_anew: str = "$^") -> PerceiverForEmotion:
    """A model with a folder's weights, all of them; may_begin_anew: pattern of those that it need not take.

    Raises: `MemofastError` where weights are missing, or of another model.
    """
    with torch.device("meta"):
        model = in_one_line(folder, lambda: PerceiverForEmotion(config))
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    kept = {name: shape for name, shape in wanted.items() if not re.match(may_begin_anew, name)}
    check_stored(folder, kept, "", may_be_left=may_begin_anew)
    made = partial(PerceiverForEmotion.from_pretrained, folder, config=config, local_files_only=True)
    model, _ = load_whole(partial(made, dtype=torch.float32), folder, may_begin_anew, may_begin_anew)
    return model


def open_perceiver(folder: Path) -> PerceiverForEmotion:
    """A trained model in evaluation mode from its folder. Raises: `MemofastError` where its weights are missing or of
    another model."""
    return load(folder, config_of(folder, entries_of(folder))).eval()
