"""The part of a pseudo-labelled split whose emotions are sure: MEmoBERT's high-quality selection, capped by probability
instead of by order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memofast.data.corpus import Corpus, write_part
from memofast.errors import MemofastError


@dataclass(frozen=True)
class Confidence:
    """neutral, other: least probability of the likeliest class. most: samples per class, 0 for any; the surest stay.
    Source: MEmoBERT."""

    neutral: float = 0.8
    other: float = 0.4
    most: int = 7000


def choose_confident(
    words: np.ndarray, emotions: np.ndarray, classes: Sequence[str], rule: Confidence
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Which samples are sure.

    Args: words [n]: words of each sample; emotions [n, classes], zero rows where unknown.
    Returns: [n] bool, and each rule in turn with how many it `dropped`; the last one also says how many of each class
        are `kept`. Among equal probabilities the sample that stands first stays.
    """
    likeliest, probability = emotions.argmax(1), emotions.max(1)
    least = np.array([rule.neutral if name == "neutral" else rule.other for name in classes])
    several = words > 1
    sure = several & (probability >= least[likeliest]) & (probability > 0)
    kept = sure.copy()
    if rule.most:
        for number in range(len(classes)):
            members = np.flatnonzero(sure & (likeliest == number))
            kept[members[np.argsort(-probability[members], kind="stable")][rule.most :]] = False
    counted = {name: int((kept & (likeliest == number)).sum()) for number, name in enumerate(classes)}
    return kept, [
        {"rule": "more than one word", "dropped": int((~several).sum())},
        {
            "rule": f"probability of neutral >= {rule.neutral:g}, of others >= {rule.other:g}",
            "dropped": int((several & ~sure).sum()),
        },
        {"rule": f"at most {rule.most or 'any number'} of a class, the surest", "dropped": int((sure & ~kept).sum())}
        | {"kept": counted},
    ]


def select_confident(path: Path, split: str, rule: Confidence) -> tuple[str, list[dict[str, Any]]]:
    """Write the split `SPLIT_confident` of the corpus at `path`, its rules and counts into `corpus.json`. Returns: its
    name and rules.

    Raises: `MemofastError` where the corpus has no pseudo labels, or where no sample is sure.
    """
    corpus = Corpus.open(path)
    if "emotions" not in corpus.targets:
        raise MemofastError(f"corpus {path} has no pseudo labels; run memofast pseudo-label {path} --model FOLDER")
    chosen, text = corpus.split(split), corpus.stores["text"]
    words, emotions = [], []
    for id in chosen.ids:
        record = text.read(id)
        words.append(int(record["words"].max()) + 1)
        emotions.append(record["emotions"])
    kept, rules = choose_confident(np.array(words), np.array(emotions), corpus.classes["emotions"], rule)
    if not kept.any():
        raise MemofastError(f"no sample of split {split} is sure enough; lower the least probabilities")
    name = f"{split}_confident"
    write_part(path, name, split, [id for id, sure in zip(chosen.ids, kept, strict=True) if sure], rules)
    return name, rules
