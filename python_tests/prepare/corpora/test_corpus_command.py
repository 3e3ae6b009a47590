"""`memofast prepare --corpus`: from a folder as distributed to stores, groups and folds; tables with groups, several
labels and numbers."""

import json
import sys

import distributed
import numpy as np
import pytest
from distributed import touch, write
from media import write_clip

from memofast.data.corpus import Corpus
from memofast.data.folds import read_fold, read_groups
from memofast.data.summary import summarise


@pytest.fixture
def vocabulary(tmp_path):
    return write(
        tmp_path / "vocab.txt", "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "##s"])
    )


@pytest.fixture
def prepare(monkeypatch, capsys):
    """Runs the command here; returns its exit code and what it printed, on one line."""

    def run_here(*arguments):
        from memofast.cli import run
        from memofast.prepare.command import main

        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments), "--workers", "1"])
        with pytest.raises(SystemExit) as ended:
            run(main, "prepare")
        return ended.value.code or 0, " ".join(capsys.readouterr().err.split())

    return run_here


def sine(path):
    write_clip(path, 0.5, picture=False, codec="pcm_s16le")


def test_ravdess_without_one_file_that_cannot_be_read(tmp_path, prepare):
    for actor in ("01", "02", "03", "04"):
        for emotion in ("01", "05"):
            touch(tmp_path / "r" / f"Actor_{actor}" / f"03-01-{emotion}-01-02-01-{actor}.wav", sine)
    (tmp_path / "r" / "Actor_02" / "03-01-05-01-02-01-02.wav").write_bytes(b"no sound")
    code, told = prepare(tmp_path / "r", "--corpus", "ravdess", "--out", tmp_path / "c")
    assert code == 0 and "no --vocab, so the spoken sentences" in told
    assert "groups: speaker 4, statement 1; folds: speaker 4" in told
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.modalities == ("text", "speech") and len(corpus.classes["label"]) == 8
    assert corpus.classes["label"][4] == "angry" and corpus.description["corpus"] == "ravdess,channel=speech"
    speaker_of = read_groups(corpus, "speaker")
    assert len(speaker_of) == 7 and "01-05-01-02-01-02" not in speaker_of
    tested = [id for number in range(1, 5) for id in read_fold(corpus, "speaker", number)["test"].ids]
    assert sorted(tested) == sorted(speaker_of)
    assert read_fold(corpus, "speaker", 1)["test"].ids == corpus.split("test").ids
    train = corpus.split("train")
    labels = train.pack(np.arange(len(train))).targets["label"].tolist()
    assert labels == [4 if id[3:5] == "05" else 0 for id in train.ids] and set(labels) == {0, 4}
    written = {path.relative_to(tmp_path / "c"): path.read_bytes() for path in (tmp_path / "c").rglob("*.t[sx][vt]")}
    assert prepare(tmp_path / "r", "--corpus", "ravdess", "--out", tmp_path / "c")[0] == 0  # tries the broken one again
    assert len(written) == 17 and all((tmp_path / "c" / name).read_bytes() == text for name, text in written.items())


def test_iemocap_from_dialogue_films(tmp_path, vocabulary, prepare):
    folder = distributed.iemocap(tmp_path / "i", sessions=2)
    for k in (1, 2):
        touch(
            folder / f"Session{k}" / "dialog" / "avi" / "DivX" / f"Ses0{k}F_impro01.avi", lambda p: write_clip(p, 6.0)
        )
    arguments = [folder, "--corpus", "iemocap", "--out", tmp_path / "c", "--vocab", vocabulary, "--voice", "none"]
    code, told = prepare(*arguments)
    assert code == 0 and "excited counts as happy" in told and "folds: speaker 4" in told
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.classes["label"] == ["anger", "happy", "neutral", "sad"]
    fold = read_fold(corpus, "speaker", 2)
    assert {id[:6] + id[-4] for id in fold["test"].ids} == {"Ses01FF"} and len(fold["train"].ids) == 10
    times = corpus.stores["speech"].read("Ses01F_impro01_F003")["times"]
    assert 0 < times[-1] <= 0.5  # its half second of the dialogue
    code, told = prepare(*arguments[:2], "iemocap,labels=6", *arguments[3:])
    assert code == 2 and "was begun with corpus 'iemocap', not 'iemocap,labels=6'" in told


def test_meld_text_and_films(tmp_path, vocabulary, prepare):
    folder = distributed.meld(tmp_path / "m")
    for film in folder.glob("*/*.mp4"):
        write_clip(film, 0.5)
    code, told = prepare(folder, "--corpus", "meld", "--out", tmp_path / "c", "--vocab", vocabulary, "--voice", "none")
    assert code == 0 and "groups: dialogue 6, position 3, speaker 1" in told
    corpus = Corpus.open(tmp_path / "c")
    assert {split: len(corpus.split(split)) for split in corpus.splits} == {"test": 5, "train": 5, "validation": 5}
    assert corpus.stores["speech"].ids == [id for id in corpus.stores["text"].ids if id != "train/dia1_utt1"]
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert [clip["id"] for clip in report["problems"]["missing file"]["clips"]] == ["train/dia1_utt1"]


@pytest.mark.real
def test_emorynlp_itself(tmp_path, real_data, prepare):
    vocabulary = real_data / "vocab" / "vocab.txt"
    code, told = prepare(
        real_data / "text" / "emorynlp", "--corpus", "emorynlp", "--out", tmp_path / "c", "--vocab", vocabulary
    )
    assert code == 0 and "groups: dialogue 748, position 30, speaker 241" in told
    corpus = Corpus.open(tmp_path / "c")
    labels = {
        split: corpus.split(split).pack(np.arange(len(corpus.split(split)))).targets["label"] for split in corpus.splits
    }
    joyful, mad, neutral, peaceful, powerful, sad, scared = 1677, 785, 2485, 638, 551, 474, 941
    assert labels["train"].bincount().tolist() == [joyful, mad, neutral, peaceful, powerful, sad, scared]
    assert labels["validation"].bincount().tolist() == [205, 97, 322, 82, 70, 51, 127]


def test_options_that_do_not_go_with_a_corpus(tmp_path, prepare):
    folder = distributed.meld(tmp_path / "m")
    base = [folder, "--corpus", "meld", "--out", tmp_path / "c"]
    assert prepare(*base, "-c", "label=Emotion")[1].endswith(
        "--column is for folders and tables; --corpus meld knows its labels, files and splits"
    )
    assert "--split is for folders and tables" in prepare(*base, "--split", "test=.1")[1]
    assert "--corpus meld reads one folder, not 2" in prepare(folder, *base)[1]
    code, told = prepare(distributed.crema_d(tmp_path / "d"), "--corpus", "crema-d", "--out", tmp_path / "c")
    assert code == 2 and "holds no sound and no film, only names and labels" in told
    assert not (tmp_path / "c").exists()


def test_tables_with_groups_several_labels_and_numbers(tmp_path, vocabulary, prepare):
    table = write(
        tmp_path / "t.csv",
        'id,text,who,feels,score\na,red,x,joy|fear,1.5\nb,blue,y,anger; joy,\nc,reds,x,,-3\nd,red,,"[""fear""]",0\n',
    )
    named = ["-c", "group=who", "-c", "emotions=feels", "-c", "value=score"]
    code, told = prepare(table, *named, "--out", tmp_path / "c", "--vocab", vocabulary)
    assert code == 0 and "groups: group 2" in told
    corpus = Corpus.open(tmp_path / "c")
    assert read_groups(corpus, "group") == {"a": "x", "b": "y", "c": "x"}
    assert corpus.classes["emotions"] == ["anger", "fear", "joy"] and {"emotions", "value"} <= corpus.targets
    text = corpus.stores["text"]
    assert text.read("a")["emotions"].tolist() == [0, 0.5, 0.5] and text.read("c")["emotions"].tolist() == [0, 0, 0]
    assert text.read("d")["emotions"].tolist() == [0, 1, 0]
    counted = [found["labels"] for found in summarise(corpus)["splits"].values()]
    assert {name: sum(labels[name] for labels in counted) for name in ("anger", "fear", "joy")} == {
        "anger": 1,
        "fear": 2,
        "joy": 2,
    }
    assert text.read("c")["value"].tolist() == [-3] and np.isnan(text.read("b")["value"][0])


def test_json_tables_keep_lists_of_labels(tmp_path, vocabulary, prepare):
    rows = [
        {"id": "a", "text": ["red", "blue"], "feels": ["joy", "deep fear"]},
        {"id": "b", "text": "red", "feels": []},
    ]
    table = write(tmp_path / "t.json", json.dumps(rows))
    code, _ = prepare(table, "-c", "emotions=feels", "--out", tmp_path / "c", "--vocab", vocabulary)
    corpus = Corpus.open(tmp_path / "c")
    assert code == 0 and corpus.classes["emotions"] == ["deep fear", "joy"]
    assert corpus.stores["text"].read("a")["utf8"].tobytes() == b"red blue"


def test_a_value_that_is_no_number(tmp_path, vocabulary, prepare):
    table = write(tmp_path / "t.csv", "id,text,score\na,red,high\n")
    code, told = prepare(table, "-c", "value=score", "--out", tmp_path / "c", "--vocab", vocabulary)
    assert code == 2 and "value 'high' is no number" in told
