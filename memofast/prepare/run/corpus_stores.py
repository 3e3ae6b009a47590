"""The stores of one corpus being prepared, or of one shard of it, and the journal of what became of each clip."""

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memofast.errors import MemofastError
from memofast.prepare.run.extraction import Extracted
from memofast.prepare.run.report import FAILURES, Journal, Outcome, Problem, Source
from memofast.prepare.sources.clips import Clip
from memofast.prepare.text.word_pieces import Tokens, WordPieces
from memofast.store import FeatureWriter, StoreWriter, TextWriter
from memofast.store.writer import id_fault

JOURNAL = "progress.jsonl"


@dataclass(frozen=True)
class StorePlan:
    """How the stores of a corpus are opened: keyword arguments of their writers, None for a modality that the corpus
    lacks.

    min_speech: clips in a smaller share of whose sound somebody speaks are dropped.
    """

    text: dict[str, Any] = field(default_factory=dict)
    visual: dict[str, Any] | None = None
    speech: dict[str, Any] | None = None
    min_speech: float = 0.0


class CorpusStores:
    """The writers below `folder`. As a context manager it commits and closes them.

    A clip is done when the text store holds it, or when the journal says that it was dropped for good.
    """

    def __init__(self, folder: Path, plan: StorePlan, pieces: WordPieces | None):
        self.plan, self.pieces, self.folder = plan, pieces, folder
        self.visual = self.speech = None
        with ExitStack() as opened:  # a writer that is refused leaves none of the others open
            self.text = opened.enter_context(closing(TextWriter(folder / "text", **plan.text)))
            if plan.visual:
                self.visual = opened.enter_context(closing(FeatureWriter(folder / "visual", **plan.visual)))
            if plan.speech:
                self.speech = opened.enter_context(closing(FeatureWriter(folder / "speech", **plan.speech)))
            opened.pop_all()
        self.journal = Journal(folder / JOURNAL)

    @property
    def all(self) -> dict[str, StoreWriter]:
        """Writers by modality, text last: its record marks a clip as done."""
        stores = {"visual": self.visual, "speech": self.speech, "text": self.text}
        return {name: store for name, store in stores.items() if store is not None}

    def done(self, id: str) -> bool:
        """Whether a clip needs no work: it is in the corpus, or was dropped by a rule. One that failed is tried
        again."""
        return self.text.done(id) or self._dropped(self.journal.outcomes.get(id))

    @staticmethod
    def _dropped(outcome: Outcome | None) -> bool:
        return outcome is not None and not outcome.kept and not FAILURES & {p.reason for p in outcome.problems}

    def add(self, result: Extracted) -> None:
        """Write what a clip gave; a clip that gave nothing is only noted."""
        clip = result.clip
        tokens = self.pieces(clip.text) if self.pieces and clip.text else Tokens()
        problems = list(result.problems)
        if clip.problem:
            reason, _, detail = clip.problem.partition(": ")
            problems.insert(0, Problem(reason, detail))
        heard = result.spoken is None or result.spoken >= self.plan.min_speech
        if tokens.cut:
            problems.append(Problem("words cut", f"{tokens.cut} words of {clip.text[:40]!r}..."))
        if not tokens.ids:
            problems.append(Problem("no text"))
        fault = id_fault(clip.id)
        kept = heard and not fault and bool(tokens.ids or result.faces or result.sound)
        if fault:  # of a piece of a file: sources were looked at before
            problems.append(Problem("odd name", fault))
        elif not heard:
            problems.append(Problem("no speech", f"somebody speaks in {result.spoken:.0%} of it"))
        elif not kept:
            problems.append(Problem("nothing usable"))
        source = Source.of(clip, result.span, result.seconds, result.streams)
        if not kept:
            result, tokens = Extracted(clip, spoken=result.spoken), Tokens()
        outcome = Outcome(clip.id, kept, len(tokens.ids), problems=problems, spoken=result.spoken, source=source)
        if result.faces:
            outcome.speaker = result.speaker
            outcome.visual = len(result.faces.rows)
            self._put(self.visual, clip.id, **vars(result.faces))
        if result.sound:
            outcome.speech = len(result.sound.rows)
            self._put(self.speech, clip.id, **vars(result.sound))
        if kept:
            classes = self.plan.text.get("classes", ())
            label = classes.index(clip.label) if clip.label else None
            lexicon = tokens.lexicon if self.pieces and self.pieces.lexicon else None
            told = {"label": label, "emotions": self._emotions(clip), "value": clip.value}
            self.text.put(clip.id, tokens.ids, tokens.words, lexicon=lexicon, utf8=clip.text or "", **told)
        self.journal.add(outcome)

    def _emotions(self, clip: Clip) -> list[float] | None:
        share = {name: 1 / len(clip.emotions) for name in clip.emotions}
        return [share.get(name, 0.0) for name in self.plan.text["emotions"]] if share else None

    @staticmethod
    def _put(store: FeatureWriter, id: str, rows, **columns) -> None:
        if not store.done(id):  # a kill between the stores' commits leaves features without text
            store.put(id, rows, **columns)

    def take(self, shard: Path) -> None:
        """Bring in what the stores at `shard` hold, whether their writer came to its end or not, and delete them."""
        with CorpusStores(shard, self.plan, None) as found:
            done = [id for id in found.journal.outcomes if found.done(id)]
            for name, store in self.all.items():
                store.copy(found.all[name], done)
                store.commit()  # text last, see `all`
            for id, outcome in found.journal.outcomes.items():
                if found.done(id) or not outcome.kept:
                    self.journal.add(outcome)
        self.commit()
        shutil.rmtree(shard)

    def commit(self) -> None:
        self.journal.flush()
        for store in self.all.values():
            store.commit()

    def __enter__(self) -> "CorpusStores":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """After a write that failed nothing more is committed: the text record would mark a clip whose other rows were
        lost as done."""
        try:
            if kind is None or not issubclass(kind, MemofastError):
                self.commit()
        finally:
            for store in self.all.values():
                store.close()
