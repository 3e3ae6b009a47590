"""Subtitles find their film by name, and of several it is told which is read."""

import json
from pathlib import Path

import pytest
from media import write_clip

from memofast.prepare.sources.clips import SourceOptions, find_clips
from memofast.prepare.sources.sidecars import pair, plain_language

SRT = "1\n00:00:00,500 --> 00:00:02,000\n{}.\n\n"
LONGER = SRT + "2\n00:00:03,000 --> 00:00:05,500\nMore of it.\n"


def films(folder, *names):
    for name in names:
        folder.joinpath(name).write_bytes(b"")
    return folder


def texts(found):
    return {clip.id: clip.text for clip in found.clips}


@pytest.mark.parametrize(
    ("media", "sidecar"),
    [
        ("film.mp4", "film.en.srt"),
        ("film.mp4", "film.eng.vtt"),
        ("A talk [x-1Yz].webm", "A talk [x-1Yz].en-US.vtt"),
        ("film.mp4", "film.zh-Hans.sdh.srt"),
        ("film.mp4", "film.SRT"),
        ("Film.mp4", "FILM.EN.SRT"),
        ("film.2019.mp4", "film.2019.german.srt"),
        ("film.mp4", "film_eng.srt"),
        ("film.mp4", "film.mp4.srt"),
        ("film.mkv", "film.mkv.en.srt"),
        ("film.en.mp4", "film.en.srt"),
    ],
)
def test_languages_between_name_and_suffix(tmp_path, media, sidecar):
    films(tmp_path, media)
    head = "WEBVTT\n\n" if sidecar.endswith("vtt") else ""
    (tmp_path / sidecar).write_text(head + SRT.replace(",", ".").format("Said") if head else SRT.format("Said"))
    found = find_clips([str(tmp_path)], SourceOptions())
    assert [(clip.text, clip.start, clip.end) for clip in found.clips] == [("Said.", 0.5, 2.0)]
    name = media.rsplit(".", 1)[0]
    assert not found.left_out and found.subtitles == {name: str(tmp_path / sidecar)}
    alone = find_clips([str(tmp_path / media)], SourceOptions())  # the file itself, beside its sidecar
    assert [clip.text for clip in alone.clips] == ["Said."]


def test_other_names_have_no_film(tmp_path):
    films(tmp_path, "film.mp4", "my.mp4")
    for name in ("film.part2.srt", "my-day.srt", "films.srt"):
        (tmp_path / name).write_text(SRT.format("Not this"))
    found = find_clips([str(tmp_path)], SourceOptions())
    problems = {clip.id: clip.problem for clip in found.clips if clip.problem}
    assert problems.keys() == {"film.part2.srt", "my-day.srt", "films.srt"}
    assert all(problem.startswith("missing file: no film beside ") for problem in problems.values())


def test_the_longest_name_is_the_film(tmp_path):
    paths = [tmp_path / "a.en.srt", tmp_path / "a.en.de.srt"]
    pairs, alone = pair(paths, [tmp_path / "a", tmp_path / "a.en"])
    assert not alone and {stem.name: [one.path.name for one in found] for stem, found in pairs.items()} == {
        "a.en": ["a.en.srt", "a.en.de.srt"]
    }


@pytest.mark.parametrize(
    ("language", "read", "others"),
    [(None, "film.fr.srt", {"film.en.srt", "film.de.vtt"}), ("eng", "film.en.srt", {"film.fr.srt", "film.de.vtt"})],
)
def test_of_several_languages_one_is_read_and_the_others_are_told(tmp_path, language, read, others):
    films(tmp_path, "film.mp4")
    (tmp_path / "film.en.srt").write_text(SRT.format("English"))
    (tmp_path / "film.fr.srt").write_text(LONGER.format("French"))
    (tmp_path / "film.de.vtt").write_text("WEBVTT\n\n" + SRT.replace(",", ".").format("German"))
    (tmp_path / "film.forced.srt").write_text(LONGER.format("A sign"))
    found = find_clips([str(tmp_path)], SourceOptions(language=language))
    assert texts(found)["film_0001"] == ("French." if language is None else "English.")
    told = {Path(entry.file).name: (entry.reason, entry.detail) for entry in found.left_out}
    assert told.pop("film.forced.srt")[0] == "subtitles of parts"
    assert told == dict.fromkeys(others, ("other subtitles", f"{read} is used"))


def test_what_cannot_be_read_stands_behind_what_can(tmp_path):
    films(tmp_path, "film.mp4")
    (tmp_path / "film.sub").write_text("{25}{100}No rate\n")
    (tmp_path / "film.en.srt").write_text(SRT.format("Said"))
    found = find_clips([str(tmp_path)], SourceOptions())
    assert texts(found) == {"film_0001": "Said."}
    (entry,) = found.left_out
    assert entry.file.endswith("film.sub") and "names no frame rate" in entry.detail


def test_the_name_alone_stands_before_languages_and_srt_before_vtt(tmp_path):
    films(tmp_path, "film.mp4")
    (tmp_path / "film.srt").write_text(SRT.format("Plain"))
    (tmp_path / "film.vtt").write_text("WEBVTT\n\n" + LONGER.replace(",", ".").format("Web"))
    (tmp_path / "film.en.srt").write_text(LONGER.format("English"))
    found = find_clips([str(tmp_path)], SourceOptions())
    assert texts(found) == {"film_0001": "Plain."} and len(found.left_out) == 2
    found = find_clips([str(tmp_path)], SourceOptions(language="en"))
    assert texts(found)["film_0001"] == "English." and len(found.left_out) == 2
    found = find_clips([str(tmp_path)], SourceOptions(subtitles="none"))
    assert texts(found) == {"film": None}
    assert {entry.reason for entry in found.left_out} == {"subtitles not asked for"} and len(found.left_out) == 3


def test_frames_without_a_rate_are_a_problem_of_their_film(tmp_path):
    films(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "a.sub").write_text("{25}{100}First.|And more.\n")
    (tmp_path / "b.sub").write_text("{1}{1}25\n{25}{100}First.|And more.\n")
    (tmp_path / "c.SUB").write_bytes(b"\x00\x00\x01\xba\x44" * 99)  # VobSub
    a, b, c = find_clips([str(tmp_path)], SourceOptions()).clips
    assert "a.sub counts frames and names no frame rate" in a.problem and a.problem.startswith("bad timings: ")
    assert (b.text, b.start, b.end) == ("First. And more.", 1.0, 4.0)
    assert c.problem.startswith("bad timings: ") and "VobSub" in c.problem


def test_languages_have_several_codes():
    assert plain_language("eng") == plain_language("en-US") == plain_language("English") == "en"
    assert plain_language("ger") == plain_language("deu") == "de" and plain_language("tlh") == "tlh"


def test_prediction_tells_what_it_does_not_use(tmp_path):
    from memofast.inference.segments import Cutting, read_clips

    write_clip(tmp_path / "film.mp4", 1.0)
    (tmp_path / "film.en.srt").write_text(SRT.format("Said"))
    (tmp_path / "t.txt").write_text("no table of media")
    found = read_clips(str(tmp_path), Cutting(), 30.0)
    assert texts(found) == {"film_0001": "Said."}
    assert [(Path(entry.file).name, entry.reason) for entry in found.left_out] == [("t.txt", "unknown suffix")]
    assert json.dumps([vars(entry) for entry in found.left_out])
