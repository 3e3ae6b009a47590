"""`python -m memofast.runs`."""

from memofast.cli import run
from memofast.runs.command import main

if __name__ == "__main__":
    run(main, "memofast runs")
