"""The whole preparation: clips in, a corpus of stores out, resumable at any moment."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from memofast.data.corpus import write_corpus
from memofast.errors import MemofastError
from memofast.prepare.run.corpus_stores import CorpusStores, StorePlan
from memofast.prepare.run.extraction import Extracted, Extraction, ExtractionOptions, by_file
from memofast.prepare.run.pixel_normalisation import corpus_pixels
from memofast.prepare.run.progress import Bar
from memofast.prepare.run.ray_engine import run_ray
from memofast.prepare.run.report import Outcome, Problem, Source, print_profile, print_report, write_report
from memofast.prepare.run.settings import SETTINGS, keep_settings
from memofast.prepare.run.shards import SHARDS, Vocabulary, WorkOrder, make_tasks, times_of
from memofast.prepare.run.stopwatch import Stopwatch
from memofast.prepare.run.workers import run_local
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.leaks import check_groups, check_sentences, filter_rules
from memofast.prepare.sources.protocol import Protocol, count_groups, refuse_leaks, write_protocol
from memofast.prepare.sources.splits import assign_splits, check_split_names
from memofast.prepare.speech.extractors import functionals_name
from memofast.prepare.text.features import STORE as TEXT_FEATURES
from memofast.prepare.text.features import TextChoice, TextEncoder, write_text_features
from memofast.prepare.text.text_log import TextLog
from memofast.prepare.text.word_pieces import WordPieces, copy_vocabulary
from memofast.version import __version__

ENGINES = {"local": run_local, "ray": run_ray}


@dataclass(frozen=True)
class PrepareOptions:
    """name: of the corpus. fractions, split_by: how splits are drawn, see `splits`. drop_leaks: see
    `leaks.check_sentences`. drop_missing: clips without faces, where any have them, or without sound are in no split.
    licence: kept in the stores' meta.json.

    min_speech: clips in a smaller share of whose sound somebody speaks are dropped. engine: a key of `ENGINES`.
    profile: whether to print where the time went. face_normalisation: whose pixel mean and standard deviation
    DenseFace's crops are normalised by, those of the `model`'s training or of this `corpus`. text_features: rows of
    sentences to be kept beside. protocol: classes, groups and folds. corpus: the adapter that read the clips, with its
    settings; "": none. sources: entries of the report about them. text_log: what reading the clips changed in their
    texts.
    """

    name: str
    fractions: dict[str, float]
    split_by: str
    workers: int
    licence: str = ""
    min_speech: float = 0.0
    engine: str = "local"
    profile: bool = False
    face_normalisation: str = "model"
    text_features: TextChoice | None = None
    drop_leaks: bool = False
    drop_missing: bool = False
    protocol: Protocol = field(default_factory=Protocol)
    corpus: str = ""
    sources: Mapping[str, Any] = field(default_factory=dict)
    text_log: TextLog = field(default_factory=TextLog)


def prepare(
    clips: list[Clip],
    out: Path,
    vocabulary: Vocabulary | None,
    extraction: ExtractionOptions,
    options: PrepareOptions,
    console: Console,
) -> dict:
    """Prepare every clip, write the corpus to `out`, print and return the report.

    Workers write shards, which are taken into the corpus as they end. An interrupted run goes on where it stopped, and
    the stores come out the same. Raises MemofastError when `out` was begun with other options or when no clip is
    usable.
    """
    if vocabulary is None and any(clip.text for clip in clips):
        raise MemofastError("there are sentences to tokenise; give --vocab VOCAB.txt or a tokenizer folder")
    refuse_leaks(clips, options.protocol)  # now, not after hours of work
    check_split_names({clip.split for clip in clips if clip.split} | set(options.fractions))
    check_groups(clips, options.fractions, options.split_by)
    pieces = vocabulary.open() if vocabulary else None
    if options.text_features:
        TextEncoder(options.text_features)  # a mistake is told before the work
    plan = _plan(clips, pieces, extraction, options)  # what extractors lack is said before anything is written
    keep_settings(out, _settings(extraction, pieces, options))
    if extraction.face and options.face_normalisation == "corpus":
        extraction = _with_corpus_pixels(extraction, out, clips, options, console)
        plan = _plan(clips, pieces, extraction, options)
    order = WorkOrder(extraction, plan, vocabulary)
    with CorpusStores(out, order.plan, pieces) as stores:
        if vocabulary:
            copy_vocabulary(vocabulary.path, out)
        profile = _work(clips, out / SHARDS, order, stores, options, console)
        report = _finish(stores, clips, out, options, extraction.device, profile, console)
    if options.profile:
        print_profile(report["profile"], console)
    return report


def _with_corpus_pixels(
    extraction: ExtractionOptions, out: Path, clips: list[Clip], options: PrepareOptions, console: Console
) -> ExtractionOptions:
    console.print("face normalisation: pixels of this corpus's faces, from a sample of its clips")
    pixels = corpus_pixels(out / SETTINGS, clips, extraction, options.workers, ENGINES[options.engine])
    if not pixels.faces:
        console.print(
            f"note: no face in {pixels.clips} sampled clips; the pixel mean and std of DenseFace's training are used"
        )
        return extraction
    console.print(f"mean {pixels.mean:.2f}, std {pixels.std:.2f}, of {pixels.faces} faces in {pixels.clips} clips")
    return replace(extraction, face=replace(extraction.face, pixels=(pixels.mean, pixels.std)))


def _plan(
    clips: list[Clip], pieces: WordPieces | None, extraction: ExtractionOptions, options: PrepareOptions
) -> StorePlan:
    """How the stores are opened, which opens the extractors. Raises: `MemofastError` for what they lack."""
    extractors = Extraction(extraction)
    about = _about(options)
    protocol = options.protocol
    text = {"classes": protocol.classes or sorted({clip.label for clip in clips if clip.label}), **about}
    text |= {"emotions": protocol.emotions, "value": protocol.value}
    if pieces:
        text |= {"cls_id": pieces.cls_id, "sep_id": pieces.sep_id}
        text |= {"extractor": pieces.name, "fingerprint": pieces.fingerprint}
        text |= {"lexicon_classes": pieces.lexicon.classes if pieces.lexicon else ()}
    visual = speech = None
    if face := any(clip.picture for clip in clips) and extractors.face:
        visual = {
            "width": face.width,
            "columns": ("times", "confidence", *(["soft_labels"] if face.classes else [])),
            "classes": face.classes,
            "extractor": face.name + (f", faces by {extractors.finder.name}" if extractors.finder else ""),
            "fingerprint": face.fingerprint,
            "normalisation": face.normalisation,
            "dtype": face.dtype,
            "labeller": face.labeller,
            **about,
        }
    if extractors.speech and any(clip.sound for clip in clips):
        speech = {
            "width": extraction.speech.width(extractors.speech.width),
            "columns": ("times",),
            "extractor": f"{extractors.speech.name}, {extraction.speech.summary}",
            "fingerprint": extractors.speech.fingerprint,
            "normalisation": extractors.speech.normalisation,
            "dtype": extractors.speech.dtype,
            **about,
        }
    return StorePlan(text, visual, speech, options.min_speech)


def _about(options: PrepareOptions) -> dict[str, str]:
    return {"source": "prepared by memofast " + __version__, "licence": options.licence}


def _work(
    clips: list[Clip], shards: Path, order: WorkOrder, stores: CorpusStores, options: PrepareOptions, console: Console
) -> dict:
    """Bring every clip into the stores. Returns where the time went."""
    for shard in sorted(shards.iterdir()) if shards.is_dir() else ():
        stores.take(shard)  # of a run that was killed
    done = {clip.id for clip in clips if stores.done(clip.id)}
    if done:
        console.print(f"resuming: {len(done)} of {len(clips)} clips are done")
    watch, begin = Stopwatch(), time.perf_counter()
    with Bar(console, len(clips)) as bar:
        files = by_file(clip for clip in clips if not clip.problem)
        played = {clip.id for file in files for clip in file}
        for clip in clips:
            if clip.id not in played and clip.id not in done:
                stores.add(Extracted(replace(clip, picture=None, sound=None)))
                done.add(clip.id)
        stores.commit()
        bar.show(len(done), shards)
        tasks = make_tasks(files, shards, done, options.workers)
        for task, ended in ENGINES[options.engine](tasks, order, options.workers):
            if task is not None:
                watch.add(times_of(task.folder))
                if task.folder.is_dir():
                    stores.take(task.folder)
                if not ended:
                    for clip in task.clips:
                        if not stores.done(clip.id):
                            stores.journal.add(_crashed(clip))
                done |= {clip.id for clip in task.clips if clip.id in stores.journal.outcomes}
            bar.show(len(done), shards)
    if shards.is_dir():
        shards.rmdir()
    return {"wall": time.perf_counter() - begin, **watch.as_json()}


def _crashed(clip: Clip) -> Outcome:
    problem = Problem("crashed", f"decoding {clip.picture or clip.sound} ended the process")
    return Outcome(clip.id, False, problems=[problem], source=Source.of(clip))


def _settings(extraction: ExtractionOptions, pieces: WordPieces | None, options: PrepareOptions) -> dict:
    """What must not change while a corpus is prepared."""
    return {
        "max_seconds": extraction.max_seconds,
        "face": extraction.face and str(extraction.face),
        "face_normalisation": options.face_normalisation,
        "speech": str(extraction.speech),
        "device": extraction.device,
        "detector": extraction.yunet and extraction.yunet.name,
        "speech_mean": extraction.speech.mean,
        "speech_functionals": functionals_name(extraction.speech.parts) or None,
        "voice": extraction.voice,
        "speaker": extraction.speaker,
        "audio_stream": extraction.streams.sound,
        "video_stream": extraction.streams.picture,
        "min_speech": options.min_speech,
        "corpus": options.corpus or None,
        "lexicon": len(pieces.lexicon.words) if pieces and pieces.lexicon else 0,
    }


def _finish(
    stores: CorpusStores,
    clips: list[Clip],
    out: Path,
    options: PrepareOptions,
    device: str,
    profile: dict,
    console: Console,
) -> dict:
    stores.commit()
    outcomes = [stores.journal.outcomes.get(clip.id) or Outcome(clip.id, True) for clip in clips]
    kept, incomplete = _in_splits(clips, outcomes, stores, options.drop_missing)
    spoken = [clip for clip in kept if not options.protocol.scripted]
    check = check_sentences(spoken, assign_splits(kept, options.fractions, options.split_by), options.drop_leaks)
    splits = check.splits
    counts = {name: len(ids) for name, ids in splits.items()}
    facts = {"corpus": options.name, "memofast": __version__, "profile": profile, "leaks": check.found}
    facts |= options.sources
    facts["text"] = options.text_log.as_json()
    if not kept and incomplete:
        raise MemofastError(f"no clip has all of {' and '.join(_made(stores))}; leave --drop-missing out")
    if not kept:
        print_report(write_report(out / "report.json", outcomes, counts, facts), console)
        details = [problem.detail for outcome in outcomes for problem in outcome.problems if problem.detail]
        first = f" (first: {details[0]})" if details else ""
        raise MemofastError(f"none of {len(clips)} clips is usable{first}; {out / 'report.json'} lists why")
    metas = {name: store.finish() for name, store in stores.all.items()}
    facts["digests"] = {name: meta["digest"] for name, meta in metas.items()}
    used = {name: out / name for name, meta in metas.items() if meta["counts"]["records"]}
    described = {"prepared_by": __version__, "licence": options.licence, **options.protocol.facts}
    described["rules"] = filter_rules(outcomes) + check.rules
    if options.drop_missing:
        meaning = f"without rows of {' or '.join(_made(stores))}; in no split"
        described["rules"].append(
            {"rule": "--drop-missing", "meaning": meaning, "clips": len(incomplete), "dropped": len(incomplete)}
        )
    streams: dict[str, tuple[Path, str]] = {}
    if options.text_features:
        console.print(f"encoding sentences into {out / TEXT_FEATURES}")
        sentences = ((clip.id, clip.text) for clip in kept if clip.text)
        about = _about(options)
        meta = write_text_features(out, sentences, options.text_features, device, options.workers, about)
        facts["digests"][TEXT_FEATURES] = meta["digest"]
        streams[TEXT_FEATURES] = out / TEXT_FEATURES, "text"
    write_corpus(out, options.name, used, splits, described, streams)
    write_protocol(out, options.protocol, (clip.id for clip in kept))
    report = write_report(out / "report.json", outcomes, counts, facts)
    print_report(report, console)
    if incomplete:
        console.print(
            f"note: {len(incomplete)} clips without rows of {' or '.join(_made(stores))} are in no split (first: "
            f"{incomplete[0]})",
            markup=False,
            soft_wrap=True,
        )
    for note in check.notes + check_groups(kept, options.fractions, options.split_by):
        console.print(note)
    for name in fractions_without_clips(options.fractions, splits, kept):
        console.print(f"note: split {name} is empty; give it a larger fraction")
    if counts := count_groups(options.protocol):
        console.print(counts)
    console.print(f"wrote {out}")
    return report


def _made(stores: CorpusStores) -> list[str]:
    """The modalities beside text of which there are rows."""
    return [name for name in stores.all if name != "text"]


def _in_splits(
    clips: list[Clip], outcomes: list[Outcome], stores: CorpusStores, drop_missing: bool
) -> tuple[list[Clip], list[str]]:
    """Clips that are kept and may be in splits, and ids of those that are kept but lack a modality."""
    needed = _made(stores) if drop_missing else []
    kept, incomplete = [], []
    for clip, outcome in zip(clips, outcomes, strict=True):
        if outcome.kept and all(stores.all[name].done(clip.id) for name in needed):
            kept.append(clip)
        elif outcome.kept:
            incomplete.append(clip.id)
    return kept, incomplete


def fractions_without_clips(fractions: dict[str, float], splits: dict[str, list[str]], kept: list[Clip]) -> list[str]:
    """Names of splits that were asked for by a fraction and got no clip, where fractions were in use."""
    return [name for name in fractions if name not in splits and any(clip.split is None for clip in kept)]
