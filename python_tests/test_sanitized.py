"""Operators, packing and the reading of records under the sanitizers of addresses and undefined behaviour."""

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
RUN = ["ops/test_wrong_operands.py", "store/test_damaged_records.py", "store/test_record.py", "data/test_batch.py"]


@pytest.fixture
def sanitized(monkeypatch):
    """bench/sanitized.py, where its sources are beside the tests and the compiler has the sanitizers."""
    if not (BENCH / "sanitized.py").is_file():
        pytest.skip("needs the source folder that these tests come from")
    monkeypatch.syspath_prepend(BENCH)
    import sanitized

    if missing := [name for name in ("libasan.so", "libubsan.so") if not sanitized.library(name)]:
        pytest.skip(f"{sanitized.compiler()} has no {missing[0]}")
    return sanitized


@pytest.mark.slow
def test_nothing_outside_is_read_or_written(sanitized):
    """In a folder that stays, so that only what changed is built again."""
    folder = Path(tempfile.gettempdir(), f"memofast-sanitized-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one builds
        tree = sanitized.build(folder / "tree", "address,undefined")
        files = [f"python_tests/{name}" for name in RUN]
        ended = sanitized.run(tree, [*arguments, *files], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "passed" in ended.stdout or "[100%]" in ended.stdout


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["thread", "address,undefined"])
def test_threads_share_what_they_read(sanitized, tmp_path, kind):
    ended = subprocess.run([sanitized.driver(tmp_path, kind)], capture_output=True, text=True)
    assert ended.returncode == 0 and "threads: the same" in ended.stdout, ended.stderr[-3000:]


def test_a_read_past_the_end_is_told(sanitized, tmp_path):
    """What the others rely on: the compiler's sanitizer stops a program that reads outside."""
    source = tmp_path / "past.cpp"
    source.write_text("int main(int n, char**) { int* two = new int[2]{}; return two[n + 1]; }")
    command = [sanitized.compiler(), "-g1", "-fsanitize=address", source, "-o", tmp_path / "past"]
    subprocess.run(command, check=True)
    ended = subprocess.run([tmp_path / "past"], capture_output=True, text=True)
    assert ended.returncode and "heap-buffer-overflow" in ended.stderr
