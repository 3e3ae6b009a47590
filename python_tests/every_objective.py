"""Every kind of objective there is, and a small corpus that has what they all need: a kind that is registered is in
every test of this, and says below what its defaults lack."""

from pathlib import Path

import numpy as np
from runs import small_corpus

from memofast import objectives
from memofast.data import Corpus
from memofast.data.corpus import replace_store
from memofast.store.text_copy import fields_of, writer_like
from memofast.store.text_writer import PARTS_OF_SPEECH, POLARITIES

# the label's names are not all words of the demo, and it has more classes than LARE asks for
_WORDS = {"neutral": "calm", "fear": "afraid", "contempt": "smug"}
_OPTIONS = {
    "label_prompt": {"template": "i feel [MASK] .", "words": _WORDS},
    "sentence_prompt": {"template": "i feel [MASK] .", "words": _WORDS},
    "lare": {"sentence_classes": 8},
    "masked_autoencoder": {
        "decoder": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    },
}  # fmt: skip
KINDS = list(objectives.KINDS)
EVERY = {kind: _OPTIONS.get(kind, {}) for kind in KINDS}
_UNSURE = 0.3  # of a pseudo label, spread over all emotions


def corpus_of_every_objective(folder: Path) -> Path:
    """The small demo corpus, with pseudo labels, parts of speech and polarities."""
    path = small_corpus(folder)
    text = Corpus.open(path).stores["text"]
    classes, random = text.classes["label"], np.random.default_rng(0)
    with writer_like(text, path / "text-of-all", emotions=classes, with_parts_of_speech=True) as writer:
        for id in text.ids:
            record = fields_of(text, id)
            pieces = len(record["tokens"])
            emotions = np.full(len(classes), _UNSURE / len(classes))
            emotions[record["label"]] += 1 - _UNSURE
            record |= {
                "emotions": emotions,
                "part_of_speech": random.integers(len(PARTS_OF_SPEECH), size=pieces),
                "polarity": random.integers(len(POLARITIES), size=pieces),
            }
            writer.put(id, **record)
    replace_store(path, "text", path / "text-of-all", {})
    return path
