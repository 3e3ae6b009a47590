"""Folders of models that would run code of their own, or hold pointers in place of weights."""

import json
import zipfile

import pytest
import torch

from memofast.errors import MemofastError
from memofast.model.families import open_emotion_model
from memofast.model.folder import load_whole, model_type, refuse_untrusted
from memofast.model.memobert import MemoBertForPreTraining, MemoBertModel
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.pre_training import is_bert

SMALL = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 437951328\n"


@pytest.fixture
def folder(tmp_path):
    MemoBertModel(MemoBertConfig(**SMALL)).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_a_sound_folder_passes(folder):
    refuse_untrusted(folder)
    refuse_untrusted(folder / "none")
    assert model_type(folder) == "memobert" and MemoBertModel.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"]
)
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_named_in_any_configuration(folder, name, nested):
    path = folder / name
    contents = json.loads(path.read_text()) if path.is_file() else {}
    named = {"auto_map": {"AutoModel": "evil.M"}}
    path.write_text(json.dumps(contents | ({"parts": [{"text": named}]} if nested else named)))
    openers = (refuse_untrusted, model_type, is_bert, open_emotion_model, MemoBertForPreTraining.from_pretrained)
    for opened in openers:
        with pytest.raises(MemofastError, match=rf"{name} names Python code of its own") as error:
            opened(folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json"])
def test_pointers_in_place_of_files(folder, name):
    (folder / name).write_text(POINTER)
    for opened in (refuse_untrusted, model_type, open_emotion_model, MemoBertModel.from_pretrained):
        with pytest.raises(MemofastError, match=rf"{name} is a Git LFS pointer, not the file of 437951328 bytes"):
            opened(folder)


def test_configurations_nested_without_end(folder):
    (folder / "config.json").write_text('{"a":' * 100_000)
    for opened in (refuse_untrusted, model_type, is_bert):
        with pytest.raises(MemofastError, match=r"config.json: nested too deeply"):
            opened(folder)


def test_a_state_of_the_original_that_is_a_pointer(tmp_path):
    (tmp_path / "model_step_1.pt").write_text(POINTER)
    with pytest.raises(MemofastError, match="is a Git LFS pointer"):
        MemoBertForPreTraining.from_original(tmp_path / "model_step_1.pt")


def test_whole_models_are_asked_for_without_their_code(tmp_path):
    options, _ = load_whole(lambda **options: (options, {"missing_keys": [], "mismatched_keys": []}), tmp_path)
    assert options["trust_remote_code"] is False


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_weights_that_unpack_to_more_than_they_have(folder, method):
    whole, path = folder / "whole.pt", folder / "pytorch_model.bin"
    torch.save({"embeddings.word.weight": torch.zeros(50_000)}, whole)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(path, "w", method) as write:
        for name in read.namelist():
            write.writestr(name, read.read(name))
    whole.unlink()
    if method == zipfile.ZIP_STORED:
        return refuse_untrusted(folder)
    for opened, given in ((refuse_untrusted, folder), (MemoBertForPreTraining.from_original, path)):
        with pytest.raises(MemofastError, match=r"pytorch_model.bin has \d+ bytes and unpacks to 20\d{4}, which torch"):
            opened(given)


def test_weights_at_odd_places_of_their_file_are_read(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    padded = (length + 3).to_bytes(8, "little") + whole[8 : 8 + length] + b"   " + whole[8 + length :]
    path.write_bytes(padded)
    model = MemoBertModel.from_pretrained(folder)
    assert all(tensor.data_ptr() % 4 == 0 for tensor in model.parameters())


def test_a_run_without_a_model_says_how_to_go_on(tmp_path):
    with pytest.raises(MemofastError, match="give the folder that save_pretrained wrote"):
        model_type(tmp_path)
    (tmp_path / "config.yaml").write_text("corpus: somewhere\n")
    with pytest.raises(MemofastError, match=f"a run without a model as yet: go on with it by --resume {tmp_path}"):
        model_type(tmp_path)
