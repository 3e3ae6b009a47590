"""A store that is begun on a full disk: one line, no signal, and nothing that a later writer stumbles over."""

import errno
import os

import lmdb
import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.store import FeatureWriter
from memofast.store.reader import FeatureStore


def test_the_lock_file_has_its_room_before_lmdb_maps_it(tmp_path, monkeypatch):
    asked = []

    def full(descriptor, begin, size):
        asked.append((os.readlink(f"/proc/self/fd/{descriptor}"), begin, size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(MemofastError, match=r"store .*s cannot be opened for writing \(.*lock.mdb: No space left"):
            FeatureWriter(tmp_path / "s", 3)
    with FeatureWriter(tmp_path / "s", 3) as writer:
        writer.put("a", np.ones((2, 3), np.float32))
    (told,) = asked
    assert told == (str(tmp_path / "s/lock.mdb"), 0, os.path.getsize(tmp_path / "s/lock.mdb"))


def test_half_a_first_page_does_not_stay(tmp_path, monkeypatch):
    def torn(path, **_):
        with open(f"{path}/data.mdb", "ab") as file:
            file.write(bytes(100))
        raise lmdb.DiskError("No space left on device")

    for there in (False, True):  # what was there before stays
        with monkeypatch.context() as patched, pytest.raises(MemofastError, match="No space left on device"):
            patched.setattr(lmdb, "open", torn)
            FeatureWriter(tmp_path / "s", 3)
        assert (tmp_path / "s/data.mdb").exists() == there
        if not there:
            with FeatureWriter(tmp_path / "s", 3) as writer:
                writer.put("a", np.full((2, 3), 0.5, np.float32))
            assert FeatureStore.open(tmp_path / "s").read("a")["rows"].shape == (2, 3)
