"""Adapters on miniatures: labels, texts, media, splits, groups and folds, and folders that are something else."""

from collections import Counter
from itertools import combinations

import distributed
import pytest
from distributed import touch, write

from memofast.data.emotion_labels import LabelMap, mapped_corpora
from memofast.errors import MemofastError
from memofast.prepare.corpora import ADAPTERS, read_corpus


def by_id(reading):
    return {clip.id: clip for clip in reading.clips}


def labels(reading):
    return Counter(clip.label for clip in reading.clips)


def assert_disjoint(reading, name):
    scheme = reading.protocol.schemes[name]
    group_of = reading.protocol.groups[scheme.by]
    for fold in scheme.folds:
        groups = [{group_of[id] for id in ids} for ids in fold.values()]
        assert all(groups) and not any(one & other for one, other in combinations(groups, 2))
    return scheme.folds


def test_iemocap_merges_excited_into_happy_and_says_so(tmp_path):
    reading = read_corpus("iemocap", distributed.iemocap(tmp_path))
    assert reading.protocol.classes == ("anger", "happy", "neutral", "sad")
    assert labels(reading) == {"anger": 10, "happy": 20, "neutral": 10, "sad": 10}
    assert "excited counts as happy" in reading.protocol.notes[0]
    assert "10 frustrated" in reading.protocol.notes[0] and "10 without majority" in reading.protocol.notes[0]
    assert labels(read_corpus("iemocap,labels=4-without-excited", tmp_path))["happy"] == 10
    six = read_corpus("iemocap,labels=6", tmp_path)
    assert labels(six) == dict.fromkeys(("anger", "happy", "neutral", "sad", "excited", "frustrated"), 10)
    clip = by_id(reading)["Ses01F_impro01_M002"]
    assert clip.text == "Red blue 2." and clip.picture is None and clip.sound is None
    groups = {name: group_of[clip.id] for name, group_of in reading.protocol.groups.items()}
    assert groups == {"speaker": "Ses01M", "session": "Session1", "dialogue": "Ses01F_impro01", "position": "5"}


def test_iemocap_folds_leave_a_session_out_and_swap_its_speakers(tmp_path):
    reading = read_corpus("iemocap", distributed.iemocap(tmp_path))
    folds, speaker_of = assert_disjoint(reading, "speaker"), reading.protocol.groups["speaker"]
    held = [tuple({speaker_of[id] for id in fold[part]}.pop() for part in ("validation", "test")) for fold in folds]
    assert held == [pair for k in range(1, 6) for pair in ((f"Ses0{k}F", f"Ses0{k}M"), (f"Ses0{k}M", f"Ses0{k}F"))]
    assert all(sum(map(len, fold.values())) == 50 and len(fold["train"]) == 40 for fold in folds)
    assert {clip.id for clip in reading.clips if clip.split == "test"} == set(folds[0]["test"])


def test_iemocap_takes_the_film_with_times_or_the_sound_of_the_utterance(tmp_path):
    distributed.iemocap(tmp_path, sessions=3)
    touch(tmp_path / "Session1" / "dialog" / "avi" / "DivX" / "Ses01F_impro01.avi")
    touch(tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01" / "Ses01F_impro01_F001.wav")
    touch(tmp_path / "Session2" / "sentences" / "wav" / "Ses02F_impro01" / "Ses02F_impro01_F001.wav")
    touch(tmp_path / "Session3" / "dialog" / "wav" / "Ses03F_impro01.wav")
    clips = by_id(read_corpus("iemocap", tmp_path))
    film = clips["Ses01F_impro01_F001"]
    assert film.picture == film.sound and film.picture.suffix == ".avi" and (film.start, film.end) == (1.0, 1.5)
    alone = clips["Ses02F_impro01_F001"]
    assert alone.picture is None and alone.sound.name == "Ses02F_impro01_F001.wav" and alone.start is None
    part = clips["Ses03F_impro01_F001"]
    assert part.sound.name == "Ses03F_impro01.wav" and (part.start, part.end) == (1.0, 1.5)


def test_msp_improv(tmp_path):
    reading = read_corpus("msp-improv", distributed.msp_improv(tmp_path))
    assert labels(reading) == dict.fromkeys(("anger", "happy", "neutral", "sad"), 12)
    assert "12 without majority" in reading.protocol.notes[0] and "12 of other parts" in reading.protocol.notes[0]
    folds, speaker_of = assert_disjoint(reading, "speaker"), reading.protocol.groups["speaker"]
    assert len(folds) == 12 and all(len({speaker_of[id] for id in fold["train"]}) == 10 for fold in folds)
    held = [tuple({speaker_of[id] for id in fold[part]}.pop() for part in ("validation", "test")) for fold in folds]
    assert held[:3] == [("M01", "F01"), ("F01", "M01"), ("M02", "F02")]
    clip = by_id(reading)["S01A-F01-S-FM01"]
    assert clip.text == "How can I not" and clip.picture.suffix == ".avi" and clip.sound.suffix == ".wav"
    assert by_id(reading)["S01A-M01-S-FM01"].problem.startswith("missing file: ")
    assert labels(read_corpus("msp-improv,parts=all", tmp_path))["neutral"] == 24


def test_meld_keeps_splits_dialogues_and_apostrophes(tmp_path):
    reading = read_corpus("meld", distributed.meld(tmp_path))
    assert reading.protocol.classes[0] == "neutral" and reading.protocol.classes[6] == "anger"
    assert Counter(clip.split for clip in reading.clips) == {"train": 5, "validation": 5, "test": 5}
    clip = by_id(reading)["dev/dia1_utt0"]
    assert (clip.text, clip.label, clip.split) == ("dev\u2019s red, blue 3", "neutral", "validation")
    assert clip.picture == clip.sound == tmp_path / "dev_splits_complete" / "dia1_utt0.mp4" and clip.start is None
    groups = {name: group_of[clip.id] for name, group_of in reading.protocol.groups.items()}
    assert groups == {"dialogue": "dev/dia1", "position": "0", "speaker": "Joey"}
    assert by_id(reading)["train/dia1_utt1"].problem.startswith("missing file: ")
    assert labels(read_corpus("meld,labels=sentiment", tmp_path)) == {"neutral": 6, "positive": 6, "negative": 3}


def test_a_meld_split_that_is_a_copy_of_another_leaks(tmp_path):
    distributed.meld(tmp_path)
    (tmp_path / "dev_sent_emo.csv").write_bytes((tmp_path / "train_sent_emo.csv").read_bytes())
    with pytest.raises(MemofastError, match="leaks: 2 of 2 dialogues of train stand in another split"):
        read_corpus("meld", tmp_path)


def test_crema_d_labels_and_ties(tmp_path):
    reading = read_corpus("crema-d", distributed.crema_d(tmp_path))
    assert labels(reading) == {"anger": 10, "neutral": 10} and "no AudioWAV" in " ".join(reading.protocol.notes)
    assert len(assert_disjoint(reading, "speaker-5")) == 5 and len(assert_disjoint(reading, "speaker-10")) == 10
    voice = read_corpus("crema-d,labels=voice", tmp_path)
    assert labels(voice) == {"anger": 5, "neutral": 10} and voice.protocol.facts["ties"] == {"rule": "out", "clips": 5}
    first = read_corpus("crema-d,labels=voice,ties=first", tmp_path)
    assert labels(first) == {"anger": 10, "neutral": 10} and first.protocol.facts["ties"]["clips"] == 5
    assert labels(read_corpus("crema-d,labels=face", tmp_path)) == {"neutral": 20}
    assert labels(read_corpus("crema-d,labels=crowd", tmp_path)) == {"anger": 10, "happy": 10}
    assert reading.protocol.groups["sex"]["1002_IEO_ANG_LO"] == "female"
    touch(tmp_path / "AudioWAV" / "1001_IEO_ANG_LO.wav"), touch(tmp_path / "VideoFlash" / "1001_IEO_ANG_LO.flv")
    clips = by_id(read_corpus("crema-d", tmp_path))
    there, missing = clips["1001_IEO_ANG_LO"], clips["1001_TSI_NEU_XX"]
    assert (there.picture.suffix, there.sound.suffix, there.text) == (".flv", ".wav", "It's eleven o'clock.")
    assert missing.problem.startswith("missing file: ")


def test_ravdess_joins_the_files_of_one_performance(tmp_path):
    for actor in ("01", "02", "03"):
        touch(tmp_path / "Video" / f"Actor_{actor}" / f"02-01-05-01-02-01-{actor}.mp4")
        touch(tmp_path / "Audio" / f"Actor_{actor}" / f"03-01-05-01-02-01-{actor}.wav")
        touch(tmp_path / "Audio" / f"Actor_{actor}" / f"03-02-02-01-01-01-{actor}.wav")
    touch(tmp_path / "Video" / "Actor_01" / "01-01-05-01-02-01-01.mp4")
    reading = read_corpus("ravdess", tmp_path)
    clips = by_id(reading)
    assert labels(reading) == {"angry": 3} and "3 performances of the other channel" in reading.protocol.notes[0]
    assert clips["01-05-01-02-01-01"].picture == clips["01-05-01-02-01-01"].sound
    two = clips["01-05-01-02-01-02"]
    assert (two.picture.suffix, two.sound.suffix, two.text) == (".mp4", ".wav", "Dogs are sitting by the door.")
    assert len(assert_disjoint(reading, "speaker")) == 3
    assert labels(read_corpus("ravdess,channel=song", tmp_path)) == {"calm": 3}


def test_emodb_letter_and_sentence(tmp_path):
    for speaker in ("03", "08", "09"):
        touch(tmp_path / "wav" / f"{speaker}a02Wb.wav"), touch(tmp_path / "wav" / f"{speaker}b10Ta.wav")
    reading = read_corpus("emodb", tmp_path)
    assert labels(reading) == {"anger": 3, "sad": 3} and len(assert_disjoint(reading, "speaker")) == 3
    assert by_id(reading)["03a02Wb"].text == "Das will sie am Mittwoch abgeben."
    touch(tmp_path / "wav" / "03a02Xb.wav")
    with pytest.raises(MemofastError, match=r"emotion 'X' of 03a02Xb\.wav"):
        read_corpus("emodb", tmp_path)


_EMORY = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time\n"


def test_emorynlp_and_a_scene_in_two_splits(tmp_path):
    row = "Hi,\"['Joey Tribbiani', 'Bonnie']\",{},{},1,1,2,0,0\n"
    write(tmp_path / "emorynlp_train_final.csv", _EMORY + row.format("Joyful", 1))
    write(tmp_path / "emorynlp_dev_final.csv", _EMORY + row.format("Mad", 2))
    reading = read_corpus("emorynlp", tmp_path)
    assert labels(reading) == {"Joyful": 1, "Mad": 1} and [clip.split for clip in reading.clips] == [
        "train",
        "validation",
    ]
    assert reading.protocol.groups["speaker"]["s01_e02_scene01_utt001"] == "Joey Tribbiani, Bonnie"
    later = row.replace(",1,1,2,", ",2,1,2,")
    write(tmp_path / "emorynlp_dev_final.csv", _EMORY + later.format("Mad", 1))
    with pytest.raises(MemofastError, match="splits leak: dialogue 's01_e02_scene01' is in train and in validation"):
        read_corpus("emorynlp", tmp_path)
    write(tmp_path / "emorynlp_dev_final.csv", _EMORY + row.format("Merry", 2))
    with pytest.raises(MemofastError, match=r"label 'Merry' .1 samples. is none of emorynlp: Joyful"):
        read_corpus("emorynlp", tmp_path)


def test_goemotions_has_several_labels(tmp_path):
    write(tmp_path / "labels.txt", "anger\njoy\nneutral\n")
    write(tmp_path / "train.tsv", "Red\t0,1\tx\nBlue\t2\ty\n")
    write(tmp_path / "dev.tsv", "Now\t1\tz\n")
    reading = read_corpus("goemotions", tmp_path)
    assert reading.protocol.emotions == ("anger", "joy", "neutral")
    assert by_id(reading)["x"].emotions == ("anger", "joy") and by_id(reading)["z"].split == "validation"
    write(tmp_path / "dev.tsv", "Now\t1\tx\n")
    with pytest.raises(MemofastError, match="id 'x' occurs more than once"):
        read_corpus("goemotions", tmp_path)


@pytest.mark.parametrize("name", ADAPTERS)
def test_another_folder_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(MemofastError, match=f"is not {name} as distributed .no .*; it reads ") as error:
        read_corpus(name, tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(MemofastError, match=f"no folder .*; --corpus {name} reads "):
        read_corpus(name, tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("iemocapp", "no adapter for corpus 'iemocapp'; there are iemocap, "),
        ("meld,ties=out", "meld has no setting 'ties'; it has labels"),
        ("iemocap,labels=5", "labels is 4 or 4-without-excited or 6, not '5'"),
    ],
)
def test_names_and_settings(given, told, tmp_path):
    with pytest.raises(MemofastError, match=told):
        read_corpus(given, tmp_path)


def test_a_table_without_a_column_is_named(tmp_path):
    write(tmp_path / "train_sent_emo.csv", "Utterance,Emotion\nhi,joy\n")
    with pytest.raises(MemofastError, match=r"is not meld as distributed .no column 'Dialogue_ID'"):
        read_corpus("meld", tmp_path)
    header = "Utterance,Emotion,Speaker,Dialogue_ID,Utterance_ID\n"
    write(tmp_path / "train_sent_emo.csv", header + "hi,joy,Joey\n")
    with pytest.raises(MemofastError, match=r"is not meld as distributed .a row lacks cells"):
        read_corpus("meld", tmp_path)


@pytest.mark.parametrize(
    ("given", "layout"),
    [("iemocap,labels=6", "iemocap"), ("msp-improv", "msp_improv"), ("crema-d", "crema_d"), ("meld", "meld")],
)
def test_the_label_maps_know_every_class(given, layout, tmp_path):
    classes = read_corpus(given, getattr(distributed, layout)(tmp_path)).protocol.classes
    assert set(classes) <= set(LabelMap.of(given.partition(",")[0], "ekman").emotions)
    assert set(ADAPTERS) <= set(mapped_corpora())
