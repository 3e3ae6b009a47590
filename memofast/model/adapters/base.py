"""The checkpoint that adapters are of, and whether it still is the one that they were trained on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from memofast.errors import MemofastError
from memofast.files import read_json, write_json
from memofast.model.weights import known_sha256, weight_files
from memofast.sections import checked

BASE = "base.json"


class _File(BaseModel):
    path: str = Field(min_length=1, max_length=4000)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Base:
    """path: of a model's folder, or a file. sha256: of its weights, see `weights_sha256`."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Base:
        """Raises: `MemofastError` where there are no weights."""
        return cls(str(path.resolve()), weights_sha256(path))

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
        if weights_sha256(path) != self.sha256:
            raise MemofastError(
                f"{folder} adapts {path}, whose weights are no longer those that it was trained on; put those back, or "
                f"name their place in {folder / BASE}"
            )
        return path


def weights_sha256(path: Path) -> str:
    """That of a file of weights, or of a folder's; of several that of their own, one in a line each.

    Raises: `MemofastError` where there are none.
    """
    of_each = [known_sha256(file) for file in ([path] if path.is_file() else weight_files(path))]
    return of_each[0] if len(of_each) == 1 else hashlib.sha256("\n".join(of_each).encode()).hexdigest()
