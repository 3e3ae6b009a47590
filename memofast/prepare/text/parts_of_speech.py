"""Parts of speech and polarities of a corpus's words, as LARE reads them, from a file or streams of the corpus."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from memofast.data import Corpus
from memofast.data.corpus import replace_store
from memofast.errors import MemofastError
from memofast.files import parse_json, remove
from memofast.prepare.text.encoding import read_text
from memofast.schemas import Schema, fault_of
from memofast.sections import shown
from memofast.store import environments
from memofast.store.text_copy import fields_of, writer_like
from memofast.store.text_writer import PARTS_OF_SPEECH, POLARITIES

_NAME = "text-words-"
_STREAMS = {"part_of_speech": "pos_ids", "polarity": "word_senti_ids"}  # of databases of the original
_NAMES = {"part_of_speech": PARTS_OF_SPEECH, "polarity": POLARITIES}
_TAGS = {"VB": 0, "VERB": 0, "JJ": 1, "ADJ": 1, "RB": 2, "ADV": 2, "NN": 3, "NOUN": 3, "PROPN": 3}
_OF_SENSES = {"v": 0, "a": 1, "s": 1, "r": 2, "n": 3}
_UNTOLD = dict.fromkeys(_NAMES)

_Column = list[int | str]


class _Line(Schema):
    id: Annotated[str, Field(min_length=1)]
    part_of_speech: _Column
    polarity: _Column | None = None
    words: list[str] | None = None


class Added(NamedTuple):
    """Samples with the columns, and those without, whose words are other and neutral."""

    told: int
    untold: int


def add_parts_of_speech(path: Path, file: Path | None, senses: Path | None) -> Added:
    """Write the text store of the corpus at `path` anew, with a part of speech and a polarity of every piece.

    Args: file: JSON lines of `id`, `part_of_speech` and either `polarity` or `words`, one entry for each word or each
        piece; None: the corpus's streams `pos_ids` and `word_senti_ids`. senses: a SentiWordNet, whose first sense of a
        word as that part of speech says its polarity.
    Raises: `MemofastError` before anything is written, where what is given does not fit the corpus.
    """
    corpus = Corpus.open(path)
    text = corpus.stores["text"]
    if file is None:
        given = _of_streams(corpus)
        origin = "".join(corpus.streams[name][0].meta["digest"] for name in _STREAMS.values()).encode()
    else:
        polarities = read_senses(senses) if senses else None
        lines = _lines(file, text.ids)
        given = {line.id: _columns(text.read(line.id), line, where, polarities) for where, line in lines}
        origin = b"".join(one.read_bytes() for one in (file, senses) if one)
    name = hashlib.blake2b(text.meta["digest"].encode() + origin, digest_size=4).hexdigest()
    folder, labeller = path / f"{_NAME}{name}", dict(text.meta.get("labeller", {}))
    if labeller:
        labeller["labelled_store"] = name  # so that labels made later are of this store
    with writer_like(text, folder, with_parts_of_speech=True, labeller=labeller) as writer:
        for id in text.ids:
            if not writer.done(id):
                writer.put(id, **{**fields_of(text, id), **given.get(id, _UNTOLD)})
    replace_store(path, "text", folder, {})
    for other in path.glob(f"{_NAME}*"):
        if other != folder:
            environments.close(other)
            remove(other)
    return Added(len(given), len(text.ids) - len(given))


def read_senses(path: Path) -> dict[tuple[str, int], int]:
    """Polarity of a word's first sense by the word and its part of speech, of a file of SentiWordNet."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split("\t")
        if line.startswith("#") or not line.strip() or not fields[0].strip():
            continue
        try:
            speech, positive, negative, terms = _OF_SENSES[fields[0]], float(fields[2]), float(fields[3]), fields[4]
        except (KeyError, ValueError, IndexError):
            raise MemofastError(
                f"{path} line {number}: no line of SentiWordNet, which has POS, ID, PosScore, NegScore and SynsetTerms "
                "between tabs; give SentiWordNet_3.0.0.txt"
            ) from None
        polarity = POLARITIES.index(
            "positive" if positive > negative else "negative" if positive < negative else "neutral"
        )
        for term in terms.split():
            word, _, rank = term.rpartition("#")
            if rank == "1":
                found[word.lower(), speech] = polarity
    if not found:
        raise MemofastError(f"{path} names no sense of any word; give SentiWordNet_3.0.0.txt")
    return found


def _lines(file: Path, ids: Sequence[str]):
    there, seen = set(ids), set()
    for number, line in enumerate(read_text(file).splitlines(), 1):
        where = f"{file} line {number}"
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise MemofastError(f"{where} is no JSON ({error}); give one object a line") from None
        if fault := fault_of(values, _Line):
            raise MemofastError(f"{where}: {fault}; give id, part_of_speech and polarity or words")
        found = _Line.model_validate(values)
        if found.id not in there or found.id in seen:
            what = "stands twice" if found.id in seen else "is no sample of the corpus"
            raise MemofastError(f"{where}: {shown(found.id)} {what}; take the line out")
        seen.add(found.id)
        yield where, found
    if not seen:
        raise MemofastError(f"{file} has no line; give one object with id and part_of_speech for each sample")


def _columns(
    record: Mapping[str, np.ndarray], line: _Line, where: str, senses: Mapping[tuple[str, int], int] | None
) -> dict[str, list[int]]:
    """Both columns by piece."""
    speech = [_number("part_of_speech", value, where) for value in line.part_of_speech]
    if line.polarity is not None:
        polarity = [_number("polarity", value, where) for value in line.polarity]
    elif senses is None or line.words is None or len(line.words) != len(speech):
        raise MemofastError(
            f"{where} has no polarity; give it, or as many words as parts of speech and --senses SentiWordNet_3.0.0.txt"
        )
    else:
        neutral = POLARITIES.index("neutral")
        polarity = [senses.get((w.lower(), s), neutral) for w, s in zip(line.words, speech, strict=True)]
    words = record["words"][1:-1]
    count = int(words.max()) + 1 if len(words) else 0
    for values in (speech, polarity):
        if len(values) not in (count, len(words)):
            raise MemofastError(
                f"{where} has {len(values)} entries, sample {line.id!r} has {count} words in {len(words)} pieces; give "
                "one for each word or each piece"
            )
    columns = {"part_of_speech": speech, "polarity": polarity}
    return {n: v if len(v) == len(words) else [v[word] for word in words] for n, v in columns.items()}


def _number(column: str, value: int | str, where: str) -> int:
    names = _NAMES[column]
    if isinstance(value, str):
        if value in names:
            return names.index(value)
        if column == "part_of_speech" and (tag := re.match("[A-Z]+|[^a-z]+$", value)):
            found = [number for name, number in _TAGS.items() if tag[0].startswith(name)]
            return found[0] if found else names.index("other")
    elif 0 <= value < len(names):
        return value
    extra = ", or tags of the Penn Treebank or Universal Dependencies" if column == "part_of_speech" else ""
    raise MemofastError(
        f"{where}: {column} {shown(value)}; they are {', '.join(names)}, or numbers in this order{extra}"
    )


def _of_streams(corpus: Corpus) -> dict[str, dict[str, list[int]]]:
    if lacking := [name for name in _STREAMS.values() if name not in corpus.streams]:
        raise MemofastError(
            f"corpus {corpus.path} has no stream {lacking[0]}, as databases of the original with LARE's columns have; "
            "give a file of JSON lines"
        )
    text, found = corpus.stores["text"], {}
    for id in corpus.streams["pos_ids"][0].ids:
        found[id] = {}
        for column, stream in _STREAMS.items():
            values = corpus.streams[stream][0].read(id)["rows"].reshape(-1)[1:-1]
            known = len(values) == len(text.read(id)["tokens"][1:-1])
            if not known or not np.isin(values, range(len(_NAMES[column]))).all():
                raise MemofastError(f"stream {stream} of {id!r} does not fit its words; import the databases again")
            found[id][column] = values.astype(int).tolist()
    return found
