"""Where memofast keeps what it makes or fetches once."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """MEMOFAST_CACHE, else `memofast` in XDG_CACHE_HOME or ~/.cache: downloads and generated data."""
    if chosen := os.environ.get("MEMOFAST_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memofast"
