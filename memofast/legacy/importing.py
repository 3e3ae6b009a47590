"""The import of legacy databases: everything is looked over first, then written store by store, and described last.

A killed import goes on where it was: what it reads, and with which options, is kept beside the stores, which hold
whole records only.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memofast.data.corpus import Corpus, write_corpus, write_part
from memofast.data.folds import write_folds
from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.legacy.features import FeatureDatabase, in_key_order
from memofast.legacy.splits import SCHEME, Arrangement, arrange
from memofast.legacy.survey import ClassNames, Given, Source, Survey, look_over
from memofast.legacy.texts import PER_PIECE, PER_TEXT, TextDatabase, Vocabulary
from memofast.legacy.values import Damaged
from memofast.prepare.sources.npz import FER_PLUS, Outcome
from memofast.prepare.text.word_pieces import WordPieces, copy_vocabulary
from memofast.schemas import Schema, read_described
from memofast.store import FeatureStore, FeatureWriter, TextWriter

REQUEST = "legacy.json"
STREAMS = (*PER_PIECE, *PER_TEXT)  # fields that become streams, by the names that they had
RAW_FACES = "raw_faces"
_NEUTRAL = 0  # of FER_PLUS


@dataclass(frozen=True)
class Request:
    """What to import. texts: `PATH` or `SPLIT=PATH`. visual, speech, raw_faces: feature databases. folds: folder of
    lists of names. validation: samples to hold out. zero_face_row: one row of zeros for a clip without a face."""

    texts: Sequence[str]
    vocabulary: Path
    visual: Sequence[Path] = ()
    speech: Sequence[Path] = ()
    raw_faces: Sequence[Path] = ()
    visual_rate: float = 10.0
    speech_rate: float = 50 / 3
    folds: Path | None = None
    validation: int = 0
    zero_face_row: bool = False
    drop_missing: bool = False
    names: ClassNames = field(default_factory=ClassNames)


@dataclass(frozen=True)
class Imported:
    corpus: Corpus
    outcomes: dict[str, Outcome]
    notes: list[str]


def import_databases(request: Request, out: Path, name: str, console: Console) -> Imported:
    """Write the corpus `name` to `out`; what was refused and changed is kept in its `import.json`.

    Raises: `MemofastError` for a database that is missing, damaged, open elsewhere, of other widths, or at odds with
        its side files, and where nothing can be imported.
    """
    vocabulary = Vocabulary(request.vocabulary, WordPieces(request.vocabulary))
    sources = _open_texts(request, vocabulary)
    features = {
        "visual": [FeatureDatabase(path, request.visual_rate) for path in request.visual],
        "speech": [FeatureDatabase(path, request.speech_rate) for path in request.speech],
        RAW_FACES: [FeatureDatabase(path, request.visual_rate) for path in request.raw_faces],
    }
    features = {store: databases for store, databases in features.items() if databases}
    for store, databases in features.items():
        _check_layouts(store, databases)
    databases = [source.database for source in sources] + [one for several in features.values() for one in several]
    with _progress(console) as progress:
        bar = progress.add_task("looking over texts", total=sum(len(source.database) for source in sources))
        survey = look_over(sources, request.names, lambda: progress.advance(bar))
        found = arrange(survey, request.folds, request.validation)
        files = _files_of(survey)
        for store, several in features.items():
            _check_clips(store, several, files)
        _keep_request(out, request, databases)
        outcomes = {"text": survey.outcome}
        _write_texts(out, survey, progress)
        for store, several in features.items():
            outcomes[store] = _write_features(out, store, several, files, request, progress)
    for database in databases:
        database.check_unchanged()
    corpus = _describe(out, name, request, survey, found, outcomes)
    notes = survey.notes + found.notes
    for several in features.values():
        notes += [
            f"numbers of {one.rounded} clips of {one.path.name} are of 64 bits, and kept as {one.layout.dtype}"
            for one in several if one.rounded
        ]  # fmt: skip
    kept = {store: asdict(outcome) for store, outcome in outcomes.items()}
    write_json(out / "import.json", kept | {"notes": notes})
    return Imported(corpus, outcomes, notes)


def _open_texts(request: Request, vocabulary: Vocabulary) -> list[Source]:
    given = [Given.of(text) for text in request.texts]
    paths = [one.path.resolve() for one in given]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise MemofastError(f"database {twice} is named twice: name it once")
    return [Source(one, TextDatabase(one.path, vocabulary)) for one in given]


def _files_of(survey: Survey) -> dict[str, list[str]]:
    """Samples by the file that their clip has in every feature database."""
    files: dict[str, list[str]] = {}
    for source in survey.sources:
        for key, id in source.keys.items():
            samples = files.setdefault(source.database.file_of[key], [])
            if id not in samples:
                samples.append(id)
    return files


def _check_layouts(store: str, databases: Sequence[FeatureDatabase]) -> None:
    first = databases[0]
    pictures = len(first.layout.shape) == 2
    if pictures != (store == RAW_FACES):
        what = "pictures, which --raw-faces takes" if pictures else "rows of numbers, which --face or --speech takes"
        raise MemofastError(f"database {first.path} holds {what}; give it there")
    for other in databases[1:]:
        if other.layout != first.layout:
            raise MemofastError(
                f"databases {first.path} and {other.path} cannot be one store: rows of {first.layout} and "
                f"{other.layout}; import them into corpora of their own"
            )
        if shared := set(first.names) & set(other.names):
            raise MemofastError(f"databases {first.path} and {other.path} both hold {min(shared)!r}: name one of them")


def _check_clips(store: str, databases: Sequence[FeatureDatabase], files: Mapping[str, list[str]]) -> None:
    if not any(file in database for database in databases for file in files):
        raise MemofastError(
            f"no clip of the texts is in {', '.join(str(one.path) for one in databases)}: check which database is "
            f"of {store}"
        )


class _Kept(Schema):
    databases: dict[str, str]
    options: dict[str, Any]


def _keep_request(out: Path, request: Request, databases: Sequence[Any]) -> None:
    """Remember what is imported. Raises: `MemofastError` where the folder holds a begun import of something else."""
    states = {str(database.path.resolve()): database.digest() for database in databases}
    options = {name: str(value) for name, value in vars(request).items() if name in _OF_RECORDS}
    wanted = {"databases": states, "options": options}
    if (out / REQUEST).is_file():
        kept = read_described(out / REQUEST, _Kept, "what an import reads", "delete the folder and import again")
        if kept != wanted:
            raise MemofastError(
                f"{out} holds an import of other databases, of databases that changed, or with other options: choose "
                "another folder, or delete this one"
            )
    elif (out / "text").exists():
        raise MemofastError(f"{out} holds a corpus already: choose another folder")
    else:
        write_json(out / REQUEST, wanted)


_OF_RECORDS = ("vocabulary", "visual_rate", "speech_rate", "zero_face_row", "names")  # options that records depend on


def _write_texts(out: Path, survey: Survey, progress: Progress) -> None:
    pieces = survey.sources[0].database.vocabulary.pieces
    about = {"source": ", ".join(source.name for source in survey.sources)}
    labeller = {"name": "soft_labels of legacy text databases"} if survey.emotions else None
    with ExitStack() as stack:
        streams = {
            name: stack.enter_context(
                FeatureWriter(out / name, width, dtype="float32", extractor=f"{name} of text databases", **about)
            )
            for name, width in survey.widths.items()
            if name in STREAMS
        }
        text = stack.enter_context(
            TextWriter(
                out / "text", cls_id=pieces.cls_id, sep_id=pieces.sep_id, classes=survey.label, labeller=labeller,
                emotions=survey.emotions, lexicon_classes=survey.lexicon, extractor=pieces.name,
                fingerprint=pieces.fingerprint, **about,
            )
        )  # fmt: skip
        bar = progress.add_task("writing texts", total=len(survey.clip_of))
        written: set[str] = set()
        for source in survey.sources:
            for key, id in source.keys.items():
                if id not in written:
                    written.add(id)
                    _write_text(id, source.database, key, survey, text, streams)
                    progress.advance(bar)


def _write_text(
    id: str, database: TextDatabase, key: str, survey: Survey, text: TextWriter, streams: Mapping[str, FeatureWriter]
) -> None:
    if text.done(id) and all(stream.done(id) for stream in streams.values()):
        return
    found = database.read(key)
    for name, values in found.beside.items():
        if not streams[name].done(id):
            streams[name].put(id, values)
    if text.done(id):
        return
    lexicon = None
    if survey.lexicon:
        given = found.lexicon or [None] * len(found.tokens)
        lexicon = [-1 if one is None else survey.lexicon.index(one) if isinstance(one, str) else one for one in given]
    text.put(
        id, found.tokens, found.words, lexicon=lexicon, label=found.label, emotions=found.emotions,
        utf8=database.vocabulary.sentence(found.tokens, found.words),
    )  # fmt: skip


def _write_features(
    out: Path, store: str, databases: Sequence[FeatureDatabase], files: Mapping[str, list[str]], request: Request,
    progress: Progress,
) -> Outcome:  # fmt: skip
    """Rows of every sample whose clip has a sound record; two samples of one clip have them both."""
    outcome, layout = Outcome(), databases[0].layout
    missing = {file for file in files if not any(file in database for database in databases)}
    for file in missing:
        for id in files[file]:
            outcome.refuse("without a record of their clip", id)
    bar = progress.add_task(f"writing {store}", total=sum(map(len, files.values())), completed=len(missing))
    with _feature_writer(out / store, store, databases) as writer:
        for database, file in in_key_order(databases, files.keys() - missing):
            progress.advance(bar, len(files[file]))
            zero = request.zero_face_row and store == "visual" and not database.rows_of[file]
            if not all(writer.done(id) for id in files[file]):
                try:
                    columns = database.read(file)
                except Damaged as damage:
                    outcome.refuse(f"records {damage}", f"{database.path.name}/{file}")
                    continue
                columns = _zero_row(layout.empty(1)) if zero else columns
                for id in files[file]:
                    if not writer.done(id):
                        writer.put(id, **columns)
            outcome.taken += len(files[file])
            if not database.rows_of[file]:
                for id in files[file]:
                    outcome.change("with a row of zeros for no face" if zero else "without rows", id)
        if not outcome.taken:
            raise MemofastError(f"no record of {store} can be used ({outcome}): check what the databases are")
    return outcome


def _feature_writer(path: Path, store: str, databases: Sequence[FeatureDatabase]) -> FeatureWriter:
    layout = databases[0].layout
    columns = set(layout.columns) - {"rows"}
    count = layout.columns.get("soft_labels", 0)
    classes = FER_PLUS if count == len(FER_PLUS) else [f"class{i}" for i in range(count)]
    sides = " x ".join(map(str, layout.shape))
    return FeatureWriter(
        path, layout.columns["rows"], columns=columns, classes=classes, dtype=layout.dtype,
        extractor=f"pictures of {sides} in rows" if store == RAW_FACES else f"legacy {store} rows",
        source=", ".join(database.path.name for database in databases),
    )  # fmt: skip


def _zero_row(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the original feeds for a clip without a face: zeros, labelled neutral."""
    if "soft_labels" in columns:
        columns["soft_labels"][0, _NEUTRAL] = 1
    return columns


def _describe(
    out: Path, name: str, request: Request, survey: Survey, found: Arrangement, outcomes: Mapping[str, Outcome]
) -> Corpus:
    stores = {store: out / store for store in ("text", "visual", "speech") if store in outcomes}
    streams = {stream: (out / stream, "text") for stream in STREAMS if stream in survey.widths}
    if RAW_FACES in outcomes:
        streams[RAW_FACES] = (out / RAW_FACES, "visual")
    if request.drop_missing:
        whole = set(survey.clip_of)
        for path in [stores[one] for one in stores if one != "text"] + [out / RAW_FACES] * (RAW_FACES in outcomes):
            whole &= set(FeatureStore.open(path).ids)
        if not whole:
            raise MemofastError("no sample has a sound record in every feature database; nothing is left")
        if dropped := len(survey.clip_of) - len(whole):
            found.notes.append(f"{dropped} samples that lack features are in no split")
            found.only(whole)
    copy_vocabulary(request.vocabulary, out)
    own = {split: ids for split, ids in found.splits.items() if split not in found.part_of}
    write_corpus(out, name, stores, own, {"source": "databases of MEmoBERT"}, streams)
    for split, of in found.part_of.items():
        ids, count = found.splits[split], len(found.splits[of])
        rule = {"rule": "a database of its own", "clips": count, "dropped": count - len(ids)}
        write_part(out, split, of, ids, [rule])
    if found.folds:
        write_folds(out, SCHEME, found.folds)
    return Corpus.open(out)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console, disable=not console.is_terminal,
    )  # fmt: skip
