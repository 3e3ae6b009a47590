"""The checkpoint that adapters are of, and whether it still is the one that they were trained on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, Field

from memofast.errors import MemofastError
from memofast.files import read_json, write_json
from memofast.model.weights import weight_files
from memofast.sections import checked

BASE = "base.json"
_AT_ONCE = 2**20


class _File(BaseModel):
    path: str = Field(min_length=1, max_length=4000)
    digest: str = Field(pattern="^[0-9a-f]{32}$")


@dataclass(frozen=True)
class Base:
    """path: of a model's folder, or a file. digest: of its weights."""

    path: str
    digest: str

    @classmethod
    def of(cls, path: Path) -> Base:
        """Raises: `MemofastError` where there are no weights."""
        return cls(str(path.resolve()), digest_of(path))

    @classmethod
    def read(cls, folder: Path) -> Base:
        """That of the adapters in a folder. Raises: `MemofastError` where it is not said."""
        path = folder / BASE
        try:
            return cls(**checked(read_json(path), str(path), _File).model_dump())
        except FileNotFoundError:
            raise MemofastError(f"{path} is missing, which says what is adapted; restore it") from None
        except (OSError, ValueError):
            raise MemofastError(f"{path}: not valid JSON; restore it") from None

    def write(self, folder: Path) -> None:
        write_json(folder / BASE, asdict(self))

    def found(self, folder: Path) -> Path:
        """Where it lies, for the adapters in a folder. Raises: `MemofastError` where it is missing or has changed."""
        path = Path(self.path)
        if not path.exists():
            raise MemofastError(
                f"{folder} adapts {path}, which is missing; put it back, or name its new place in {folder / BASE}"
            )
        if digest_of(path) != self.digest:
            raise MemofastError(
                f"{folder} adapts {path}, whose weights are no longer those that it was trained on; put those back, or "
                f"name their place in {folder / BASE}"
            )
        return path


def digest_of(path: Path) -> str:
    """BLAKE2b of the files of weights, in hexadecimal. Raises: `MemofastError` where there are none."""
    digest = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else weight_files(path):
        found = file.stat()
        digest.update(_digest_of_file(file.resolve(), found.st_size, found.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _digest_of_file(path: Path, size: int, changed: int) -> bytes:
    """Once for each file and state of it, as every run of a fine-tuning begins with the same."""
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while part := file.read(_AT_ONCE):
            digest.update(part)
    return digest.digest()
