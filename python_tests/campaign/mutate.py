"""One thing about a file is changed: a byte, a line, an entry, an array, a record, a page."""

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

ODD = [
    None, True, 0, -1, 1, 2**31, 2**40, -(2**63), 10**25, 1e400, float("nan"), -0.5, "", "x", "\0", "\udc80",
    "../../../etc/passwd", "/etc", "~", "text", "visual", [], {}, [[]], [None], {"a": {}}, "1e-4", "2024-01-01", "0x10",
    "a" * 5000, ["float32", -1], ["float32", 2**40], ["rows", 0], ["int64", 4], "é\u2028\r\n", [0] * 50,
]  # fmt: skip
_NUMBERS = [0, 1, 2, 16, 255, 4096, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
_LINES = ["", "\0", "-1", "1e999", "\ufeff", "99:99:99,999 --> 00:00:00,000", "a\tb\tc", '"', "é" * 3000, "{}", "[[[["]


def mutated(path: Path, draw: random.Random) -> bytes:
    """The contents of a file, changed by what suits its kind or byte by byte."""
    data = path.read_bytes()
    change = _OF_KIND.get(path.suffix, _bytes)
    if draw.random() < 0.3:
        change = _bytes
    try:
        return change(data, draw)
    except (ValueError, TypeError, KeyError, IndexError, struct.error, yaml.YAMLError):
        return _bytes(data, draw)  # what was drawn cannot be written down


def _bytes(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(len(changed)) if changed else 0
        if draw.random() < 0.4:
            place = min(place, draw.choice((16, 64, 200)))  # headers
        piece = draw.choice((1, 4, 16, 64))
        match draw.randrange(8):
            case _ if not changed:
                changed += draw.randbytes(piece)
            case 0:
                changed[min(place, len(changed) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                changed[min(place, len(changed) - 1)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + piece]
            case 4:
                changed[place:place] = draw.randbytes(piece)
            case 5:
                changed[place : place + 4] = struct.pack("<I", draw.choice(_NUMBERS))
            case 6:
                changed[place : place + piece] = bytes(piece)
            case 7:  # a piece of itself elsewhere
                other = draw.randrange(len(changed))
                changed[place:place] = changed[other : other + piece]
    return bytes(changed)


def _lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(draw.choice((1, 1, 2))):
        place, other = draw.randrange(len(lines)), draw.randrange(len(lines))
        match draw.randrange(9):
            case 0:
                lines[place] = draw.choice(_LINES)
            case 1:
                lines.insert(place, draw.choice(_LINES))
            case 2:
                del lines[place]
                lines = lines or [""]
            case 3:
                lines.insert(place, lines[other])
            case 4:
                lines[place], lines[other] = lines[other], lines[place]
            case 5:
                lines[place] = lines[place][: draw.randrange(len(lines[place]) + 1)]
            case 6:
                lines[place] = re.sub(r"\d+", str(draw.choice((-1, 0, 10**20, 2**31))), lines[place], count=1)
            case 7:
                return "\n".join(lines).encode(draw.choice(("utf-16", "utf-8-sig", "utf-32")), "replace")
            case 8:
                lines *= 2
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def tree(value: object, draw: random.Random) -> object:
    """A value of dicts and lists with one or two entries changed, gone or moved."""
    for _ in range(draw.choice((1, 1, 2))):
        places = list(_places(value))
        if not places:
            return draw.choice(ODD)
        owner, key = draw.choice(places)
        match draw.randrange(6):
            case 0:
                del owner[key]
            case 1:  # another entry of it
                other, from_key = draw.choice(places)
                owner[key] = json.loads(json.dumps(other[from_key], default=str))
            case 2 if isinstance(owner[key], (int, float)) and not isinstance(owner[key], bool):
                owner[key] += draw.choice((-1, 1, 0.5, 2**33))
            case 3 if isinstance(owner, dict):
                owner[draw.choice(("", "x", str(key) + "s", "\0"))] = owner.pop(key)
            case _:
                owner[key] = draw.choice(ODD)
    return value


def _places(value: object):
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in list(entries):
        yield value, key
        yield from _places(entry)


def _json(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.05:
        return draw.choice((b"[", b'{"a":')) * 100_000
    return json.dumps(tree(json.loads(data), draw), indent=draw.choice((None, 2))).encode("utf-8", "surrogatepass")


def _json_lines(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        return _lines(data, draw)
    lines = data.splitlines()
    place = draw.randrange(len(lines))
    lines[place] = _json(lines[place], draw)
    return b"\n".join(lines) + b"\n"


def _yaml(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return _lines(data, draw)
    return yaml.safe_dump(tree(yaml.safe_load(data), draw), allow_unicode=True).encode("utf-8", "surrogatepass")


def array(old: np.ndarray, draw: random.Random) -> np.ndarray:
    """An array of other values, another shape or another type."""
    match draw.randrange(8):
        case 0:
            return old[:-1] if old.ndim else np.array([1, 2])
        case 1:
            return old[None]
        case 2:
            return old.ravel()
        case 3:
            return old.astype(draw.choice(("f4", "f8", "i8", "U5", "?", "c8", "u1", "M8[s]", "i2")))
        case 4:
            return np.zeros((0, *old.shape[1:]), old.dtype)
        case 5:
            return np.concatenate([old, old]) if old.ndim else old
        case 6:
            return np.full_like(old, 0 if old.dtype.kind in "UM" else draw.choice((0, 1, 100)))
        case _:
            new = old.copy()
            if old.dtype.kind in "iuf" and old.size:
                new.flat[draw.randrange(old.size)] = draw.choice((0, 127)) if old.dtype.kind == "u" else -1
                if old.dtype.kind == "f":
                    new.flat[draw.randrange(old.size)] = draw.choice((np.nan, np.inf, 1e4))
            return new


def _npz(data: bytes, draw: random.Random) -> bytes:
    """Arrays of an archive changed, its headers, or the bytes of a part under a right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(parts))
    match draw.randrange(4):
        case 0:
            parts[name] = _bytes(parts[name], draw)
        case 1:
            del parts[name]
        case 2:
            text = draw.choice(
                ("(9999999999,)", "(2, -1)", "()", "((((", "(4294967296, 4294967296)", "'|O'", "'<U999999999'")
            )
            pattern = rb"'shape': \([^)]*\)" if text.startswith("(") else rb"'descr': '[^']*'"
            key = "'shape': " if text.startswith("(") else "'descr': "
            parts[name] = re.sub(pattern, (key + text).encode(), parts[name], count=1)
        case _:
            buffer = io.BytesIO()
            np.save(buffer, array(np.load(io.BytesIO(parts[name])), draw))
            parts[name] = buffer.getvalue()
    return _zipped(parts, draw)


def _zipped(parts: dict[str, bytes], draw: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def _safetensors(data: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack_from("<Q", data)
    header = json.dumps(tree(json.loads(data[8 : 8 + length]), draw)).encode("utf-8", "surrogatepass")
    told = draw.choice((len(header), len(header), len(header), 0, 2**62, len(header) + 8))
    values = bytearray(data[8 + length :])
    if draw.random() < 0.3 and values:
        struct.pack_into(
            "<f", values, 4 * draw.randrange(len(values) // 4), draw.choice((float("nan"), float("inf"), 1e38))
        )
    return struct.pack("<Q", told) + header + values


def _torch(data: bytes, draw: random.Random) -> bytes:
    """A file of `torch.save`: what it holds changed, or the bytes of a part under a right checksum."""
    import torch

    if draw.random() < 0.4:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        name = draw.choice([name for name in parts if name.endswith("data.pkl")] + list(parts))
        parts[name] = _bytes(parts[name], draw)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for part, held in parts.items():
                archive.writestr(part, held)
        return buffer.getvalue()
    held = torch.load(io.BytesIO(data), weights_only=True)
    places = [place for place in _places(held) if draw.random() < 0.5 or torch.is_tensor(place[0][place[1]])]
    owner, key = draw.choice(places)
    if torch.is_tensor(owner[key]) and draw.random() < 0.8:
        owner[key] = torch.from_numpy(np.ascontiguousarray(array(owner[key].numpy(), draw)))
    elif draw.random() < 0.3:
        del owner[key]
    else:
        owner[key] = draw.choice((*ODD, torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)))
    buffer = io.BytesIO()
    torch.save(held, buffer)
    return buffer.getvalue()


def record(data: bytes, draw: random.Random) -> bytes:
    """A record of a store (`memofast.store.record`): a word of its header and table, its length, its values."""
    changed = bytearray(data)
    match draw.randrange(6):
        case 0 | 1:
            words = min(4 + 4 * struct.unpack_from("<H", data, 6)[0], len(data) // 4)
            number = draw.choice((*_NUMBERS, len(data), len(data) + 1, len(data) - 16, draw.getrandbits(32)))
            struct.pack_into("<I", changed, 4 * draw.randrange(words), number)
        case 2:
            struct.pack_into(
                "<H", changed, 2 * draw.randrange(min(40, len(data) // 2)), draw.choice((0, 1, 8, 9, 0xFFFF))
            )
        case 3:
            del changed[draw.randrange(len(data)) :]
        case 4:
            changed += bytes(draw.randrange(1, 64))
        case _:
            return _bytes(data, draw)
    return bytes(changed)


def records(folder: Path, draw: random.Random) -> None:
    """Records of the LMDB store in `folder` changed, one gone, or one too many."""
    import lmdb

    with (
        lmdb.open(str(folder), map_size=1 << 26, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        keys = [bytes(key) for key, _ in transaction.cursor()]
        for key in draw.sample(keys, min(3, len(keys))):
            transaction.put(key, record(transaction.get(key), draw))
        if draw.random() < 0.1:
            transaction.put(draw.choice((b"\xff\xfe", b"a", b"z" * 400)), b"")
        if draw.random() < 0.1:
            transaction.delete(draw.choice(keys))


def page(data: bytes, draw: random.Random) -> bytes:
    """Bytes of LMDB pages, headers above all, or fewer pages."""
    changed, pages = bytearray(data), max(len(data) // 4096, 1)
    if draw.random() < 0.15:
        return data[: 4096 * draw.randrange(pages) + draw.choice((0, 0, 17))]
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = 4096 * draw.randrange(pages) + draw.choice(
            (draw.randrange(16), draw.randrange(64), draw.randrange(4096))
        )
        changed[place] ^= draw.choice((1 << draw.randrange(8), draw.randrange(1, 256)))
    return bytes(changed)


_OF_KIND: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _json, ".jsonl": _json_lines, ".yaml": _yaml, ".npz": _npz, ".safetensors": _safetensors, ".pt": _torch,
    ".mdb": page, **dict.fromkeys((".txt", ".tsv", ".csv", ".srt", ".vtt", ".ass", ".sbv", ".sub", ".align"), _lines),
}  # fmt: skip
