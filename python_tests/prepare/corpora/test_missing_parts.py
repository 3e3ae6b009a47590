"""What a corpus as distributed lacks, has twice or does not use is told."""

from pathlib import Path

import distributed
import pytest
from distributed import touch, write

from memofast.errors import MemofastError
from memofast.prepare.corpora import read_corpus


def unused(reading):
    return {Path(entry.file).name: (entry.reason, entry.detail) for entry in reading.left_out}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_empty_line_of_a_transcript_does_not_take_the_next(tmp_path, end):
    distributed.iemocap(tmp_path, sessions=2)
    path = tmp_path / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt"
    lines = path.read_text().splitlines()
    gone = next(n for n, line in enumerate(lines) if "F001" in line)
    lines[gone] = lines[gone].split(":")[0] + ": "
    path.write_bytes((end.join(lines) + end).encode())
    reading = read_corpus("iemocap", tmp_path)
    text = {clip.id: clip.text for clip in reading.clips}
    assert text["Ses01F_impro01_F001"] is None and text["Ses01F_impro01_M001"] == "Red blue 1."
    assert "iemocap: 1 of 20 samples have no words (first: Ses01F_impro01_F001)" in reading.notes


def test_a_rating_without_its_label_does_not_take_the_next_line(tmp_path):
    distributed.iemocap(tmp_path, sessions=2)
    path = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("Ses01F_impro01_F003\tneu\t", "Ses01F_impro01_F003\nneu\t"))
    reading = read_corpus("iemocap", tmp_path)
    assert "Ses01F_impro01_F003" not in {clip.id for clip in reading.clips}
    told = "iemocap: 1 lines of ratings cannot be read (first: [3.0000 - 3.5000]\\tSes01F_impro01_F003)"
    assert told in reading.notes


def test_ratings_of_msp_improv_that_cannot_be_read_are_counted(tmp_path):
    distributed.msp_improv(tmp_path)
    path = tmp_path / "Evalution.txt"
    path.write_text(path.read_text().replace("S01A-F01-S-FM01.avi; A;", "S01A-F01-S-FM01.avi;\nA;"))
    reading = read_corpus("msp-improv", tmp_path)
    assert "S01A-F01-S-FM01" not in {clip.id for clip in reading.clips}
    assert any("1 lines that cannot be read" in note for note in reading.notes)


def test_missing_sentence_files_and_transcripts_are_told(tmp_path):
    distributed.iemocap(tmp_path, sessions=3)
    (tmp_path / "Session3" / "dialog" / "transcriptions" / "Ses03F_impro01.txt").unlink()
    (tmp_path / "Session3" / "dialog" / "transcriptions").joinpath("Ses03F_impro02.txt").write_text("")
    for name in ("F000", "M002"):
        touch(tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01" / f"Ses01F_impro01_{name}.wav")
    reading = read_corpus("iemocap", tmp_path)
    clips = {clip.id: clip for clip in reading.clips}
    assert clips["Ses01F_impro01_F000"].problem is None and clips["Ses01F_impro01_F000"].sound
    missing = sorted(id for id, clip in clips.items() if clip.problem)
    assert len(missing) == 8 and all(id.startswith("Ses01F") for id in missing)
    assert clips[missing[0]].problem.startswith("missing file: ") and missing[0] in clips[missing[0]].problem
    assert clips[missing[0]].text
    assert "iemocap: 1 dialogues have no file in transcriptions (first: Ses03F_impro01)" in reading.notes
    assert "iemocap: 28 of 30 samples have no sound (first: Ses01F_impro01_F001)" in reading.notes


def test_times_that_end_before_they_begin(tmp_path):
    distributed.iemocap(tmp_path, sessions=2)
    touch(tmp_path / "Session1" / "dialog" / "avi" / "Ses01F_impro01.avi")
    path = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("[0.0000 - 0.5000]", "[0.7500 - 0.5000]"))
    wrong = [(clip.id, clip.problem) for clip in read_corpus("iemocap", tmp_path).clips if clip.problem]
    assert wrong == [("Ses01F_impro01_F000", "bad times: end 0.5 is not after start 0.75")]


def test_media_without_a_sample_and_of_one_name_are_told_by_folder(tmp_path):
    for name in ("a/03a01Fa.wav", "b/03a01Fa.wav", "a/08b02Wb.wav", "c/other.wav", "c/more.mp3", ".d/03a02Nc.wav"):
        touch(tmp_path / name)
    reading = read_corpus("emodb", tmp_path)
    assert {clip.id: clip.sound.parent.name for clip in reading.clips} == {"03a01Fa": "a", "08b02Wb": "a"}
    assert unused(reading) == {
        "b": ("without a sample", "1 files, the first 03a01Fa.wav"),
        "c": ("without a sample", "2 files, the first more.mp3"),
        "03a02Nc.wav": ("hidden", ""),
    }


def test_an_open_quote_in_the_table_of_a_corpus_is_named(tmp_path):
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    rows = '1,"Oh, you",A,anger,negative,0,0\n2,"Never, he said,A,joy,positive,0,1\n3,Fine" then,A,joy,positive,1,0\n'
    write(tmp_path / "train_sent_emo.csv", header + rows)
    with pytest.raises(MemofastError, match=r"train_sent_emo\.csv, line 3: .*close the quote"):
        read_corpus("meld", tmp_path)
    write(tmp_path / "train_sent_emo.csv", header + "1,Oh, you,A,anger,negative,0,0\n")
    with pytest.raises(MemofastError, match="line 2 has 8 cells, the header 7"):
        read_corpus("meld", tmp_path)
    write(tmp_path / "train_sent_emo.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 437\n")
    with pytest.raises(MemofastError, match=r"train_sent_emo\.csv is a Git LFS pointer, not the file of 437 bytes"):
        read_corpus("meld", tmp_path)
