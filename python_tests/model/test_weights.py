"""Files of weights: whole, in shards, damaged, or of something else."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from memofast.errors import MemofastError
from memofast.model.weights import read_weights, stored_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.zeros(0)}
KINDS = ["model.safetensors", "pytorch_model.bin"]


def write(path, weights):
    torch.save(weights, path) if path.suffix == ".bin" else save_file(weights, path)


def shard(folder, kind):
    """Two files and their index, which is returned."""
    stem, ending = kind.split(".")
    where = {}
    for number, names in enumerate((["a.weight", "c"], ["b"]), 1):
        write(folder / f"{stem}-{number}.{ending}", {name: WEIGHTS[name] for name in names})
        where |= dict.fromkeys(names, f"{stem}-{number}.{ending}")
    index = folder / f"{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index, where


def refused(folder) -> str:
    messages = []
    for read in (read_weights, stored_weights):
        with pytest.raises(MemofastError) as error:
            read(folder)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "\n" not in messages[0] and "eights only" not in messages[0]
    return messages[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_shards", [False, True])
def test_whole_weights(tmp_path, kind, in_shards):
    shard(tmp_path, kind) if in_shards else write(tmp_path / kind, WEIGHTS)
    found = read_weights(tmp_path)
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    described = stored_weights(tmp_path)
    assert {name: tuple(d) for name, d in described.items()} == {
        "a.weight": ((2, 3), torch.float32), "b": ((4,), torch.bfloat16), "c": ((0,), torch.float32),
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_is_not_of_its_shards(tmp_path, kind):
    index, where = shard(tmp_path, kind)
    first, second = where["a.weight"], where["b"]
    for wrong, message in (
        ({**where, "b": "../" + second}, "'../model" if kind == KINDS[0] else "'../pytorch_model"),
        ({**where, "b": str(tmp_path / second)}, "not beside it"),
        ({**where, "b": ".."}, "not beside it"),
        ({**where, "b": ""}, "not beside it"),
        ({**where, "b": first}, "b are not where it says"),
        ({**where, "d": second}, "d are not where it says"),
        ({"a.weight": first, "b": second}, "c are not where it says"),
        ({**where, "b": "gone.bin"}, "the shard gone.bin is missing"),
        ({**where, "b": 3}, "weight_map.b"),
        ([first, second], "weight_map"),
        ({}, "names no weights"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        assert message in refused(tmp_path), wrong
    index.write_text("{")
    assert "not valid JSON" in refused(tmp_path)
    index.write_text('{"metadata": {}}')
    assert "weight_map" in refused(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_hold_no_whole_weights(tmp_path, kind):
    path = tmp_path / kind
    write(path, WEIGHTS)
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        assert str(path) in refused(tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 437\n")
    assert "Git LFS pointer, not the file of 437 bytes" in refused(tmp_path)
    path.unlink()
    assert "no model.safetensors or pytorch_model.bin" in refused(tmp_path)


class Runs:
    def __reduce__(self):
        return print, ("run",)


def test_pickles_of_something_else(tmp_path, capsys):
    path = tmp_path / "pytorch_model.bin"
    for other in ({"a": Runs()}, Runs(), {"a": 1}, {3: torch.ones(1)}, {"a": torch.ones(2).to_sparse()}, [], "text"):
        torch.save(other, path)
        assert str(path) in refused(tmp_path)
    path.write_bytes(pickle.dumps(Runs()))
    assert "save the model as safetensors" in refused(tmp_path) and "run" not in capsys.readouterr().out
