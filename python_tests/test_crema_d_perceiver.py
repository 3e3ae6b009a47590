"""CREMA-D as it is distributed, films and sound, to a table and to what a Perceiver says of films."""

import base64
import json
import re
import shutil

import cv2
import distributed
import numpy as np
import pytest
from films import Picture, Tone, write_film
from media import write_clip
from runs import here

from memofast.data import Corpus
from memofast.data.folds import read_fold, read_groups

SMALL = [
    "folds.only=[1]", "model.num_latents=8", "model.d_latents=16", "model.d_model=410", "model.num_frames=12",
    "model.num_self_attends_per_block=1", "model.num_self_attention_heads=2", "model.output_num_channels=16",
    "train.epochs=1", "train.samples=4", "train.accumulate=1", "train.threads=1", "baselines=false",
]  # fmt: skip


ASKED = ["CREMA-D", "--corpus", "crema-d", "--face", "frames,side=32", "--speech", "raw,rate=4000", "--drop-missing"]
ASKED += ["--workers", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where CREMA-D lies, and the corpus and the run that three commands make of it."""
    folder = tmp_path_factory.mktemp("crema-d")
    distributed.crema_d_with_films(folder / "CREMA-D")
    (folder / "CREMA-D" / "VideoFlash" / "1004_IEO_SAD_XX.flv").unlink()
    for command in (("prepare", *ASKED, "--out", "c"), ("finetune", "crema-d-perceiver", "corpus=c", *SMALL)):
        done = here(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


def run_of(place):
    (found,) = (place / "runs").iterdir()
    return found


def test_pictures_and_sound_on_one_time_base(place):
    """0.7 s of 30 pictures a second and 16 kHz: rows of 1/25 s, the last of sound filled with silence."""
    corpus = Corpus.open(place / "c")
    assert (corpus.width("visual"), corpus.width("speech")) == (3 * 32 * 32, 160) and corpus.raw == {"visual", "speech"}
    assert corpus.stores["visual"].meta["fingerprint"] == "frames-1-25-side-32"
    lengths = np.concatenate([corpus.split(name).lengths for name in corpus.splits])
    assert set(lengths[:, 2]) == {18} and set(lengths[:, 1]) <= {17, 18}
    record = corpus.stores["speech"].read("1003_IEO_HAP_XX")["rows"]
    spectrum = np.abs(np.fft.rfft(record.reshape(-1)[:2800] * np.hanning(2800)))
    assert np.argmax(spectrum) * 4000 / 2800 == pytest.approx(200 + 200 * 3 + 20, abs=3)
    grey = corpus.stores["visual"].read("1003_IEO_HAP_XX")["rows"].reshape(-1, 32, 32, 3).mean((1, 2, 3))
    assert np.polyfit(np.arange(len(grey)) / 25, grey, 1)[0] == pytest.approx(30, abs=3)  # a grey level a picture


def test_clips_without_a_film_are_in_no_split_or_fold(place):
    corpus = Corpus.open(place / "c")
    ids = [id for name in corpus.splits for id in corpus.split(name).ids]
    parts = [read_fold(corpus, "speaker-5", number).values() for number in range(1, 6)]
    assert len(ids) == 29 and "1004_IEO_SAD_XX" not in ids and "1004_IEO_SAD_XX" in corpus.stores["speech"].ids
    assert all(sum(map(len, fold)) == 29 for fold in parts)
    (rule,) = [rule for rule in corpus.description["rules"] if rule["rule"] == "--drop-missing"]
    assert (rule["clips"], rule["dropped"]) == (1, 1)
    assert rule["meaning"] == "without rows of visual or speech; in no split"


def test_its_journal_lost_the_same_clips_are_missing(place, tmp_path):
    shutil.copytree(place / "c", tmp_path / "c")
    (tmp_path / "c" / "progress.jsonl").unlink()
    done = here(place, "prepare", *ASKED, "--out", tmp_path / "c", "--name", "c")
    assert done.returncode == 0, done.stderr
    was, now = (Corpus.open(folder / "c") for folder in (place, tmp_path))
    assert {name: now.split(name).ids for name in now.splits} == {name: was.split(name).ids for name in was.splits}


def test_its_pictures_are_shown_in_colour(place):
    done = here(place, "inspect", "c", "--html", "page.html", "--samples", 1)
    assert done.returncode == 0, done.stderr
    found = re.findall('src="data:image/jpeg;base64,([^"]+)"', (place / "page.html").read_text())
    pictures = [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR) for one in found]
    assert len(pictures) > 3 and {picture.shape for picture in pictures} == {(32, 32, 3)}


def test_actors_of_a_fold_are_in_one_part(place):
    corpus = Corpus.open(place / "c")
    actors = read_groups(corpus, "speaker")
    parts = [{actors[id] for id in corpus.split(name).ids} for name in ("train", "validation", "test")]
    assert all(parts) and not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_the_table(place):
    results = json.loads((run_of(place) / "results.json").read_text())
    assert "speaker-5" in json.dumps(results) and (run_of(place) / "results.md").is_file()
    done = here(place, "evaluate", run_of(place))
    assert done.returncode == 0 and (run_of(place) / "evaluation" / "results.json").is_file(), done.stderr


def test_films_are_predicted(place, tmp_path):
    (tmp_path / "films").mkdir()
    write_film(tmp_path / "films" / "film.mp4", Picture(2.0, rate=30, size=(96, 64)), Tone(400, 2.0))
    write_clip(tmp_path / "films" / "short.mp4", 0.3)
    done = here(tmp_path, "predict", "films", "--model", run_of(place), "--out", "p", "--html")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 utterance (short), too little: 8 visual rows" in done.stderr
    assert "\n1 utterance: " in done.stderr
    (row,) = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    assert row["modalities"] == ["visual", "speech"] and set(row["importance"]) == {"visual", "speech"}
    assert sum(row["probabilities"].values()) == pytest.approx(1) and len(row["probabilities"]) == 6


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: write_clip(path, 0.3), "too little: 8 visual rows, fewer than the 12 of a window"),
        (lambda path: write_clip(path, 1.0, sound=False), "too little: 0 speech rows, fewer than the 12 of a window"),
        (lambda path: write_clip(path, 1.0, picture=False), "too little: 0 visual rows, fewer than the 12 of a window"),
        (lambda path: write_clip(path, 1.0, level=0.0), "too little: 0 speech rows, fewer than the 12 of a window"),
    ],
    ids=["short", "no sound", "no picture", "silent"],
)
def test_films_of_which_nothing_can_be_said(place, tmp_path, make, told):
    make(tmp_path / "film.mp4")
    done = here(tmp_path, "predict", "film.mp4", "--model", run_of(place), "--out", "p")
    assert done.returncode == 2 and told in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize("option", ["face", "speech"])
def test_files_that_nothing_reads(place, tmp_path, option):
    write_clip(tmp_path / "film.mp4", 1.0)
    done = here(tmp_path, "predict", "film.mp4", "--model", run_of(place), "--out", "p", f"--{option}", "x")
    told = " ".join(done.stderr.split())
    assert done.returncode == 2 and f"so that nothing reads x; leave --{option} out" in told, told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--face", "frames,side=30"], "--face frames: side is 16 to 512, a multiple of 4, not '30'"),
        (["--speech", "raw,rate=44101"], "--speech raw: rate is 100 to 192000 Hz, a multiple of 25, not '44101'"),
        (["--speech", "raw,rate=48000", "--speech-mean", "3"], "leave --speech-mean out"),
    ],
)
def test_sizes_that_there_are_not(tmp_path, given, told):
    write_clip(tmp_path / "a.mp4", 0.5)
    done = here(tmp_path, "prepare", "a.mp4", "--out", "c", *given)
    assert done.returncode == 2 and told in " ".join(done.stderr.split())
    assert not (tmp_path / "c").exists()
