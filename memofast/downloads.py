"""What can be downloaded, and where it then lies. Only `memofast download NAME` fetches it, once; nothing else ever
goes to the network."""

import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from memofast.cache_home import cache_folder
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
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"
        "face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "yunet.onnx",
        "25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        "YuNet face detector, 0.3 MB, Apache-2.0 (OpenCV zoo)",
    ),
}


def home_of(name: str) -> Path:
    """Where the download `name` lies or will lie."""
    return cache_folder() / DOWNLOADS[name].file


def downloaded(name: str) -> Path | None:
    """The file of the download `name`, None where it was not fetched yet."""
    path = home_of(name)
    return path if path.is_file() else None


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
