"""Predictions as files: rows that are there as soon as they are known, and at the end JSON lines and a table."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.files import as_json, csv_table, remove, replace_file, writing
from memofast.inference.prediction import OF_DIALOGUES, Prediction
from memofast.locks import entries

ROWS, TABLE, UNFINISHED = "predictions.jsonl", "predictions.csv", "unfinished.jsonl"
PAGE, TIMELINE, TIMELINES = "predictions.html", "timeline.png", "timelines"
_ALL = (ROWS, TABLE, UNFINISHED, PAGE, TIMELINE, TIMELINES)


def json_line(prediction: Prediction) -> str:
    return as_json(prediction.as_json()) + "\n"


def table_of(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """CSV with a line per prediction: a column `p_CLASS` for each class, or `value`, and `importance_MODALITY`, empty
    where it is not known; `score` where classes have an order; dialogue, position and speaker where a table names
    any. Text is escaped as `csv_table` says."""
    outputs = [f"p_{name}" for name in classes] if predictions and predictions[0].value is None else ["value"]
    outputs += ["score"] if predictions and predictions[0].score is not None else []
    placed = [name for name in OF_DIALOGUES if any(getattr(found, name) is not None for found in predictions)]
    importance = [f"importance_{modality}" for modality in MODALITIES]
    about = "id", "file", "start", "end", "track", *placed, "speaks", "text", "named"
    rows: list[list] = [[*about, *outputs, "modalities", *importance, "notes"]]
    for found in predictions:
        numbers = [f"{p:.6f}" for p in found.probabilities.values()] if found.value is None else [f"{found.value:.6f}"]
        numbers += [] if found.score is None else [_number(found.score, 3)]
        mattered = [_number(found.importance.get(modality), 6) for modality in MODALITIES]
        times = _number(found.start, 3), _number(found.end, 3)
        said = found.id, found.file, *times, found.track, *(getattr(found, name) for name in placed)
        said += found.speaks, found.text, found.named
        rows.append([*said, *numbers, "+".join(found.modalities), *mattered, "; ".join(found.notes)])
    return csv_table(rows)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


class Results:
    """The folder of a prediction. While it is open, every row is added to `unfinished.jsonl` at once; `finish` puts the
    final files in its place. What lies beside an `unfinished.jsonl` is of a run that was stopped, and is made anew.

    Raises: `MemofastError` where the folder holds something else or cannot be made.
    """

    def __init__(self, folder: Path, classes: Sequence[str]):
        self.folder, self.classes = folder, classes
        self.rows: list[Prediction] = []
        there = entries(folder)
        if other := [name for name in there if UNFINISHED not in there or name not in _ALL]:
            raise MemofastError(f"--out {folder} holds {other[0]}; choose another folder or empty it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / UNFINISHED, "w", encoding="utf-8")  # noqa: SIM115
            for name in set(there) - {UNFINISHED}:
                remove(folder / name)
        except OSError as error:
            raise MemofastError(f"--out {folder} cannot be made ({error.strerror}); choose another") from error

    def add(self, prediction: Prediction) -> None:
        """Raises: `MemofastError` where the disk does not take it."""
        self.rows.append(prediction)
        try:
            self._file.write(json_line(prediction))
            self._file.flush()
        except OSError as error:
            raise MemofastError(
                f"{self.folder / UNFINISHED} cannot be written ({error.strerror}); free space and run again"
            ) from error

    def finish(self) -> None:
        """Write `predictions.jsonl` and `predictions.csv`, each as a whole: the last of all files."""
        replace_file(self.folder / ROWS, "".join(map(json_line, self.rows)).encode())
        replace_file(self.folder / TABLE, table_of(self.rows, self.classes).encode("utf-8", "backslashreplace"))
        self._file.close()
        with writing(self.folder / UNFINISHED):
            (self.folder / UNFINISHED).unlink()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """What an interrupted or failed run leaves are its rows; without any, nothing."""
        if not self._file.closed:
            with suppress(OSError):  # the disk is full: what did not fit is lost, and the error is told
                self._file.close()
            if not self.rows:
                remove(self.folder / UNFINISHED)
                if not entries(self.folder):
                    with suppress(OSError):  # its lock lies in it
                        self.folder.rmdir()
