# ruff: noqa: RUF001 - letters of another script are what is tested
"""What a preparation says of the texts it read: what went, by which rule, and in which encodings they were."""

import json
import wave
from pathlib import Path

import pytest
from runs import here

from memofast.data.corpus import Corpus

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "here"]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS))
    return path


def sound(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\0\10" * 16000 * 6)
    return path


def prepare(source: Path, vocabulary: Path) -> tuple[dict, str, list[str]]:
    """The report, what was printed, and the sentences in order of ids."""
    out = vocabulary.parent / "corpus"
    ran = here(Path(), "prepare", source, "--out", out, "--vocab", vocabulary, "--workers", "1", "--voice", "none")
    assert ran.returncode == 0, ran.stderr
    report = json.loads((out / "report.json").read_text())
    corpus = Corpus.open(out)
    ids = sorted(id for split in report["splits"] for id in corpus.split(split).ids)
    return report, ran.stdout + ran.stderr, [corpus.stores["text"].read(id)["utf8"].tobytes().decode() for id in ids]


def test_subtitles(tmp_path, vocabulary):
    folder = tmp_path / "films"
    folder.mkdir()
    sound(folder / "film.wav")
    sound(folder / "slow.wav")
    lines = [
        "[sighs] JOHN: I <3 <i>you</i>.",
        "\u266a la la \u266a",
        "I am #1 &amp; #2.",
        "Blöde Grüße.",
    ]
    cues = [f"{n}\n00:0{n},000 --> 00:0{n},900\n{line}\n" for n, line in enumerate(lines, 1)]
    (folder / "film.srt").write_bytes("\n".join(cues).replace("\u266a", "#").encode("cp1252"))
    (folder / "slow.srt").write_bytes("1\n00:01,000 --> 00:04,000\nПочему ты такой злой?\n".encode("cp1251"))
    ran = here(Path(), "prepare", folder, "--out", tmp_path / "x", "--min-seconds", "0.5", "--vocab", vocabulary,
               "--workers", "1", "--voice", "none")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    text = json.loads((tmp_path / "x" / "report.json").read_text())["text"]
    counts = {rule: found["count"] for rule, found in text["removed"].items()}
    assert counts == {"tag": 2, "entity": 1, "song": 1, "description": 1, "speaker": 1}
    assert text["removed"]["speaker"]["samples"] == [{"file": str(folder / "film.srt"), "text": "JOHN:"}]
    found = {Path(file).name: (entry["encoding"], entry["doubtful"]) for file, entry in text["encodings"].items()}
    assert found == {"film.srt": ("cp1252", False), "slow.srt": ("cp1251", True)}
    told = " ".join((ran.stdout + ran.stderr).split())
    assert "taken out of texts" in told and "is read as cp1251, which is a guess" in told
    assert "files in other encodings than UTF-8: cp1252 1" in told


def test_tables_keep_their_words(tmp_path, vocabulary):
    table = tmp_path / "table.csv"
    rows = ["[NAME] (I think) am #1", "JOHN: I <3 {name}", "# here #", "I am <b>here</b> &amp; here\u200b", "I " * 120]
    table.write_text("id,text\n" + "".join(f"{n},{row}\n" for n, row in enumerate(rows)))
    report, told, sentences = prepare(table, vocabulary)
    assert sentences[:4] == rows[:4] and not report["text"]["removed"]
    (cut,) = report["problems"]["words cut"]["clips"]
    assert cut["id"] == "4" and cut["detail"].startswith("20 words of 'I I I")
    assert "words cut" in told
