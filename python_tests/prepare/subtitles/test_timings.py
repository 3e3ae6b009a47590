import pytest

from memofast.errors import MemofastError
from memofast.prepare.subtitles.timings import Cue, clean_sentence, parse_seconds, read_cues
from memofast.prepare.text.encoding import decode_text

SRT = "1\n00:00:01,500 --> 00:00:02,750\n<i>Hello</i> there,\nworld.\n\n2\n00:00:03,000 --> 00:00:04,000\nSecond one.\n"
CUES = [Cue(1.5, 2.75, "Hello there,\nworld."), Cue(3.0, 4.0, "Second one.")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_srt_in_every_encoding(tmp_path, encoding):
    path = tmp_path / "a.srt"
    text = SRT.replace("Second one.", "Second café\u2019s one.")
    path.write_bytes(text.encode(encoding))
    assert read_cues(path) == [CUES[0], Cue(3.0, 4.0, "Second café\u2019s one.")]


def test_lines_of_two_encodings_in_one_file():
    assert decode_text("don\u2019t\n".encode() + "can\u2019t".encode("cp1252")) == "don\u2019t\ncan\u2019t"


def test_what_follows_an_empty_line_is_not_said(tmp_path):
    path = tmp_path / "a.vtt"
    path.write_text(
        "WEBVTT\n\nfirst\n00:00:01.000 --> 00:00:02.000\nSaid.\n\nNOTE not said\n\nsecond\n00:00:03.000 --> "
        "00:00:04.000\nToo.\n"
    )
    assert read_cues(path) == [Cue(1.0, 2.0, "Said."), Cue(3.0, 4.0, "Too.")]


def test_missing_indexes_blank_lines_and_nonsense(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text(
        "nonsense\n\n00:00:01,000 --> 00:00:02,000\nno index\n2\n00:00:03.000 --> 00:00:04.000 X1:1\r\ndots\r\n\r\n"
        "00:00:05,000 --> 00:00:05,000\nno duration\n\n00:00:06,000 --> 00:00:07,000\n<b></b>\n"
    )
    assert read_cues(path) == [Cue(1.0, 2.0, "no index"), Cue(3.0, 4.0, "dots")]


def test_vtt_with_notes_and_voices(tmp_path):
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n\nNOTE a comment\n\nid\n01:00.000 --> 01:02.500 align:start\n<v Ann>Ham &amp; eggs</v>\n")
    assert read_cues(path) == [Cue(60.0, 62.5, "Ham & eggs")]


def test_align_is_one_cue_of_its_words(tmp_path):
    path = tmp_path / "a.align"
    path.write_text("0 22500 sil\n22500 27500 bin\n27500 31250 blue\n31250 75000 sil\n")
    assert read_cues(path) == [Cue(None, None, "bin blue")]
    path.write_text("0 22500 sil\n22500 bin\n")
    with pytest.raises(MemofastError, match="line 2"):
        read_cues(path)


def test_times():
    assert parse_seconds("00:16:16,059") == pytest.approx(976.059)
    assert parse_seconds("12.5") == 12.5 and parse_seconds(3) == 3.0
    for wrong in ("", "noon", "1:2:3:4"):
        with pytest.raises(ValueError):
            parse_seconds(wrong)


def test_sentences_lose_their_markup():
    assert clean_sentence("{\\an8}<font color='red'>Oh\\N no</font>&nbsp;!") == "Oh no !"


@pytest.mark.real
def test_real_subtitles(real_data):
    folder = real_data / "subtitles"
    assert len(read_cues(folder / "sintel_en.srt")) == 26
    counts = {"captions": 78, "chapters": 9, "descriptions": 63}
    found = {name: len(read_cues(folder / "elephantsdream" / f"{name}.en.vtt")) for name in counts}
    assert found == counts
    odd = folder / "pysrt_tests"
    same = [read_cues(path) for path in sorted(odd.glob("bom-*.srt"))]
    assert len(same) == 5 and all(cues == same[0] and len(cues) == 7 for cues in same)
    counts = {"capability_tester": 35, "empty": 5, "invalid": 0, "no-indexes": 7, "utf-8": 1332}
    assert {name: len(read_cues(odd / f"{name}.srt")) for name in counts} == counts
    assert read_cues(odd / "windows-1252.srt") == read_cues(odd / "utf-8.srt")


def test_cues_of_youtube_and_of_frames(tmp_path):
    path = tmp_path / "a.sbv"
    path.write_text("0:00:01.500,0:00:03.250\nHello there,[br]world.\n\n0:01:03.000,0:01:04.000\nSecond one.\n")
    assert read_cues(path) == [Cue(1.5, 3.25, "Hello there,\nworld."), Cue(63.0, 64.0, "Second one.")]
    path = tmp_path / "a.sub"
    path.write_text("{1}{1}23.976\r\n{24}{96}{y:i}Hello there,|world.\r\n{ 240 }{ 264 }Second one.\r\n")
    first, second = read_cues(path)
    assert (first.text, second.text) == ("Hello there,\nworld.", "Second one.")
    assert [first.start, first.end, second.start, second.end] == pytest.approx([1.001, 4.004, 10.01, 11.011], abs=1e-3)
    for wrong, told in (
        ("{10}{20}25\n{25}{50}a\n", "no frame rate"),
        ("{10}{10}25\n{25}{50}a\n", "no frame rate"),
        ("{1}{1}0\n{25}{50}a\n", "no frame rate"),
        ("{1}{1}nan\n{25}{50}a\n", "no frame rate"),
        ("{1}{1}25\n{25}{50}a\n00:00:01,00:00:02\n", "line 3 is no MicroDVD"),
        ("", "no frame rate"),
    ):
        path.write_text(wrong)
        with pytest.raises(MemofastError, match=told):
            read_cues(path)


@pytest.mark.parametrize(
    "wrong", ["nan", "inf", "-1", "-0", "-0:00:01", "0:-1:00", "1e9", "1:1.5:2", "+1", "1_0", "1 2"]
)
def test_what_is_no_time(wrong):
    with pytest.raises(ValueError, match=r"is not a time|longer than any film"):
        parse_seconds(wrong)


def test_times_as_programs_write_them():
    assert parse_seconds("1e-05") == 1e-05 and parse_seconds(".5") == 0.5 and parse_seconds("2.") == 2.0
    assert parse_seconds("01:02,5") == 62.5 and parse_seconds(" 1:00:00 ") == 3600.0 and parse_seconds("90:00") == 5400
    for wrong in (float("nan"), float("inf"), -0.5):
        with pytest.raises(ValueError, match="is not a time"):
            parse_seconds(wrong)
