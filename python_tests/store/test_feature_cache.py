"""Vectors kept by what they were made of."""

import subprocess
import sys
import time

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.store import feature_cache
from memofast.store.feature_cache import KEY_BYTES, FeatureCache, open_cache


def key(number: int, maker: int = 0) -> bytes:
    return bytes([maker] * 16) + number.to_bytes(32)


def some(count: int, width: int = 5, dtype=np.float32, maker: int = 0) -> dict[bytes, np.ndarray]:
    draws = np.random.default_rng(count)
    return {key(number, maker): draws.normal(size=width).astype(dtype) for number in range(count)}


def test_what_was_added_is_read_by_whoever_opens_it(tmp_path):
    made = some(7) | some(3, 2, np.float16, maker=9)
    cache = FeatureCache(tmp_path / "c")
    cache.add(made)
    assert len(key(3)) == KEY_BYTES
    cache.close()
    again = FeatureCache(tmp_path / "c", writes=False)
    for found, wanted in zip(again.read([*made]), made.values(), strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype
    assert again.read([key(99), key(2)])[0] is None and len(again) == 10
    assert again.makers() == {"00" * 16: (7, 7 * 20), "09" * 16: (3, 3 * 4)}
    again.close()


def test_damage_is_no_vector(tmp_path):
    cache = FeatureCache(tmp_path / "c")
    cache.add(some(4))
    with cache._env.begin(write=True) as transaction:
        value = bytearray(transaction.get(key(1)))
        value[-1] ^= 1
        transaction.put(key(1), bytes(value))
        transaction.put(key(2), b"short")
    assert cache.damaged() == [key(1), key(2)] and cache.read([key(1), key(2)]) == [None, None]
    cache.remove(cache.damaged())
    assert cache.damaged() == [] and len(cache) == 2
    cache.close()


def test_the_oldest_go_and_the_file_shrinks(tmp_path, monkeypatch):
    cache, now = FeatureCache(tmp_path / "c"), iter(range(10**6))
    monkeypatch.setattr(feature_cache.time, "time", lambda: float(next(now)))
    made = some(300, 500)
    for one in reversed(made):  # the last keys are the oldest
        cache.add({one: made[one]})
    before = (tmp_path / "c" / "data.mdb").stat().st_size
    assert cache.prune(101 * 2000 + 1999) == 199
    assert cache.makers()["00" * 16] == (101, 101 * 2000)
    assert all(found is not None for found in cache.read([key(number) for number in range(101)]))
    assert (tmp_path / "c" / "data.mdb").stat().st_size < before / 2
    assert cache.prune(10**9) == 0 and len(cache) == 101
    cache.add(some(302, 4))
    assert len(cache) == 302
    cache.close()


def test_nothing_is_pruned_under_another_process(tmp_path):
    cache = FeatureCache(tmp_path / "c")
    cache.add(some(3))
    program = [sys.executable, "-c", WRITER, str(tmp_path / "c"), "1"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with pytest.raises(MemofastError, match="open in another process"):
            cache.prune(0)
        writer.kill()
    assert len(cache) >= 3 and cache.prune(0) >= 3 and len(cache) == 0
    cache.add(some(2))
    cache.close()
    assert len(FeatureCache(tmp_path / "c", writes=False)) == 2


def test_a_process_opens_a_folder_once(tmp_path):
    one = open_cache(tmp_path / "c")
    assert open_cache(tmp_path / "x" / ".." / "c") is one
    one.add(some(2))


def test_what_is_no_cache_is_one_line(tmp_path):
    with pytest.raises(MemofastError, match="no cache of features"):
        FeatureCache(tmp_path / "nowhere", writes=False)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("")
    with pytest.raises(MemofastError, match="something else"):
        FeatureCache(tmp_path / "own")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(MemofastError, match="can be opened"):
        FeatureCache(tmp_path / "broken")


WRITER = """
import sys, numpy as np
from pathlib import Path
from memofast.store.feature_cache import FeatureCache
cache = FeatureCache(Path(sys.argv[1]))
print("open", flush=True)
for number in range(10**7):
    cache.add({bytes([int(sys.argv[2])] * 16) + number.to_bytes(32): np.full(64, number, np.float32)})
"""


@pytest.mark.slow
def test_two_writers_that_are_killed_while_somebody_reads(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "c"), str(maker)], stdout=subprocess.PIPE)
        for maker in (1, 2)
    ]
    for writer in writers:
        writer.stdout.readline()
    cache, deadline = FeatureCache(tmp_path / "c", writes=False), time.monotonic() + 60
    while any(cache.read([key(20, maker)])[0] is None for maker in (1, 2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for writer in writers:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    for maker in (1, 2):
        found = cache.read([key(number, maker) for number in range(21)])
        assert [int(one[0]) for one in found] == list(range(21))
    assert cache.damaged() == []
    cache.close()
