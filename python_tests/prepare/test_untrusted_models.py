"""Models that preparation is given: code of theirs is never run and never asked about; pointers are named."""

import ast
import builtins
import json
from pathlib import Path

import pytest
import torch
from tiny_models import save_bert, save_speech_model, save_vit

import memofast
from memofast.errors import MemofastError
from memofast.prepare.faces.denseface import DenseFace
from memofast.prepare.faces.vision_model import VisionModel
from memofast.prepare.pretrained import load_pretrained
from memofast.prepare.speech.models import SpeechModel
from memofast.prepare.text.features import TextChoice, TextEncoder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 437951328\n"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red"]


@pytest.fixture
def asked(monkeypatch):
    """Questions that were put to the user; each is answered with yes."""
    questions = []
    monkeypatch.setattr(builtins, "input", lambda text="": questions.append(text) or "y")
    return questions


@pytest.mark.parametrize("configuration", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_a_folder_is_never_run(tmp_path, asked, configuration):
    models = {
        "text": (save_bert(tmp_path / "text", WORDS), lambda path: TextEncoder(TextChoice(path))),
        "speech": (
            save_speech_model(tmp_path / "speech", "wav2vec2"),
            lambda path: SpeechModel("wav2vec2", path, "last", torch.device("cpu")),
        ),
        "face": (save_vit(tmp_path / "face"), lambda path: VisionModel(path, None, True, torch.device("cpu"))),
        "whole": (save_vit(tmp_path / "whole"), lambda path: load_pretrained(None, path)),
    }
    for folder, opened in models.values():
        path = folder / configuration
        contents = json.loads(path.read_text()) if path.is_file() else {}
        names = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", None]}
        path.write_text(json.dumps(contents | {"auto_map": names}))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        with pytest.raises(MemofastError, match=f"{configuration} names Python code"):
            opened(folder)
    assert not asked and not (tmp_path / "ran").exists()


def test_pointers_in_place_of_weights(tmp_path):
    folder = save_bert(tmp_path / "text", WORDS)
    (folder / "model.safetensors").write_text(POINTER)
    with pytest.raises(MemofastError, match=r"model.safetensors is a Git LFS pointer, not the file of 437951328"):
        TextEncoder(TextChoice(folder))
    (tmp_path / "face.safetensors").write_text(POINTER)
    with pytest.raises(MemofastError, match=r"face.safetensors is a Git LFS pointer"):
        DenseFace(tmp_path / "face.safetensors")


def test_a_pointer_in_place_of_yunet(tmp_path):
    pytest.importorskip("cv2")
    from memofast.prepare.faces.detection import YuNet

    (tmp_path / "yunet.onnx").write_text(POINTER)
    with pytest.raises(MemofastError, match=r"yunet.onnx is a Git LFS pointer"):
        YuNet(tmp_path / "yunet.onnx")


def test_every_call_that_could_run_code_says_that_it_does_not():
    """Of transformers' own classes; memofast's go through load_whole, which says it for them."""
    asking = []
    for file in Path(memofast.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = ast.unparse(node.func)
            if node.func.attr in ("from_pretrained", "from_config") and not called.startswith(
                ("MemoBert", "LstmFusion", "cls.encoder_class.", "kind.encoder_class.", "cls.pre_training_class.")
            ):
                told = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                asking.append((file.name, called, told.get("trust_remote_code")))
    assert len(asking) >= 3 and {told for *_, told in asking} == {"False"}, asking
