"""A corpus of random numbers on disk, in the widths that MEmoBERT reads: what a loader's speed depends on are sizes
alone."""

from pathlib import Path

import numpy as np

from memofast.data import write_corpus
from memofast.data.corpus import Corpus
from memofast.store import FeatureWriter, TextWriter

CLASSES = [f"emotion{i}" for i in range(8)]
VISUAL, SPEECH = 342, 768  # columns
Bounds = tuple[int, int]  # fewest and most rows of a sample


def draw(count: int, pieces: Bounds, faces: Bounds, sound: Bounds) -> list[dict]:
    """Samples with features in fp16 and soft labels; pieces without [CLS] and [SEP], five of them in four words."""
    random = np.random.default_rng(1)
    samples = []
    for i in range(count):
        words, seen, heard = (int(random.integers(low, high + 1)) for low, high in (pieces, faces, sound))
        samples.append(
            {
                "id": f"film_{i}",
                "tokens": random.integers(999, 30522, words).astype(np.int32),
                "words": np.arange(words) * 4 // 5,
                "text": " ".join(["word"] * ((words * 4 + 4) // 5)),
                "visual": random.standard_normal((seen, VISUAL), np.float32).astype(np.float16),
                "soft_labels": random.dirichlet(np.ones(8), seen).astype(np.float16),
                "speech": random.standard_normal((heard, SPEECH), np.float32).astype(np.float16),
            }
        )
    return samples


def write(folder: Path, samples: list[dict], held_out: int = 0) -> Corpus:
    """As memofast stores it; the last `held_out` samples are the split `validation`, the others `train`."""
    with (
        TextWriter(folder / "text") as text,
        FeatureWriter(folder / "visual", VISUAL, columns=("soft_labels",), classes=CLASSES) as visual,
        FeatureWriter(folder / "speech", SPEECH) as speech,
    ):
        for sample in samples:
            text.put(sample["id"], sample["tokens"], sample["words"], utf8=sample["text"])
            visual.put(sample["id"], sample["visual"], soft_labels=sample["soft_labels"])
            speech.put(sample["id"], sample["speech"])
    stores, ids = {name: folder / name for name in ("text", "visual", "speech")}, [sample["id"] for sample in samples]
    trained = len(ids) - held_out
    splits = {"train": ids[:trained], "validation": ids[trained:]}
    return write_corpus(folder, "film", stores, {name: members for name, members in splits.items() if members})
