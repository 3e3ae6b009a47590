"""`memofast finetune` as a program: the demo, going on with a run, looking before running, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import environment, small_corpus

from memofast import cli
from memofast.model.memobert.emotion import open_emotion_model

LITTLE = ["finetune-demo", "train.epochs=3", "train.seeds=[1,2]", "train.samples=8", "modalities.evaluate=[l,lva]"]


def finetune(folder, *arguments, **options):
    command = [sys.executable, "-m", "memofast.finetune", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, **options
    )


def test_demo_is_interrupted_resumed_and_reported(tmp_path):
    corpus = small_corpus(tmp_path)
    command = [sys.executable, "-m", "memofast.finetune", *LITTLE, f"corpus={corpus}"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/fixed/seed-1/done.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    (run,) = Path(tmp_path, "runs").iterdir()
    assert not (run / "results.md").exists()
    first = (run / "fixed/seed-1/done.json").stat().st_mtime_ns
    ended = finetune(tmp_path, "--resume", str(run))
    assert ended.returncode == 0, ended.stderr
    assert (run / "fixed/seed-1/done.json").stat().st_mtime_ns == first
    assert (
        "majority predictor" in ended.stdout + ended.stderr and "selected on validation" in ended.stdout + ended.stderr
    )
    results = json.loads((run / "results.json").read_text())
    assert {row["condition"] for row in results["rows"]} == {"l", "lva"}
    assert "| lva |" in (run / "results.md").read_text()
    assert len(open_emotion_model(run).classes) == 8
    assert json.loads((run / "model/preparation.json").read_text())["modalities"] == ["text", "visual", "speech"]
    again = finetune(tmp_path, "--resume", str(run))
    assert again.returncode == 0 and "run 1 of 2" not in again.stderr + again.stdout


def test_a_stopped_run_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "memofast.finetune",
        *LITTLE,
        "train.epochs=500",
        f"corpus={small_corpus(tmp_path)}",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/fixed/seed-1/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[0].decode()
    (run,) = Path(tmp_path, "runs").iterdir()
    assert process.returncode == 143 and f"saved; continue with --resume runs/{run.name}" in said


def test_mistakes_take_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, message in {
        ("corpus=nowhere",): "no corpus at nowhere",
        ("finetune-dem",): "did you mean finetune-demo?",
        ("finetune",): "names no corpus; add corpus=FOLDER",
        ("finetune-demo", "train.lrr=1"): "did you mean train.lr?",
        ("finetune-demo", "model.init=nowhere"): "nowhere",
        ("finetune-demo", "folds.scheme=speaker"): "no fold 1 of 'speaker'; it has none",
        ("--resume", "nowhere"): "no run to resume",
        ("finetune-demo", "--resume", "x"): "leave out the other arguments",
    }.items():
        monkeypatch.setattr(sys, "argv", ["memofast", "finetune", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_dry_run_makes_nothing(tmp_path):
    ended = finetune(tmp_path, "finetune-demo", "--dry-run", "protocol=paper")
    assert ended.returncode == 0 and "selected on test" in ended.stdout + ended.stderr
    assert not (tmp_path / "runs").exists()
