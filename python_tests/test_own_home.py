"""Each test has a home, caches and a configuration of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment

from memofast import download
from memofast.cache_home import cache_folder

_FOUND = """
from pathlib import Path
from huggingface_hub.constants import HF_HUB_CACHE
from memofast.cache_home import cache_folder
print(Path.home(), cache_folder(), HF_HUB_CACHE, sep="\\n")
"""


@pytest.mark.parametrize("number", [1, 2])
def test_what_a_test_downloads_no_other_test_finds(number):
    assert not download.home_of("yunet").exists() and not any(Path.home().iterdir())
    cache_folder().mkdir(parents=True)
    download.home_of("yunet").write_bytes(b"a model")


def test_programs_that_a_test_starts_live_there_too():
    home = Path(os.environ["HOME"])
    found = subprocess.run(
        [sys.executable, "-c", _FOUND], env=environment(), capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(home), str(home / ".cache/memofast"), str(home / ".hf/hub")]
