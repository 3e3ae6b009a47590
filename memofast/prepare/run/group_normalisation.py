"""Feature rows of a prepared corpus z-normed within each speaker, or another group.

What is constant about a voice or a face is then gone, and what changes with the emotion is left. The mean and standard
deviation are those of all of a group's samples, whichever split they are in; no label is looked at.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memofast.data import Corpus
from memofast.data.corpus import replace_store
from memofast.data.folds import read_groups
from memofast.errors import MemofastError
from memofast.files import remove
from memofast.store import FeatureStore, FeatureWriter, environments

WITHIN_GROUP = "z-norm over each "  # begins the normalisation of such rows, then the group's name
_NEVER_CHANGES = 1e-6  # of the mean; such a column becomes 0


@dataclass
class _Sums:
    """Of the rows of one group."""

    samples: int = 0
    rows: int = 0
    mean: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0

    def add(self, rows: np.ndarray) -> None:
        """Count rows [n, width] in (Chan, Golub and LeVeque's update)."""
        self.samples += 1
        if len(rows) == 0:
            return
        rows = rows.astype(np.float64)
        mean, total = rows.mean(0), self.rows + len(rows)
        apart = mean - self.mean
        self.squares = self.squares + ((rows - mean) ** 2).sum(0) + apart**2 * (self.rows * len(rows) / total)
        self.mean, self.rows = self.mean + apart * (len(rows) / total), total

    def normed(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) == 0:
            return rows
        std = np.sqrt(self.squares / self.rows)
        still = std <= _NEVER_CHANGES * np.maximum(np.abs(self.mean), 1e-12)
        return np.where(still, 0.0, (rows - self.mean) / np.where(still, 1.0, std))


def normalise(path: Path, modality: str, by: str) -> dict[str, int]:
    """Write the rows of `modality` z-normed within each group `by` as a new store, and let `corpus.json` name it. The
    store that was prepared stays.

    Returns: samples by group. Raises: `MemofastError` where the corpus lacks the modality or the groups, a sample its
        group, or rows are normed so already or raw.
    """
    corpus = Corpus.open(path)
    if modality == "text" or modality not in corpus.stores:
        has = ", ".join(name for name in corpus.stores if name != "text") or "neither visual nor speech"
        raise MemofastError(
            f"corpus {path} has no {modality} rows; it has {has}: prepare it with --face or --speech, or name "
            "other rows by --modality"
        )
    if modality in corpus.raw:
        raise MemofastError(
            f"the {modality} rows of corpus {path} are raw ({corpus.stores[modality].columns['rows'][0]}), of which "
            "a model's own network makes features; z-norm features only"
        )
    store, group_of = corpus.stores[modality], read_groups(corpus, by)
    within = WITHIN_GROUP + by
    if store.meta["normalisation"].startswith(within):
        _remove_others(path, modality, store.path)  # of a run that was killed then
        raise MemofastError(f"the {modality} rows of corpus {path} are z-normed within the {by} already")
    if lacking := [id for id in store.ids if id not in group_of]:
        raise MemofastError(f"sample {lacking[0]} of corpus {path} has no {by}; give every sample one, or leave it out")
    sums: dict[str, _Sums] = {}
    for id in store.ids:
        sums.setdefault(group_of[id], _Sums()).add(store.read(id)["rows"])
    # another folder for every contents, so that rows never outlive those they were made of
    folder = path / f"{modality}-by-{by}-{store.meta['digest'][:8]}"
    with _writer(folder, store, within) as writer:
        for id in store.ids:
            if not writer.done(id):
                columns = store.read(id)
                writer.put(id, **columns | {"rows": sums[group_of[id]].normed(columns["rows"])})
    replace_store(path, modality, folder, {})
    _remove_others(path, modality, folder)
    return {group: found.samples for group, found in sorted(sums.items())}


def _remove_others(corpus: Path, modality: str, normed: Path) -> None:
    """Rows normed before, of other contents or groups, go."""
    for former in corpus.glob(f"{modality}-by-*"):
        if former.resolve() != normed.resolve():
            environments.close(former)
            remove(former)


def _writer(folder: Path, store: FeatureStore, within: str) -> FeatureWriter:
    before = store.meta["normalisation"]
    about = {name: store.meta.get(name, "") for name in ("extractor", "fingerprint", "source", "licence")}
    about["normalisation"] = within if before in ("", "none") else f"{within}, of rows with {before}"
    columns = set(store.columns) - {"rows"}
    return FeatureWriter(folder, store.width, columns=columns, classes=store.classes.get("soft_labels", ()), **about)
