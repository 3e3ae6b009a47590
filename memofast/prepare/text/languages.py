"""Languages by the names that files give them, and the encodings in which each was written before UTF-8."""

import re
from pathlib import Path

ENCODINGS = (  # of two that give as good a text the first is taken
    "cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "cp1258", "cp1251", "cp1253", "koi8_r", "koi8_u", "cp866",
    "iso8859_5", "cp1255", "cp1256", "euc_jp", "cp932", "cp949", "gb18030", "big5", "cp874",
)  # fmt: skip
_CYRILLIC = ("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5")
_CENTRAL, _WESTERN = ("cp1250", "iso8859_2"), ("cp1252",)
_OF = {
    "zh": ("gb18030", "big5"), "ja": ("cp932", "euc_jp"), "ko": ("cp949",), "th": ("cp874",), "he": ("cp1255",),
    "ar": ("cp1256",), "fa": ("cp1256",), "ur": ("cp1256",), "el": ("cp1253",), "tr": ("cp1254",), "vi": ("cp1258",),
    "lt": ("cp1257",), "lv": ("cp1257",), "et": ("cp1257",),
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk"), _CYRILLIC),
    **dict.fromkeys(("pl", "cs", "sk", "hu", "ro", "hr", "sl", "bs", "sq"), _CENTRAL), "sr": (*_CENTRAL, *_CYRILLIC),
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "is", "ca"), _WESTERN),
}  # fmt: skip
_OTHER_NAMES = {
    "zh": "zho chi chs cht chn cn gb big5 chinese", "ja": "jpn jp japanese", "ko": "kor kr korean",
    "th": "tha thai", "he": "heb iw hebrew", "ar": "ara arabic", "fa": "fas per persian farsi", "ur": "urd urdu",
    "el": "ell gre greek", "tr": "tur turkish", "vi": "vie vietnamese", "lt": "lit lithuanian", "lv": "lav latvian",
    "et": "est estonian", "ru": "rus russian", "uk": "ukr ukrainian", "bg": "bul bulgarian", "be": "bel belarusian",
    "mk": "mkd mac macedonian", "pl": "pol polish", "cs": "ces cze cz czech", "sk": "slk slo slovak",
    "hu": "hun hungarian", "ro": "ron rum romanian", "hr": "hrv croatian", "sl": "slv slovenian", "bs": "bos bosnian",
    "sq": "sqi alb albanian", "sr": "srp scc serbian", "en": "eng english", "de": "deu ger german",
    "fr": "fra fre french", "es": "spa spanish", "it": "ita italian", "pt": "por pb portuguese", "nl": "nld dut dutch",
    "sv": "swe swedish", "da": "dan danish", "no": "nor nob nb norwegian", "fi": "fin finnish",
    "is": "isl ice icelandic", "ca": "cat catalan", "hi": "hin hindi", "id": "ind indonesian",
}  # fmt: skip
# ISO 639-1, 639-2 and English names, and what files are called besides; their ISO 639-1 code
LANGUAGES = {name: code for code, names in _OTHER_NAMES.items() for name in (code, *names.split())}
_NAMED = re.compile(r"[._\-\s\[(]([A-Za-z0-9]{2,10})(?:[-_][A-Za-z]{2,4})?(?:\.(?:sdh|cc|forced|hi))?[\])]?$")


def language_of(path: Path) -> str | None:
    """Two letters of the language that ends a file's name (`film.ru.srt`, `film.zh-CN.vtt`, `film_rus.srt`) or is the
    name of its folder; None where neither says one."""
    found = _NAMED.search(path.stem)
    named = LANGUAGES.get(found[1].lower()) if found else None
    return named or LANGUAGES.get(path.parent.name.lower())


def encodings_of(language: str | None) -> tuple[str, ...]:
    """Older encodings of a language, none where they are not known."""
    return _OF.get(language or "", ())
