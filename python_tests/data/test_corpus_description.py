"""corpus.json, splits and reports: whatever is not as it was written is one line that names the file."""

import json

import numpy as np
import pytest

from memofast.data import Corpus, write_corpus
from memofast.data.folds import open_split, read_groups, write_folds, write_groups
from memofast.data.summary import summarise
from memofast.errors import MemofastError
from memofast.store import TextStore, TextWriter
from memofast.store.record import encode


def refusal(call):
    with pytest.raises(MemofastError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), "1"), (("format",), []), (("name",), None), (("name",), 5), (("name",), "a\nb"),
        (("name",), "\udc80"), (("stores",), []), (("stores",), "text"), (("stores", "text"), None),
        (("stores", "text"), ["text"]), (("stores", "text"), ""), (("stores", "text"), "a\0b"),
        (("stores", "x"), "text"), (("stores", "text"), "a" * 5000), (("stores", "text"), "a" * 300),
        (("stores", "text"), "visual"), (("streams",), []), (("streams",), None),
        (("streams", "glove"), "text"), (("streams", "glove"), {"store": "visual"}),
        (("streams", "glove"), {"store": "visual", "modality": "smell"}),
        (("streams", "text"), {"store": "visual", "modality": "text"}),
        (("splits",), ["train"]), (("splits",), None), (("splits", "train"), "splits/train.txt"),
        (("splits", "train"), {"file": "splits/train.txt"}), (("splits", "train", "samples"), "30"),
        (("splits", "train", "samples"), -1), (("splits", "train", "samples"), 3.5), (("splits", "train", "file"), 7),
        (("splits", "train", "samples"), True), (("splits", "train", "part_of"), ["x"]), (("groups",), ["speaker"]),
        (("groups", "speaker"), 3), (("folds",), [1]), (("folds", "speaker"), 3), (("folds", "speaker"), {}),
        (("folds", "speaker"), {"count": "3"}), (("rules",), {}), (("rules",), [3]), (("rules",), [{"clips": 1}]),
        (("rules",), [{"rule": "x", "clips": None}]), (("licence",), 3),
    ],
)  # fmt: skip
def test_odd_description_is_refused(make_corpus, place, value):
    path = make_corpus().path
    description = json.loads((path / "corpus.json").read_text())
    entry = description
    for name in place[:-1]:
        entry = entry.setdefault(name, {})
    entry[place[-1]] = value
    (path / "corpus.json").write_text(json.dumps(description))
    line = refusal(lambda: Corpus.open(path))
    assert str(path / "corpus.json") in line or value in ("visual", "a" * 300)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff{}", b"[" * 100_000, b'{"a":' * 100_000])
def test_description_that_is_no_object_is_refused(make_corpus, data):
    path = make_corpus().path
    (path / "corpus.json").write_bytes(data)
    assert "is not a corpus description" in refusal(lambda: Corpus.open(path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data + b"\xe3\n", "is no UTF-8"),
        (lambda data: data[:3] + b"\n" + data[3:], "is not in store"),
        (lambda data: data.replace(b"\n", b"\r\n"), r"'clip000\\r' of split train is not in store"),
        (lambda data: b"\xef\xbb\xbf" + data, r"'\\ufeffclip000' of split train is not in store"),
        (lambda data: data + data, "names sample 'clip000' twice"),
        (lambda data: data[: len(data) // 2 // 8 * 8], "lists 16 samples, .*says 32"),
        (lambda data: data.replace(b"\n", b"\n\n", 1), "line 2 of .* is empty"),
        (lambda data: data.replace(b"clip003", b"\0"), r"'\\x00' of split train is not in store"),
        (lambda data: data.replace(b"clip003", b"x" * 600), "is not in store"),
        (lambda data: data + b"x" * 4097 + b"\n", "line 33 of .* is longer than 4096 letters"),
        (lambda data: b"", "has no samples"),
    ],
)
def test_odd_split_is_refused(make_corpus, change, says):
    corpus = make_corpus()
    file = corpus.path / "splits/train.txt"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(MemofastError, match=says) as caught:
        corpus.split("train")
    assert "\n" not in str(caught.value)


def test_split_that_is_no_file_is_refused(make_corpus):
    corpus = make_corpus()
    corpus.description["splits"]["train"]["file"] = "splits"
    assert "splits is no file" in refusal(lambda: corpus.split("train"))


def test_odd_groups_and_folds_are_refused(make_corpus):
    corpus = make_corpus()
    ids = corpus.split("train").ids
    write_groups(corpus.path, "speaker", {id: f"s{place % 3}" for place, id in enumerate(ids)})
    write_folds(corpus.path, "two", [{"train": ids[:9], "test": ids[9:12]}] * 2)
    corpus = Corpus.open(corpus.path)
    (corpus.path / "folds/two/01/train.txt").write_bytes(b"\xff\n")
    assert "two/01/train.txt is no UTF-8" in refusal(lambda: open_split(corpus, "two-01/train"))
    (corpus.path / "groups/speaker.tsv").write_bytes(b"clip000\ts\xff\n")
    assert "speaker.tsv is no UTF-8" in refusal(lambda: read_groups(corpus, "speaker"))


def test_names_that_could_not_be_read_again_leave_nothing(make_corpus, tmp_path):
    text = make_corpus().stores["text"].path
    line = refusal(lambda: write_corpus(tmp_path / "new", "a\tb", {"text": text}, {"train": ["clip000"]}))
    assert "cannot be described (name: must be one line of letters" in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"clips": "50"}, {"problems": []}, {"problems": {"silent": 3}}, {"problems": {"silent": {"count": -1}}},
        {"text": []}, {"text": {"removed": {"tag": {"count": 1}}}},
        {"left_out": {"hidden": {"count": 1, "files": [3]}}},
        {"streams": [1]}, {"notes": {}},
    ],
)  # fmt: skip
def test_odd_report_is_refused(make_corpus, changed):
    corpus = make_corpus()
    report = {"clips": 50, "kept": 40, "problems": {}}
    (corpus.path / "report.json").write_text(json.dumps(report | changed))
    assert f"{corpus.path / 'report.json'} is not a report" in refusal(lambda: summarise(corpus))


def test_class_that_there_is_not_is_told_by_the_batch_that_meets_it(tmp_path):
    with TextWriter(tmp_path / "text", classes=("sad", "glad")) as writer:
        for number in range(5):
            writer.put(f"clip{number}", [7] * number, range(number), label=number % 2)
    whole = TextStore.open(tmp_path / "text").read("clip3")
    with TextWriter(tmp_path / "text", classes=("sad", "glad")) as writer:
        writer._add("clip9", encode(5, whole | {"label": np.array([2])}))
    ids = [f"clip{number}" for number in (0, 1, 2, 3, 9)]
    split = write_corpus(tmp_path, "odd", {"text": tmp_path / "text"}, {"train": ids}).split("train")
    assert split.pack([3, 0]).targets["label"].tolist() == [1, 0]
    assert "record 'clip9' of store" in refusal(lambda: split.pack([2, 4, 1]))
