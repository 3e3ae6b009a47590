"""Where tests live: not in the user's home. To be imported before what looks for a home as it is imported."""

import os
import site
import tempfile

# each would lead past a home
PAST_HOME = ("MEMOFAST_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "TRANSFORMERS_CACHE")


def home(folder: str) -> dict[str, str]:
    """The environment of a process whose home, caches and configuration are in this folder."""
    return {
        "HOME": folder,
        "XDG_CACHE_HOME": f"{folder}/.cache",
        "XDG_CONFIG_HOME": f"{folder}/.config",
        "XDG_DATA_HOME": f"{folder}/.local/share",
        "HF_HOME": f"{folder}/.hf",
    }


_session = tempfile.TemporaryDirectory(prefix="memofast-tests-", ignore_cleanup_errors=True)
SESSION = _session.name  # the home of fixtures wider than one test
os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())  # packages that the user installed are found all the same
for _name in PAST_HOME:
    os.environ.pop(_name, None)
os.environ.update(home(SESSION))
# compiled kernels and lists of fonts are the same for every test, and take seconds to make
os.environ |= {"TRITON_CACHE_DIR": f"{SESSION}/triton", "MPLCONFIGDIR": f"{SESSION}/matplotlib"}
