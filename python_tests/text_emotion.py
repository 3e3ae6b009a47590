"""A vocabulary, a small untrained BERT and sentences whose emotion one word gives away, for tests of text emotion
models."""

import csv
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

GIVEN_AWAY = {
    "neutral": "table",
    "happy": "wonderful",
    "sad": "tears",
    "anger": "furious",
    "surprise": "suddenly",
    "fear": "scared",
    "disgust": "rotten",
}
FILLERS = [
    "the",
    "house",
    "was",
    "near",
    "a",
    "river",
    "and",
    "we",
    "saw",
    "people",
    "there",
    "walking",
    "slowly",
    "home",
    "again",
    "today",
]


def write_bert(folder: Path) -> Path:
    """A checkpoint folder with its `vocab.txt`, as transformers writes it."""
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *GIVEN_AWAY.values(),
        *FILLERS,
        *(f"##{n}" for n in range(9)),
    ]
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.3,
    }
    BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(text, emotion), each text another one."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        emotion = list(GIVEN_AWAY)[number % len(GIVEN_AWAY)]
        words = [*random.choice(FILLERS, 8, replace=False)]
        for _ in range(3):
            words.insert(int(random.integers(8)), GIVEN_AWAY[emotion])
        found.append((" ".join(words), emotion))
    return found


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A table with a dialogue of three sentences per group."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "group"])
        writer.writerows([f"s{n}", text, label, f"dia{n // 3}"] for n, (text, label) in enumerate(rows))
    return path
