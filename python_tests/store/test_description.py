"""meta.json and the index of a store: whatever is not as it was written is one line that names the file."""

import json
import zipfile

import lmdb
import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.store import FeatureStore, FeatureWriter, TextStore, TextWriter
from memofast.store.description import INDEX, META
from memofast.store.record import encode


@pytest.fixture
def faces(tmp_path):
    path = tmp_path / "faces"
    with FeatureWriter(path, 3, columns=("soft_labels",), classes=("sad", "glad")) as writer:
        for id, rows in (("a", 2), ("b", 0), ("c é", 5)):
            writer.put(id, np.ones((rows, 3)), soft_labels=np.ones((rows, 2)))
    return path


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words"
    with TextWriter(path, classes=("sad", "glad"), lexicon_classes=("fear",), value="how loud") as writer:
        writer.put("a", [7, 8, 9], [0, 0, 1], lexicon=[0, -1, 0], label=1, value=2.5)
        writer.put("b", [7], [0], label=0)
    return path


def refusal(store, path):
    with pytest.raises(MemofastError) as caught:
        store.open(path)
    line = str(caught.value)
    assert str(path) in line and "\n" not in line and len(line) < len(str(path)) + 400
    return line


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), "1"), (("format",), None), (("kind",), "video"), (("kind",), []),
        (("complete",), 1), (("complete",), "true"), (("columns",), []), (("columns",), {}),
        (("columns", "rows"), None), (("format",), 1.5),
        (("columns", "rows"), ["float16", -1]), (("columns", "rows"), ["float16", 1 << 40]), (("columns",), None),
        (("columns", "rows"), ["float16", 3.0]), (("columns", "rows"), ["float64", 3]),
        (("columns", "rows"), "float16"),
        (("columns", "rows"), ["float16", "3"]), (("columns", "rows"), ["float16", 0]), (("columns", "times"), 3),
        (("columns", "soft_labels"), ["float16", 3]), (("columns", "label"), ["int64", 0]), (("classes",), []),
        (("columns", "x\ny"), ["float16", 1]), (("classes", "soft_labels"), ["a"]), (("classes", "soft_labels"), "ab"),
        (("classes", "soft_labels"), ["a\nb", "c"]), (("classes", "soft_labels"), [1, 2]), (("classes",), {}),
        (("classes", "label"), ["a", "b"]), (("extractor",), 5), (("normalisation",), ["clip"]), (("source",), {}),
        (("counts",), None), (("counts", "records"), 4), (("counts", "rows"), 8), (("counts", "rows"), "7"),
        (("digest",), None), (("digest",), "x" * 64), (("digest",), 12),
    ],
)  # fmt: skip
def test_odd_meta_is_refused(faces, place, value):
    meta = json.loads((faces / META).read_text())
    entry = meta
    for name in place[:-1]:
        entry = entry[name]
    entry[place[-1]] = value
    (faces / META).write_text(json.dumps(meta))
    assert str(faces / META) in refusal(FeatureStore, faces) or place[0] == "counts"


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"5", b"\xff{}", b"[" * 100_000, b'{"a":' * 100_000])
def test_meta_that_is_no_object_is_refused(faces, data):
    (faces / META).write_bytes(data)
    assert "is not a store's description" in refusal(FeatureStore, faces)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda meta: meta["columns"].pop("tokens"), "without tokens"),
        (lambda meta: meta.pop("special_tokens"), "without special_tokens"),
        (lambda meta: meta["special_tokens"].update(cls=-1), "special_tokens.cls"),
        (lambda meta: meta["columns"].update(utf8=["uint8", 1]), "no column utf8 of text is 1 values of uint8"),
        (lambda meta: meta.update(labeller={"fingerprint": 3}), "labeller.fingerprint"),
        (lambda meta: meta.update(labeller="model"), "labeller"),
        (lambda meta: meta["classes"].pop("lexicon"), "lexicon and the names of its classes"),
    ],
)
def test_odd_meta_of_a_text_store_is_refused(words, change, says):
    meta = json.loads((words / META).read_text())
    change(meta)
    (words / META).write_text(json.dumps(meta))
    assert says in refusal(TextStore, words)


def test_newer_store_is_named(faces):
    (faces / META).write_text(json.dumps(json.loads((faces / META).read_text()) | {"format": 2}))
    assert "has format 2, this memofast reads 1" in refusal(FeatureStore, faces)


def bytes_of(*ids):
    return np.frombuffer("\n".join(ids).encode(), np.uint8)


ROWS = np.array([2, 0, 5], np.int32)


@pytest.mark.parametrize(
    ("ids", "rows", "says"),
    [
        (bytes_of("a", "b", "c é"), ROWS[:2], r"3 ids, but row counts \[2\]"),
        (bytes_of("a", "b"), ROWS, "2 ids"),
        (bytes_of("a", "b"), ROWS[:2], "2 ids, meta.json says 3"),
        (bytes_of("a", "b", "c é"), ROWS.astype(np.int64), "of int64"),
        (bytes_of("a", "b", "c é"), ROWS.astype(np.float32), "of float32"),
        (bytes_of("a", "b", "c é"), ROWS[None], "row counts"),
        (bytes_of("a", "b", "c é"), np.array(7, np.int32), "row counts"),
        (bytes_of("a", "b", "c é"), np.array([3, -1, 5], np.int32), "7 rows"),
        (bytes_of("a", "b", "c é"), np.array([2, 0, 6], np.int32), "8 rows, meta.json says 7"),
        (bytes_of("a", "c é", "b"), ROWS, "not in order"),
        (bytes_of("a", "a", "b"), ROWS, "not in order"),
        (bytes_of("a", "", "b"), ROWS, "1 to 511 bytes"),
        (bytes_of("a", "b", "c" * 512), ROWS, "1 to 511 bytes"),
        (bytes_of("a", "b", "c é")[:-1], ROWS, "decode"),
        (bytes_of("a", "b", "c é").astype(np.int8), ROWS, "no text"),
        (np.array(["a", "b", "c"]), ROWS, "no text"),
        (bytes_of("a", "b", "c é")[None], ROWS, "no text"),
        (None, ROWS, "ids"),
    ],
)
def test_odd_index_is_refused(faces, ids, rows, says):
    np.savez(faces / INDEX, rows=rows, **({} if ids is None else {"ids": ids}))
    with pytest.raises(MemofastError, match=f"{INDEX} cannot be read .*{says}"):
        FeatureStore.open(faces)


def test_index_that_is_cut_or_missing_is_refused(faces):
    whole = (faces / INDEX).read_bytes()
    for size in range(0, len(whole), 41):
        (faces / INDEX).write_bytes(whole[:size])
        assert f"{INDEX} cannot be read" in refusal(FeatureStore, faces)
    (faces / INDEX).unlink()
    assert "it is missing" in refusal(FeatureStore, faces)


def test_index_that_unpacks_to_more_than_it_is_takes_no_memory(faces):
    with zipfile.ZipFile(faces / INDEX, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("ids.npy", "w") as file:
        np.lib.format.write_array(file, np.zeros(100_000_000, np.uint8))
    assert "takes over" in refusal(FeatureStore, faces)


def test_rows_that_the_data_cannot_hold_are_refused(faces):
    """Memory of a batch is taken by the index: it may not say more than the file has room for."""
    rows = np.array([2, 0, 2**31 - 1], np.int32)
    np.savez(faces / INDEX, ids=bytes_of("a", "b", "c é"), rows=rows)
    meta = json.loads((faces / META).read_text())
    meta["counts"]["rows"] = int(rows.sum(dtype=np.int64))
    (faces / META).write_text(json.dumps(meta))
    assert "2,147,483,649 rows of 10 bytes in" in refusal(FeatureStore, faces)


def test_names_that_could_not_be_read_again_are_not_written(tmp_path):
    with pytest.raises(MemofastError, match=r"cannot be described \(classes.label.0: must be one line"):
        TextWriter(tmp_path / "a", classes=("a\nb",))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [("tokens", -2, "tokens -2"), ("label", 2, "label 2"), ("label", -2, "label -2"), ("lexicon", 1, "lexicon 1")],
)
def test_class_that_there_is_not_is_told_with_its_record(words, column, value, says):
    with TextWriter(words.parent / "other", classes=("sad", "glad"), lexicon_classes=("fear",), value="x") as writer:
        columns = {name: array.copy() for name, array in TextStore.open(words).read("a").items()}
        columns[column][-1:] = value
        writer._add("odd", encode(5, columns))
    store = TextStore.open(words.parent / "other")
    with pytest.raises(MemofastError, match=f"record 'odd' of store {store.path} has {says}: restore"):
        store.read("odd")


@pytest.mark.parametrize(
    ("changed", "rows", "says"),
    [
        ({"rows": np.ones((5, 3), np.float32)}, 5, "no column rows of width 3"),
        ({"rows": np.ones((5, 4), np.float16)}, 5, "no column rows of width 3"),
        ({"soft_labels": np.ones((5, 3), np.float16)}, 5, "no column soft_labels of width 2"),
        ({"rows": np.ones((4, 3), np.float16), "soft_labels": np.ones((4, 2), np.float16)}, 4, "4 rows, .* says 5"),
    ],
)
def test_record_of_another_store_is_told(faces, changed, rows, says):
    whole = FeatureStore.open(faces).read("c é")
    with lmdb.open(str(faces)) as environment, environment.begin(write=True) as transaction:
        transaction.put("c é".encode(), encode(rows, whole | changed))
    with pytest.raises(MemofastError, match=f"record 'c é' of store {faces} has {says}"):
        FeatureStore.open(faces).read("c é")
