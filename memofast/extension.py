"""The compiled extension `memofast._C`: where it lies, and whether it matches the sources beside it.

setup.py runs this file before anything is installed, so it imports nothing but the standard library.
"""

import hashlib
import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

SOURCE_ROOT = Path(__file__).resolve().parent.parent
REINSTALL = "run `pip install .` in the source folder"


def source_digest(root: Path) -> str:
    """SHA-256 (first 16 hex digits) over names and bytes of everything below `root/csrc`."""
    digest = hashlib.sha256()
    for path in sorted((root / "csrc").rglob("*")):
        if path.suffix in {".h", ".cuh", ".cpp", ".cu"}:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def has_extension(package: Path) -> bool:
    return any((package / f"_C{suffix}").exists() for suffix in EXTENSION_SUFFIXES)


def extend_package_path(package_path: list[str]) -> None:
    """Let a source folder that shadows the installed package find the installed extension and the `kernels` beside
    it."""
    package = SOURCE_ROOT / "memofast"
    if not (SOURCE_ROOT / "csrc").is_dir():
        return
    package_path.append(str(SOURCE_ROOT))  # so that memofast.kernels is SOURCE_ROOT/kernels
    if has_extension(package):
        return
    for entry in sys.path:
        installed = (Path(entry) / "memofast").resolve()
        if installed != package and has_extension(installed):
            package_path.append(str(installed))
            return


def check_extension(built_from: str) -> None:
    """Raise `ImportError` where the extension was built from other sources than those beside this file."""
    if (SOURCE_ROOT / "csrc").is_dir() and built_from != source_digest(SOURCE_ROOT):
        raise ImportError(f"memofast's extension was not built from the sources in {SOURCE_ROOT}: {REINSTALL}")


def load_extension() -> ModuleType:
    """`memofast._C`. Raises: `ImportError` where it is missing, does not load or was built from other sources."""
    import torch  # noqa: F401  (before the extension, so that both share torch's OpenMP runtime and its thread count)

    try:
        loaded = importlib.import_module("memofast._C")
    except ImportError as error:
        raise ImportError(f"memofast's extension is missing or does not load ({error}): {REINSTALL}") from error
    try:
        check_extension(loaded.source_digest)
    except ImportError:
        delattr(sys.modules["memofast"], "_C")  # where the import left it: who asks again is told again
        raise
    return loaded
