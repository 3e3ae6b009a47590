"""The journal of a preparation: what a kill tore is cut off, what is damaged is told by its line."""

import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.faces.speaking import Scores
from memofast.prepare.run.report import Journal, Outcome, Problem, Source

LEFT = Outcome(
    "b/é \udc80", True, 3, 0, 40, [Problem("no face", "a\nb.mp4")], 0.25, Scores(7, 5, None),
    Source("/films/b\udc80.mp4", None, 1.5, 3.0, 1.5, "hello", "audio 2 of 3"),
)  # fmt: skip


def written(path, *ids):
    journal = Journal(path)
    for id in ids:
        journal.add(Outcome(id, True, len(id)))
    journal.flush()
    return path


def test_outcomes_come_back(tmp_path):
    journal = Journal(tmp_path / "progress.jsonl")
    for outcome in (Outcome("a", False), LEFT, Outcome("a", True, 9)):
        journal.add(outcome)
        journal.flush()
    found = Journal(tmp_path / "progress.jsonl").outcomes
    assert found == {"a": Outcome("a", True, 9), LEFT.id: LEFT}


@pytest.mark.parametrize("torn", [b'{"id": "zz"', b"{", b'{"id": "zz", "kept": true}', b"\xff", b'"zz', b"["])
def test_torn_last_line_is_cut_off(tmp_path, torn):
    path = written(tmp_path / "progress.jsonl", "a", "bb")
    sound = path.read_bytes()
    path.write_bytes(sound + torn)
    assert list(Journal(path).outcomes) == ["a", "bb"]
    assert path.read_bytes() == sound + torn  # who only reads changes nothing
    written(path, "ccc")
    assert list(Journal(path).outcomes) == ["a", "bb", "ccc"]
    assert path.read_bytes().startswith(sound + b'{"id": "ccc", "kept"')


def test_whole_last_line_without_its_end_counts(tmp_path):
    path = written(tmp_path / "progress.jsonl", "a", "bb")
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    written(path, "ccc")
    assert list(Journal(path).outcomes) == ["a", "bb", "ccc"]


WHOLE = {"id": "x", "kept": True, "rows": [1, 2, 3], "problems": [["silent", ""]], "spoken": 0.5}


@pytest.mark.parametrize(
    "damaged",
    [
        b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"id": "x"}',
        *(
            json.dumps(WHOLE | changed).encode()
            for changed in (
                {"id": ""}, {"id": 5}, {"kept": 1}, {"rows": [1, 2]}, {"rows": [1, 2, -1]}, {"rows": ["1", "2", "3"]},
                {"rows": None}, {"problems": {}}, {"problems": [["silent"]]}, {"problems": [[1, 2]]},
                {"spoken": "0.5"}, {"speaker": {}}, {"speaker": {"moves": 1, "matches": 1, "correlation": 0, "n": 1}},
                {"source": []}, {"source": {"start": "0"}}, {"source": {"end": 1e400}}, {"source": {"sound": "a\0b"}},
            )
        ),
    ],
)  # fmt: skip
def test_damaged_inner_line_is_named(tmp_path, damaged):
    path = written(tmp_path / "progress.jsonl", "a", "bb")
    first, *rest = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, damaged, *rest]))
    with pytest.raises(MemofastError, match=r"line 2 of .*progress.jsonl is damaged \(.*take the line out") as caught:
        Journal(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_line_that_a_full_disk_cut_is_written_whole_the_next_time(tmp_path, monkeypatch):
    path = written(tmp_path / "progress.jsonl", "a")
    journal = Journal(path)
    journal.add(Outcome("bb", True))
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MemofastError, match="free space and run again"):
            journal.flush()
    with open(path, "ab") as file:
        file.write(b'{"id": "b')  # as far as the disk took it
    journal._torn = True
    journal.flush()
    journal.flush()
    assert list(Journal(path).outcomes) == ["a", "bb"]
    assert path.read_bytes().count(b"\n") == 2
