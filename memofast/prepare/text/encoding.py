"""Text files of the world: byte-order marks, UTF-8, and the older encodings, which are told by what comes out."""

import codecs
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from memofast.errors import MemofastError
from memofast.files import refuse_pointer
from memofast.prepare.text.languages import ENCODINGS, encodings_of, language_of
from memofast.prepare.text.plausibility import oddity
from memofast.prepare.text.text_log import tell_encoding, tell_file

_MARKS = (  # UTF-32 before UTF-16: the mark of UTF-16-LE begins that of UTF-32-LE
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ESCAPED = ((b"\x1b$B", "iso2022_jp_2"), (b"\x1b$@", "iso2022_jp_2"), (b"\x1b$)C", "iso2022_kr"))
_STRAYS = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as surrogateescape gives them
_ZEROS = 0.02  # share of characters of UTF-16 that are ASCII, as spaces and line ends are
_SAMPLE = 6_000  # bytes of lines that are not ASCII
_LOST = 0.05  # share of characters that may be damaged
_CLEAR = 0.1  # how much better the best reading is than any other where it is no guess
_ODD = 0.25  # from which even the best reading is a guess
_FEW = 4  # characters that say nothing about an encoding
_FOR_HINT = 0.15  # what the language in a file's name counts
_UNMATCHED = 0.05  # what it counts where charset-normalizer rules an encoding out


@dataclass(frozen=True)
class Decoded:
    """Text of a file. encoding: which it was read as. doubtful: whether that is a guess; detail: what speaks for
    it or against."""

    text: str
    encoding: str
    doubtful: bool = False
    detail: str = ""


def decode_text(raw: bytes) -> str:
    """Text of a file's bytes, see `decode`."""
    return decode(raw).text


def decode(raw: bytes, language: str | None = None) -> Decoded:
    """Text of a file: by its byte-order mark, as UTF-16 without one, as UTF-8, else in the older encoding that gives
    what people write.

    Real tables mix UTF-8 and Windows-1252: in Western text lines are judged one by one. What an encoding does not
    define becomes U+FFFD. language: two letters, of which the text probably is.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _damaged(raw[len(mark) :].decode(encoding, errors="replace"), encoding)
    if b"\0" in raw and (found := _unmarked(raw)):
        return found
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _older(raw, language)
    for escape, encoding in _ESCAPED:
        if escape in raw:
            return _damaged(raw.decode(encoding, errors="replace"), encoding)
    return Decoded(text, "utf-8")


def read_text(path: Path) -> str:
    """Text of the file at `path`, line ends as they are; raises MemofastError when it cannot be read.

    The language in its name (`film.ru.srt`) helps to find its encoding; one that is not UTF-8 is noted for the report.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MemofastError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if raw.startswith(b"version https://"):
        refuse_pointer(path)
    decoded = decode(raw, language_of(path))
    tell_file(path)
    if decoded.encoding != "utf-8" or decoded.doubtful:
        tell_encoding(path, decoded.encoding, decoded.doubtful, decoded.detail)
    return decoded.text


def _damaged(text: str, encoding: str) -> Decoded:
    lost = text.count("\ufffd")
    return Decoded(text, encoding, lost > 0, f"{lost} characters are damaged" if lost else "")


def _unmarked(raw: bytes) -> Decoded | None:
    """UTF-16 or UTF-32 without a mark: bytes of zero stand at one side of every space and line end."""
    for encoding, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        zeros = [raw[place::width].count(0) for place in range(width)]
        high = zeros[-1] if encoding.endswith("le") else zeros[0]
        low = zeros[0] if encoding.endswith("le") else zeros[-1]
        if high <= 1.5 * low or high < (0.9 if width == 4 else _ZEROS) * len(raw) / width:
            continue
        try:
            return Decoded(raw.decode(encoding), encoding, False, "without a mark")
        except UnicodeDecodeError:
            text = raw.decode(encoding, errors="replace")
            if text.count("\ufffd") <= _LOST * len(text):
                return _damaged(text, encoding)
    return None


def _older(raw: bytes, language: str | None) -> Decoded:
    text = raw.decode("utf-8", "surrogateescape")
    strays = len(_STRAYS.findall(text))
    if sum(character > "\x7f" for character in text) - strays >= strays:
        return _by_lines(raw)
    best = _best(raw, language)
    if best.encoding == "cp1252":
        lines = _by_lines(raw)
        return Decoded(lines.text, "cp1252", best.doubtful, best.detail)
    return best


def _by_lines(raw: bytes) -> Decoded:
    """Lines that are UTF-8 as that, others as Windows-1252; strays within a line of UTF-8 one by one."""
    lines, others, lost = [], 0, 0
    for line in raw.split(b"\n"):
        try:
            lines.append(line.decode("utf-8"))
            continue
        except UnicodeDecodeError:
            others += 1
        text = line.decode("utf-8", "surrogateescape")
        if any(character > "\u024f" and unicodedata.category(character)[0] == "L" for character in text):
            text = line.decode("utf-8", "replace")  # Windows-1252 has no such letters
        else:
            text = _STRAYS.sub(lambda found: _windows(found[0]), text)
        lost += text.count("\ufffd")
        lines.append(text)
    detail = f"{others} lines are not UTF-8 and read as Windows-1252"
    if lost:
        detail += f"; {lost} characters are damaged"
    return Decoded("\n".join(lines), "utf-8", True, detail)


def _windows(stray: str) -> str:
    return bytes([ord(stray) - 0xDC00]).decode("cp1252", "replace")


def _best(raw: bytes, language: str | None) -> Decoded:
    """The older encoding that gives what people write, and whether another one would do so too."""
    sample = _sample(raw)
    ranked = _ranked(sample, language)
    if not ranked:
        return _damaged(raw.decode("cp1252", "replace"), "cp1252")
    score, _, encoding, text = ranked[0]
    others = [(other, name) for other, _, name, different in ranked[1:] if different != text]
    foreign = sum(character > "\x7f" for character in text)
    doubts = []
    if others and others[0][0] - score < _CLEAR:
        doubts.append(f"{others[0][1]} would do as well")
    if score > _ODD:
        doubts.append("no encoding gives a text as people write it")
    if foreign < _FEW and encoding not in encodings_of(language) and encoding != "cp1252":
        doubts.append(f"only {foreign} characters tell")
    if encodings_of(language) and encoding not in encodings_of(language):
        doubts.append(f"its name says {language}")
    whole = raw.decode(encoding, "replace")
    if lost := whole.count("\ufffd"):
        doubts.append(f"{lost} characters are damaged")
    return Decoded(whole, encoding, bool(doubts), "; ".join(doubts))


def _sample(raw: bytes) -> bytes:
    """Lines that are not ASCII, so that times and numbers do not count."""
    lines, size = [], 0
    for line in raw.split(b"\n"):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > _SAMPLE:
                break
    return b"\n".join(lines)


def _ranked(sample: bytes, language: str | None) -> list[tuple[float, int, str, str]]:
    """Readings of a sample, the best one first: how odd each is, its place among encodings, the encoding, the text."""
    from charset_normalizer import from_bytes

    matched = from_bytes(sample, cp_isolation=list(ENCODINGS), enable_fallback=False)
    chaos = {name: match.chaos for match in matched for name in match.could_be_from_charset}
    found = []
    for place, encoding in enumerate(ENCODINGS):
        if encoding == "cp1258" and language != "vi":
            continue  # it holds the letters of too many others
        text = sample.decode(encoding, "replace")
        lost = text.count("\ufffd") / max(1, sum(character > "\x7f" for character in text))
        if lost <= _LOST:
            score = oddity(text.replace("\ufffd", ""), encoding) + 4 * lost
            score += min(chaos.get(encoding, _UNMATCHED), _UNMATCHED)
            score -= _FOR_HINT * (encoding in encodings_of(language))
            found.append((score, place, encoding, text))
    return sorted(found, key=lambda reading: (round(reading[0] / 0.03), reading[1]))
