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
    (tmp_path / "store").mkdir()
    for name in ("data.mdb", "meta.json"):
        (tmp_path / "store" / name).touch()
    with pytest.raises(MemofastError, match="something else"):
        FeatureCache(tmp_path / "store")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(MemofastError, match=r"no LMDB file: remove .*broken, and its vectors"):
        FeatureCache(tmp_path / "broken")


def test_a_vector_in_anothers_place_or_of_another_type_is_none(tmp_path):
    cache = FeatureCache(tmp_path / "c")
    cache.add(some(4))
    with cache._env.begin(write=True) as transaction:
        first, second = (bytes(transaction.get(key(number))) for number in (0, 1))
        transaction.put(key(0), second)
        transaction.put(key(1), second[:16] + b"\1" + second[17:])  # twice as many, half as wide
        assert first[16] == 0
    assert cache.damaged() == [key(0), key(1)] and cache.read([key(0), key(1)]) == [None, None]
    cache.close()


def closed(folder, made):
    cache = FeatureCache(folder)
    cache.add(made)
    cache.close()
    return folder / "data.mdb"


def test_a_damaged_page_is_one_line_before_lmdb_follows_it(tmp_path):
    data = closed(tmp_path / "c", some(60, 500))
    whole = data.read_bytes()
    data.write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    told = r"damaged page: remove .*c, and its vectors are made anew"
    with pytest.raises(MemofastError, match=told):
        FeatureCache(tmp_path / "c")
    reader = FeatureCache(tmp_path / "c", writes=False)
    for read in (lambda: reader.read([key(3)]), reader.makers, reader.damaged):
        with pytest.raises(MemofastError, match=told):
            read()
    reader.close()
    data.write_bytes(whole[:20480])
    with pytest.raises(MemofastError, match="is truncated"):
        FeatureCache(tmp_path / "c", writes=False)
    data.write_bytes(whole)
    assert len(FeatureCache(tmp_path / "c")) == 60


def test_what_killed_processes_left_is_no_obstacle(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / ".in_use").touch()  # it came no further
    closed(folder, some(5))
    for name in (".begun.4000000.partial", ".compacted.4000001.partial"):
        (folder / name).mkdir()
        (folder / name / "data.mdb").write_bytes(b"half")
    cache = FeatureCache(folder)
    assert {path.name for path in folder.iterdir()} == {"data.mdb", "lock.mdb", ".in_use"}
    assert cache.prune(3 * 20) == 2 and len(cache) == 3
    cache.close()


def test_a_map_grows_with_what_this_and_other_processes_add(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache.environments, "_FIRST_MAP", 1 << 16)
    cache = FeatureCache(tmp_path / "c")
    cache.add(some(100, 500))
    assert 100 * 2000 < cache._env.info()["map_size"] < 1 << 20
    program = [sys.executable, "-c", WRITER.replace("range(10**7)", "range(4000)"), str(tmp_path / "c"), "1"]
    subprocess.run(program, check=True, capture_output=True)
    assert cache.read([key(3999, 1)])[0].tolist() == [3999.0] * 64
    cache.add(some(3, maker=5))
    assert len(cache) == 4103
    cache.close()


def test_a_cache_takes_little_address_space(tmp_path):
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom memofast.store.feature_cache import FeatureCache\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\nprint(len(FeatureCache(Path(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr


def test_a_full_disk_while_it_is_pruned_leaves_it_as_it_was(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "c")
    cache.add(some(6))
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "sync_entry", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(MemofastError, match=r"c cannot be written \(.*No space left\); free space, then run again"):
            cache.prune(40)
    assert not list((tmp_path / "c").glob(".*.partial")) and len(cache) == 2
    assert cache.prune(20) == 1
    cache.close()


def test_entries_without_a_time_are_the_oldest(tmp_path):
    cache = FeatureCache(tmp_path / "c")
    cache.add(some(4))
    with cache._env.begin(write=True) as transaction:
        transaction.put(key(2), b"short")
        transaction.put(key(3), b"\xff" * 37)  # no number of seconds
    assert cache.makers() == {"00" * 16: (4, 2 * 20 + 20)}
    assert cache.prune(2 * 20) == 2 and cache.damaged() == [] and len(cache) == 2
    cache.close()


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
