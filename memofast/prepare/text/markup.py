"""Mark-up of subtitles and web pages: what is no word is taken out, and what merely looks like mark-up stays."""

import html
import re
from html.entities import html5

from memofast.prepare.text.text_log import tell_removed

_NAMES = (  # of HTML and WebVTT; `<3`, `<John` and `a < b` are none
    "a|abbr|b|big|blockquote|body|br|c|center|code|del|div|em|font|h[1-6]|head|html|i|img|ins|lang|li|mark|ol|p|pre|rb"
    "|rp|rt|rtc|ruby|s|small|span|strike|strong|sub|sup|sync|table|tbody|td|tr|tt|u|ul|v"
)
_TAG = re.compile(
    rf"<\s?/\s?(?:{_NAMES})\s*>|</[a-z][\w.-]*>"  # a closing one, of whatever name
    r"|<([a-z][\w-]*)>(?=.*</\1>)"  # one that is closed
    rf"|<(?:{_NAMES})(?:\.[^\s<>]*)?(?:\s+[^<>=]+=[^<>]*)?\s*/?>"  # with classes of WebVTT or attributes
    r"|<(?:v|lang)(?:\.[^\s<>]*)?\s+[^<>\n]*>"  # voices and languages of WebVTT
    r"|<(?:\d+:)?\d\d:\d\d[.,]\d{1,3}>"  # times of words
    r"|<\s([ibus])\s?>(?=.*<\s?/\s?\2\s?>)",  # loose ones, where they are closed as well
    re.I | re.S,
)
_BREAK = re.compile(r"<(?:br|p|/p|div|/div|li)\s*/?>", re.I)
_READING = re.compile(r"<(rt|rp)\b[^<>]*>(.*?)(?:</\1\s*>|(?=<(?:rt|rp|rb|/ruby|/rtc)\b))", re.I | re.S)
_CODE = re.compile(r"\{\s*\\[^{}]*\}|\{[yYcCfFsSpPoO]:[^{}\s]*\}")  # of Advanced SubStation and MicroDVD
_BRACES = re.compile(r"\{[^{}]*\}")
_ESCAPE, _RARE_ESCAPE = re.compile(r"\\([Nnh])"), re.compile(r"\\([Nh])(?![a-z])")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_JOINERS = "\u200c\u200d"
_SPACE = re.compile(r"\s+")


def plain_lines(text: str, kind: str = "subtitle") -> str:
    """Lines without mark-up, readings and invisible characters; white space folded, empty lines left out.

    kind: `substation` for Advanced SubStation, where all in braces is code or comment; `subtitle` for others, where
    `{name}` is text; `table` where a backslash, as in paths, breaks a line only before what cannot go on.
    """
    text = (_RARE_ESCAPE if kind == "table" else _ESCAPE).sub(lambda found: " " if found[1] == "h" else "\n", text)
    text = _without_tags(text, kind == "substation")
    resolved = _without_entities(text)
    if resolved != text:
        text = _without_tags(resolved, False)  # tags that were written as entities
    text = _INVISIBLE.sub(_invisible, text)
    lines = (_SPACE.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _without_tags(text: str, comments: bool) -> str:
    if "<" in text:
        text = _READING.sub(lambda found: _removed("ruby", found[2]), text)
        text = _BREAK.sub("\n", text)
        text = _TAG.sub(lambda found: _removed("tag", found[0]), text)
    if "{" in text:
        text = _CODE.sub(lambda found: _removed("tag", found[0]), text)
        if comments:
            text = _BRACES.sub(lambda found: _removed("comment", found[0]), text)
    return text


def _removed(rule: str, what: str) -> str:
    if what.strip():
        tell_removed(rule, what)
    return ""


def _without_entities(text: str) -> str:
    """Entities resolved, also those of entities (`&amp;#39;`), which pages write that were converted twice."""
    for _ in range(3):
        resolved = _ENTITY.sub(_character, text)
        if resolved == text:
            break
        text = resolved
    return text


def _character(found: re.Match) -> str:
    if found[0][1] != "#" and found[0][1:] not in html5:
        return found[0]
    character = html.unescape(found[0])
    if not character or "\ufffd" in character:
        return found[0]
    tell_removed("entity", found[0])
    return character


def _invisible(found: re.Match) -> str:
    """Nothing, or a joiner where it belongs to the spelling: within Arabic and Indic words and between emoji."""
    character, text = found[0], found.string
    if character in _JOINERS and 0 < found.start() < len(text) - 1:
        before, after = text[found.start() - 1], text[found.end()]
        if all(ord(beside) >= 0x600 and not 0x2000 <= ord(beside) < 0x2190 for beside in (before, after)):
            return character
    tell_removed("invisible character", f"U+{ord(character):04X}")
    return ""
