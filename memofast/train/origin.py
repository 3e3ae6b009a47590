"""Where a model comes from: what it learnt from and what chose its checkpoint, so that no number is read without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memofast.data import Corpus, Split
from memofast.data.demo import open_corpus
from memofast.data.feature_choice import reading
from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.metrics.sample_statistics import NAMES
from memofast.prepare.sources.near_duplicates import find_near_duplicates
from memofast.store import TextStore
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.finished_runs import best_of, finished, recipe_of_run, run_of
from memofast.train.fold_parts import Fold, make_folds
from memofast.train.folder import TEXT_REPORT, TEXT_SETTINGS


@dataclass(frozen=True, eq=False)
class Origin:
    """name: for tables. run: its folder, None for a model alone. done: what `done.json` says of the fold and seed that
    the model is of. recipe: the run's, None of a text emotion model, whose corpus is merged of sentences of others.

    corpus, fold: what it learnt from; None where that is unknown or no longer there, which `lost` explains.
    """

    name: str
    run: Path | None = None
    done: Mapping[str, Any] = field(default_factory=dict)
    recipe: FineTuneRecipe | None = None
    corpus: Corpus | None = None
    fold: Fold | None = None
    lost: str = ""

    def is_of(self, corpus: Corpus) -> bool:
        """Whether the model was fine-tuned on this corpus: the same name, and samples in common."""
        if self.corpus is None or self.corpus.name != corpus.name:
            return False
        return not self.corpus.stores["text"].rows_of.keys().isdisjoint(corpus.stores["text"].rows_of)

    def selected_on(self, corpus: Corpus) -> str:
        """What chose the checkpoint, as seen from a corpus that it is tested on: one of `results.SELECTED_ON`."""
        if not self.done:
            return "unknown data"
        return self.done["selected_on"] if self.corpus is None or self.is_of(corpus) else "another corpus"

    def mapping_for(self, corpus: Corpus) -> dict[str, str | None] | None:
        """The label map that the model was trained with, for its own corpus."""
        return self.recipe.target.map if self.recipe and self.is_of(corpus) else None

    def describe(self) -> str:
        """What chose the checkpoint, in a line."""
        if not self.done:
            return (
                f"{self.name}: what it learnt from and what chose its checkpoint is not known, as the folder is no run"
            )
        done, on = self.done, self.corpus.name if self.corpus else self.recipe.corpus
        score = "" if done["score"] is None else f" ({NAMES[done['metric']]} {done['score']:.3f})"
        if self.recipe is None:
            sources = self.corpus.description["sources"]  # of which those that are evaluated taught nothing
            on = ", ".join(title for title, counts in sources.items() if "evaluated" not in counts)
        chosen = f"its checkpoint was {selection(done['selected_on'], on)}"
        return f"{self.name}: fold {done['fold']}, seed {done['seed']}; {chosen}{score}{self.lost}"

    def overlap(self, split: Split) -> list[str]:
        """Lines about samples of a split that the model learnt from or that chose its checkpoint."""
        count = f"of these {len({*split.ids}):,} samples"
        return [f"{self.name}: {own:,} {count} {did}; its numbers are too good" for own, did in self.shared(split)]

    def shared(self, split: Split, learnt_alone: bool = False) -> Iterator[tuple[int, str]]:
        """Of how many samples of a split the model learnt, and how many chose its checkpoint, as far as there are any:
        their number, and what they did. learnt_alone: the latter do not count."""
        if self.fold is None:
            return
        for part, learnt, did in (
            (self.fold.train, True, "in its training part"),
            (self.fold.validation, False, "chose its checkpoint"),
        ):
            if part is None or (learnt_alone and not learnt):
                continue
            if self.recipe is None:  # a text emotion model, which learnt from sentences under other names
                count = len(find_near_duplicates(_sentences(split), _sentences(part)).first)
                did = f"have sentences that {'stand ' if learnt else ''}{did} (near-duplicates count)"
            elif self.is_of(split.corpus):
                count, did = len({*split.ids}.intersection(part.ids)), f"{'were ' if learnt else ''}{did}"
            else:
                count = _same_words(split, part)
                did = f"have the names and words of samples of {self.corpus.path} that {'were ' if learnt else ''}{did}"
            if count:
                yield count, did


def _same_words(split: Split, part: Split) -> int:
    """Samples of two corpora that have their names and what was said in common."""
    one, other = split.corpus.stores["text"], part.corpus.stores["text"]
    both = {*split.ids}.intersection(part.ids)
    return sum(bool(said := _said(one, id)) and said == _said(other, id) for id in both)


def _said(store: TextStore, id: str) -> bytes:
    return store.read(id)["utf8"].tobytes() if "utf8" in store.columns else b""


def _sentences(split: Split) -> list[str]:
    store = split.corpus.stores["text"]
    return [store.read(id)["utf8"].tobytes().decode("utf-8", "replace") for id in split.ids]


def selection(selected_on: str, corpus: str) -> str:
    """In words, what of a corpus chose a checkpoint."""
    if selected_on == "nothing":
        return f"selected on nothing: the last update on {corpus}"
    return f"selected on {selected_on} data of {corpus}" + (", protocol paper" if selected_on == "test" else "")


def origin_of(folder: Path) -> Origin:
    """Where the model of a run, or a model alone, comes from. Raises: `MemofastError` where there is neither, or the
    run is unfinished."""
    if (run := run_of(folder)) is None:
        return _origin_of_texts(folder) or Origin(folder.resolve().name)
    recipe, done = recipe_of_run(run), best_of(finished(run))
    try:
        corpus = reading(open_corpus(recipe.corpus), recipe.modalities.features)
        fold = next(fold for fold in make_folds(recipe, corpus) if fold.name == done["fold"])
    except (MemofastError, StopIteration):
        lost = "; what it learnt from is no longer there, so that samples tested here may be among it"
        return Origin(run.name, run, done, recipe, lost=lost)
    return Origin(run.name, run, done, recipe, corpus, fold)


def _origin_of_texts(folder: Path) -> Origin | None:
    """That of a finished run of `memofast emotion-text train`, or of its model; None of anything else."""
    run = folder.resolve()
    run = run.parent if run.name == "model" else run
    if not all((run / name).is_file() for name in (TEXT_SETTINGS, TEXT_REPORT)):
        return None
    try:
        settings, report = (read_json(run / name) for name in (TEXT_SETTINGS, TEXT_REPORT))
        metric = settings["tuning"]["metric"]
        done = {"fold": "-", "seed": settings["seed"], "selected_on": "validation", "metric": metric}
        done["score"] = report["splits"]["validation"][metric]
    except (ValueError, KeyError, TypeError) as error:
        raise MemofastError(
            f"{run} is a damaged run of emotion-text train ({error}); restore or train it again"
        ) from None
    corpus = Corpus.open(run / "corpus")
    fold = Fold("-", corpus.split("train"), corpus.split("validation"), None, "validation")
    return Origin(run.name, run, done, None, corpus, fold)
