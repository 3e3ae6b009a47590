"""Explicit downloads: `memofast download yunet` fetches a model once and verifies its checksum. Nothing else ever goes to the network."""

import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from memofast.cache import cache_folder
from memofast.errors import MemofastError

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Download:
    """sha256 decides whether a file is the right one, wherever it came from."""

    url: str
    file: str
    sha256: str
    about: str


DOWNLOADS = {
    "yunet": Download(
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "yunet.onnx",
        "25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        "YuNet face detector, 0.3 MB, Apache-2.0 (OpenCV zoo)",
    ),
}


def home_of(name: str) -> Path:
    """Where the download `name` lies or will lie."""
    return cache_folder() / DOWNLOADS[name].file


def main(
    name: Annotated[str, typer.Argument(help="what to fetch: " + ", ".join(DOWNLOADS))],
    url: Annotated[str | None, typer.Option(help="fetch from here instead (http, https or file)")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write; default: the user's cache folder")] = None,
) -> None:
    """Fetch a model file and verify its checksum.

    Example: memofast download yunet
    """
    if name not in DOWNLOADS:
        raise MemofastError(f"no download {name!r}; there is {', '.join(DOWNLOADS)}")
    download = DOWNLOADS[name]
    print(fetch(url or download.url, out or home_of(name), download.sha256))


def fetch(url: str, path: Path, sha256: str) -> Path:
    """Fetch `url` to `path`, which appears only once the checksum is right; a right file that is there already is kept.

    Raises MemofastError when the address does not answer, the checksum differs or the place cannot be written.
    """
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    part = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            for chunk in _chunks(url):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise MemofastError(
                f"{url} gave another file (sha256 {digest.hexdigest()[:12]}..., expected {sha256[:12]}...); try --url"
            )
        part.replace(path)
    except OSError as error:
        raise MemofastError(f"{path} cannot be written ({error.strerror}); choose another --out") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _chunks(url: str):
    """Bytes of a web address, with a progress bar; MemofastError when it does not answer."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, Progress(*columns) as progress:
            size = answer.headers.get("Content-Length")
            bar = progress.add_task("", total=int(size) if size else None)
            while chunk := answer.read(_CHUNK):
                progress.advance(bar, len(chunk))
                yield chunk
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise MemofastError(f"{url} cannot be fetched ({reason}); check the network or give --url") from error
