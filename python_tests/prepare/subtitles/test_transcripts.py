import json
import os
import shutil
import sys

import pytest
from media import write_clip
from rich.console import Console

from memofast.data.corpus import Corpus
from memofast.errors import MemofastError
from memofast.prepare.sources.clips import Clip
from memofast.prepare.subtitles.sentences import SentenceRules
from memofast.prepare.subtitles.transcripts import (
    AsrChoice,
    Recogniser,
    Transcript,
    Word,
    _cut,
    add_transcripts,
    parse_asr,
)
from memofast.prepare.text.text_log import TextLog

pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
from tiny_whisper import SAYS, write_whisper

CONSOLE = Console(quiet=True)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Longer than the thirty seconds in which the recogniser hears its sentence once."""
    return write_clip(tmp_path_factory.mktemp("film") / "film.mkv", 35.0, picture=False)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("scene") / "scene.mkv", 9.0, picture=False)


def transcribed(clips, out, whisper, **rules):
    return add_transcripts(clips, out, AsrChoice(whisper), SentenceRules(**rules), CONSOLE, threads=1)


def test_a_short_file_gets_its_words(tmp_path, whisper):
    sound = write_clip(tmp_path / "a.mkv", 3.0, picture=False)
    (clip,) = transcribed([Clip("a", sound=sound, label="glad")], tmp_path / "o", whisper)
    assert clip == Clip("a", sound=sound, label="glad", text=SAYS)
    (path,) = (tmp_path / "o").glob("a-*.json")
    told = json.loads(path.read_text())
    (words,) = told["segments"]
    assert [word["text"] for word in words] == ["Red", " blue", " now."] and abs(told["seconds"] - 3.0) < 0.1
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 3.0


def test_a_film_is_cut_into_sentences(tmp_path, whisper, film):
    clips = transcribed([Clip("film", sound=film, split="test")], tmp_path, whisper, shortest=0.1, longest=10.0)
    assert [(clip.id, clip.text, clip.split) for clip in clips] == [
        ("film_0001", SAYS, "test"),
        ("film_0002", SAYS, "test"),
    ]
    assert 0 <= clips[0].start < clips[0].end <= 30 <= clips[1].start < clips[1].end <= 35.5


def test_a_clip_with_times_gets_the_words_inside(tmp_path, whisper, scene):
    clips = [Clip("a", sound=scene, start=0.0, end=5.0), Clip("b", sound=scene, start=5.0, end=8.0)]
    found = transcribed(clips, tmp_path, whisper)
    assert [clip.text for clip in found] == [SAYS, None] and [clip.id for clip in found] == ["a", "b"]


def test_a_film_that_has_text_is_not_heard(tmp_path, whisper, film):
    clips = [Clip("a", sound=film, start=0, end=2, text="said"), Clip("b", sound=film, start=2, end=4), Clip("c")]
    assert transcribed(clips, tmp_path / "o", whisper) == clips
    assert not (tmp_path / "o").exists()


def test_a_transcript_is_made_once(tmp_path, whisper, film, monkeypatch):
    first = transcribed([Clip("film", sound=film)], tmp_path, whisper)
    monkeypatch.setattr(Recogniser, "__call__", lambda *_: pytest.fail("heard again"))
    assert transcribed([Clip("film", sound=film)], tmp_path, whisper) == first
    (path,) = tmp_path.glob("*.json")
    path.write_text("{}")
    with pytest.raises(MemofastError, match="is not a transcript"):
        transcribed([Clip("film", sound=film)], tmp_path, whisper)


def test_what_does_not_open_is_left_to_the_preparation(tmp_path, whisper):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no media")
    clips = [Clip("broken", sound=broken)]
    assert transcribed(clips, tmp_path / "o", whisper) == clips


def test_long_sounds_are_cut_where_it_is_quiet():
    import numpy as np

    from memofast.prepare.subtitles import transcripts

    sound = np.ones(16_000 * 300, np.float32)
    sound[16_000 * 290 : 16_000 * 291] = 0
    assert 290 <= transcripts._quietest(sound) / 16_000 <= 291


def test_what_a_recogniser_hears_and_nobody_says_is_told(tmp_path):
    film = Clip("film", sound=tmp_path / "film.wav")
    segments = [[Word(1.0, 2.5, " [Music]", 0.9)], [Word(3.0, 5.0, " It is #1.", 0.9)]]
    with TextLog() as log:
        (clip,) = _cut(film, Transcript(60.0, segments), SentenceRules())
    assert (clip.text, clip.start) == ("It is #1.", 3.0)
    assert log.samples["description"] == [{"file": str(film.sound), "text": "[Music]"}]


def run_here(monkeypatch, *arguments):
    from memofast.cli import run
    from memofast.prepare.command import main

    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(main, "prepare")
    return ended.value.code or 0


def test_the_command(tmp_path, whisper, monkeypatch):
    write_clip(tmp_path / "clips.mkv", 3.0, picture=False)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "."]))
    arguments = [tmp_path / "clips.mkv", "--out", tmp_path / "o", "--vocab", vocabulary, "--workers", "1"]
    assert run_here(monkeypatch, *arguments, "--asr", f"faster-whisper={whisper}") == 0
    corpus = Corpus.open(tmp_path / "o")
    (id,) = [id for split in corpus.splits for id in corpus.split(split).ids]
    assert corpus.stores["text"].read(id)["tokens"].tolist() == [2, 5, 6, 7, 8, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("whisper", "--asr is faster-whisper=FOLDER"),
        ("faster-whisper=m,beam=0", "beam is a number from 1"),
        ("faster-whisper=m,tongue=en", "no setting 'tongue'"),
    ],
)
def test_choices_that_are_none(text, message):
    with pytest.raises(MemofastError, match=message):
        parse_asr(text)
    assert parse_asr("faster-whisper=m,language=en").language == "en"


def test_folders_that_are_none(tmp_path):
    with pytest.raises(MemofastError, match=r"no model\.bin"):
        Recogniser(AsrChoice(tmp_path))
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MemofastError, match="not a faster-whisper model"):
        Recogniser(AsrChoice(tmp_path))


def test_names_that_are_long_or_no_utf8(tmp_path, scene, whisper):
    source, out = tmp_path / os.fsdecode(b"s\xff"), tmp_path / "o"
    source.mkdir()
    file = source / ("\u6f22" * 83 + ".mkv")  # 253 bytes
    shutil.copyfile(scene, file)
    (clip,) = transcribed([Clip("a", None, file)], out, whisper)
    assert clip.text == SAYS
    (path,) = out.iterdir()
    assert path.name.startswith("\u6f22" * 66 + "-") and json.loads(path.read_text())["file"] == str(file)


def test_a_sentence_whose_number_makes_its_name_too_long(tmp_path, monkeypatch, whisper, film):
    folder = tmp_path / "s" / ("a" * 250) / ("b" * 250)
    folder.mkdir(parents=True)
    for name in ("c" * 8, "d"):  # ids of 510 and 503 bytes before sentences are numbered
        shutil.copyfile(film, folder / f"{name}.mkv")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red"]))
    arguments = [tmp_path / "s", "--out", tmp_path / "c", "--vocab", tmp_path / "vocab.txt"]
    arguments += ["--asr", f"faster-whisper={whisper}", "--workers", "1", "--voice", "none"]
    arguments += ["--min-seconds", "0"]
    assert run_here(monkeypatch, *arguments) == 0
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    odd = report["problems"]["odd name"]["clips"]
    assert report["kept"] and len(odd) == report["clips"] - report["kept"] > 0
    assert {entry["detail"] for entry in odd} == {"it has 515 bytes"}
