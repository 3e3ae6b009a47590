"""Changes of files: drawn by a number alone, so that one can be made again, and seldom none."""

import json
import random
import struct

import mutate
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save

from memofast.store import FeatureWriter, record

TREE = {"name": "x", "columns": {"rows": ["float16", 4]}, "count": 3, "complete": True}


def write(path):
    if path.suffix == ".npz":
        np.savez(path, a=np.arange(5), b=np.ones((2, 3), np.float32))
    elif path.suffix == ".pt":
        torch.save({"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"params": [0], "lr": 0.1}]}, path)
    else:
        data = {
            ".json": json.dumps(TREE).encode(), ".jsonl": json.dumps(TREE).encode() + b"\n{}\n",
            ".yaml": yaml.safe_dump(TREE).encode(), ".safetensors": save({"w": torch.ones(2, 3)}),
            ".srt": b"1\n00:00:01,000 --> 00:00:02,000\nRed.\n", ".mdb": bytes(range(256)) * 32, ".mp4": b"ftyp" * 20,
        }  # fmt: skip
        path.write_bytes(data[path.suffix])
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".yaml", ".npz", ".pt", ".safetensors", ".srt", ".mdb", ".mp4"])
def test_a_number_draws_one_change(suffix, tmp_path):
    path, made = write(tmp_path / f"a{suffix}"), []
    for number in range(60):
        one, again = (mutate.mutated(path, random.Random(f"0/{number}")) for _ in range(2))
        assert suffix == ".npz" or one == again  # archives have dates
        made.append(one)
    assert len(set(made)) > 45 and made.count(path.read_bytes()) < 6


def test_a_record_changes_in_its_header_its_length_and_its_values():
    whole = record.encode(3, {"rows": np.ones((3, 4), np.float32)})
    made = [mutate.record(whole, random.Random(number)) for number in range(200)]
    assert any(len(one) < len(whole) for one in made) and any(len(one) > len(whole) for one in made)
    rows = {struct.unpack_from("<I", one, 8)[0] for one in made if len(one) >= 12}
    assert len(rows) > 8 and 3 in rows and made.count(whole) < 20


def test_records_of_a_store_change_in_place(tmp_path):
    with FeatureWriter(tmp_path, 4) as writer:
        for number in range(5):
            writer.put(f"id{number}", np.full((2, 4), number))
    before = (tmp_path / "data.mdb").read_bytes()
    mutate.records(tmp_path, random.Random(1))
    assert (tmp_path / "data.mdb").read_bytes() != before
