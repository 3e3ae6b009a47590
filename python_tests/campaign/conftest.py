"""The warm process that parts of the campaign are run in, and its answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import runs


class Warm:
    """A process that has imported everything; it is started by the first part."""

    def __init__(self):
        self._process = None

    def run(self, part: str, count: int, seed: int) -> dict:
        """What came of a part, see `parts.Result`."""
        if self._process is None:
            line = [sys.executable, str(Path(__file__).parent), "--serve"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(line, env=runs.environment(), text=True, **pipes)
        print(json.dumps({"part": part, "count": count, "seed": seed}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the campaign ended with {self._process.wait()}"
        return json.loads(answer)

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()


@pytest.fixture(scope="session")
def warm():
    process = Warm()
    yield process
    process.close()
