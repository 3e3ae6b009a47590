"""The whole command: corpora out of generated clips, interruptions, bad input."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from media import write_clip
from runs import here

from memofast.data.corpus import Corpus
from memofast.errors import MemofastError
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces.detection import Face
from memofast.prepare.run import extraction, shards
from memofast.prepare.run.report import Journal, Outcome
from memofast.store import FeatureStore

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]


def command(*arguments, largest_file=None):
    """Run the command; with `largest_file` no file may grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, before[1]))
    try:
        return here(Path(), "prepare", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Good clips, and one of every kind that is not."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "b", "c"):
        write_clip(folder / f"{name}.mp4", 1.0)
        (folder / f"{name}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nred blues now\n")
    write_clip(folder / "silent.mp4", 1.0, level=0.0)
    write_clip(folder / "mute.mp4", 1.0, sound=False)
    (folder / "broken.mp4").write_bytes(b"no media" * 100)
    (folder / "half.mp4").write_bytes((folder / "a.mp4").read_bytes()[:1500])
    return folder


@pytest.fixture(scope="module")
def whole(clips, vocabulary, tmp_path_factory):
    """What one worker makes of the clips undisturbed: the digests of its stores."""
    out = tmp_path_factory.mktemp("whole") / "o"
    done = command(clips, "--vocab", vocabulary, "--workers", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    return digests(out)


@pytest.fixture(scope="module")
def denseface(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("denseface") / "denseface.safetensors"
    save_denseface(path, DenseNet(3).state_dict(), DenseFaceMeta(("calm", "glad", "sad"), 120.0, 60.0))
    return path


@pytest.fixture
def bright_faces(monkeypatch):
    """A finder that sees a face in every picture brighter than 50, so that no photograph is needed."""

    class Bright:
        name = "bright"

        def __call__(self, picture):
            crop, box = np.full((64, 64), picture.mean(), np.uint8), np.array([0.0, 0.0, 40.0, 40.0])
            eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
            return [Face(crop, 0.75, box, eyes)] if picture.mean() > 50 else []

    monkeypatch.setattr(extraction, "find_faces", lambda *_: Bright())


def run_here(monkeypatch, *arguments):
    from memofast.cli import run
    from memofast.prepare.command import main

    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(main, "prepare")
    return ended.value.code or 0


def digests(out):
    return json.loads((out / "report.json").read_text())["digests"]


def test_a_corpus_of_three_modalities(clips, vocabulary, denseface, bright_faces, monkeypatch, tmp_path, capsys):
    out = tmp_path / "corpus"
    arguments = [clips, "--out", out, "--vocab", vocabulary, "--face", f"denseface={denseface}", "--workers", 1]
    arguments += ["--speaker", "most-seen"]
    assert run_here(monkeypatch, *arguments) == 0
    assert "Haar" in capsys.readouterr().err
    corpus = Corpus.open(out)
    assert corpus.name == "corpus" and corpus.modalities == ("text", "visual", "speech")
    report = json.loads((out / "report.json").read_text())
    assert report["clips"] == 7 and report["kept"] == 5
    counts = {reason: listed["count"] for reason, listed in report["problems"].items()}
    assert counts == {"unreadable": 2, "no sound track": 1, "silent": 1, "no text": 4, "nothing usable": 2}
    assert {entry["id"] for entry in report["problems"]["unreadable"]["clips"]} == {"broken", "half"}
    ids = sorted(id for split in report["splits"] for id in corpus.split(split).ids)
    assert ids == ["a_0001", "b_0001", "c_0001", "mute", "silent"]
    meta = FeatureStore.open(out / "visual").meta
    assert meta["classes"] == {"soft_labels": ["calm", "glad", "sad"]} and meta["fingerprint"]
    assert meta["extractor"] == "denseface, faces by bright" and "120" in meta["normalisation"]
    speech = FeatureStore.open(out / "speech").meta
    assert speech["extractor"] == "logmel, mean of 6" and speech["normalisation"]
    everything = [corpus.split(split) for split in report["splits"]]
    batches = [split.pack(np.arange(len(split.ids))) for split in everything]
    assert sum(batch.targets["soft_labels"].shape[0] for batch in batches) == report["rows"]["visual"]
    assert run_here(monkeypatch, *arguments) == 0  # a second run finds everything done
    assert digests(out) == report["digests"]


def test_faces_of_people_who_do_not_speak_are_left_out(
    clips, vocabulary, denseface, bright_faces, monkeypatch, tmp_path
):
    out = tmp_path / "corpus"
    arguments = [clips, "--out", out, "--vocab", vocabulary, "--face", f"denseface={denseface}", "--workers", 1]
    assert run_here(monkeypatch, *arguments) == 0
    report = json.loads((out / "report.json").read_text())
    silent = [clip["id"] for clip in report["problems"]["nobody visible speaks"]["clips"]]
    assert silent == ["a_0001", "b_0001", "c_0001", "silent"]
    assert report["with"]["visual"] == 1  # the clip without sound: nobody can tell


def test_no_face_is_counted(clips, vocabulary, denseface, monkeypatch, tmp_path):
    monkeypatch.setattr(
        extraction,
        "find_faces",
        lambda *_: type("Blind", (), {"name": "blind", "__call__": lambda *_: []})(),
    )
    out = tmp_path / "corpus"
    assert (
        run_here(monkeypatch, clips / "a.mp4", "--out", out, "--vocab", vocabulary, "--face", f"denseface={denseface}")
        == 0
    )
    assert json.loads((out / "report.json").read_text())["problems"]["no face"]["count"] == 1


def test_a_failing_extractor_is_a_problem_of_its_clips(clips, vocabulary, denseface, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("odd picture")

    monkeypatch.setattr(extraction, "find_faces", lambda *_: type("Bad", (), {"name": "bad", "__call__": fail})())
    out = tmp_path / "corpus"
    run_here(
        monkeypatch, clips, "--out", out, "--vocab", vocabulary, "--face", f"denseface={denseface}", "--workers", 1
    )
    failed = json.loads((out / "report.json").read_text())["problems"]["failed"]
    assert failed["count"] == 5 and "odd picture" in failed["clips"][0]["detail"]


def records_on_disk(store):
    """Records that a store being written has committed; the size of its file grows before they are."""
    if not (store / "data.mdb").is_file():
        return 0
    try:
        with lmdb.open(str(store), readonly=True, lock=False) as environment:
            return environment.stat()["entries"]
    except lmdb.Error:  # the file is there and has no pages yet
        return 0


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_stores(tmp_path, vocabulary):
    folder = tmp_path / "clips"
    folder.mkdir()
    first = write_clip(folder / "000.wav.mkv", 2.0, picture=False)
    data = first.read_bytes()
    for number in range(1, 100):
        (folder / f"{number:03}.mkv").write_bytes(data)
        (folder / f"{number:03}.srt").write_text("00:00:00,100 --> 00:00:01,900\nred now\n")
    arguments = [folder, "--vocab", vocabulary, "--voice", "none"]
    whole = command(*arguments, "--workers", 1, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    line = [sys.executable, "-m", "memofast.prepare", *map(str, arguments), "--workers", "2", "--out", str(out)]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while records_on_disk(out / "text") == 0 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "corpus.json").exists(), "the run ended before it could be killed"
    again = command(*arguments, "--workers", 1, "--out", out)  # in this process, which has imported everything
    assert again.returncode == 0, again.stderr
    assert "resuming: " in again.stderr
    assert digests(out) == digests(tmp_path / "whole")
    assert json.loads((out / "report.json").read_text())["kept"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("largest_file", [100, 9_000, 20_000])
def test_a_full_disk_is_one_line_and_the_rest_follows(clips, vocabulary, whole, tmp_path, largest_file):
    arguments = [clips, "--vocab", vocabulary, "--workers", 1]
    out = tmp_path / "full"
    full = command(*arguments, "--out", out, largest_file=largest_file)
    assert full.returncode == 2, full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert "cannot be written" in last and "run again" in last and "Traceback" not in full.stderr
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    assert not (out / "corpus.json").exists() and not (out / "report.json").exists()
    again = command(*arguments, "--out", out)
    assert again.returncode == 0, again.stderr
    assert digests(out) == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_journal_on_a_full_disk():
    journal = Journal(Path("/dev/full"))
    journal.add(Outcome("a", True))
    with pytest.raises(MemofastError, match="cannot be written"):
        journal.flush()


@pytest.mark.slow
def test_two_workers_write_the_same_as_one(clips, vocabulary, whole, tmp_path):
    assert command(clips, "--out", tmp_path / "two", "--vocab", vocabulary, "--workers", 2).returncode == 0
    assert digests(tmp_path / "two") == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/missing", "--out", "{tmp}/o"], "no file or folder"),
        (["{clips}", "--out", "{tmp}/o"], "give --vocab"),
        (["{clips}", "--out", "{tmp}/o", "--speech", "mfcc"], "--speech is logmel"),
        (["{clips}", "--out", "{tmp}/o", "--vocab", "{vocab}", "--engine", "moon"], "--engine is local or ray"),
        (["{clips}", "--out", "{tmp}/o", "--split", "validation=7"], "--split is NAME=FRACTION"),
        (["{clips}", "--out", "{tmp}/o", "--speaker", "moon"], "--speaker is active or most-seen"),
        (["{clips}", "--out", "{tmp}/o", "--split-by", "moon"], "--split-by is id"),
        (["{clips}", "--out", "{tmp}/o", "--column", "x=y"], "FIELD=COLUMN"),
        (["{clips}", "--out", "{tmp}/o", "--vocab", "{tmp}/none.txt"], "no vocabulary"),
        (["{clips}", "--out", "{tmp}/o", "--face", "denseface={vocab}", "--vocab", "{vocab}"], "not a DenseFace file"),
        (
            ["{clips}", "--out", "{tmp}/o", "--face", "denseface={face}", "--yunet", "{vocab}", "--vocab", "{vocab}"],
            "not a YuNet model",
        ),
        (["{clips}/broken.mp4", "--out", "{tmp}/o"], "none of 1 clips is usable"),
        (["{clips}", "--out", "{vocab}/below", "--vocab", "{vocab}"], "cannot be made"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(
    arguments, message, clips, vocabulary, denseface, tmp_path, monkeypatch, capsys
):
    names = {"tmp": tmp_path, "clips": clips, "vocab": vocabulary, "face": denseface}
    assert run_here(monkeypatch, *(argument.format(**names) for argument in arguments)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("prepare: ") and message in last
    assert not (tmp_path / "o" / "corpus.json").exists()
    assert (tmp_path / "o").exists() == ("usable" in message)  # which keeps the reasons; else nothing was begun


def test_other_options_are_refused_in_a_begun_folder(clips, vocabulary, tmp_path, monkeypatch, capsys):
    arguments = [clips / "a.mp4", "--out", tmp_path / "o", "--vocab", vocabulary]
    assert run_here(monkeypatch, *arguments) == 0
    assert run_here(monkeypatch, *arguments, "--speech-mean", 3) == 2
    assert "speech_mean 6, not 3" in capsys.readouterr().err


def test_functionals_make_rows_of_their_own_width(clips, vocabulary, tmp_path, monkeypatch):
    out = tmp_path / "o"
    arguments = [clips / "a.mp4", "--out", out, "--vocab", vocabulary]
    assert run_here(monkeypatch, *arguments, "--speech-functionals", "1+2") == 0
    store = FeatureStore.open(out / "speech")
    corpus = Corpus.open(out)
    kept = [store.read(id) for split in corpus.splits for id in corpus.split(split).ids]
    assert store.width == 160 and store.meta["extractor"] == "logmel, functionals of 1+2"
    assert [record["rows"].shape for record in kept] == [(3, 160)]
    assert [len(record["times"]) for record in kept] == [3]


def test_commits_stay_below_the_stores_batch():
    from memofast.store import writer

    assert shards._COMMIT_EVERY < writer._BATCH_RECORDS


def test_profile_says_where_the_time_went(clips, vocabulary, tmp_path, monkeypatch, capsys):
    out = tmp_path / "o"
    assert run_here(monkeypatch, clips, "--out", out, "--vocab", vocabulary, "--workers", 1, "--profile") == 0
    told = capsys.readouterr().err
    assert "where the time went" in told and "times real time" in told
    profile = json.loads((out / "report.json").read_text())["profile"]
    assert {"decoding", "voice activity", "speech features", "writing"} <= profile["seconds"].keys()
    assert sum(profile["seconds"].values()) <= profile["wall"] and 4.0 <= profile["media"] <= 5.5


def test_what_a_rule_dropped_stays_dropped_and_what_failed_is_tried_again(
    clips, vocabulary, tmp_path, monkeypatch, capsys
):
    folder, out = tmp_path / "films", tmp_path / "o"
    folder.mkdir()
    write_clip(folder / "a.mp4", 1.0, quiet=0.5)
    for name in ("a.srt", "silent.mp4", "half.mp4"):
        (folder / name).write_bytes((clips / name).read_bytes())
    arguments = [folder, "--out", out, "--vocab", vocabulary, "--voice", "energy", "--min-speech", 0.01, "--workers", 1]
    assert run_here(monkeypatch, *arguments) == 0
    problems = json.loads((out / "report.json").read_text())["problems"]
    assert {reason: [c["id"] for c in found["clips"]] for reason, found in problems.items()} == {
        "unreadable": ["half"],
        "no speech": ["silent"],
        "silent": ["silent"],
        "no text": ["half", "silent"],
        "nothing usable": ["half"],
    }
    write_clip(folder / "half.mp4", 1.0, quiet=0.5)
    capsys.readouterr()
    assert run_here(monkeypatch, *arguments) == 0
    assert "resuming: 2 of 3" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] == 2 and list(report["problems"]) == ["no speech", "silent", "no text"]


@pytest.mark.slow
def test_ray_writes_the_same(clips, vocabulary, whole, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    done = command(clips, "--vocab", vocabulary, "--workers", 2, "--out", tmp_path / "ray", "--engine", "ray")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ray") == whole


@pytest.mark.real
@pytest.mark.slow
def test_odd_real_clips(real_data, vocabulary, tmp_path):
    folders = [real_data / "video" / name for name in ("pyfeat_tests", "video_retalking")]
    done = command(*folders, "--out", tmp_path / "o", "--max-seconds", 2, "--workers", 1)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["with"]["speech"] >= 3 and "unreadable" not in report["problems"]
