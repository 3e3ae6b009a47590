"""`python -m memofast.evaluate`."""

from memofast.cli import run
from memofast.evaluate.command import main

if __name__ == "__main__":
    run(main, "memofast evaluate")
