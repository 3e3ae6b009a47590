"""Whether a file ends before its own structure says that it does: sizes that reach past its end, a packet or page that
is not whole, a stream without its end mark. Only a few bytes are read."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

_SLACK = 64  # bytes by which headers of careless writers are wrong
_UNKNOWN = 0x7FFF0000  # sizes from here on are what is written while the length is not known
_OGG_PAGE = 27 + 255 + 255 * 255
_TAIL = 1 << 20


def breaks_off(path: Path, format: str) -> str:
    """What is missing at the end of a file, in words; "" where nothing tells so.

    Args: format: the container's name as libav gives it.
    """
    check = next((_CHECKS[name] for name in format.split(",") if name in _CHECKS), None)
    if check is None:
        return ""
    try:
        with open(path, "rb") as file:
            return check(file, os.fstat(file.fileno()).st_size)
    except OSError:
        return ""


def _lacks(promised: int, there: int) -> str:
    return f"{promised - there:,} of {promised:,} bytes are missing at its end" if promised > there + _SLACK else ""


def _chunks(order: str) -> Callable[[BinaryIO, int], str]:
    def check(file: BinaryIO, size: int) -> str:
        """RIFF and IFF: a chunk of chunks, in AVI several of them in a row."""
        at = 0
        while at + 12 <= size:
            file.seek(at)
            head = file.read(12)
            if head[:4] in (b"RF64", b"BW64"):
                return _lacks(*_rf64(file, size))
            if head[:4] not in (b"RIFF", b"RIFX", b"FORM"):
                return ""
            length = int.from_bytes(head[4:8], "big" if head[:4] == b"RIFX" else order)
            told = _lacks(at + 8 + length, size) if length < _UNKNOWN else ""
            if told or not length:
                return told or _inner(file, at + 12, size, order)
            if length >= _UNKNOWN:
                return ""
            at += 8 + length + length % 2
        return ""

    return check


def _inner(file: BinaryIO, at: int, size: int, order: str) -> str:
    """The chunks of a writer that did not come to fill in the length of all of them."""
    while at + 8 <= size:
        file.seek(at)
        length = int.from_bytes(file.read(8)[4:], order)
        if length >= _UNKNOWN or not length:
            return ""
        at += 8 + length + length % 2
    return _lacks(at, size)


def _rf64(file: BinaryIO, size: int) -> tuple[int, int]:
    head = file.read(16)  # ds64, its length, length of all
    return 8 + int.from_bytes(head[8:16], "little"), size


def _ogg(file: BinaryIO, size: int) -> str:
    """The last page must be whole and end its stream."""
    begin = max(0, size - 2 * _OGG_PAGE)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return "it ends without a page"
    page = tail[at:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return "its last page is not whole"
    whole = 27 + page[26] + sum(page[27 : 27 + page[26]])
    if len(page) < whole:
        return "its last page is not whole"
    return "" if page[5] & 4 else "its stream has no end mark"


def _boxes(file: BinaryIO, size: int) -> str:
    """MP4 and its kin: boxes in a row."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return ""  # to the end of the file
        if length < 8:
            return ""
        at += length
    return _lacks(at, size)


def _matroska(file: BinaryIO, size: int) -> str:
    """The EBML header, then a segment of a size that may be unknown."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(16)
        if not at and head[:4] != b"\x1a\x45\xdf\xa3":
            return ""
        id_length = _length_of(head[0])
        if not id_length or id_length >= len(head):
            return ""
        size_length = _length_of(head[id_length])
        value = head[id_length : id_length + size_length]
        length = int.from_bytes(value, "big") & ((1 << 7 * size_length) - 1)
        if not size_length or length == (1 << 7 * size_length) - 1:
            return ""
        at += id_length + size_length + length
        if head[:4] == b"\x18\x53\x80\x67":
            break
    return _lacks(at, size)


def _length_of(first: int) -> int:
    """Bytes of a number of EBML by its first one."""
    return 9 - first.bit_length() if first else 0


def _program_stream(file: BinaryIO, size: int) -> str:
    """MPEG-PS: the packets of the last pack."""
    begin = max(0, size - _TAIL)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"\x00\x00\x01\xba")
    if at < 0:
        return ""
    if len(tail) < at + 14:
        return "its last pack is not whole"
    at += 14 + (tail[at + 13] & 7) if tail[at + 4] >> 6 == 1 else 12
    while at < len(tail):
        code = tail[at : at + 4]
        if code == b"\x00\x00\x01\xb9" or not any(code):  # the end, or what fills up the sector
            return ""
        if len(tail) < at + 6:
            return "its last packet is not whole"
        if code[:3] != b"\x00\x00\x01":
            return ""
        at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
    return "its last packet is not whole" if at > len(tail) else ""


def _transport_stream(file: BinaryIO, size: int) -> str:
    """MPEG-TS: packets of one length; files of cameras and discs put four bytes before each."""
    head = file.read(1024)
    for length, first in ((188, 0), (192, 4)):
        if len(head) > first + 2 * length and all(head[first + n * length] == 0x47 for n in range(3)):
            if size % length:
                return "its last packet is not whole"
            file.seek(max(0, size - _TAIL // length * length))
            tail = file.read()
            return _last_units(tail[at + first : at + length] for at in range(0, len(tail), length))
    return ""


def _last_units(packets: Iterable[bytes]) -> str:
    """The last unit of each track of a transport stream: some say how long they are."""
    lacking: dict[int, int] = {}
    for packet in packets:
        if len(packet) < 188 or packet[0] != 0x47 or not packet[3] & 0x10:
            continue
        track = (packet[1] & 0x1F) << 8 | packet[2]
        payload = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
        if packet[1] & 0x40:
            begins = payload[:3] == b"\x00\x00\x01" and len(payload) >= 6
            length = int.from_bytes(payload[4:6], "big") if begins else 0
            lacking[track] = length and length + 6
        if lacking.get(track, 0) > 0:
            lacking[track] -= min(len(payload), lacking[track])
    return "its last unit of sound or picture is not whole" if any(lacking.values()) else ""


def _flv(file: BinaryIO, size: int) -> str:
    """Behind each tag stands how long it is."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    if 11 <= length <= size - 4:
        file.seek(size - 4 - length)
        if int.from_bytes(file.read(4)[1:], "big") == length - 11:
            return ""
    return "its last tag is not whole"


def _mp3(file: BinaryIO, size: int) -> str:
    """The first frame may hold how many bytes of sound there are, behind tags about the song."""
    begin, tag = 0, file.read(10)
    if tag[:3] == b"ID3" and len(tag) == 10:
        begin = 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(tag[6:]))
    file.seek(begin)
    head = file.read(256)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 16:
        return ""
    frames, has_bytes = head[at + 7] & 1, head[at + 7] & 2
    at += 8 + 4 * frames
    return _lacks(begin + int.from_bytes(head[at : at + 4], "big"), size) if has_bytes else ""


_CHECKS: dict[str, Callable[[BinaryIO, int], str]] = {
    "wav": _chunks("little"),
    "avi": _chunks("little"),
    "aiff": _chunks("big"),
    "ogg": _ogg,
    "mov": _boxes,
    "mp4": _boxes,
    "matroska": _matroska,
    "webm": _matroska,
    "mpeg": _program_stream,
    "mpegts": _transport_stream,
    "flv": _flv,
    "mp3": _mp3,
}
