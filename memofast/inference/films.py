"""The command's work: a source cut into utterances, predicted in a stream, and written with pictures."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memofast.errors import MemofastError
from memofast.files import replace_file, writing
from memofast.inference.prediction import Prediction
from memofast.inference.predictor import Predictor
from memofast.inference.preparation import Files
from memofast.inference.results import PAGE, TABLE, TIMELINE, TIMELINES, UNFINISHED, Results
from memofast.inference.segments import Cutting
from memofast.inference.timeline import draw_timeline
from memofast.inference.watching import Shown, Utterance
from memofast.metrics.ordered_classes import check_order, ordered_score
from memofast.prepare.media.streams import ANY_STREAM, StreamChoice
from memofast.prepare.run.report import print_text_log
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.table import Columns
from memofast.prepare.text.text_log import TextLog

_NAMED = 3  # utterances of those that are left out for one reason


@dataclass(frozen=True)
class FilmPrediction:
    """What is asked of the command, see there."""

    source: str
    model: Path
    out: Path
    files: Files
    cutting: Cutting
    html: bool = False
    device: str = "auto"
    others: bool = True
    tracks: StreamChoice = ANY_STREAM
    ordered: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)


def predict_films(asked: FilmPrediction, console: Console) -> list[Prediction]:
    """Predict and write everything; returns the rows.

    Raises: `MemofastError` for bad input; `SystemExit` 130 after Ctrl-C and 143 after SIGTERM, with the finished rows
        in `unfinished.jsonl`.
    """
    if not Path(asked.source).exists():
        raise MemofastError(f"no file or folder {asked.source}; check the path")
    predictor = Predictor(asked.model, asked.files, asked.device, asked.tracks)
    if asked.ordered:
        check_order(asked.ordered, predictor.classes, predictor.kind)
    with Results(asked.out, predictor.classes) as results:
        try:
            with console.status("looking for utterances"), TextLog() as text_log:
                tell = partial(console.print, markup=False)
                clips = predictor.clips(asked.source, asked.cutting, tell=tell, columns=asked.columns)
            print_text_log(text_log.as_json(), console)
            shown = _predict(predictor, clips, results, asked, console)
            _draw(results, predictor, asked.out, console)
            if asked.html:
                _write_page(results, shown, predictor, asked)
            results.finish()  # at last, so that a folder with rows and table has the pictures of them too
        except (KeyboardInterrupt, SystemExit) as stopped:
            kept = f"; rows in {asked.out / UNFINISHED}: {len(results.rows)}" if results.rows else ""
            console.print(f"interrupted before all was written{kept}")
            raise SystemExit(130 if isinstance(stopped, KeyboardInterrupt) else stopped.code) from None
        except MemofastError:
            if results.rows:
                console.print(f"{len(results.rows)} rows predicted before are in {asked.out / UNFINISHED}")
            raise
    _tell(results, asked, console)
    return results.rows


def _predict(
    predictor: Predictor, clips: list[Clip], results: Results, asked: FilmPrediction, console: Console
) -> dict[tuple[str, int], Shown]:
    """Predict every clip into the results. Returns: by utterance and person the faces that the page shows."""
    shown: dict[tuple[str, int], Shown] = {}
    skipped: dict[str, list[str]] = {}

    def leave_out(clip: Clip, why: list[str]) -> None:
        skipped.setdefault("; ".join(why), []).append(clip.id)
        bar.advance(task)

    def see(utterance: Utterance) -> None:
        for person in [utterance.shown, *utterance.others] if asked.html else []:
            if person:
                shown[utterance.clip.id, person.track] = replace(person, rows=None)
        bar.advance(task)

    with _bar(console) as bar:
        task = bar.add_task("predicting", total=len(clips))
        for prediction in predictor.stream(clips, see, leave_out, asked.others):
            score = ordered_score(prediction.probabilities, asked.ordered) if asked.ordered else None
            results.add(replace(prediction, score=score))
    for why, ids in sorted(skipped.items(), key=lambda entry: -len(entry[1])):
        named = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
        console.print(f"left out: {len(ids)} utterance{'s' if len(ids) > 1 else ''} ({named}), {why}", markup=False)
    return shown


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


class _Rate(TextColumn):
    """Utterances a second."""

    def __init__(self):
        super().__init__("")

    def render(self, task):
        from rich.text import Text

        return Text(f"{task.finished_speed or task.speed or 0:.1f} utterances/s")


def _write_page(
    results: Results, shown: dict[tuple[str, int], Shown], predictor: Predictor, asked: FilmPrediction
) -> None:
    from memofast.inference.page import page_of

    page = page_of(results.rows, shown, predictor, asked.source)
    replace_file(asked.out / PAGE, page.encode("utf-8", "backslashreplace"))  # paths may be no UTF-8


def _draw(results: Results, predictor: Predictor, out: Path, console: Console) -> None:
    """A timeline of each file whose utterances have times: `timeline.png`, of several files in a folder."""
    by_file: dict[str, list[Prediction]] = {}
    for prediction in results.rows:
        if prediction.file and prediction.start is not None:
            by_file.setdefault(prediction.file, []).append(prediction)
    many = len(by_file) > 1
    if many and (brief := [file for file, rows in by_file.items() if _is_one_of_a_dialogue(rows)]):
        by_file = {file: rows for file, rows in by_file.items() if file not in set(brief)}
        console.print(f"no timeline of {len(brief):,} files that are one utterance of a dialogue each")
    if many and by_file:
        with writing(out / TIMELINES):
            (out / TIMELINES).mkdir(exist_ok=True)
    names: Counter[str] = Counter()
    for file, rows in by_file.items():
        stem = Path(file).stem
        names[stem] += 1
        name = f"{stem}-{names[stem]}.png" if names[stem] > 1 else f"{stem}.png"
        path = out / TIMELINES / name if many else out / TIMELINE
        draw_timeline(rows, predictor.classes, path, Path(file).name)


def _is_one_of_a_dialogue(rows: list[Prediction]) -> bool:
    """Whether a file is a clip that was cut out of a dialogue: its timeline shows one bar, and takes longer than its
    prediction."""
    return len({row.id for row in rows}) == 1 and rows[0].dialogue is not None


def _tell(results: Results, asked: FilmPrediction, console: Console) -> None:
    utterances = len({(row.file, row.id) for row in results.rows})
    named = Counter(row.named for row in results.rows if row.named and row.speaks)
    counts = ", ".join(f"{name} {count}" for name, count in named.most_common())
    console.print(f"{utterances} utterance{'s' * (utterances != 1)}{': ' + counts if counts else ''}", markup=False)
    if others := sum(not row.speaks for row in results.rows):
        console.print(f"{others} rows of others who are seen and do not speak")
    console.print(f"wrote {asked.out / TABLE} and what is beside it", markup=False)
