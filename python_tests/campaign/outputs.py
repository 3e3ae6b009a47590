"""What a command leaves in its folder, as far as it must not depend on the clock, on the place and on interruptions."""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import lmdb
import yaml

_CLOCK = {
    "samples_per_s", "rows_per_s", "peak_memory_gib", "seconds", "profile", "updates_per_s", "since", "pid",
    "skipped_seconds",
}  # fmt: skip
_RUN = re.compile(r"(runs/[\w.-]+?)-\d{8}-\d{6}(-\d+)?")
_EVENTS = re.compile(r"events\.out\.tfevents\..*")
_NOT_COMPARED = ("EVENTS", "lock.mdb")


def contents(folder: Path) -> dict[str, str]:
    """By the name of each file and folder below `folder` a digest of what it holds, entries about time left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = _EVENTS.sub("EVENTS", _RUN.sub(r"\1", str(path.relative_to(folder))))
        if path.name == "lock.mdb":
            continue
        if path.is_dir():
            found[name + "/"] = ""
        elif path.name == "data.mdb":
            found[name] = _of_store(path)
        elif path.suffix == ".npz":
            found[name] = _of_archive(path)
        else:
            found[name] = "" if name.endswith(_NOT_COMPARED) else _digest(_timeless(path, folder))
    return found


def differences(folder: Path, whole: dict[str, str]) -> str | None:
    """How the contents of `folder` differ from `whole`; None: not at all."""
    there = contents(folder)
    left, lost = sorted(there.keys() - whole.keys()), sorted(whole.keys() - there.keys())
    changed = sorted(name for name in there.keys() & whole.keys() if there[name] != whole[name])
    found = [("leaves", left), ("lacks", lost), ("differs in", changed)]
    return "; ".join(f"{what} {', '.join(names[:4])}" for what, names in found if names) or None


def _of_store(path: Path) -> str:
    """Of its records, as pages depend on what was committed when; those of a cache begin with the time."""
    clock = 8 if (path.parent / ".in_use").exists() else 0
    with lmdb.open(str(path.parent), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return _digest(b"".join(key + b"\0" + value[clock:] for key, value in transaction.cursor()))


def _of_archive(path: Path) -> str:
    """Of its parts, whose order counts and whose dates do not."""
    with zipfile.ZipFile(path) as archive:
        return _digest(b"".join(name.encode() + b"\0" + archive.read(name) for name in archive.namelist()))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _timeless(path: Path, folder: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl", ".yaml", ".md", ".csv", ".html", ".txt"):
        data = _RUN.sub(r"\1", data.decode().replace(str(folder), "FOLDER")).encode()
    if path.suffix == ".json":
        return json.dumps(_without_clock(json.loads(data))).encode()
    if path.name == "progress.jsonl":
        return json.dumps(_journal(data.decode()), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        lines = [_without_clock(json.loads(line)) for line in data.decode().split("\n") if line]
        return json.dumps(lines).encode()
    if path.suffix == ".yaml":
        return json.dumps(_without_clock(yaml.safe_load(data)), default=str).encode()
    if path.suffix == ".md":
        return re.sub(rb"[\d.]+ (s|min|h)\b|[\w.-]+-\d{8}-\d{6}(-\d+)?", b"", data)
    return data


def _without_clock(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_clock(entry) for key, entry in value.items() if key not in _CLOCK}
    return [_without_clock(entry) for entry in value] if isinstance(value, list) else value


def _journal(text: str) -> dict[str, object]:
    """The last whole line of each id: it is appended to as work ends, in whatever order, and a kill may tear a line."""
    found = {}
    for line in filter(None, text.split("\n")):
        try:
            found[json.loads(line)["id"]] = line
        except ValueError:
            continue
    return found
