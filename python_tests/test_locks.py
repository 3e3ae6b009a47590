"""One process at a time writes an output; what a killed one held or left is taken over."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import here, pretrain, small_corpus, small_recipe, the_run

from memofast import locks
from memofast.errors import MemofastError
from memofast.files import temporary_of
from memofast.locks import entries, lock_file, lock_folder, sweep_folders

HOLD = """
import sys, time
from pathlib import Path
from memofast.locks import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `out`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out", "a b"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_the_second_says_who_holds_a_folder_and_a_dead_holder_is_followed(tmp_path, holder):
    out = tmp_path / "out"
    with pytest.raises(MemofastError) as refused, lock_folder(out):
        pass
    told = str(refused.value)
    assert told.startswith(f"{out} is in use by process {holder.pid} on {os.uname().nodename} since 20")
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(-c .*'a b'\): wait until it ends", told)
    assert "\n" not in told and entries(out) == []
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (out / locks.LOCK).is_file()
    with lock_folder(out):
        (out / "result").touch()
        assert str(os.getpid()) in (out / locks.LOCK).read_text()
    assert [path.name for path in out.iterdir()] == ["result"]


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"[]", b'{"process": 3}'])
def test_a_holder_that_nobody_knows_is_another_process(tmp_path, content):
    with lock_file(tmp_path / "x.npz"):
        (lock,) = tmp_path.iterdir()
        lock.write_bytes(content)
        with (
            pytest.raises(MemofastError, match=r"x.npz is in use by another process: wait"),
            lock_file(tmp_path / "x.npz"),
        ):
            pass
        with lock_file(tmp_path / "y.npz"):
            assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_before_it_was_taken_is_none(tmp_path, monkeypatch):
    taken = []

    def ask(descriptor: int, what: Path) -> None:
        taken.append(descriptor)
        if len(taken) == 1:
            (tmp_path / locks.LOCK).unlink()

    monkeypatch.setattr(locks, "_ask_kernel", ask)
    with lock_folder(tmp_path):
        assert len(taken) == 2 and (tmp_path / locks.LOCK).is_file()


def test_folders_made_for_nothing_go_again(tmp_path):
    with pytest.raises(MemofastError, match="none"), lock_folder(tmp_path / "a/b"):
        assert (tmp_path / "a/b").is_dir()
        raise MemofastError("there is none")
    assert list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path / "a/b"):
        (tmp_path / "a/kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]
    with lock_folder(tmp_path / "a/c", needed=False):
        assert not (tmp_path / "a/c").exists()


def test_what_killed_processes_put_together_goes(tmp_path):
    dead, alive = gone(), os.getppid()
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    left = [".x.npz", "a/.train.txt", "a/b/c/.meta.json", "a/b/c/d/.deep", ".y.npz", ".x.npz.training"]
    for name in left:
        (tmp_path / f"{name}.{dead}.partial").touch()
    (tmp_path / f"a/.spool.{dead}.partial").mkdir()
    (tmp_path / f"a/.spool.{dead}.partial/rows.npy").touch()
    kept = [f"a/.train.txt.{alive}.partial", f".x.{dead}", "x.partial", f"x.{dead}.partial", ".hidden.partial"]
    for name in kept:
        (tmp_path / name).touch()

    def there() -> set[str]:
        found = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != locks.LOCK)
        return {str(path.relative_to(tmp_path)) for path in found}

    with lock_file(tmp_path / "x.npz"):
        assert [name for name in (*left, "x.npy") if f"{name}.{dead}.partial" in there()] == left[1:5]
    temporary_of(tmp_path / "a/own").touch()  # of an earlier process with this one's number
    with lock_folder(tmp_path):
        assert there() == {*kept, f"a/b/c/d/.deep.{dead}.partial"}


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_where_nothing_can_be_written_one_line_says_so(tmp_path, monkeypatch, code):
    def refuse(path, *_):
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(MemofastError, match=f"{tmp_path} cannot be written .{os.strerror(code)}."),
        lock_folder(tmp_path),
    ):
        pass


def test_a_full_disk_keeps_nobody_from_a_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with lock_folder(tmp_path), pytest.raises(MemofastError, match="by another process"), lock_folder(tmp_path):
        pass


def test_a_disk_without_locks_is_noted(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with lock_folder(tmp_path):
        pass
    assert capsys.readouterr().err == f"note: {tmp_path} lies on a disk without locks; let no other process write it\n"


def test_every_command_that_writes_refuses_what_another_holds(tmp_path):
    (tmp_path / "film.mp4").touch()
    corpus = small_corpus(tmp_path)
    (tmp_path / "cap.json").write_text("{}")
    (tmp_path / "run").mkdir()
    lines = {
        "out": [
            "prepare film.mp4 --out out",
            "predict film.mp4 --model run --out out",
            "import-features f.pkl --out out",
            "import-legacy db --vocab v --out out",
            "import-npz --captions cap.json --vocab v --out out",
            "emotion-text train meld=t.csv --init run --out out",
        ],
        "out.npz": [
            "extract run --corpus corpus --split train --out out.npz",
            "export run --out out.npz",
            "denseface train f.npz --out out.npz",
            "inspect corpus --html out.npz",
            "download yunet --out out.npz --url file:///nowhere",
        ],
        "corpus": ["normalise corpus", "pseudo-label corpus --model run", "parts-of-speech corpus"],
    }
    for held, commands in lines.items():
        with lock_file(tmp_path / held) if held == "out.npz" else lock_folder(tmp_path / held):
            for command in commands:
                ended = here(tmp_path, *command.split())
                (told,) = ended.stderr.splitlines()
                assert ended.returncode == 2 and f"{held} is in use by process {os.getpid()}" in told, command
    assert not (tmp_path / "out").exists() and Path(corpus, "corpus.json").is_file()


def test_a_run_is_resumed_by_one_and_looked_at_by_many(tmp_path):
    corpus = small_corpus(tmp_path)
    recipe = small_recipe(tmp_path, corpus, train={"updates": 2, "save_every": 1}, validate={"every": 2})
    assert pretrain(tmp_path, recipe).returncode == 0
    run = the_run(tmp_path)
    with lock_folder(run):
        ended = pretrain(tmp_path, "--resume", run)
        (told,) = ended.stderr.splitlines()
        assert ended.returncode == 2 and f"{run} is in use by process {os.getpid()}" in told
        assert pretrain(tmp_path, "--resume", run, "--dry-run").returncode == 0
    assert not list(run.rglob("*lock"))


def test_folders_with_nothing_but_a_lock_that_nobody_holds_go(tmp_path):
    for name in ("left", "kept", "new", "held"):
        (tmp_path / name).mkdir()
    (tmp_path / "left" / locks.LOCK).write_text("{}")
    (tmp_path / "left" / f".config.yaml.{gone()}.partial").touch()
    (tmp_path / "kept" / locks.LOCK).touch()
    (tmp_path / "kept" / "config.yaml").touch()
    (tmp_path / "file").touch()
    holding = os.open(tmp_path / "held" / locks.LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holding, fcntl.LOCK_EX)
    sweep_folders(tmp_path)
    os.close(holding)
    assert entries(tmp_path) == ["file", "held", "kept", "new"]
    assert (tmp_path / "held" / locks.LOCK).exists()
    sweep_folders(tmp_path / "nowhere")
