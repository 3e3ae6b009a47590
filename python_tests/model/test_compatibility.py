"""Which conditions of modalities a model and a corpus share."""

import numpy as np
import pytest

from memofast.data import write_corpus
from memofast.errors import MemofastError
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.model.compatibility import conditions_for, shared_modalities
from memofast.store import FeatureWriter, TextWriter

SMALL = {
    "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
    "id2label": {0: "calm", 1: "glad"},
}  # fmt: skip


def corpus_of(folder, words):
    """Three samples with speech; texts of so many words."""
    with TextWriter(folder / "text", classes=("calm", "glad")) as text, FeatureWriter(folder / "speech", 3) as speech:
        for number, count in enumerate(words):
            text.put(f"s{number}", [7] * count, range(count), label=number % 2)
            speech.put(f"s{number}", np.ones((2, 3)))
    stores = {name: folder / name for name in ("text", "speech")}
    return write_corpus(folder, "heard", stores, {"train": [f"s{number}" for number in range(len(words))]})


def test_a_corpus_without_a_word_has_no_condition_of_text(tmp_path):
    model = MemoBertForEmotion(MemoBertConfig(**SMALL, visual_width=0, speech_width=3))
    mute, spoken = corpus_of(tmp_path / "mute", (0, 0, 0)), corpus_of(tmp_path / "spoken", (0, 2, 0))
    assert conditions_for(model, mute) == ("a",) and shared_modalities(model, mute) == "a"
    assert conditions_for(model, spoken) == ("l", "a", "la")
    with pytest.raises(MemofastError, match=r"condition la needs text rows; corpus .* both have a; ask for what"):
        conditions_for(model, mute, ["la"])
    reads_text = MemoBertForEmotion(MemoBertConfig(**SMALL, visual_width=0, speech_width=0))
    with pytest.raises(MemofastError, match=r"the model reads text, corpus .*mute has speech; give a corpus"):
        conditions_for(reads_text, mute)
