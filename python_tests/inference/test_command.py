"""`memofast predict` as a user starts it: files that it writes, how it cuts, what stops it."""

import csv
import json
import os
import shutil
import signal
import sys

import matplotlib.image
import numpy as np
import pytest
from films import Picture, Tone, write_film
from media import write_clip

from memofast import cli
from memofast.inference import films, results
from memofast.inference.segments import equal_pieces, spoken_pieces
from memofast.prepare.speech.voice import EnergyVoice


@pytest.fixture
def predict(monkeypatch, capsys, files, model, tmp_path):
    """Runs the command in this process; returns exit code, what it wrote, and stderr."""

    def start(source, *options, model=model, face=files["face"], out=tmp_path / "out"):
        line = ["memofast", "predict", source, "--model", model, "--out", out, *(["--face", face] if face else [])]
        monkeypatch.setattr(sys, "argv", [str(part) for part in [*line, "--device", "cpu", *options]])
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        rows = out / "predictions.jsonl"
        written = [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else None
        return ended.value.code or 0, written, capsys.readouterr().err

    return start


def test_a_film_is_written_as_rows_table_and_picture(predict, media, tmp_path):
    code, rows, told = predict(media / "film.mp4")
    assert code == 0 and "2 utterances: " in told and "utterances/s" in told
    assert [row["text"] for row in rows] == ["Red now.", "Blue reds."]
    assert [row["start"] for row in rows] == [0.2, 1.8] and {row["track"] for row in rows} == {1}
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows)
    assert all(set(row["importance"]) == {"text", "visual", "speech"} for row in rows)
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for line, row in zip(table, rows, strict=True):
        assert line["named"] == row["named"] and line["modalities"] == "text+visual+speech"
        assert float(line["p_glad"]) == pytest.approx(row["probabilities"]["glad"], abs=1e-6)
        assert float(line["importance_text"]) == pytest.approx(row["importance"]["text"], abs=1e-6)
    picture = matplotlib.image.imread(tmp_path / "out/timeline.png")
    assert picture.shape[1] > 1000 and picture[..., :3].std() > 0.05
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "predictions.csv", "predictions.jsonl", "timeline.png",
    ]  # fmt: skip


def test_classes_in_order_give_a_score(predict, media, model, tmp_path):
    order = ["sad", "calm", "glad"]
    code, rows, _ = predict(media / "film.mp4", "--ordered", ", ".join(order))
    assert code == 0
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for line, row in zip(table, rows, strict=True):
        place = sum(number * row["probabilities"][name] for number, name in enumerate(order))
        assert row["score"] == pytest.approx(100 * place / (len(order) - 1), abs=1e-3)
        assert float(line["score"]) == pytest.approx(row["score"], abs=5e-4)
    code, rows, told = predict(media / "film.mp4", "--ordered", "glad", out=tmp_path / "other")
    assert code == 2 and told.count("\n") == 1 and "from the lowest to the highest" in told
    assert rows is None and not (tmp_path / "other").exists()


def test_what_is_not_said_is_left_out_and_told(predict, media, tmp_path):
    shutil.copy(media / "film.mp4", tmp_path / "film.mp4")
    cue = "1\n00:00,200 --> 00:01,600\n[laughs] JOHN: Red &amp; blue #1, so <3.\n"
    (tmp_path / "film.srt").write_bytes(cue.encode("utf-16-le"))
    code, rows, told = predict(tmp_path / "film.mp4")
    assert code == 0 and [row["text"] for row in rows] == ["Red & blue #1, so <3."]
    assert "taken out of texts" in told and "[laughs]" in told and "utf-16-le 1" in told


def test_everybody_who_is_seen_has_a_row(predict, media, pair_of_faces, tmp_path):
    code, rows, told = predict(media / "film.mp4", "--html")
    assert code == 0 and "2 utterances: " in told and "2 rows of others" in told
    assert [row["text"] for row in rows] == ["Red now.", None, "Blue reds.", None]
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(line["id"], line["track"], line["speaks"]) for line in table] == [
        ("film_0001", "1", "True"),
        ("film_0001", "2", "False"),
        ("film_0002", "1", "True"),
        ("film_0002", "2", "False"),
    ]
    assert [line["modalities"] for line in table] == ["text+visual+speech", "visual"] * 2
    page = (tmp_path / "out/predictions.html").read_text()
    for modality, fall in rows[0]["importance"].items():  # as the picture draws it, up where the modality helps
        assert f"<dt>{modality} adds</dt><dd>{fall:+.2f}</dd>" in page
    assert page.count('<ol class="strip">') == 3 and 'href="#u-film_0001-2"' in page
    code, alone, told = predict(media / "film.mp4", "--no-others", "--html", out=tmp_path / "alone")
    assert code == 0 and [row["id"] for row in alone] == ["film_0001", "film_0002"] and "of others" not in told
    assert "person 2" not in (tmp_path / "alone/predictions.html").read_text()


def test_without_subtitles_it_cuts_by_voice_or_windows(predict, media, tmp_path):
    _, rows, _ = predict(media / "long.mp4", out=tmp_path / "voice")
    assert rows[0]["start"] == pytest.approx(5.0, abs=0.5) and rows[-1]["end"] == pytest.approx(14.0, abs=0.2)
    assert all("text" not in row["modalities"] for row in rows)
    _, rows, _ = predict(media / "long.mp4", "--windows", 4, out=tmp_path / "windows")
    assert [row["start"] for row in rows] == [0, 4, 8, 12]
    _, rows, _ = predict(media / "film.mp4", "--subtitles", "none", out=tmp_path / "whole")
    assert len(rows) == 1 and rows[0]["text"] is None and rows[0]["end"] == pytest.approx(3.4, abs=0.1)


def test_it_reads_the_track_that_is_named_and_says_so(predict, tmp_path):
    tones = Tone(seconds=10.5, language="eng"), Tone(seconds=10.5, quiet=5.0, language="ger")
    film = write_film(tmp_path / "two.mkv", Picture(seconds=10.5, rate=2), *tones)
    _, first, _ = predict(film, out=tmp_path / "first")
    _, second, _ = predict(film, "--audio-stream", "ger", out=tmp_path / "second")
    assert first[0]["start"] < 1 and second[0]["start"] == pytest.approx(5.0, abs=0.5)
    assert all(any("sound track 2 (ger aac" in note for note in row["notes"]) for row in second)
    assert all(any("sound track 1 (eng aac" in note for note in row["notes"]) for row in first)
    code, _, told = predict(film, "--audio-stream", "3", out=tmp_path / "none")
    assert code == 2 and "has no sound track '3', but 1: eng" in told and not (tmp_path / "none").exists()
    assert "--video-stream is a number from 1" in predict(film, "--video-stream", "0")[2]


def test_a_folder_has_a_timeline_of_each_film(predict, media, tmp_path):
    code, rows, _ = predict(media)
    assert code == 0 and {row["id"].split("_")[0] for row in rows} == {"film", "mute", "dark", "long", "heard"}
    assert {path.name for path in (tmp_path / "out/timelines").iterdir()} == {
        "film.png", "mute.png", "dark.png", "long.png", "heard.png",
    }  # fmt: skip
    assert any("no face" in note for row in rows if row["id"] == "dark" for note in row["notes"])


def test_mistakes_take_one_line_and_leave_nothing(predict, make_model, media, tmp_path):
    sees, hears, reads = make_model("v", name="sees"), make_model("a", name="hears"), make_model("l", name="reads")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    (tmp_path / "bad.mp4").write_bytes(b"no media" * 100)
    for message, (source, options, changed) in {
        "no face": (media / "dark.mp4", [], {"model": sees}),
        "no sound track": (media / "mute.mp4", [], {"model": hears}),
        "reads text, and there is no text": (media / "mute.mp4", [], {"model": reads}),
        "not readable media": (tmp_path / "bad.mp4", [], {}),
        "no such checkpoint folder": (media / "film.mp4", [], {"model": tmp_path / "nowhere"}),
        "no DenseFace file at": (media / "film.mp4", [], {"face": tmp_path / "nowhere"}),
        "give --face": (media / "film.mp4", [], {"face": None}),
        "no file or folder": (media / "nowhere.mp4", [], {}),
        "--subtitles is auto or none": (media / "film.mp4", ["--subtitles", "some"], {}),
        "at most 30 seconds": (media / "film.mp4", ["--windows", 100], {}),
        "holds thesis.txt": (media / "film.mp4", [], {"out": tmp_path / "full"}),
    }.items():
        code, rows, told = predict(source, *options, **changed)
        last = told.strip().splitlines()[-1]
        assert code == 2 and rows is None and message in last and last.startswith("memofast predict: "), told
        assert not (tmp_path / "out").exists()


def test_rows_that_are_not_finite_stop_it(predict, media, monkeypatch):
    from memofast.prepare.speech.logmel import LogMel

    monkeypatch.setattr(LogMel, "__call__", lambda self, sound: np.full((50, self.width), np.nan, np.float32))
    code, rows, told = predict(media / "film.mp4")
    assert code == 2 and rows is None and "speech rows of film_0001 are not all finite" in told


def test_ctrl_c_leaves_what_is_finished(predict, media, monkeypatch, tmp_path):
    real = films.Predictor.stream

    def interrupted(*arguments):
        stream = real(*arguments)
        yield next(stream)
        raise KeyboardInterrupt

    monkeypatch.setattr(films.Predictor, "stream", interrupted)
    code, rows, told = predict(media / "film.mp4")
    assert code == 130 and rows is None and "interrupted" in told and "unfinished.jsonl: 1\n" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unfinished.jsonl"]
    (line,) = (tmp_path / "out/unfinished.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "film_0001"
    monkeypatch.setattr(films.Predictor, "stream", real)
    code, rows, _ = predict(media / "film.mp4")
    assert code == 0 and len(rows) == 2 and not (tmp_path / "out/unfinished.jsonl").exists()


def test_stopped_among_its_files_it_is_repeated(predict, media, monkeypatch, tmp_path):
    def stopped(*_):
        raise SystemExit(143)

    for room, stage in (results, "table_of"), (films, "_write_page"), (films, "draw_timeline"):
        with monkeypatch.context() as patched:
            patched.setattr(room, stage, stopped)
            code, _, told = predict(media / "film.mp4", "--html")
        assert code == 143 and "unfinished.jsonl: 2\n" in told
        left = {path.name for path in (tmp_path / "out").iterdir()}
        assert "unfinished.jsonl" in left and "predictions.csv" not in left
        assert ("predictions.html" in left) == (stage == "table_of")
    code, rows, told = predict(media / "film.mp4")
    assert code == 0 and len(rows) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "predictions.csv", "predictions.jsonl", "timeline.png",
    }  # fmt: skip


def test_pieces(tmp_path):
    assert equal_pieces(0.0, 12.0, 5.0) == [(0, 5), (5, 10), (10, 12)]
    assert equal_pieces(0.0, 10.0001, 5.0) == [(0, 5), (5, 10.0)]
    clip = write_clip(tmp_path / "a.mp4", 70.0, picture=False, quiet=64.0)
    pieces = spoken_pieces(clip, 70.0, 4.0, EnergyVoice())
    assert pieces[0][0] == pytest.approx(64, abs=0.3) and pieces[-1][1] == pytest.approx(70, abs=0.3)
    assert all(0.4 < end - start <= 4 for start, end in pieces)


def test_what_is_not_used_of_a_folder_is_told(predict, media, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copyfile(media / "film.mp4", folder / "film.mp4")
    shutil.copyfile(media / "film.srt", folder / "film.en.srt")
    (folder / "film [1].nfo").write_text("about it")
    (folder / "new\nline.mp4").write_bytes((folder / "film.mp4").read_bytes())
    os.mkfifo(folder / "pipe.wav")
    code, rows, told = predict(folder)
    assert code == 0 and [row["text"] for row in rows] == ["Red now.", "Blue reds."]
    assert {line for line in told.split("\n") if line.startswith("not used: ")} == {
        f"not used: {folder}/film [1].nfo, unknown suffix (.nfo)",
        f"not used: {folder}/new\\nline.mp4, odd name (it has a line break)",
        f"not used: {folder}/pipe.wav, no regular file (a FIFO)",
    }
