"""Feature pickles with bytes changed, cut, exchanged and spliced: read or refused, never anything else."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(tmp_path, count):
    script = Path(__file__).parents[2] / "pickle_mutations.py"
    ended = subprocess.run([sys.executable, script, str(count)], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_few_mutations(tmp_path):
    assert "0 faults" in run(tmp_path, 300)


@pytest.mark.campaign
def test_a_hundred_thousand_mutations(tmp_path):
    assert "0 faults" in run(tmp_path, 100_000)
