"""From a corpus to its page: everything is gathered, then a template is filled in and written as one file."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from memofast.data.corpus import MODALITIES, Corpus
from memofast.data.summary import summarise
from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.pages import drawing
from memofast.pages.inspect.measures import coverage, label_shares, mean_shares, measures, reasons
from memofast.pages.inspect.sources import source_accounts
from memofast.pages.inspect.utterances import Utterance, file_of, replay_into, sample, some_dropped
from memofast.prepare.media.decoding import SAMPLE_RATE
from memofast.prepare.run.corpus_stores import JOURNAL
from memofast.prepare.run.replay import missing_media, open_replay
from memofast.prepare.run.report import REASONS, Journal, Outcome, Problem, Source
from memofast.prepare.run.settings import read_settings
from memofast.version import __version__

_FACES_BY = "faces by "  # before the detector's name, in the meta of a visual store


def write_page(corpus: Corpus, page: Path, samples: int = 3, seed: int = 0, yunet: Path | None = None) -> int:
    """Write the page of a corpus to `page`, which needs nothing beside it; returns its size in bytes.

    Args: samples: utterances of each split that are shown. seed: which ones. yunet: the detector that found the
        corpus's faces, where it was YuNet.
    Raises: `MemofastError` for a file that is no YuNet model and a page that cannot be written.
    """
    if not page.absolute().parent.is_dir():
        raise MemofastError(f"no folder {page.parent} for the page; make it or choose another")
    html = render(gather(corpus, samples, seed, yunet)).encode("utf-8", "backslashreplace")  # paths may be no UTF-8
    replace_file(page, html)
    return len(html)


def gather(corpus: Corpus, samples: int, seed: int, yunet: Path | None) -> dict:
    """All that the template asks for."""
    summary = summarise(corpus)
    outcomes = Journal(corpus.path / JOURNAL).outcomes
    splits = {name: corpus.split(name) for name in corpus.splits}
    chosen = sample(corpus, outcomes, samples, seed)
    notes = _replay(corpus, chosen, yunet)
    return {
        "summary": summary,
        "path": str(corpus.path.resolve()),
        "version": __version__,
        "licence": corpus.description.get("licence", ""),
        "tiles": _tiles(summary, splits, outcomes),
        "measures": measures(splits, outcomes),
        "coverage": coverage(splits),
        "labels": label_shares(summary),
        "means": mean_shares(corpus, splits, seed),
        "reasons": reasons(corpus, summary, outcomes),
        "colours": drawing.class_colours(corpus.classes.get("soft_labels", [])),
        "chosen": chosen,
        "dropped": some_dropped(outcomes),
        "dropped_count": sum(not outcome.kept for outcome in outcomes.values()),
        "replayed": any(utterance.replayed for found in chosen.values() for utterance in found),
        "faces": any(utterance.replayed or utterance.tiles for found in chosen.values() for utterance in found),
        "notes": notes,
        "sources": source_accounts(corpus.path),
        "settings": read_settings(corpus.path),
    }


def _replay(corpus: Corpus, chosen: dict, yunet: Path | None) -> list[str]:
    """Decode the chosen utterances once more; returns what the page has to say about all of them."""
    utterances = [utterance for found in chosen.values() for utterance in found]
    sources = [utterance.source for utterance in utterances if utterance.source]
    if not utterances:
        return []
    if not any(source.picture or source.sound for source in sources):
        why = "its clips have no media" if sources else "it keeps no record of where its utterances came from"
        beside = " but what raw rows hold" if any(one.tiles or one.heard for one in utterances) else ""
        return [f"No faces and no sound are shown{beside}: {why}."]
    made_by = corpus.stores["visual"].meta.get("extractor", "") if "visual" in corpus.stores else ""
    detector = made_by.partition(_FACES_BY)[2]
    extraction, notes = open_replay(corpus.path, yunet, detector)
    same_finder = extraction.finder is not None and extraction.finder.name == detector
    replay_into(utterances, extraction, corpus.classes.get("soft_labels", []), same_finder)
    if missing := missing_media(sources):
        beside = " but what raw rows hold" if corpus.raw else ""
        notes.append(
            f"{len(missing)} media files are not where they were when the corpus was prepared; "
            f"what came from them has no pictures and no sound here{beside}. The first: {missing[0]}"
        )
    return notes


def _tiles(summary: dict, splits: dict, outcomes: dict[str, Outcome]) -> list[tuple[str, str]]:
    """The numbers below the heading, each with what it counts."""
    found = [(f"{len(set().union(*(split.ids for split in splits.values()))):,}", "utterances")]
    found += [(f"{len(split):,}", name) for name, split in splits.items()] if len(splits) > 1 else []
    sources = (outcome.source for outcome in outcomes.values() if outcome.kept)
    if seconds := sum(source.seconds or 0.0 for source in sources if source):
        found.append((duration(seconds), "of media"))
    found += [(f"{summary['stores'][m]['rows']:,}", f"{m} rows") for m in MODALITIES if m in summary["stores"]]
    if told := summary["preparation"]:
        found.append((f"{told['clips'] - told['kept']:,}", "clips dropped"))
    return found


def render(gathered: dict) -> str:
    """The page as HTML. Everything that comes from the corpus is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "clock": clock, "face_data": drawing.face_data}
    environment.globals |= {
        "histogram": drawing.histogram,
        "waveform": _waveform,
        "soft_bands": lambda u, colours: drawing.soft_bands(u.times, u.soft, [*colours.values()], _shown_seconds(u)),
        "ticks": lambda u: drawing.ticks(_shown_seconds(u)),
        "file_of": file_of,
        "place": place,
        "file_name": lambda file: Path(file).name,
        "why": why,
        "meaning": REASONS,
        "modalities": MODALITIES,
    }
    return environment.get_template("page.html").render(gathered)


def _waveform(utterance: Utterance) -> str:
    heard = utterance.heard
    return drawing.waveform(heard.wave, heard.activity, heard.hop, SAMPLE_RATE, _shown_seconds(utterance))


def _shown_seconds(utterance) -> float:
    """How long the strip, bands and wave of an utterance are; the faces of a store without a journal end with their
    last row."""
    return max(utterance.seconds, float(utterance.times.max(initial=0.0)), 0.1)


def place(source: Source | None) -> str:
    """From when to when a clip lies in its file."""
    if source is None or source.seconds is None:
        return ""
    return f"{clock(source.start)} to {clock(source.start + source.seconds)}"


def why(problem: Problem, source: Source | None) -> str:
    """What a problem of a dropped clip says: its detail, or where that is only the file, what the reason means."""
    files = (source.picture, source.sound) if source else ()
    if problem.detail and not any(file and file.endswith(problem.detail) for file in files):
        return problem.detail
    return REASONS.get(problem.reason, "").partition(";")[0]


def percent(share: float | None) -> str:
    """0.1234 as 12 %; small shares keep a digit."""
    if share is None:
        return ""
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"


def duration(seconds: float) -> str:
    """Seconds as a length: 2.8 s, 4 min 10 s, 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return (
        f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds < 3600 else f"{minutes // 60} h {minutes % 60} min"
    )


def clock(seconds: float) -> str:
    """Seconds as a place in a film: 0:12.3, 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"
