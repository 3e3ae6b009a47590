"""Sentences to word pieces, the word each belongs to, and the lexicon's class of that word."""

import hashlib
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.text.encoding import read_text

VOCABULARY_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")
LONGEST = 100  # words; what follows is cut
# the six classes and their order in MEmoBERT's lexicon
NRC_CLASSES = ("anger", "joy", "sadness", "surprise", "fear", "disgust")
_EDGES = "\"'`.,;:!?()[]{}<>*_-…“”‘’«»"  # noqa: RUF001


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
    """Word pieces of one sentence without [CLS] and [SEP]: id, word index and lexicon class (-1: none) of each
    piece."""

    ids: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    lexicon: list[int] | None = None


class WordPieces:
    """A WordPiece tokenizer from a `vocab.txt` (lower-casing) or a tokenizer folder (as it is configured there)."""

    def __init__(self, path: Path, lexicon: Lexicon | None = None):
        self.lexicon = lexicon
        self._tokenizer = _open_tokenizer(path)
        self.cls_id, self.sep_id = (self._special(path, name) for name in ("[CLS]", "[SEP]"))
        vocabulary = sorted((number, piece) for piece, number in self._tokenizer.get_vocab().items())
        digest = hashlib.blake2b("\n".join(piece for _, piece in vocabulary).encode(), digest_size=16).hexdigest()
        self.fingerprint = f"{digest}-{self._tokenizer.normalizer is not None}"
        self.size = len(vocabulary)
        self.name = "wordpiece"

    def _special(self, path: Path, name: str) -> int:
        if (number := self._tokenizer.token_to_id(name)) is None:
            raise MemofastError(f"{path} has no {name}; give a BERT vocabulary")
        return number

    def __call__(self, sentence: str) -> Tokens:
        """Pieces of each whitespace word; words that give none are skipped, words beyond 100 are cut."""
        ids: list[int] = []
        words: list[int] = []
        classes: list[int] = []
        count = 0
        for word in sentence.split():
            if count == LONGEST:
                break
            pieces = self._tokenizer.encode(word, add_special_tokens=False).ids
            if pieces:
                ids += pieces
                words += [count] * len(pieces)
                classes += [self.lexicon.class_of(word) if self.lexicon else -1] * len(pieces)
                count += 1
        return Tokens(ids, words, classes if self.lexicon else None)


def _open_tokenizer(path: Path):
    from tokenizers import Tokenizer

    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
        path = path / "vocab.txt"
    if not path.is_file():
        raise MemofastError(f"no vocabulary at {path}; --vocab takes a vocab.txt or a tokenizer folder")
    return _from_vocabulary(path)


def _from_vocabulary(path: Path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    pieces = read_text(path).removesuffix("\n").split("\n")  # not splitlines: pieces may be exotic line separators
    vocabulary = {piece.removesuffix("\r"): number for number, piece in enumerate(pieces)}
    if "[UNK]" not in vocabulary:
        raise MemofastError(f"{path} is not a BERT vocabulary: [UNK] is missing")
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def copy_vocabulary(source: Path, folder: Path) -> None:
    """Put the vocabulary of a file or tokenizer folder into a model's folder."""
    if source.is_file():
        shutil.copyfile(source, folder / "vocab.txt")
        return
    for name in VOCABULARY_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
