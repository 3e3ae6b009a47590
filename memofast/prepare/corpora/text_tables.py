"""Text corpora with emotion labels, read as they are distributed: MELD, EmoryNLP, EmotionLines, GoEmotions, ISEAR,
DailyDialog (RECCON), tables."""

import csv
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from memofast.errors import MemofastError, MemofastWarning
from memofast.prepare.sources.table import Columns, csv_cells, read_table
from memofast.prepare.subtitles.timings import clean_sentence
from memofast.prepare.text.encoding import read_text

# the order of EmotionLines' votes (Chen et al. 2018); that of its classes by name differs
_VOTED = ("neutral", "joy", "sadness", "fear", "anger", "surprise", "disgust")
_NO_ANSWER = re.compile(
    r"\[.*\]?|no response\.?|(does not|doesn.t|not) appl(y|icable)\.?|(never|i have never) (felt|experienced)[^.]*\.?",
    re.I,
)
_WINDOWS = {code: bytes([code]).decode("cp1252", errors="replace") for code in range(0x80, 0xA0)}


@dataclass(frozen=True)
class Sentence:
    """id: unique in its file. votes: the corpus' own labels with weights that add up to 1, or {} where nothing was
    answered.

    group: what must not be divided between splits: dialogue, scene or person.
    """

    id: str
    text: str
    votes: dict[str, float]
    group: str


def read_text_corpus(kind: str, path: Path) -> list[Sentence]:
    """Sentences of one file; the text of one without words is "".

    Args: kind: `meld`, `emorynlp`, `emotionlines`, `goemotions`, `isear`, `dailydialog` or `table` (columns text,
        label, maybe id, group).
    Raises: `MemofastError` for another kind, a file that is missing or of another format, or one without sentences.
    """
    if kind not in _READERS:
        raise MemofastError(f"no reader for corpus {kind!r}; there are {', '.join(_READERS)}")
    if not path.is_file():
        raise MemofastError(f"no file {path} of corpus {kind}; give its file, as {kind}=PATH")
    try:
        sentences = list(_READERS[kind](path))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, csv.Error) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise MemofastError(f"{path} is not a file of {kind} ({what}); give it as it is distributed") from error
    if not any(sentence.text for sentence in sentences):
        raise MemofastError(f"{path} holds no sentences of {kind}; check the file")
    return sentences


def clean_windows(text: str) -> str:
    """A sentence without mark-up, its stray cp1252 bytes as the characters they were."""
    return clean_sentence(text.translate(_WINDOWS))


def csv_rows(path: Path, delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> Iterator[dict[str, str]]:
    """Rows of a table by the names in its first line. Raises: `MemofastError` or `ValueError` naming the line where
    quotes are left open or there are too many cells."""
    if quoting == csv.QUOTE_NONE:
        yield from csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, quoting=quoting)
        return
    lines, notes = csv_cells(path, read_text(path), delimiter)
    if notes:
        raise ValueError(notes[0])
    (_, header), *lines = lines or [(1, [])]
    for number, cells in lines:
        if any(cells[len(header) :]):
            raise ValueError(f"line {number} has {len(cells)} cells, the header {len(header)}")
        yield dict(zip_longest(header, cells[: len(header)]))


def _meld(path: Path) -> Iterator[Sentence]:
    for row in csv_rows(path):
        dialogue = f"dia{row['Dialogue_ID']}"
        yield Sentence(
            f"{dialogue}_utt{row['Utterance_ID']}", clean_windows(row["Utterance"]), {row["Emotion"]: 1}, dialogue
        )


def _emorynlp(path: Path) -> Iterator[Sentence]:
    for row in csv_rows(path):
        scene = f"s{row['Season']}_e{row['Episode']}_scene{row['Scene_ID']}"
        yield Sentence(f"{scene}_utt{row['Utterance_ID']}", clean_windows(row["Utterance"]), {row["Emotion"]: 1}, scene)


def _emotionlines(path: Path) -> Iterator[Sentence]:
    """Labels are the shares of the raters' votes, so that sentences without a majority (`non-neutral`) count too."""
    for number, dialogue in enumerate(json.loads(read_text(path))):
        for place, said in enumerate(dialogue):
            counts = [int(digit) for digit in said["annotation"]]
            shares = {name: count / sum(counts) for name, count in zip(_VOTED, counts, strict=True) if count}
            yield Sentence(f"dia{number}_utt{place}", clean_windows(said["utterance"]), shares, f"dia{number}")


def _goemotions(path: Path) -> Iterator[Sentence]:
    """Lines of text, label numbers and id; names in `labels.txt` beside the file. Several labels share a sentence
    equally."""
    names = read_text(path.with_name("labels.txt")).split()
    for line in filter(None, read_text(path).split("\n")):
        text, labels, id = line.rstrip("\r").split("\t")
        chosen = [names[int(label)] for label in labels.split(",")]
        yield Sentence(id, clean_windows(text), dict.fromkeys(chosen, 1 / len(chosen)), id)


def _isear(path: Path) -> Iterator[Sentence]:
    """One report a line; " á " is what line breaks became, brackets hold remarks such as "[ No response.]"."""
    for row in csv_rows(path, "|", csv.QUOTE_NONE):
        text = clean_windows(row["SIT"].replace("á", " "))
        votes = {} if _NO_ANSWER.fullmatch(text) else {row["Field1"]: 1.0}
        yield Sentence(row["MYKEY"], text, votes, row["ID"])


def _dailydialog(path: Path) -> Iterator[Sentence]:
    """RECCON's file: dialogues by id, each a list of one list of turns; punctuation stands apart from words."""
    for dialogue, parts in json.loads(read_text(path)).items():
        for said in parts[0]:
            text = re.sub(r" (?=[,.?!;:](\s|$))| (?=['\u2019] ?\w)", "", clean_windows(said["utterance"]))
            yield Sentence(f"{dialogue}_{said['turn']}", text, {said["emotion"]: 1.0}, dialogue)


def _table(path: Path) -> Iterator[Sentence]:
    table = read_table(path, Columns())
    for note in table.notes:
        warnings.warn(note, MemofastWarning, stacklevel=2)
    if table.problems:
        raise ValueError(next(iter(table.problems.values())))
    for number, row in enumerate(table.rows, 1):
        id = row.get("id") or f"{path.stem}_{number:06}"
        yield Sentence(id, clean_windows(row["text"]), {row["label"]: 1.0}, row.get("group") or id)


_READERS: dict[str, Callable[[Path], Iterator[Sentence]]] = {
    "meld": _meld,
    "emorynlp": _emorynlp,
    "emotionlines": _emotionlines,
    "goemotions": _goemotions,
    "isear": _isear,
    "dailydialog": _dailydialog,
    "table": _table,
}
