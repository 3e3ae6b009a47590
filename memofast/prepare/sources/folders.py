"""Every file below a folder: those that are looked at, and those that are left out, each with its reason."""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

VIDEO = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".f4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".m2t",
    ".vob", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".mxf", ".divx",
}  # fmt: skip
AUDIO = {
    ".wav", ".flac", ".mp3", ".mp2", ".m4a", ".aac", ".ac3", ".ogg", ".oga", ".opus", ".spx", ".wma", ".mka", ".aif",
    ".aiff", ".aifc", ".au", ".caf", ".amr",
}  # fmt: skip
LEFT_OUT = {
    "unknown suffix": "neither media nor subtitles, by its name",
    "subtitles not read": "subtitles of a kind that is not read; convert them to .srt",
    "table": "tables are read where they are given themselves",
    "subtitles not asked for": "--subtitles none",
    "other subtitles": "the film has several; one of them is used",
    "subtitles of parts": "forced subtitles and signs are not all that is said",
    "without a sample": "media that no sample of the corpus uses",
    "hidden": "its name, or that of its folder, begins with a dot",
    "linked folder": "links to folders are not followed; give the folder as a source of its own",
    "broken link": "what it points to is not there",
    "no regular file": "a FIFO, socket or device",
    "cannot be read": "the folder or file cannot be looked at",
    "odd name": "no sample can be named so: line break, over 511 bytes, no UTF-8; rename it",
    "odd characters": "a cell holds half of a surrogate pair, which no file can keep; mend the row",
}
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # categories of control characters, lone surrogates and ends of lines


@dataclass(frozen=True)
class LeftOut:
    """A file, folder or row that no sample comes of, as one line. reason: a key of LEFT_OUT."""

    file: str
    reason: str
    detail: str = ""


def left_out(file: str | Path, reason: str, detail: object = "") -> LeftOut:
    return LeftOut(one_line(str(file)), reason, one_line(str(detail)))


def one_line(text: str) -> str:
    """The text as UTF-8 can hold it in a line that people see whole: other bytes and characters are escaped."""
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair
        text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _UNSEEN else letter
        for letter in text
    )


def is_regular(path: Path) -> bool:
    """Whether it is a file, or a link to one; False for a name that no file can have."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def walk(folder: Path, suffixes: Iterable[str]) -> tuple[list[Path], list[LeftOut]]:
    """Files below a folder in order of paths, and what is left out whatever its suffix: hidden files and folders (of
    which files with one of `suffixes` are named, others counted), links to folders, what is no file or cannot be
    read."""
    suffixes, files, missed = set(suffixes), [], []

    def failed(error: OSError) -> None:
        missed.append(left_out(error.filename, "cannot be read", error.strerror))

    for root, folders, names in os.walk(folder, onerror=failed):
        linked = [name for name in folders if os.path.islink(os.path.join(root, name))]
        for name in linked:
            path = os.path.join(root, name)
            missed.append(left_out(path, "linked folder", os.path.realpath(path)))
        for name in sorted(name for name in folders if name.startswith(".") and name not in linked):
            missed += _hidden(Path(root, name), suffixes)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
        for path in (Path(root, name) for name in sorted(names)):
            if path.name.startswith("."):
                missed.append(left_out(path, "hidden"))
            elif odd := _odd_file(path):
                missed.append(odd)
            else:
                files.append(path)
    return files, missed


def _hidden(folder: Path, suffixes: set[str]) -> list[LeftOut]:
    named, others = [], 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in suffixes:
                named.append(left_out(os.path.join(root, name), "hidden"))
            else:
                others += 1
    return named + ([left_out(folder, "hidden", f"a folder of {others} other files")] if others or not named else [])


def _odd_file(path: Path) -> LeftOut | None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return left_out(path, "broken link", os.readlink(path)) if path.is_symlink() else None
    except OSError as error:
        return left_out(path, "cannot be read", error.strerror)
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
    return left_out(path, "no regular file", kinds.get(stat.S_IFMT(mode), ""))


def as_report(missed: Iterable[LeftOut]) -> dict[str, dict]:
    """For `report.json`: per reason the count and every file with its detail."""
    listed: dict[str, list] = {}
    for entry in missed:
        listed.setdefault(entry.reason, []).append({"file": entry.file, "detail": entry.detail})
    return {reason: {"count": len(listed[reason]), "files": listed[reason]} for reason in LEFT_OUT if reason in listed}


def counted(missed: Iterable[LeftOut]) -> str:
    """`3 unknown suffix, 1 hidden`, the largest count first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(entry.reason for entry in missed).most_common())
