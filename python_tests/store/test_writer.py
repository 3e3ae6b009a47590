import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.store import FeatureStore, FeatureWriter, TextStore, TextWriter, environments


def test_features_come_back(tmp_path, random):
    rows = random.standard_normal((4, 6)).astype(np.float32)
    soft = random.dirichlet(np.ones(3), 4).astype(np.float32)
    with FeatureWriter(
        tmp_path,
        6,
        columns=("times", "confidence", "soft_labels"),
        classes=("a", "b", "c"),
        dtype="float32",
        extractor="denseface",
    ) as out:
        out.put("x", rows, times=np.arange(4), confidence=np.ones(4), soft_labels=soft)
        out.put("empty", np.zeros((0, 6)), times=[], confidence=[], soft_labels=np.zeros((0, 3)))
    store = FeatureStore.open(tmp_path)
    found = store.read("x")
    np.testing.assert_array_equal(found["rows"], rows)
    np.testing.assert_array_equal(found["soft_labels"], soft)
    np.testing.assert_array_equal(found["times"], np.arange(4, dtype=np.float32))
    assert store.ids == ["empty", "x"]
    assert store.lengths.tolist() == [0, 4]
    assert store.meta["counts"] == {"records": 2, "rows": 4}
    assert store.meta["extractor"] == "denseface"
    assert store.classes == {"soft_labels": ["a", "b", "c"]}


def test_text_is_framed_by_cls_and_sep(tmp_path):
    with TextWriter(tmp_path, classes=("sad", "happy"), lexicon_classes=("fear",)) as out:
        out.put("x", [2000, 2001, 2002], [0, 1, 1], lexicon=[-1, 0, -1], utf8="é ab", label=1)
        out.put("silent", [], [])
    store = TextStore.open(tmp_path)
    found = store.read("x")
    assert found["tokens"].tolist() == [101, 2000, 2001, 2002, 102]
    assert found["words"].tolist() == [-1, 0, 1, 1, -1]
    assert found["lexicon"].tolist() == [-1, -1, 0, -1, -1]
    assert found["utf8"].tobytes().decode() == "é ab"
    assert found["label"].tolist() == [1]
    silent = store.read("silent")
    assert silent["tokens"].tolist() == [101]
    assert silent["label"].tolist() == [-1]


def test_digest_depends_on_records_not_on_their_order(tmp_path, random):
    rows = {f"clip{i}": random.standard_normal((3, 4)) for i in range(20)}
    digests = []
    for name, order in (("a", sorted(rows)), ("b", sorted(rows, reverse=True))):
        with FeatureWriter(tmp_path / name, 4) as out:
            for id in order:
                out.put(id, rows[id])
            digests.append(out.finish()["digest"])
    assert digests[0] == digests[1]
    with FeatureWriter(tmp_path / "c", 4) as out:
        for id in rows:
            out.put(id, rows[id] + (id == "clip7"))
        assert out.finish()["digest"] != digests[0]


def test_map_grows_and_replays_the_refused_batch(tmp_path, monkeypatch, random):
    monkeypatch.setattr(environments, "_FIRST_MAP", 1 << 16)
    rows = random.standard_normal((200, 64)).astype(np.float16)
    with FeatureWriter(tmp_path, 64) as out:
        for i in range(50):
            out.put(f"clip{i}", rows)
    store = FeatureStore.open(tmp_path)
    assert len(store) == 50
    assert all((store.read(id)["rows"] == rows).all() for id in store.ids)


def test_unfinished_store_opens_as_far_as_it_got_and_goes_on(tmp_path, random):
    rows = random.standard_normal((9, 3, 4))
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, 4) as out:
        for i in range(5):
            out.put(f"clip{i}", rows[i])
        raise KeyboardInterrupt
    store = FeatureStore.open(tmp_path)
    assert not store.complete
    assert len(store) == 5
    with FeatureWriter(tmp_path, 4) as out:
        assert [out.done(f"clip{i}") for i in (4, 5)] == [True, False]
        for i in range(5, 9):
            out.put(f"clip{i}", rows[i])
    assert FeatureStore.open(tmp_path).complete
    assert FeatureStore.open(tmp_path).meta["counts"] == {"records": 9, "rows": 27}


_WRITE = """
import sys, time
import numpy as np
from memofast.store import FeatureWriter
with FeatureWriter(sys.argv[1], 32) as out:
    for i in range(400):
        if not out.done(f"clip{i}"):
            out.put(f"clip{i}", np.random.default_rng(i).standard_normal((10, 32)))
            if i % 10 == 9:
                out.commit()
                print(i, flush=True)
                time.sleep(float(sys.argv[2]))
"""


def run_here(monkeypatch, script, *arguments):
    """In this process, which need not import everything again."""
    monkeypatch.setattr(sys, "argv", ["-c", *map(str, arguments)])
    exec(script, {})


def test_killed_writer_resumes_to_the_same_digest(tmp_path, monkeypatch):
    command = [sys.executable, "-c", _WRITE]
    killed = subprocess.Popen([*command, tmp_path / "killed", "0.02"], stdout=subprocess.PIPE)
    while int(killed.stdout.readline()) < 99:
        pass
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    half = FeatureStore.open(tmp_path / "killed")
    assert not half.complete
    assert 100 <= len(half) < 400
    for name in ("killed", "whole"):
        run_here(monkeypatch, _WRITE, tmp_path / name, 0)
    metas = [FeatureStore.open(tmp_path / name).meta for name in ("killed", "whole")]
    assert metas[0]["digest"] == metas[1]["digest"]
    assert metas[0]["counts"]["records"] == 400


_FILL = """
import resource, sys
import numpy as np
from memofast.errors import MemofastError
from memofast.store import FeatureWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with FeatureWriter(sys.argv[1], 64) as out:
        for i in range(200):
            if not out.done(f"clip{i:03}"):
                out.put(f"clip{i:03}", np.full((100, 64), i))
                out.commit()
except MemofastError as error:
    sys.exit(str(error))
"""


def test_full_disk_keeps_what_was_committed(tmp_path, monkeypatch):
    command = [sys.executable, "-c", _FILL, tmp_path]
    result = subprocess.run([*command, str(1 << 20)], capture_output=True, text=True)
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "free space and run again" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    half = FeatureStore.open(tmp_path)
    assert not half.complete
    assert 10 < len(half) < 200
    assert f"{len(half)} records are kept" in result.stderr
    for i in range(len(half)):
        assert (half.read(f"clip{i:03}")["rows"] == i).all()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    run_here(monkeypatch, _FILL, tmp_path, resource.RLIM_INFINITY)
    assert FeatureStore.open(tmp_path).meta["counts"]["records"] == 200


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda out: out.put("a", np.zeros((2, 5))), r"rows of store .* must be \[2, 4\], got \[2, 5\]"),
        (lambda out: out.put("clip0", np.zeros((2, 4))), "'clip0' is in store .* already"),
        (lambda out: out.put("a", np.zeros((2, 4)), times=[0, 1]), "has columns rows, the sample has rows, times"),
        (lambda out: out.put("a", np.full((2, 4), np.nan)), "not finite"),
        (lambda out: out.put("a", np.full((2, 4), 1e6)), "not finite in float16"),
        (lambda out: out.put("a" * 512, np.zeros((2, 4))), "511 bytes"),
        (lambda out: out.put("a\nb", np.zeros((2, 4))), "line break"),
    ],
)
def test_wrong_features_are_refused(tmp_path, act, says):
    with FeatureWriter(tmp_path, 4) as out:
        out.put("clip0", np.zeros((2, 4)))
        with pytest.raises(MemofastError, match=says):
            act(out)
    assert FeatureStore.open(tmp_path).ids == ["clip0"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"words": [0]}, "2 tokens, but 1 word"),
        ({"words": [1, 0]}, "never decrease"),
        ({"label": 2}, "label 2, but store .* has 2 classes"),
        ({"lexicon": [0, 0]}, "no lexicon classes"),
    ],
)
def test_wrong_text_is_refused(tmp_path, options, says):
    with TextWriter(tmp_path, classes=("a", "b")) as out, pytest.raises(MemofastError, match=says):
        out.put("x", **({"tokens": [5, 6], "words": [0, 1]} | options))


@pytest.mark.parametrize("other", [{"width": 5}, {"dtype": "float32"}, {"extractor": "else"}])
def test_a_store_holds_one_kind_of_record(tmp_path, other):
    with FeatureWriter(tmp_path, 4) as out:
        out.put("clip0", np.zeros((2, 4)))
    with pytest.raises(MemofastError, match="one store holds one kind of record"):
        FeatureWriter(tmp_path, **({"width": 4} | other))
    with pytest.raises(MemofastError, match="one store holds one kind of record"):
        TextWriter(tmp_path)


def test_reopening_a_finished_store_changes_nothing(tmp_path):
    for _ in range(2):
        with FeatureWriter(tmp_path, 4) as out:
            if not out.done("clip0"):
                out.put("clip0", np.zeros((2, 4)))
        before = (tmp_path / "meta.json").stat().st_mtime_ns
        time.sleep(0.01)
    assert (tmp_path / "meta.json").stat().st_mtime_ns == before


def test_records_are_copied_byte_for_byte(tmp_path, random):
    with FeatureWriter(tmp_path / "a", 4) as source:
        source.put("x", random.standard_normal((3, 4)))
        source.put("y", random.standard_normal((2, 4)))
        source.commit()
        with FeatureWriter(tmp_path / "b", 4) as out:
            out.put("y", np.zeros((1, 4)))
            out.copy(source, ["x", "y", "z"])
    a, b = FeatureStore.open(tmp_path / "a"), FeatureStore.open(tmp_path / "b")
    assert b.ids == ["x", "y"] and b.lengths.tolist() == [3, 1]
    np.testing.assert_array_equal(a.read("x")["rows"], b.read("x")["rows"])


def test_records_of_another_kind_are_not_copied(tmp_path):
    with (
        FeatureWriter(tmp_path / "a", 4) as source,
        FeatureWriter(tmp_path / "b", 5) as out,
        pytest.raises(MemofastError, match="holds columns"),
    ):
        out.copy(source, ["x"])


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_raw_rows_come_back_as_they_were(tmp_path, dtype):
    limits = np.iinfo(dtype)
    rows = np.array([[limits.min, 7, limits.max], [1, 2, 3]], np.int64)
    with FeatureWriter(tmp_path, 3, dtype=dtype, columns=("confidence",)) as out:
        out.put("clip", rows, confidence=np.array([0.25, 1.0]))
        for wrong in (rows + 1, rows - 1, rows.astype(float)):
            with pytest.raises(MemofastError, match=f"whole numbers from {limits.min} to {limits.max}"):
                out.put("other", wrong, confidence=np.array([0.25, 1.0]))
    store = FeatureStore.open(tmp_path)
    found = store.read("clip")
    assert store.dtype == dtype and found["rows"].dtype == dtype and np.array_equal(found["rows"], rows)
    assert found["confidence"].dtype == np.float16 and found["confidence"].tolist() == [0.25, 1.0]
