"""Emotion models for other runtimes: the padded form as a `torch.export` program or an ONNX file, for any number of
samples and rows."""

from __future__ import annotations

import io
import json
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.padded import PaddedEmotionModel

KINDS = (".pt2", ".onnx")
MOST_SAMPLES = 4096


def write_program(
    model: MemoBertForEmotion, path: Path, padded: type[PaddedEmotionModel] = PaddedEmotionModel
) -> list[str]:
    """Write `model` as FILE.pt2 (`torch.export`) or FILE.onnx, whole or not at all. Returns: the names of its inputs,
    in their order.

    A file of either kind also holds the names of the classes, and what the outputs are: `classes` and `kind`, in the
    first as extra files, in the second as metadata. Raises: `MemofastError` for another suffix, a folder that is not
    there, a prompt, context, a network of raw rows, and ONNX where its extra is not installed.
    """
    if path.suffix not in KINDS:
        raise MemofastError(f"{path} is neither {' nor '.join(KINDS)}; the suffix chooses what is written")
    if not path.parent.is_dir():
        raise MemofastError(
            f"{path} cannot be written: there is no folder {path.parent}; make it or choose another place"
        )
    program, names = export_emotion_model(model, padded), input_names(model)
    about = {"classes": json.dumps(model.classes), "kind": model.kind}
    if path.suffix == ".onnx":
        replace_file(path, _onnx(program, names, about))
    else:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files=about)
        replace_file(path, file.getvalue())
    return names


def input_names(model: MemoBertForEmotion) -> list[str]:
    """The arguments of `PaddedEmotionModel.forward`, by name."""
    features = [modality for modality in FEATURES if model.config.feature_width(modality)]
    return ["token_ids", "text_lengths", *(name for m in features for name in (m, f"{m}_lengths"))]


def export_emotion_model(
    model: MemoBertForEmotion, kind: type[PaddedEmotionModel] = PaddedEmotionModel
) -> torch.export.ExportedProgram:
    """The padded form as a program of any number of samples and rows; its arguments are those of
    `PaddedEmotionModel.forward`.

    Raises: `MemofastError` for a model that names emotions by a prompt, reads context or has a network of raw rows,
        which have no such form.
    """
    if not isinstance(model, MemoBertForEmotion):
        raise MemofastError("only a model with an emotion head can be exported; this one has a prompt")
    if model.context is not None:
        raise MemofastError(
            "this model reads utterances in their dialogues, which no program puts together; only one of texts alone "
            "can be exported"
        )
    if model.config.made:
        raise MemofastError(
            f"this model makes its rows of {' and '.join(sorted(model.config.made))} by a network of its own, which no "
            "program takes along; only one of ready rows can be exported"
        )
    padded = kind(model.cpu().float())
    # a tensor of its own for every argument: one given twice would be one argument of the program
    given = [torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 2])]
    samples = torch.export.Dim("samples", max=MOST_SAMPLES)
    dims: list[dict] = [{0: samples, 1: _dim("text", model.config.max_position_embeddings)}, {0: samples}]
    for modality in padded.modalities:
        given += [torch.zeros(2, 3, model.config.feature_width(modality)), torch.tensor([3, 2])]
        dims += [{0: samples, 1: _dim(modality, model.config.feature_positions(modality))}, {0: samples}]
    shapes = {"token_ids": dims[0], "text_lengths": dims[1]} | (
        {"features": tuple(dims[2:])} if padded.modalities else {}
    )
    return torch.export.export(padded, tuple(given), dynamic_shapes=shapes)


def _dim(name: str, longest: int) -> torch.export.Dim:
    return torch.export.Dim(f"{name}_rows", max=longest)


def _onnx(program: torch.export.ExportedProgram, names: list[str], about: dict[str, str]) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MemofastError(f'.onnx needs {error.name}, which is not installed: pip install "memofast[onnx]"') from None
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=["outputs"], optimize=True, verbose=False
        )
    axes = {str(made.model.graph.inputs[0].shape[0]): "samples"}
    for value in made.model.graph.inputs[::2]:
        axes[str(value.shape[1])] = "text_rows" if value.name == "token_ids" else f"{value.name}_rows"
    made.rename_axes(axes)
    made.model.metadata_props.update(about)
    return made.model_proto.SerializeToString()


@contextmanager
def quiet():
    """Without what torch's exporter says of operators of packages that are not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
