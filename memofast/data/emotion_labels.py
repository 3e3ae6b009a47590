"""Labels of emotion corpora to common class sets, by the table `memofast/data/emotion_labels.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import yaml

from memofast.errors import MemofastError

TABLE = "emotion_labels.yaml"


@cache
def _table() -> dict:
    return yaml.safe_load((resources.files("memofast.data") / TABLE).read_text(encoding="utf-8"))


def target_classes(name: str) -> tuple[str, ...]:
    """Classes of the set `ekman` (7), `memobert` (5) or `basic` (4), in order. Raises `MemofastError` for another
    name."""
    targets = _table()["targets"]
    if name not in targets:
        raise MemofastError(f"no class set {name!r}; there are {', '.join(targets)}")
    return tuple(targets[name])


def mapped_corpora() -> tuple[str, ...]:
    """Names of the corpora whose labels the table maps."""
    return tuple(_table()["corpora"])


@dataclass(frozen=True)
class LabelMap:
    """The labels of one corpus as classes of one set. emotions: label -> emotion, None where it has none; classes: of
    the set."""

    corpus: str
    emotions: Mapping[str, str | None]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, corpus: str, target: str) -> "LabelMap":
        """Raises `MemofastError` for a corpus or a set that the table does not have."""
        corpora = _table()["corpora"]
        if corpus not in corpora:
            raise MemofastError(f"no label map for corpus {corpus!r}; there are {', '.join(corpora)}")
        return cls(corpus, corpora[corpus], target_classes(target))

    def distribution(self, votes: Mapping[str, float]) -> np.ndarray | None:
        """Probabilities of the classes from the votes for the corpus' labels.

        Args: votes: label -> weight; one label with weight 1 where the corpus has one label each.
        Returns: [classes] float32 with sum 1, over the votes that have a class; None where half of the votes or more
            have none.
        Raises: `MemofastError` for a label that the table does not have.
        """
        counted = np.zeros(len(self.classes))
        for label, weight in votes.items():
            if label not in self.emotions:
                raise MemofastError(
                    f"label {label!r} of corpus {self.corpus} is not in the label map; "
                    f"it has {', '.join(self.emotions)}"
                )
            if (emotion := self.emotions[label]) in self.classes:
                counted[self.classes.index(emotion)] += weight
        total = sum(votes.values())
        if total <= 0 or counted.sum() <= total / 2:
            return None
        return (counted / counted.sum()).astype(np.float32)
