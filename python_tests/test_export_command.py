"""`memofast export`: one file of a run's model; mistakes take one line and leave nothing."""

import mood_runs
import onnxruntime
from mood_runs import mood_model

program = mood_runs.program


def test_a_run_becomes_an_onnx_file(program, tmp_path):
    mood_model(tmp_path / "model")
    told = program("export", tmp_path / "model", "--out", tmp_path / "emotion.onnx")
    assert "inputs token_ids, text_lengths, visual, visual_lengths, speech, speech_lengths" in told
    session = onnxruntime.InferenceSession(tmp_path / "emotion.onnx")
    assert session.get_modelmeta().custom_metadata_map["classes"] == '["calm", "glad"]'


def test_mistakes_take_one_line_and_leave_nothing(program, tmp_path):
    mood_model(tmp_path / "model")
    before = sorted(tmp_path.rglob("*"))
    for model, out, message in (
        ("nowhere", "a.onnx", "no run or model at"),
        ("model", "a.bin", "the suffix chooses what is written"),
        ("model", "nowhere/a.onnx", "cannot be written"),
    ):
        assert message in program.fails("export", tmp_path / model, "--out", tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before
