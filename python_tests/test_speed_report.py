"""The speed report of a real, small measurement, and its refusal to claim what no test vouches for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="bench/ is not beside the tests")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    tests = ["python_tests/ops/test_span_mask.py", "-k", "refus or empty", f"--junitxml={folder / 'tests.xml'}"]
    bench = ["bench/test_span_mask.py", "-k", "call_of", f"--benchmark-json={folder / 'speed.json'}"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    for arguments in (tests, bench):
        line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        subprocess.run(line, cwd=ROOT, env=alone, check=True)
    return folder


def report(folder, *options):
    line = [sys.executable, str(BENCH / "report.py"), str(folder / "speed.json"), *map(str, options)]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def test_rows_and_machine(measured):
    text = report(measured, "--tests", measured / "tests.xml")
    assert "| call_of_span_mask | torch add |" in text and "withheld" not in text
    assert "kernels: " in text and "## Where we lose" in text and "Ceilings: not measured" in text


def test_files_and_page(measured, tmp_path):
    report(measured, "--tests", measured / "tests.xml", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "speed.md").read_text() == report(measured, "--tests", measured / "tests.xml")
    assert "<table>" in (tmp_path / "out" / "speed.html").read_text()


def test_no_claim_without_tests_of_the_same_build(measured, tmp_path):
    other = tmp_path / "speed.json"
    data = json.loads((measured / "speed.json").read_text())
    data["machine_info"]["memofast"]["build"] = "another"
    other.write_text(json.dumps(data))
    text = report(tmp_path, "--tests", measured / "tests.xml")
    assert "withheld: test_span_mask did not pass on this build" in text
