"""The data file: what LMDB wrote comes back, what is damaged is refused, and neither a writer nor a fork disturbs who
reads."""

import os
import random
import threading

import lmdb
import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.store import FeatureStore, FeatureWriter, environments
from memofast.store.memory import TYPE_IDS
from memofast.store.pages import DATA, Pages

PAGE = 4096


def write(path, transactions, seed=0):
    """Write through LMDB alone, in several transactions; returns what was written, by key."""
    dice, written = random.Random(seed), {}
    with lmdb.open(str(path), map_size=1 << 26) as environment:
        for _ in range(transactions):
            with environment.begin(write=True) as transaction:
                for _ in range(dice.choice([1, 7, 60])):
                    key = f"é{dice.randrange(10**6)}{'x' * dice.choice([0, 9, 400])}"
                    written[key] = dice.randbytes(dice.choice([0, 1, 90, 800, 2030, 2100, 4080, 30000]))
                    transaction.put(key.encode(), written[key])
    return written


def values(snapshot, ids):
    return [None if at < 0 else bytes(snapshot.map[at : at + size]) for at, size in snapshot.find(ids).tolist()]


@pytest.mark.parametrize("transactions", [0, 1, 40])
def test_records_are_those_of_lmdb(tmp_path, transactions):
    written = write(tmp_path, transactions)
    snapshot = Pages(tmp_path).snapshot()
    assert {id: bytes(value) for id, value in snapshot.records()} == written
    assert [id for id, _ in snapshot.records()] == sorted(written, key=str.encode)
    ids = sorted(written, key=hash)
    assert values(snapshot, [*ids, "", "nobody", "\udc80"]) == [written[id] for id in ids] + [None] * 3
    snapshot.check_free_pages()


@pytest.mark.parametrize("size", [0, 1, 40, PAGE, 2 * PAGE - 1, 3 * PAGE, -PAGE, -1])
def test_truncated_file_is_refused_at_opening(tmp_path, write_features, size):
    write_features(tmp_path, [300, 7], width=40)
    whole = os.path.getsize(tmp_path / DATA)
    os.truncate(tmp_path / DATA, size % whole if size else 0)
    for open_it in (FeatureStore.open, lambda path: FeatureWriter(path, 40)):
        with pytest.raises(MemofastError, match=f"{tmp_path / DATA} is (truncated|missing)"):
            open_it(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (16, b"\0", "no file of LMDB 0.9"),  # magic
        (20, b"\3", "no file of LMDB 0.9"),  # version
        (40, b"\1", "is truncated or no LMDB file"),  # page size
        (40, b"\0\x20", "no file of LMDB 0.9"),  # a page size where no such page is
        (PAGE + 40, b"\0\x20", "damaged first page"),  # other than the first's
        (PAGE + 92, b"\4", "damaged first page"),  # flags of the records
        (PAGE + 94, b"\x60", "damaged first page"),  # depth
        (PAGE + 128, b"\xff\xff\xff", "damaged first page"),  # root
        (PAGE + 136, b"\xff\xff\xff", "is truncated"),  # last page
        (144, b"\x07", "damaged first page"),  # a transaction that wrote the other page
    ],
)
def test_damaged_first_page_is_refused(tmp_path, write_features, place, value, says):
    write_features(tmp_path, [30, 7])
    with open(tmp_path / DATA, "r+b") as file:
        file.seek(place)
        file.write(value)
    with pytest.raises(MemofastError, match=says) as caught:
        FeatureStore.open(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / DATA))


def test_pointer_of_lfs_is_named(tmp_path, write_features):
    write_features(tmp_path, [3])
    (tmp_path / DATA).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1234\n")
    with pytest.raises(MemofastError, match="Git LFS pointer, not the file of 1234 bytes"):
        FeatureStore.open(tmp_path)


def test_damaged_pages_never_end_the_process(tmp_path):
    """Random bytes of random pages: what comes out is right, another record's bytes, or one line."""
    ids = sorted(write(tmp_path, 12, seed=5))
    sound, dice, refused = (tmp_path / DATA).read_bytes(), random.Random(1), 0
    for _ in range(500):
        with open(tmp_path / DATA, "r+b") as file:
            changed = []
            for _ in range(dice.choice([1, 1, 2, 9])):
                at = dice.randrange(len(sound) // PAGE) * PAGE + dice.choice([dice.randrange(16), dice.randrange(PAGE)])
                changed.append(at)
                os.pwrite(file.fileno(), bytes([dice.choice([0, 1, 255, dice.randrange(256)])]), at)
            try:
                snapshot = Pages(tmp_path).snapshot()
                snapshot.check_free_pages()
                assert all(value is None or isinstance(value, bytes) for value in values(snapshot, ids))
                assert sum(len(value) for _, value in snapshot.records()) < len(sound)
            except MemofastError as error:
                refused += 1
                assert str(tmp_path / DATA) in str(error) and "\n" not in str(error)
            for at in changed:
                os.pwrite(file.fileno(), sound[at : at + 1], at)
    assert 50 < refused < 450


def test_page_that_names_an_earlier_one_is_no_circle(tmp_path):
    write(tmp_path, 40)
    data = bytearray((tmp_path / DATA).read_bytes())
    meta = max((data[start : start + 152] for start in (0, PAGE)), key=lambda meta: meta[144:152][::-1])
    depth, root = meta[94], int.from_bytes(meta[128:136], "little")
    assert depth > 1
    node = root * PAGE + int.from_bytes(data[root * PAGE + 16 : root * PAGE + 18], "little")
    data[node : node + 4] = root.to_bytes(4, "little")  # its first child is itself
    for start in (0, PAGE):
        data[start + 94] = 30
    (tmp_path / DATA).write_bytes(data)
    with pytest.raises(MemofastError, match="has a damaged page"):
        Pages(tmp_path).snapshot().entries()


def rows_of(store, ids):
    places = np.array([store.place_of[id] for id in ids])
    rows = store.lengths[places].astype(np.int64)
    out = torch.full((int(rows.sum()), 8), torch.nan, dtype=torch.float16)
    store.gather(places, rows, np.cumsum(rows) - rows, [("rows", 8, TYPE_IDS[out.dtype], out.data_ptr())])
    return out[:, : store.width].numpy()


def test_store_grows_under_its_readers(tmp_path, monkeypatch, write_features):
    """Threads gather while a writer of this process makes the store, and its map, many times as large."""
    monkeypatch.setattr(environments, "_FIRST_MAP", 1 << 16)
    rows = write_features(tmp_path, [3, 0, 40, 9])
    store, ids, wrong, stop = FeatureStore.open(tmp_path), ["clip2", "clip1", "clip3", "clip0"], [], threading.Event()
    expected = np.concatenate([rows[id] for id in ids])

    def read():
        while not stop.is_set():
            if not np.array_equal(rows_of(store, ids), expected):
                wrong.append("gather")
            if not np.array_equal(store.read("clip3")["rows"], rows["clip3"]):
                wrong.append("read")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    with FeatureWriter(tmp_path, 5) as writer:
        for number in range(60):
            writer.put(f"new{number}", np.full((number * 30, 5), number))
            writer.commit()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert os.path.getsize(tmp_path / DATA) > 8 * (1 << 16)
    np.testing.assert_array_equal(rows_of(store, ids), expected)
    later = FeatureStore.open(tmp_path)
    np.testing.assert_array_equal(later.read("new59")["rows"], np.full((59 * 30, 5), 59))


def test_what_a_writer_took_meanwhile_is_looked_at_again(tmp_path):
    write(tmp_path, 1)
    pages, seen = Pages(tmp_path), []

    def commit():
        with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
            transaction.put(f"{len(seen)}".encode(), b"")

    def look(snapshot):
        seen.append(snapshot.meta.transaction)
        for _ in range({1: 2, 2: 1}.get(len(seen), 0)):  # two transactions end during the first look, one in the second
            commit()
        if len(seen) == 1:
            raise MemofastError("of a page that was taken")
        return len(seen)

    assert pages.read(look) == 2
    assert seen == [1, 3]
    with pytest.raises(MemofastError, match="of its own"):
        pages.read(lambda snapshot: (_ for _ in ()).throw(MemofastError("of its own")))


def test_forked_process_reads_and_does_not_write_beside_its_parent(tmp_path, write_features):
    rows = write_features(tmp_path / "a", [30, 7])
    store = FeatureStore.open(tmp_path / "a")
    rows_of(store, ["clip0"])
    with FeatureWriter(tmp_path / "b", 5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                same = np.array_equal(
                    rows_of(store, ["clip1", "clip0"]), np.concatenate([rows["clip1"], rows["clip0"]])
                )
                again = np.array_equal(FeatureStore.open(tmp_path / "a").read("clip1")["rows"], rows["clip1"])
                with pytest.raises(MemofastError, match="or start processes by spawn"):
                    FeatureWriter(tmp_path / "b", 5)
                code = 0 if same and again else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(rows_of(store, ["clip1"]), rows["clip1"])


def test_damaged_list_of_free_pages_is_refused_before_writing(tmp_path):
    write(tmp_path, 9)
    data = bytearray((tmp_path / DATA).read_bytes())
    meta = max((data[start : start + 152] for start in (0, PAGE)), key=lambda meta: meta[144:152][::-1])
    root = int.from_bytes(meta[80:88], "little") * PAGE
    node = root + int.from_bytes(data[root + 16 : root + 18], "little")
    data[node + 16 : node + 24] = (10**6).to_bytes(8, "little")  # how many pages its first entry lists
    (tmp_path / DATA).write_bytes(data)
    with pytest.raises(MemofastError, match="has a damaged page"):
        Pages(tmp_path).snapshot().check_free_pages()
