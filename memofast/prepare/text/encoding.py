"""Text files of the world: byte-order marks, UTF-8, and the Windows files that call themselves text."""

import codecs
from pathlib import Path

from memofast.errors import MemofastError

_MARKS = (  # UTF-32 before UTF-16: the mark of UTF-16-LE begins that of UTF-32-LE
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(raw: bytes) -> str:
    """Text of a file: by its byte-order mark, else line by line as UTF-8 where that is valid and as Windows-1252 where
    not.

    Lines are judged one by one because real tables mix both. Bytes that Windows-1252 does not define become U+FFFD.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding, errors="replace")
    lines = []
    for line in raw.split(b"\n"):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            lines.append(line.decode("cp1252", errors="replace"))
    return "\n".join(lines)


def read_text(path: Path) -> str:
    """Text of the file at `path`, line ends as they are; raises MemofastError when it cannot be read."""
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise MemofastError(f"{path} cannot be read ({error.strerror}); check the path") from error
