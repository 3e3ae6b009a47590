import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from memofast import _C
from memofast.errors import MemofastError
from memofast.store import FeatureStore, FeatureWriter, TextStore
from memofast.store.memory import TYPE_IDS


def gather(store, ids, rows, width=8, dtype=torch.float16):
    rows = np.array(rows, np.int64)
    first = np.cumsum(rows) - rows
    out = torch.full((int(rows.sum()), width), torch.nan, dtype=dtype)
    places = np.array([store.ids.index(id) for id in ids])
    store.gather(places, rows, first, [("rows", width, TYPE_IDS[dtype], out.data_ptr())])
    return out


def test_gather_packs_and_pads(tmp_path, write_features):
    rows = write_features(tmp_path, [3, 0, 4, 1])
    out = gather(FeatureStore.open(tmp_path), ["clip2", "clip1", "clip0", "clip3"], [4, 0, 3, 1]).numpy()
    np.testing.assert_array_equal(out[:, :5], np.concatenate([rows[f"clip{i}"] for i in (2, 0, 3)]))
    assert (out[:, 5:] == 0).all()


@pytest.mark.parametrize("stored", ["float16", "float32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gather_converts_as_torch_does(tmp_path, stored, dtype):
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    values = halves[halves.isfinite()].to(getattr(torch, stored))
    if stored == "float32":
        between = torch.randn(4096, generator=torch.Generator().manual_seed(1)) * 10.0 ** torch.arange(-8, 8).repeat(
            256
        )
        ties = halves[halves.isfinite()].float() * (1 + 2.0**-11)
        values = torch.cat((values, between.clamp(-6e4, 6e4), ties.clamp(-6e4, 6e4)))
    values = values[: len(values) // 16 * 16].view(-1, 16)
    with FeatureWriter(tmp_path, 16, dtype=stored) as writer:
        writer.put("x", values.numpy())
    out = gather(FeatureStore.open(tmp_path), ["x"], [len(values)], 16, dtype)
    assert torch.equal(out, values.to(dtype))


def test_index_and_scan_agree(tmp_path, write_features):
    write_features(tmp_path, [3, 0, 4, 1])
    store = FeatureStore.open(tmp_path)
    ids, rows = store._scan()
    assert ids == store.ids
    np.testing.assert_array_equal(rows, store.lengths)


def _first_row(store):
    return store.read("clip0")["rows"][0].tolist()


def test_spawned_process_opens_its_own(tmp_path, write_features):
    rows = write_features(tmp_path, [3])
    store = FeatureStore.open(tmp_path)
    store.read("clip0")
    assert pickle.loads(pickle.dumps(store)).ids == store.ids
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first_row, (store,)) == rows["clip0"][0].tolist()


def test_no_transaction_outlives_a_gather(tmp_path, write_features):
    write_features(tmp_path, [3])
    store = FeatureStore.open(tmp_path)
    for _ in range(5000):  # more than the reader slots of an environment
        gather(store, ["clip0"], [3])
    with pytest.raises(MemofastError):
        gather(store, ["clip0"], [4])
    gather(store, ["clip0"], [3])


def replace_record(path, id, change):
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(id.encode(), change(bytes(transaction.get(id.encode()))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value[:-2], "truncated"),
        (lambda value: value[:7], "truncated"),
        (lambda value: b"\0" * len(value), "not a memofast record"),
        (lambda value: value[:4] + b"\x09" + value[5:], "version 9"),
        (lambda value: value[:8] + b"\x04" + value[9:], "corrupt in column rows"),
        (lambda value: value[:18] + b"\x03" + value[19:], "corrupt in column rows"),
        (lambda value: value[:16] + b"\x02" + value[17:], "no column rows"),
    ],
)
def test_corrupt_record_is_named_with_its_store(tmp_path, write_features, change, says):
    write_features(tmp_path / "visual", [3, 2])
    replace_record(tmp_path / "visual", "clip1", change)
    store = FeatureStore.open(tmp_path / "visual")
    with pytest.raises(MemofastError, match=says) as caught:
        gather(store, ["clip0", "clip1"], [3, 2])
    assert str(caught.value).startswith(f"record 'clip1' of store {tmp_path / 'visual'}")
    np.testing.assert_equal(gather(store, ["clip0"], [3]).shape, (3, 8))


_READ_AS_NOBODY = """
import os, sys
from memofast.store import FeatureStore
FeatureStore.open(sys.argv[1]).read("clip1")  # whatever is imported late is imported now, where nobody may not reach it
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(FeatureStore.open(sys.argv[2]).read("clip1")["rows"].shape)
"""


def test_store_where_nothing_can_be_written(tmp_path, write_features):
    write_features(tmp_path, [3, 2])
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, whose parents are closed to others
        write_features(folder, [3, 2])
        (Path(folder) / "lock.mdb").unlink()
        Path(folder).chmod(0o555)
        script = [sys.executable, "-c", _READ_AS_NOBODY, str(tmp_path), folder]
        read = subprocess.run(script, capture_output=True, text=True)
        Path(folder).chmod(0o755)
    assert read.stdout == "(2, 5)\n", read.stderr


def test_missing_id_is_named_with_its_store(tmp_path, write_features):
    write_features(tmp_path, [3, 3])
    store = FeatureStore.open(tmp_path)
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"clip1")
    for read in (lambda: gather(store, ["clip0", "clip1"], [3, 3]), lambda: store.read("clip1")):
        with pytest.raises(MemofastError, match=f"id 'clip1' is not in store {tmp_path}"):
            read()


def test_records_are_looked_up_again_after_a_change(tmp_path, write_features):
    rows = write_features(tmp_path, [3, 3])
    store = FeatureStore.open(tmp_path)
    gather(store, ["clip0", "clip1"], [3, 3])
    with FeatureWriter(tmp_path, 5) as writer:
        for i in range(2, 200):
            writer.put(f"clip{i}", np.full((3, 5), i))
    np.testing.assert_array_equal(
        gather(store, ["clip1", "clip0"], [3, 3])[:, :5], np.concatenate([rows["clip1"], rows["clip0"]])
    )


def test_missing_store_other_kind_and_damage_are_refused(tmp_path, write_features):
    with pytest.raises(MemofastError, match="no store at"):
        FeatureStore.open(tmp_path / "none")
    write_features(tmp_path / "a", [3])
    with pytest.raises(MemofastError, match="holds features, not text"):
        TextStore.open(tmp_path / "a")
    (tmp_path / "a" / "index.npz").write_bytes(b"junk")
    with pytest.raises(MemofastError, match="npz cannot be read"):
        FeatureStore.open(tmp_path / "a")
    (tmp_path / "a" / "meta.json").write_text("{")
    with pytest.raises(MemofastError, match="not a store's description"):
        FeatureStore.open(tmp_path / "a")


def test_batch_memory_is_recycled():
    first = _C.BatchBuffer(5 << 20)
    tensor = torch.frombuffer(first, dtype=torch.float16, count=10)
    address = tensor.data_ptr()
    assert address % (2 << 20) == 0
    del first
    second = _C.BatchBuffer(5 << 20)
    assert torch.frombuffer(second, dtype=torch.float16, count=1).data_ptr() != address  # the first still has a tensor
    del tensor
    third = _C.BatchBuffer(5 << 20)
    assert torch.frombuffer(third, dtype=torch.float16, count=1).data_ptr() == address
