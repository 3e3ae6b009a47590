"""Text databases: one record per sentence, with the word pieces that a tokenizer made of it and what was known of it.

Source of the fields and of what they mean: MEmoBERT's builders of text databases.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.legacy.databases import Counts, Database, Lists, Names, TextMeta, disagree
from memofast.legacy.values import Damaged, array, integer, is_array, row, text, unframe, unpack
from memofast.prepare.text.word_pieces import WordPieces
from memofast.store.writer import id_fault

# of each piece, beside the pieces: field -> its number at [CLS] and [SEP], its lowest and its largest (None: a piece)
PER_PIECE = {
    "pos_ids": (4, 0, 4),  # part of speech: verb, adjective, adverb, noun, other
    "word_senti_ids": (2, 0, 2),  # polarity: negative, positive, neutral
    "emo_type_ids": (0, 0, 63),  # none, positive, negative
    "text_labels": (-1, -1, None),  # the piece that belongs at [MASK]
}
PER_TEXT = ("logits", "fake_label", "ground_truth_emo")
_READ = (
    "img_fname", "input_ids", "emo_input_ids", "emo_labels", "target", "soft_labels", "toked_caption",
    *PER_PIECE, *PER_TEXT,
)  # fmt: skip
_ALWAYS = ("id", "dataset", "file_path")  # said by the key, by the database, and by img_fname
_UNKNOWN_POLARITY = 5  # of a sentence
_EXACT = 1 << 24  # up to which float32 has every whole number


@dataclass(frozen=True)
class Vocabulary:
    """What word-piece ids mean. names: piece by id."""

    path: Path
    pieces: WordPieces

    @cached_property
    def names(self) -> dict[int, str]:
        return {number: piece for piece, number in self.pieces.vocabulary.items()}

    def sentence(self, tokens: Sequence[int], words: Sequence[int]) -> str:
        """The words of these pieces, with one space between them."""
        said: dict[int, str] = {}
        for token, word in zip(tokens, words, strict=True):
            said[word] = said.get(word, "") + self.names[token].removeprefix("##")
        return " ".join(said.values())


@dataclass(frozen=True)
class Text:
    """One record. words [n]: index of each piece's word. lexicon [n]: class of the word by number or name, None where
    it has none. beside: field -> [rows, width] float32. changed: what was cut, in words. unread: fields without a
    place. flat: its words are pieces and what continues them. odd: its pieces are not those of its caption."""

    clip: str
    tokens: list[int]
    words: list[int]
    lexicon: list[int | str | None] | None = None
    label: int | None = None
    emotions: np.ndarray | None = None
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    flat: bool = False
    odd: bool = False

    @property
    def told(self) -> bytes:
        """Names what is said, for telling whether two records are of one sentence."""
        return hashlib.blake2b(np.array([self.tokens, self.words], np.int32).tobytes(), digest_size=8).digest()

    @property
    def known(self) -> bytes:
        """Names everything else that is known of it."""
        digest = hashlib.blake2b(repr((self.lexicon, self.label)).encode(), digest_size=8)
        for name, values in sorted({"": self.emotions, **self.beside}.items()):
            digest.update(name.encode() + (b"-" if values is None else values.tobytes()))
        return digest.digest()


class TextDatabase(Database):
    """A folder of sentences. Its side files are read and compared with one another when it is opened."""

    def __init__(self, path: Path, vocabulary: Vocabulary):
        """Raises: `MemofastError`, also where its side files do not fit one another or the vocabulary."""
        super().__init__(path)
        self.vocabulary = vocabulary
        meta = self.side_file(path / "meta.json", TextMeta, "the description of a text database")
        _check_vocabulary(path, meta, vocabulary)
        self.lengths = self.side_file(path / "id2len.json", Counts, "lengths of texts")
        self.file_of = self.side_file(path / "txt2img.json", Names, "files of texts")
        there = set(self.names)
        for name, told in (("id2len.json", self.lengths), ("txt2img.json", self.file_of)):
            if difference := there ^ set(told):
                raise disagree(self, "the records", name, difference)
        if (path / "img2txts.json").is_file():
            self._check_backwards(self.side_file(path / "img2txts.json", Lists, "texts of files"))

    def _check_backwards(self, texts_of: Mapping[str, Any]) -> None:
        """A list names all texts of its file; where a database was cut down from another, one name stands for it."""
        pairs = {(file, id) for file, ids in texts_of.items() for id in ([ids] if isinstance(ids, str) else ids)}
        there = {(file, id) for id, file in self.file_of.items() if not isinstance(texts_of.get(file), str)}
        there |= {(file, id) for file, id in pairs if self.file_of.get(id) == file}
        if difference := {file for file, _ in pairs ^ there}:
            raise disagree(self, "txt2img.json", "img2txts.json", difference)

    @property
    def in_order(self) -> list[str]:
        """Ids of its texts: by number, others after them."""
        return sorted(self.names, key=lambda id: (not _is_number(id), int(id) if _is_number(id) else 0, id))

    def read(self, id: str) -> Text:
        """Raises: `Damaged` for a record that is no text of the vocabulary; `MemofastError` where a side file says
        something else of it."""
        fields = unpack(unframe(self.value(id)))
        file = self.file_of[id]
        if "img_fname" in fields and text(fields["img_fname"]) != file:
            raise disagree(self, f"the img_fname {ascii(text(fields['img_fname']))[:80]}", "txt2img.json", {id})
        clip = file.removesuffix(".npz")
        if fault := id_fault(clip):
            raise Damaged(f"of clips that no store can name ({fault})")
        found = _decoded(clip, fields, self.vocabulary)
        counted = fields["input_ids"]  # databases that were cut down have the length of this list, in words
        if self.lengths[id] not in (len(found.tokens), len(counted) if isinstance(counted, list) else -1):
            raise MemofastError(
                f"database {self.path}: text {id!r} has {len(found.tokens)} word pieces, id2len.json says "
                f"{self.lengths[id]}; restore the file that is wrong, or build the database anew"
            )
        return found


def _is_number(id: str) -> bool:
    return id.isascii() and id.isdecimal() and len(id) < 19


def _check_vocabulary(path: Path, meta: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    pieces = vocabulary.pieces.vocabulary
    for name in ("UNK", "CLS", "SEP", "MASK"):
        if meta.get(name) is not None and pieces.get(f"[{name}]") != meta[name]:
            raise MemofastError(
                f"database {path} was built with another vocabulary than {vocabulary.path}: its [{name}] is "
                f"{meta[name]}, not {pieces.get(f'[{name}]')}; give the vocab.txt that it was built with"
            )
    if meta.get("v_range") and meta["v_range"][1] != vocabulary.pieces.size:
        raise MemofastError(
            f"database {path} was built with another vocabulary than {vocabulary.path}: of {meta['v_range'][1]} word "
            f"pieces, not {vocabulary.pieces.size}; give the vocab.txt that it was built with"
        )


def _decoded(clip: str, fields: Mapping[str, Any], vocabulary: Vocabulary) -> Text:
    if "input_ids" not in fields:
        raise Damaged("without input_ids")
    tokens, words = _flattened(fields["input_ids"], "input_ids")
    if any(token not in vocabulary.names for token in tokens):
        raise Damaged("with word pieces that the vocabulary does not have")
    flat, changed = words is None, []
    if flat:
        words = _continued(tokens, vocabulary)
    if not tokens:
        changed.append("without words, kept as [CLS] alone")
    beside = {}
    for name, limits in PER_PIECE.items():
        if name in fields:
            values, cut = _of_pieces(fields[name], name, len(tokens), limits, vocabulary.pieces.size)
            beside[name] = values
            changed += [f"with more {name} than word pieces, cut"] if cut else []
    beside |= {name: row(fields[name])[None] if name == "logits" else _one(fields[name]) for name in PER_TEXT
               if name in fields}  # fmt: skip
    lexicon = None
    if "emo_input_ids" in fields:
        lexicon, left = _lexicon(fields, tokens, words)
        changed += [f"with {left}, left out"] if left else []
    return Text(
        clip, tokens, words, lexicon, _label(fields),
        _probabilities(fields["soft_labels"]) if "soft_labels" in fields else None,
        beside, tuple(changed), tuple(sorted(fields.keys() - {*_READ, *_ALWAYS})), flat,
        not _is_caption(fields.get("toked_caption"), tokens, vocabulary),
    )  # fmt: skip


def _flattened(value: Any, name: str) -> tuple[list[int], list[int] | None]:
    """Numbers of a list, or of lists within it, one for each word; and the word of each, None for a list without
    lists."""
    value = array(value).tolist() if is_array(value) else value
    if not isinstance(value, list):
        raise Damaged(f"whose {name} are no list")
    if not all(isinstance(one, list) for one in value):
        return [integer(one) for one in value], None
    full = [word for word in value if word]  # builders pass words without pieces over
    numbers = [integer(one) for word in full for one in word]
    return numbers, [place for place, word in enumerate(full) for _ in word]


def _continued(tokens: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Words of a flat text: a piece that begins with ## goes with those before it."""
    words: list[int] = []
    for token in tokens:
        follows = vocabulary.names[token].startswith("##")
        words.append((words[-1] + (not follows)) if words else 0)
    return words


def _of_pieces(
    value: Any, name: str, count: int, limits: tuple[int, int, int | None], pieces: int
) -> tuple[np.ndarray, bool]:
    """A number for every row of the text, and whether there were more: builders cut long texts, but not these."""
    numbers, _ = _flattened(value, name)
    special, lowest, largest = limits
    if len(numbers) < count:
        raise Damaged(f"with fewer {name} than word pieces")
    if not all(lowest <= one <= (pieces - 1 if largest is None else largest) for one in numbers):
        raise Damaged(f"with {name} that there are not")
    rows = [special, *numbers[:count], special] if count else [special]
    return np.array(rows, np.float32)[:, None], len(numbers) > count


def _one(value: Any) -> np.ndarray:
    number = integer(value)
    if abs(number) > _EXACT:
        raise Damaged("with numbers that are too large")
    return np.array([[number]], np.float32)


def _lexicon(
    fields: Mapping[str, Any], tokens: Sequence[int], words: Sequence[int]
) -> tuple[list[int | str | None], str]:
    """Class of each piece's word, and what had no place. The fields list emotion words in the order of the text."""
    found: list[int | str | None] = [None] * len(tokens)
    entries, classes = fields["emo_input_ids"], fields.get("emo_labels", [])
    if not isinstance(entries, list) or not isinstance(classes, list):
        raise Damaged("whose emotion words are no list")
    if not entries and not classes:
        return found, ""
    if len(entries) != len(classes):
        raise Damaged("with more emotion words than classes of them, or fewer")
    places = _places(tokens, words)
    at, several, lost = 0, False, False
    for entry, given in zip(entries, classes, strict=True):
        whole = isinstance(entry, list)
        wanted = whole, tuple(integer(one) for one in (entry if whole else [entry]))
        number, more = _class_of(given)
        several |= more
        begins = places.get(wanted, [])
        if (next_one := bisect_left(begins, at)) == len(begins):
            lost = True
            continue
        at = begins[next_one] + len(wanted[1])
        found[begins[next_one] : at] = [number] * len(wanted[1])
    told = ["emotion words that the text does not have"] if lost else []
    told += ["further classes of an emotion word than the last"] if several else []
    return found, " and ".join(told)


def _places(tokens: Sequence[int], words: Sequence[int]) -> dict[tuple[bool, tuple[int, ...]], list[int]]:
    """Where each word begins, as (True, its pieces), and each piece, as (False, its one)."""
    found: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
    for place, token in enumerate(tokens):
        found.setdefault((False, (token,)), []).append(place)
    starts = [place for place, word in enumerate(words) if not place or word != words[place - 1]]
    for begin, end in pairwise([*starts, len(words)]):
        found.setdefault((True, tuple(tokens[begin:end])), []).append(begin)
    return found


def _class_of(given: Any) -> tuple[int | str, bool]:
    """The class of an emotion word, by number or name, and whether it has several, of which the last counts."""
    several = isinstance(given, list) and len(given) > 1
    if isinstance(given, list):
        if not given:
            raise Damaged("with emotion words without a class")
        given = given[-1]
    if isinstance(given, bytes):
        return text(given), several
    number = integer(given)
    if number < 0:
        raise Damaged("with emotion words without a class")
    return number, several


def _label(fields: Mapping[str, Any]) -> int | None:
    if "target" not in fields:
        return None
    number = integer(fields["target"])
    if number < 0:
        raise Damaged("with a target below 0")
    return None if "pos_ids" in fields and number == _UNKNOWN_POLARITY else number


def _probabilities(value: Any) -> np.ndarray:
    found = row(value)
    if (found < 0).any() or abs(float(found.sum(dtype=np.float64)) - 1) > 1e-3:
        raise Damaged("whose soft_labels are no probabilities")
    return found


def _is_caption(caption: Any, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Whether the pieces in words are those of the ids; True where there are none."""
    if caption is None:
        return True
    pieces = [one for part in caption for one in (part if isinstance(part, list) else [part])] if isinstance(
        caption, list) else []  # fmt: skip
    wanted = [vocabulary.names[token].encode() for token in tokens]
    return [one.removeprefix(b"@@") if isinstance(one, bytes) else None for one in pieces] == wanted
