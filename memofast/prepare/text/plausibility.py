"""How much a text looks like one that people wrote: what tells the right reading of bytes from the wrong ones."""

import re
import unicodedata
from collections.abc import Container, Iterable
from itertools import pairwise

# letters beside a to z, by language; an encoding is right where one language has all that occur
_LATIN = {
    "fr": "àâæçéèêëîïôœùûüÿ",
    "de": "äöüßéà",
    "es": "áéíñóúüªº",
    "pt": "ãáàâçéêíóôõúü",
    "it": "àèéìíîòóùú",
    "nl": "ëïéöüèáó",
    "sv": "åäöéàü",
    "no": "æøåéòóôäö",
    "is": "áðéíóúýþæö",
    "ca": "àçéèíïóòúü·",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýžäľĺŕô",
    "hu": "áéíóöőúüű",
    "hr": "čćđšž",
    "ro": "ăâîşţșțáé",
    "sq": "çë",
    "tr": "çğ\u0131öşüâîû",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "et": "äõöüšž",
}
_VIETNAMESE = "ăâđêôơưáàảãạéèíìóòúùýë"
_EVERY = "абвгдежзиклмнопрстуфхцчш"
_CYRILLIC = {
    "ru": set(_EVERY + "ёйщъыьэюя"),
    "uk": set(_EVERY + "йщьюяіїєґ"),
    "be": set(_EVERY + "ёйыьэюяіў"),
    "bg": set(_EVERY + "йщъьюя"),
    "sr": set(_EVERY + "јљњћђџ"),
    "mk": set(_EVERY + "јљњџѓќѕ"),
}
_VOWELS = set("аеёиоуыэюяіїєў")
_FINALS = set("ךםןףץ")
_WORD = re.compile(r"[^\W\d_]+(?:[^\s\x00-\x7f][^\W\d_]*)*")
_EDGES = set("\u2018\u2019\u201c\u201d\u201e\u201a\u00ab\u00bb\u2013\u2014\u2026\u2022\u00a0\u00b7\u00ad¡¿°ªº€£©®™№")
_MANY_LIKE_KANA = 0.4  # share of characters; Chinese has half of it
_MANY = 8  # characters of which in Chinese some stand behind the first three quarters
_AMID_LATIN = re.compile(r"(?<=[A-Za-z])[^\x00-\x7f]")  # an accented letter that was read as one of two bytes
CHINESE = {"gb18030": ((0xB0, 0xD7), (0xD8, 0xF7)), "big5": ((0xA4, 0xC6), (0xC9, 0xF9))}  # common, less common


def oddity(text: str, encoding: str) -> float:
    """0 for a text as people write it to 1 for rubbish, by what is not ASCII in it. Args: encoding: which gave it."""
    foreign = [character for character in text if character > "\x7f"]
    if not foreign:
        return 0.0
    if encoding in CHINESE:
        odd = 1 - sum(_chinese(character, encoding) for character in foreign) / len(foreign)
        if encoding == "gb18030" and len(foreign) >= _MANY and all(map(_like_hangul, foreign)):
            odd += 0.3
        if encoding == "big5" and sum(map(_like_kana, foreign)) > _MANY_LIKE_KANA * len(foreign):
            odd += 0.3
    elif encoding in ("cp932", "euc_jp"):
        odd = _japanese(foreign)
    elif encoding == "cp949":
        odd = 1 - sum(_korean(character) for character in foreign) / len(foreign)
    else:
        return _alphabetic(text, foreign, encoding)
    return min(1.0, odd + 0.5 * (len(_AMID_LATIN.findall(text)) > len(foreign) / 2))


def _chinese(character: str, encoding: str) -> float:
    code = character.encode(encoding, "replace")
    if len(code) != 2:
        return 0.0
    if encoding == "gb18030" and code[1] < 0xA1:
        return 0.0
    (first, last), (rare, rarest) = CHINESE[encoding]
    if first <= code[0] <= last:
        return 1.0
    if rare <= code[0] <= rarest:
        return 0.3
    return 0.9 if unicodedata.category(character)[0] in "PS" or "\uff01" <= character <= "\uff5e" else 0.1


def _like_hangul(character: str) -> bool:
    """Whether it stands in GB 2312 where Korean has its syllables in EUC-KR, or is no word."""
    return unicodedata.category(character)[0] != "L" or 0xB0 <= character.encode("gb18030")[0] <= 0xC8


def _like_kana(character: str) -> bool:
    """Whether it stands in Big5 where Japanese has its kana in EUC-JP."""
    return character.encode("big5", "replace")[0] == 0xA4


def _japanese(foreign: list[str]) -> float:
    """Japanese has kana, common characters and punctuation; halfwidth kana are what other encodings turn into."""
    good = kana = 0.0
    for character in foreign:
        if "\u3041" <= character <= "\u30ff":
            kana, good = kana + 1, good + 1
        elif "\uff61" <= character <= "\uff9f":
            continue
        elif "\u4e00" <= character <= "\u9fff":
            code = character.encode("euc_jp", "replace")
            good += 1.0 if 0xB0 <= code[0] <= 0xCF else 0.3
        else:
            good += 0.9 if unicodedata.category(character)[0] in "PS" or "\uff01" <= character <= "\uff5e" else 0.0
    return 1 - good / len(foreign) * (1.0 if kana >= 0.15 * len(foreign) else 0.6)


def _korean(character: str) -> float:
    code = character.encode("cp949", "replace")
    if "\uac00" <= character <= "\ud7a3":
        return 1.0 if len(code) == 2 and code[1] >= 0xA1 and code[0] >= 0xB0 else 0.2
    if "\u4e00" <= character <= "\u9fff":
        return 0.1
    return 0.9 if unicodedata.category(character)[0] in "PS" else 0.1


def _alphabetic(text: str, foreign: list[str], encoding: str) -> float:
    capitals = False
    bad = 0.0
    letters: list[str] = []
    for word in _WORD.findall(text):
        own = [character for character in word if character > "\x7f"]
        if not own:
            continue
        letters += [character for character in own if character.isalpha()]
        scripts = {_script(character) for character in word if character.isalpha()}
        inside = [
            c for c in word[1:-1] if c > "\x7f" and unicodedata.category(c)[0] not in "LM" and c not in "\u2019\u00b7"
        ]
        if len(scripts) > 1 or _odd_case(word) or inside:
            bad += len(own)
        capitals |= word[0].isupper()
    scripts = {_script(character) for character in letters}
    bad += sum(_out_of_place(character, scripts) for character in foreign if not character.isalpha())
    if not letters:
        return min(1.0, bad / len(foreign))
    marks = sum(unicodedata.category(character)[0] == "M" for character in foreign)
    if scripts == {"LATIN"}:
        lower = [letter.lower()[0] for letter in letters]  # of İ it is an i with a dot
        bad += _foreign_to_all(
            [letter for letter in lower if letter > "\x7f"], [_VIETNAMESE] if encoding == "cp1258" else _LATIN.values()
        )
    elif scripts == {"CYRILLIC"}:
        lower = [letter.lower() for letter in letters]
        bad += _foreign_to_all(lower, _CYRILLIC.values())
        vowels = sum(letter in _VOWELS for letter in lower) / len(lower)
        shouted = sum(letter.isupper() for letter in letters) > 0.8 * len(letters)
        bad += len(letters) * (0.3 * (not 0.25 <= vowels <= 0.6) + 0.2 * (not capitals) + 0.1 * shouted)
    elif scripts == {"GREEK"}:
        accented = sum(letter in "άέήίόύώΐΰΆΈΉΊΌΎΏ" for letter in letters) / len(letters)
        bad += 0.4 * len(letters) * (accented < 0.05) + 0.1 * len(letters) * (not capitals)
    elif scripts == {"HEBREW"}:
        words = [word for word in _WORD.findall(text) if _script(word[0]) == "HEBREW"]
        bad += sum(2 * sum(letter in _FINALS for letter in word[:-1]) for word in words)
    elif scripts == {"THAI"} or (marks and "THAI" in scripts):
        bad += sum(2 for word in re.split(r"[\s\x00-\x7f]+", text) if word and unicodedata.category(word[0])[0] == "M")
        bad += 0.3 * len(letters) * (not 0.1 <= marks / len(foreign) <= 0.5)
    elif scripts != {"ARABIC"}:
        bad += len(letters)
    return min(1.0, bad / len(foreign))


def _out_of_place(character: str, scripts: set[str]) -> bool:
    """Whether a sign is neither common punctuation nor of a script of the letters around it."""
    return character not in _EDGES and _script(character) not in scripts


def _script(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]


def _odd_case(word: str) -> bool:
    """Whether capitals stand where nobody writes them: after a small letter, or most of a word but its first."""
    cased = [character for character in word if character.lower() != character.upper()]
    return any(b.isupper() and a.islower() for a, b in pairwise(cased))


def _foreign_to_all(letters: list[str], alphabets: Iterable[Container[str]]) -> int:
    """How many letters the language that fits best lacks."""
    return min(sum(letter not in alphabet for letter in letters) for alphabet in alphabets)
