"""Sentences to word pieces, the word each belongs to, and the lexicon's class of that word."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memofast.data.dialogue import PieceWording, Wording, unspelt
from memofast.errors import MemofastError
from memofast.files import read_json, replace_file
from memofast.prepare.text.encoding import read_text

_CONFIGURED = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
_OF_PAIRS = ("vocab.json", "merges.txt")  # of byte-level BPE, as RoBERTa was first published
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json", *_OF_PAIRS, *_CONFIGURED)
LONGEST = 100  # words; what follows is cut, and said to be
# characters that BERT takes for words, as Chinese is written without spaces
_CHINESE = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)
_UNITS = re.compile(rf"{_CHINESE.pattern}|(?:(?!{_CHINESE.pattern})\S)+")
_OWN = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PLAIN = {  # what a `vocab.txt` alone stands for
    "normalizer": {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
    },
    "added_tokens": [],
    "ids": None,
}  # fmt: skip
# the six classes and their order in MEmoBERT's lexicon
NRC_CLASSES = ("anger", "joy", "sadness", "surprise", "fear", "disgust")
_EDGES = "\"'`.,;:!?()[]{}<>*_-…“”‘’«»"  # noqa: RUF001


@dataclass(frozen=True)
class _Special:
    """What a vocabulary calls the pieces that stand for no words."""

    cls: str
    sep: str
    mask: str
    unk: str


_SPECIAL = (_Special("[CLS]", "[SEP]", "[MASK]", "[UNK]"), _Special("<s>", "</s>", "<mask>", "<unk>"))  # BERT, RoBERTa


@dataclass(frozen=True)
class Lexicon:
    """classes in order; the class of each word."""

    classes: tuple[str, ...]
    words: dict[str, int]

    def class_of(self, word: str) -> int:
        """Index of the word's class, -1 where it has none; case and punctuation around the word do not matter."""
        return self.words.get(word.lower().strip(_EDGES), -1)


def read_lexicon(path: Path) -> Lexicon:
    """A lexicon of `word<TAB>class` lines, or of the NRC's `word<TAB>class<TAB>0|1`.

    Of an NRC file only MEmoBERT's six classes are used; a word with several keeps the last one met. Raises
    MemofastError.
    """
    rows = [line.split("\t") for line in re.split(r"\r\n|\r|\n", read_text(path)) if line.strip()]
    rows = [[field.strip() for field in row] for row in rows]
    if rows and rows[0][0].lower() == "word":
        rows = rows[1:]
    if not rows or any(len(row) not in (2, 3) or len(row) != len(rows[0]) for row in rows):
        raise MemofastError(f"{path} is not a lexicon; give lines of word, class and (NRC) 0 or 1, separated by tabs")
    hits = [(row[0].lower(), row[1]) for row in rows if len(row) == 2 or row[2] == "1"]
    named = {row[1] for row in rows}
    classes = NRC_CLASSES if named.issuperset(NRC_CLASSES) else tuple(sorted(named))
    index = {name: number for number, name in enumerate(classes)}
    return Lexicon(classes, {word: index[name] for word, name in hits if name in index})


@dataclass(frozen=True)
class Tokens:
    """Word pieces of one sentence without [CLS] and [SEP]: id, word index and lexicon class (-1: none) of each piece.

    cut: how many words were left out behind the longest sentence.
    """

    ids: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    lexicon: list[int] | None = None
    cut: int = 0


class WordPieces:
    """A tokenizer: WordPiece from a `vocab.txt` (lower-casing) or a tokenizer folder (as it is configured there), or
    any other that a `tokenizer.json` describes, with the special pieces of BERT or RoBERTa, or RoBERTa's own from
    `vocab.json` and `merges.txt`."""

    def __init__(self, path: Path, lexicon: Lexicon | None = None):
        self.lexicon = lexicon
        self._tokenizer = _open_tokenizer(path)
        self._names = next((own for own in _SPECIAL if self._tokenizer.token_to_id(own.cls) is not None), _SPECIAL[0])
        self.cls_id, self.sep_id = (self._special(path, name) for name in (self._names.cls, self._names.sep))
        self._special(path, getattr(self._tokenizer.model, "unk_token", None) or self._names.unk)
        vocabulary = sorted((number, piece) for piece, number in self.vocabulary.items())
        digest = hashlib.blake2b("\n".join(piece for _, piece in vocabulary).encode(), digest_size=16).hexdigest()
        self.fingerprint = f"{digest}-{_settings_name(self._tokenizer, [number for number, _ in vocabulary])}"
        self.size = vocabulary[-1][0] + 1
        self.name = "wordpiece"

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of each piece."""
        return self._tokenizer.get_vocab()

    @property
    def wording(self) -> Wording:
        """What is written beside words, in these pieces."""
        if type(self._tokenizer.model).__name__ == "WordPiece":
            return PieceWording(self.vocabulary)
        return _EncodedWording(self._tokenizer, self._names)

    def _special(self, path: Path, name: str) -> int:
        if (number := self._tokenizer.token_to_id(name)) is None:
            raise MemofastError(f"{path} has no {name}; give a vocabulary of BERT, or a tokenizer.json of RoBERTa")
        return number

    def __call__(self, sentence: str) -> Tokens:
        """Pieces of each word between white space, of which a Chinese character is one by itself; words that give none
        are skipped, words beyond 100 are cut."""
        sentence = " ".join(sentence.split())
        encoded = self._tokenizer.encode(sentence, add_special_tokens=False)
        ids: list[int] = []
        words: list[int] = []
        classes: list[int] = []
        count, last = 0, None
        for id, word in zip(encoded.ids, _words_of(encoded.offsets, sentence), strict=True):
            if word != last:
                count, last = count + 1, word
            if count > LONGEST:
                continue
            ids.append(id)
            words.append(count - 1)
            classes.append(self.lexicon.class_of(sentence[slice(*word)]) if self.lexicon else -1)
        return Tokens(ids, words, classes if self.lexicon else None, max(0, count - LONGEST))


class _EncodedWording(Wording):
    """In pieces that only their tokenizer knows how to make, as after a space."""

    def __init__(self, tokenizer: Any, names: _Special):
        self._tokenizer, self._unknown = tokenizer, tokenizer.token_to_id(names.unk)
        self.cls, self.sep, self.mask = (tokenizer.token_to_id(name) for name in (names.cls, names.sep, names.mask))

    def pieces(self, text: str) -> tuple[int, ...]:
        text = " ".join(text.split())
        found = self._tokenizer.encode(f" {text}", add_special_tokens=False).ids
        if not found or self._unknown in found:
            raise unspelt(text)
        return tuple(found)


def _words_of(offsets: list[tuple[int, int]], sentence: str) -> Iterator[tuple[int, int]]:
    """The word, as begin and end in the sentence, to which each piece of these offsets belongs."""
    units = [found.span() for found in _UNITS.finditer(sentence)]
    place = 0
    for begin, end in offsets:
        reached = max(begin, end - 1) if begin == end or sentence[begin].isspace() else begin
        while place < len(units) - 1 and reached >= units[place][1]:
            place += 1
        yield units[place]


def _settings_name(tokenizer, numbers: list[int]) -> str:
    """`True` for the settings of a plain `vocab.txt`, else a name of those that give other pieces or ids."""
    told = json.loads(tokenizer.to_str())
    normalizer = told["normalizer"]
    if normalizer and normalizer["type"] == "BertNormalizer" and normalizer["strip_accents"] is None:
        normalizer["strip_accents"] = normalizer["lowercase"]
    settings = {
        "normalizer": normalizer,
        "pre_tokenizer": told["pre_tokenizer"],
        "model": {name: value for name, value in told["model"].items() if name not in ("vocab", "merges")},
        "added_tokens": [
            token for token in told["added_tokens"] if token["content"] not in _OWN or not token["special"]
        ],
        "ids": None if numbers == list(range(len(numbers))) else numbers,
    }
    if settings == _PLAIN:
        return "True"
    if merges := told["model"].get("merges"):
        settings["merges"] = merges
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def _open_tokenizer(path: Path):
    if not path.is_dir():
        vocabulary = path
    elif (path / "tokenizer.json").is_file():
        return _from_json(path)
    elif _holds_pairs(path):
        return _from_configured(path)
    else:
        vocabulary = path / "vocab.txt"
    if not vocabulary.is_file():
        lacking = next((f"{path} has {name} alone" for name in _OF_PAIRS if (path / name).is_file()), "")
        raise MemofastError(
            f"{lacking}; give the folder with both of {' and '.join(_OF_PAIRS)}"
            if lacking
            else f"no vocabulary at {vocabulary}; give a vocab.txt or a tokenizer folder"
        )
    plain = _from_vocabulary(vocabulary)
    if path.is_dir() and any((path / name).is_file() for name in _CONFIGURED):
        return _from_configured(path)
    return plain


def _from_json(folder: Path):
    """The tokenizer of a `tokenizer.json`, with what the `tokenizer_config.json` beside it says differently: that is
    what transformers reads first."""
    from tokenizers import AddedToken, Tokenizer

    try:
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        config = _read_config(folder)
        normalizer = told.get("normalizer") or {}
        if normalizer.get("type") == "BertNormalizer":
            for name, key in (
                ("do_lower_case", "lowercase"),
                ("strip_accents", "strip_accents"),
                ("tokenize_chinese_chars", "handle_chinese_chars"),
            ):
                normalizer[key] = config.get(name, normalizer.get(key))
        tokenizer = Tokenizer.from_str(json.dumps(told))
        known = tokenizer.get_vocab()
        listed = {token["content"] for token in told.get("added_tokens", ())}
        for number, token in sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])):
            if token["content"] not in listed and known.get(token["content"], len(known)) == int(number):
                kept = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
                tokenizer.add_tokens([AddedToken(**{name: token[name] for name in kept if name in token})])
                known = tokenizer.get_vocab()
    except Exception as error:  # tokenizers raises nothing narrower
        raise MemofastError(f"{folder} holds no tokenizer that opens ({error}); restore its tokenizer.json") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_configured(folder: Path):
    """The tokenizer of a `vocab.txt`, or of `vocab.json` and `merges.txt`, with the settings and added tokens beside
    it, as transformers reads them."""
    from transformers import BertTokenizer, RobertaTokenizer

    from memofast.model.folder import refuse_untrusted  # which imports transformers, as few vocabularies need

    refuse_untrusted(folder)
    _read_config(folder)
    kind, name = (RobertaTokenizer, "RoBERTa") if _holds_pairs(folder) else (BertTokenizer, "BERT")
    if kind is RobertaTokenizer:
        _check_pairs(folder)
    try:
        opened = kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        tokenizer = opened.backend_tokenizer
    except Exception as error:  # tokenizers raises nothing narrower
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MemofastError(f"{folder} holds no {name} tokenizer that opens ({reason}); restore its files") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _holds_pairs(folder: Path) -> bool:
    return not (folder / "vocab.txt").is_file() and all((folder / name).is_file() for name in _OF_PAIRS)


def _check_pairs(folder: Path) -> None:
    """Raises: `MemofastError` for a `vocab.json` without RoBERTa's special pieces, which transformers would add behind
    the last one, where no encoder has rows for them."""
    path = folder / _OF_PAIRS[0]
    try:
        known = read_json(path)
    except (OSError, ValueError):
        raise MemofastError(f"{path}: not valid JSON; fetch it again") from None
    if not isinstance(known, dict) or any(type(number) is not int for number in known.values()):
        raise MemofastError(f"{path}: no mapping of word pieces to numbers; fetch it again")
    own = _SPECIAL[1]
    for name in (own.cls, own.sep, own.mask, own.unk):
        if name not in known:
            raise MemofastError(f"{path} has no {name}; give a vocabulary of BERT, or a tokenizer of RoBERTa")


def _read_config(folder: Path) -> dict:
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(config, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise MemofastError(f"{path} is damaged ({error}); restore it") from error
    return config


def _from_vocabulary(path: Path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    pieces = read_text(path).removesuffix("\n").split("\n")  # not splitlines: pieces may be exotic line separators
    vocabulary = {piece.removesuffix("\r"): number for number, piece in enumerate(pieces)}
    if "[UNK]" not in vocabulary:
        raise MemofastError(f"{path} is not a BERT vocabulary: [UNK] is missing")
    try:
        tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    except Exception as error:  # tokenizers raises nothing narrower
        raise MemofastError(f"{path} is not a BERT vocabulary: {str(error).splitlines()[0]}") from None
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def copy_vocabulary(source: Path, folder: Path) -> None:
    """Put the vocabulary of a file or tokenizer folder into the folder of a model or corpus. Raises: `MemofastError`
    where it cannot be written."""
    if source.is_file():
        replace_file(folder / "vocab.txt", source.read_bytes())
        return
    for name in VOCABULARY_FILES:
        if (source / name).is_file():
            replace_file(folder / name, (source / name).read_bytes())


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds what `WordPieces` opens."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES[:2]) or _holds_pairs(folder)
