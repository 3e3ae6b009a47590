"""`python -m memofast.prepare`."""

from memofast.cli import run
from memofast.prepare.command import main

if __name__ == "__main__":
    run(main, "memofast prepare")
