"""The whole preparation: clips in, a corpus of stores out, resumable at any moment."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memofast.data.corpus import write_corpus
from memofast.errors import MemofastError
from memofast.prepare.densenet import FEATURE_WIDTH
from memofast.prepare.extraction import Extracted, Extraction, ExtractionOptions, by_file
from memofast.prepare.report import Journal, Outcome, Problem, print_report, write_report
from memofast.prepare.sources import Clip
from memofast.prepare.splits import assign_splits
from memofast.prepare.text import Tokens, WordPieces
from memofast.prepare.workers import extract
from memofast.store import FeatureWriter, StoreWriter, TextWriter
from memofast.store.files import write_json
from memofast.version import __version__

SETTINGS = "prepare.json"
_COMMIT_EVERY = 200  # clips; below the stores' own batch, so that the text record, which marks a clip as done, is never first on disk


@dataclass(frozen=True)
class PrepareOptions:
    """name: of the corpus. fractions, by_folder: how splits are drawn. licence: kept in the stores' meta.json.

    min_speech: clips in a smaller share of whose sound somebody speaks are dropped.
    """

    name: str
    fractions: dict[str, float]
    by_folder: bool
    workers: int
    licence: str = ""
    min_speech: float = 0.0


def prepare(
    clips: list[Clip],
    out: Path,
    pieces: WordPieces | None,
    extraction: ExtractionOptions,
    options: PrepareOptions,
    console: Console,
) -> dict:
    """Prepare every clip, write the corpus to `out`, print and return the report.

    A clip that the text store holds is done: an interrupted run goes on after it, and the stores come out the same. Raises MemofastError when
    `out` was begun with other options or when no clip is usable.
    """
    if pieces is None and any(clip.text for clip in clips):
        raise MemofastError("there are sentences to tokenise; give --vocab VOCAB.txt or a tokenizer folder")
    _check_settings(out, extraction, pieces, options)
    with _Stores(out, clips, pieces, Extraction(extraction), extraction, options) as stores:
        left = [clip for clip in clips if not stores.text.done(clip.id)]
        if len(left) < len(clips):
            console.print(f"resuming: {len(clips) - len(left)} of {len(clips)} clips are done")
        with _progress(console) as progress:
            bar = progress.add_task("preparing", total=len(clips), completed=len(clips) - len(left), rate="")
            for result in _results(left, extraction, options.workers):
                stores.add(result)
                progress.advance(bar)
                task = progress.tasks[bar]
                progress.update(bar, rate=f"{task.finished_speed or task.speed or 0:.1f} clips/s")
        return _finish(stores, clips, out, options, console)


def _results(clips: list[Clip], options: ExtractionOptions, workers: int) -> Iterator[Extracted]:
    clips = [replace(clip, picture=None, sound=None) if clip.problem else clip for clip in clips]
    for clip in clips:
        if not (clip.picture or clip.sound):
            yield Extracted(clip)
    files = by_file(clips)
    if files:
        for results in extract(files, options, workers):
            yield from results


def _check_settings(
    out: Path, extraction: ExtractionOptions, pieces: WordPieces | None, options: PrepareOptions
) -> None:
    """Refuse to go on in a folder that was begun with other options: a store would hold two kinds of rows."""
    settings = {
        "max_seconds": extraction.max_seconds,
        "detector": extraction.yunet and extraction.yunet.name,
        "speech_mean": extraction.speech.mean,
        "voice": extraction.voice,
        "min_speech": options.min_speech,
        "lexicon": len(pieces.lexicon.words) if pieces and pieces.lexicon else 0,
    }
    path = out / SETTINGS
    if path.is_file():
        try:
            begun = json.loads(path.read_text())
        except ValueError as error:
            raise MemofastError(f"{path} is damaged; choose another --out") from error
        changed = [name for name in settings if begun.get(name) != settings[name]]
        if changed:
            name = changed[0]
            raise MemofastError(
                f"{out} was begun with {name} {begun.get(name)!r}, not {settings[name]!r}; use the same options or another --out"
            )
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"{out} cannot be made ({error.strerror}); choose another --out") from error
    write_json(path, settings)


class _Stores:
    """The writers of one corpus and the journal of what became of each clip."""

    def __init__(
        self,
        out: Path,
        clips: list[Clip],
        pieces: WordPieces | None,
        extractors: Extraction,
        extraction: ExtractionOptions,
        options: PrepareOptions,
    ):
        self.pieces = pieces
        self.labels = sorted({clip.label for clip in clips if clip.label})
        about = {"source": "prepared by memofast " + __version__, "licence": options.licence}
        self.text = TextWriter(
            out / "text",
            cls_id=pieces.cls_id if pieces else 101,
            sep_id=pieces.sep_id if pieces else 102,
            classes=self.labels,
            lexicon_classes=pieces.lexicon.classes if pieces and pieces.lexicon else (),
            extractor=pieces.name if pieces else "",
            fingerprint=pieces.fingerprint if pieces else "",
            **about,
        )
        self.visual = self.speech = None
        if extractors.denseface and any(clip.picture for clip in clips):
            meta = extractors.denseface.meta
            self.visual = FeatureWriter(
                out / "visual",
                FEATURE_WIDTH,
                columns=("times", "confidence", "soft_labels"),
                classes=meta.classes,
                extractor=f"denseface, faces by {extractors.finder.name}",
                fingerprint=extractors.denseface.fingerprint,
                normalisation=f"pixels (x - {meta.mean:.4f}) / {meta.std:.4f}",
                **about,
            )
        if extractors.speech and any(clip.sound for clip in clips):
            self.speech = FeatureWriter(
                out / "speech",
                extractors.speech.width,
                columns=("times",),
                extractor=f"{extractors.speech.name}, mean of {extraction.speech.mean}",
                fingerprint=extractors.speech.fingerprint,
                normalisation=extractors.speech.normalisation,
                **about,
            )
        self.journal = Journal(out / "progress.jsonl")
        self.min_speech = options.min_speech
        self._waiting = 0

    @property
    def all(self) -> dict[str, StoreWriter]:
        """Writers by modality, text last: its record marks a clip as done."""
        stores = {"visual": self.visual, "speech": self.speech, "text": self.text}
        return {name: store for name, store in stores.items() if store is not None}

    def add(self, result: Extracted) -> None:
        """Write what a clip gave; a clip that gave nothing is only noted."""
        clip = result.clip
        tokens = self.pieces(clip.text) if self.pieces and clip.text else Tokens()
        problems = list(result.problems)
        if clip.problem:
            reason, _, detail = clip.problem.partition(": ")
            problems.insert(0, Problem(reason, detail))
        heard = result.spoken is None or result.spoken >= self.min_speech
        if not tokens.ids:
            problems.append(Problem("no text"))
        kept = heard and bool(tokens.ids or result.faces or result.sound)
        if not heard:
            problems.append(Problem("no speech", f"somebody speaks in {result.spoken:.0%} of it"))
        elif not kept:
            problems.append(Problem("nothing usable"))
        if not kept:
            result, tokens = Extracted(clip, spoken=result.spoken), Tokens()
        outcome = Outcome(clip.id, kept, len(tokens.ids), problems=problems, spoken=result.spoken)
        if result.faces:
            outcome.visual = len(result.faces.rows)
            self._put(self.visual, clip.id, **vars(result.faces))
        if result.sound:
            outcome.speech = len(result.sound.rows)
            self._put(self.speech, clip.id, **vars(result.sound))
        if kept:
            label = self.labels.index(clip.label) if clip.label else None
            lexicon = tokens.lexicon if self.pieces and self.pieces.lexicon else None
            self.text.put(clip.id, tokens.ids, tokens.words, lexicon=lexicon, utf8=clip.text or "", label=label)
        self.journal.add(outcome)
        self._waiting += 1
        if self._waiting >= _COMMIT_EVERY:
            self.commit()

    @staticmethod
    def _put(store: FeatureWriter, id: str, rows, **columns) -> None:
        if not store.done(id):  # a kill between the stores' commits leaves features without text
            store.put(id, rows, **columns)

    def commit(self) -> None:
        self.journal.flush()
        for store in self.all.values():
            store.commit()
        self._waiting = 0

    def __enter__(self) -> "_Stores":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """After a write that failed nothing more is committed: the text record would mark a clip whose other rows were lost as done."""
        try:
            if kind is None or not issubclass(kind, MemofastError):
                self.commit()
        finally:
            for store in self.all.values():
                store.close()


def _finish(stores: _Stores, clips: list[Clip], out: Path, options: PrepareOptions, console: Console) -> dict:
    stores.commit()
    outcomes = [stores.journal.outcomes.get(clip.id) or Outcome(clip.id, True) for clip in clips]
    kept = [clip for clip, outcome in zip(clips, outcomes, strict=True) if outcome.kept]
    splits = assign_splits(kept, options.fractions, options.by_folder)
    counts = {name: len(ids) for name, ids in splits.items()}
    facts = {"corpus": options.name, "memofast": __version__}
    if not kept:
        print_report(write_report(out / "report.json", outcomes, counts, facts), console)
        raise MemofastError(f"none of {len(clips)} clips is usable; {out / 'report.json'} lists why")
    metas = {name: store.finish() for name, store in stores.all.items()}
    facts["digests"] = {name: meta["digest"] for name, meta in metas.items()}
    used = {name: out / name for name, meta in metas.items() if meta["counts"]["records"]}
    write_corpus(out, options.name, used, splits, {"prepared_by": __version__, "licence": options.licence})
    report = write_report(out / "report.json", outcomes, counts, facts)
    print_report(report, console)
    for name in fractions_without_clips(options.fractions, splits, kept):
        console.print(f"note: split {name} is empty; give it a larger fraction")
    console.print(f"wrote {out}")
    return report


def fractions_without_clips(fractions: dict[str, float], splits: dict[str, list[str]], kept: list[Clip]) -> list[str]:
    """Names of splits that were asked for by a fraction and got no clip, where fractions were in use."""
    return [name for name in fractions if name not in splits and any(clip.split is None for clip in kept)]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
