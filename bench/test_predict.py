"""Many short texts answered at once, packed, against one after the other: a text model of MiniLM's size, tokenising
included."""

import random

import numpy as np
import pytest

import memofast
from memofast.model import MemoBertConfig, MemoBertForEmotion

TEXTS = 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(2000))]
CLASSES = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_model")
    config = MemoBertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, visual_width=0,
        speech_width=0,
        id2label=dict(enumerate(CLASSES)),
    )  # fmt: skip
    MemoBertForEmotion(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return memofast.load(folder, device="cpu")


def test_many_short_texts(side_by_side, predictor):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS[5:], k=draw.randint(3, 20))) for _ in range(TEXTS)]

    def together():
        return predictor.predict_many(texts)

    def one_by_one():
        return [predictor.predict(text=text)[0] for text in texts]

    for ours, alone in zip(together(), one_by_one(), strict=True):
        np.testing.assert_allclose([*ours.probabilities.values()], [*alone.probabilities.values()], atol=1e-5)
    side_by_side(together, rivals={"one_by_one": one_by_one}, rounds=15, target={"one_by_one": 3.0}, texts=TEXTS)
