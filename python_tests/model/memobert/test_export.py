"""Exported programs predict as the packed model does, whatever the sizes; what cannot be exported is refused."""

import json
import sys

import onnx
import onnxruntime
import pytest
import torch
from padded_samples import batch, model, padded_inputs

from memofast.errors import MemofastError
from memofast.model.memobert.export import export_emotion_model, input_names, write_program

LENGTHS = ([(5, 3, 7), (1, 0, 2), (9, 6, 0)], [(4, 2, 3)], [(2, 5, 9)] * 5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model, of every option, and its file of each kind."""
    options = {"position_encoding": "sinusoid", "projection_block": True, "shared_types": True}
    folder, own = tmp_path_factory.mktemp("exported"), model("emocls_inner", **options)
    for name in ("model.pt2", "model.onnx"):
        write_program(own, folder / name)
    return own, folder


def by_torch(folder):
    return torch.export.load(folder / "model.pt2").module()


def by_onnx(folder):
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [entry.name for entry in session.get_inputs()]
    return lambda *given: torch.from_numpy(
        session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})[0]
    )


@pytest.mark.parametrize("opened", [by_torch, by_onnx])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_file_answers_as_the_packed_model_for_any_sizes(files, opened, lengths):
    own, folder = files
    packed = batch(lengths)
    with torch.no_grad():
        torch.testing.assert_close(opened(folder)(*padded_inputs(packed)), own(packed), atol=1e-4, rtol=1e-4)


def test_files_say_their_inputs_and_classes(files):
    own, folder = files
    names = ["token_ids", "text_lengths", "visual", "visual_lengths", "speech", "speech_lengths"]
    assert input_names(own) == names
    written = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(written)
    axes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in written.graph.input
    }
    assert (
        list(axes) == names and axes["visual"] == ["samples", "visual_rows", 12] and axes["text_lengths"] == ["samples"]
    )
    assert [value.name for value in written.graph.output] == ["outputs"]
    metadata = {entry.key: entry.value for entry in written.metadata_props}
    extra = {"classes": "", "kind": ""}
    torch.export.load(folder / "model.pt2", extra_files=extra)
    for about in (metadata, extra):
        assert json.loads(about["classes"]) == list(own.classes) and about["kind"] == "single"


def test_a_text_model_is_exported_without_features():
    own, packed = model(visual_width=0, speech_width=0), batch([(5,), (3,)], ())
    program = export_emotion_model(own).module()
    with torch.no_grad():
        torch.testing.assert_close(program(*padded_inputs(packed, ())), own(packed), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    with pytest.raises(MemofastError, match="this one has a prompt"):
        export_emotion_model(object())
    with pytest.raises(MemofastError, match="suffix"):
        write_program(model(), tmp_path / "model.bin")
    with pytest.raises(MemofastError, match=r"there is no folder .*/nowhere"):
        write_program(model(), tmp_path / "nowhere" / "model.pt2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MemofastError, match=r"memofast\[onnx\]"):
        write_program(model(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
