"""Whatever lies in a folder of films: every oddity has a line in the report, and nothing stops the rest."""

import json
import sys

import numpy as np
import pytest
from films import Tone, pitch, write_film
from media import write_clip
from tiny_models import save_vit

from memofast.cli import run
from memofast.prepare.command import main
from memofast.prepare.faces.detection import MOST_FACES, YuNet
from memofast.prepare.media.decoding import Span, decode
from memofast.prepare.run.replay import open_replay, replay
from memofast.prepare.run.report import Source
from memofast.store import FeatureStore, TextStore

pytest.importorskip("cv2")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "."]


def cue(start: float, end: float, text: str) -> str:
    clock = [f"00:{int(t // 60):02}:{t % 60:06.3f}".replace(".", ",") for t in (start, end)]
    return f"{clock[0]} --> {clock[1]}\n{text}\n\n"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares the folder `films` and returns (report, corpus folder)."""
    vocabulary, out = tmp_path / "vocab.txt", tmp_path / "corpus"
    vocabulary.write_text("\n".join(WORDS))

    def prepare(films, *options):
        arguments = [films, "--out", out, "--vocab", vocabulary, "--workers", 1, "--voice", "none", *options]
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run(main, "prepare")
        assert not ended.value.code
        return json.loads((out / "report.json").read_text()), out

    (tmp_path / "films").mkdir()
    return prepare


def reasons(report) -> dict[str, list[str]]:
    return {reason: [clip["id"] for clip in listed["clips"]] for reason, listed in report["problems"].items()}


def test_a_folder_of_oddities(tmp_path, prepared):
    films = tmp_path / "films"
    write_clip(films / "good.mkv", 3.0, picture=False)
    (films / "good.srt").write_text(cue(0.5, 2.0, "red now") + cue(1.5, 2.9, "Blue now."))  # which overlap
    write_clip(films / "plain.mkv", 1.0, picture=False)  # without subtitles
    (films / "alone.srt").write_text(cue(0, 2, "red"))  # subtitles without a film
    write_clip(films / "short.mkv", 2.0, picture=False)  # and subtitles that go on
    (films / "short.srt").write_text(cue(0.2, 1.8, "Red.") + cue(1.0, 4.0, "Blue.") + cue(30, 32, "Now."))
    (films / "empty.mp4").write_bytes(b"")
    (films / "text.mp4").write_text("This is no film.\n" * 50)
    (films / "cloned.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 437\n")
    whole = write_clip(tmp_path / "whole.mkv", 4.0)
    (films / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_clip(films / "silence.mkv", 1.0, picture=False, level=0.0)
    write_clip(films / "uneven.mp4", 3.0, sound=False)
    write_clip(films / "uneven.wav", 1.5, picture=False, codec="pcm_s16le")
    report, out = prepared(films, "--face", f"model={save_vit(tmp_path / 'vit')}")
    assert reasons(report) == {
        "missing file": ["alone.srt"],
        "pointer": ["cloned"],
        "unreadable": ["empty", "text"],
        "damaged": ["cut"],
        "beyond the end": ["short_0002", "short_0003"],
        "uneven": ["uneven"],
        "too short": ["short_0003"],
        "no picture": ["good_0001", "good_0002", "plain", "short_0001", "short_0002", "short_0003", "silence"],
        "no face": ["cut", "uneven"],
        "silent": ["silence"],
        "no text": ["alone.srt", "cloned", "cut", "empty", "plain", "silence", "text", "uneven"],
        "nothing usable": ["alone.srt", "cloned", "empty", "silence", "text"],
    }
    assert report["kept"] == report["clips"] - 5
    text = TextStore.open(out / "text")
    assert bytes(text.read("good_0001")["utf8"]) == b"red now" and bytes(text.read("good_0002")["utf8"]) == b"Blue now."
    rows = FeatureStore.open(out / "speech").rows_of
    assert 15 <= rows["short_0002"] <= 17 and 24 <= rows["good_0001"] <= 26  # 1.0 s to the end; 1.5 s


def test_a_rotated_phone_video_is_turned_upright(tmp_path):
    path = write_clip(tmp_path / "phone.mp4", 0.5, size=(96, 64), sound=False)
    data = path.read_bytes()
    upright = b"".join(n.to_bytes(4, "big") for n in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    quarter = b"".join(n.to_bytes(4, "big") for n in (0, 0x10000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000))
    place = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:place] + quarter + data[place + len(quarter) :])
    ((_, turned),) = decode(path, [Span()], see=lambda frame: (frame.picture().shape, frame.grey().shape), sound=False)
    assert set(turned.seen) == {((96, 64, 3), (96, 64))}


@pytest.mark.real
@pytest.mark.slow
def test_real_oddities(real_data, tmp_path, prepared):
    """HEVC, a cartoon and a silent track; then a crowd."""
    films, video = tmp_path / "films", real_data / "video"
    for path in ("latentsync/demo1_video.mp4", "pyfeat_tests/no_face.mp4", "liveportrait/d18.mp4"):
        (films / path.replace("/", "_")).symlink_to(video / path)
    yunet = real_data / "models" / "yunet_n_640_640.onnx"
    face = f"model={save_vit(tmp_path / 'vit')}"
    report, out = prepared(films, "--face", face, "--yunet", yunet, "--max-seconds", 1, "--speaker", "most-seen")
    assert reasons(report)["no face"] == ["pyfeat_tests_no_face"]
    assert reasons(report)["silent"] == ["liveportrait_d18"]
    assert FeatureStore.open(out / "visual").rows_of == {"latentsync_demo1_video": 10, "liveportrait_d18": 10}
    finder = YuNet(yunet)
    crowd = video / "facenet" / "video.mp4"
    ((_, excerpt),) = decode(crowd, [Span(0, 1)], see=lambda frame: len(finder(frame.picture())), sound=False)
    assert 2 < np.mean(excerpt.seen) <= MOST_FACES


def test_tracks_that_were_chosen_are_in_the_report(tmp_path, prepared):
    films = tmp_path / "films"
    tones = Tone(2000, title="Commentary", language="fra"), Tone(700, language="eng")
    write_film(films / "two.mkv", *tones)
    write_film(films / "one.mkv", Tone(900))
    report, out = prepared(films)
    ((file, told),) = report["streams"].items()
    assert file.endswith("two.mkv") and told.startswith("sound track 2 (eng aac") and "not 1 (fra Commentary" in told
    assert json.loads((out / "prepare.json").read_text())["audio_stream"] is None
    (found,) = replay(open_replay(out, None, "")[0], {"two": Source(sound=str(films / "two.mkv"))})
    assert pitch(found.heard.wave) == pytest.approx(700, abs=2)


def test_tracks_are_asked_for_by_the_command(tmp_path, prepared):
    films = tmp_path / "films"
    write_film(films / "two.mkv", Tone(2000, title="Commentary"), Tone(700))
    write_film(films / "one.mkv", Tone(900))
    report, out = prepared(films, "--audio-stream", 1)
    assert report["streams"][str(films / "two.mkv")].startswith("sound track 1 (Commentary aac")
    (found,) = replay(open_replay(out, None, "")[0], {"two": Source(sound=str(films / "two.mkv"))})
    assert pitch(found.heard.wave) == pytest.approx(2000, abs=2)
    assert report["kept"] == 2


def test_a_track_that_is_missing_spoils_its_own_file_alone(tmp_path, prepared):
    films = tmp_path / "films"
    write_film(films / "two.mkv", Tone(2000), Tone(700))
    write_film(films / "one.mkv", Tone(900))
    report, _ = prepared(films, "--audio-stream", 2)
    assert [clip["id"] for clip in report["problems"]["failed"]["clips"]] == ["one"]
    assert "one.mkv has no sound track '2', but 1: aac" in report["problems"]["failed"]["clips"][0]["detail"]
    assert report["kept"] == 1


def test_sentences_alone_are_not_beyond_the_end(tmp_path, prepared):
    films = tmp_path / "films"
    write_film(films / "film.mkv", Tone(seconds=9))
    (films / "film.srt").write_text(cue(0.5, 2.0, "Red.") + cue(3, 5, "Blue.") + cue(20, 22, "Now."))
    report, _ = prepared(films, "--speech", "none")
    assert report["kept"] == 3
    assert {reason: clips["clips"] for reason, clips in report["problems"].items()} == {
        "beyond the end": [{"id": "film_0003", "detail": "0.0 s of 2.0 s are there"}]
    }
