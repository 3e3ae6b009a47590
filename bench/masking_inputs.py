"""1,000 MEmoBERT-like samples, as a packed batch and as the Python lists that a per-sample data set holds."""

import random

import torch
from contests import RANGES

SAMPLES = 1000


def lengths(modality: str) -> list[int]:
    draw = random.Random(modality)
    return [draw.randint(*RANGES[modality]) for _ in range(SAMPLES)]


def offsets(sizes: list[int]) -> torch.Tensor:
    return torch.tensor([0, *sizes], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def sample_keys() -> torch.Tensor:
    return torch.randint(-(2**62), 2**62, (SAMPLES,), generator=torch.Generator().manual_seed(1))


def sentences(sizes: list[int], seed: int) -> list[list[list[int]]]:
    """Per sample its words, each a list of one to three word pieces, without [CLS] and [SEP]."""
    draw = random.Random(seed)
    result = []
    for size in sizes:
        pieces, words = size - 2, []
        while pieces:
            width = min(pieces, draw.choices((1, 2, 3), (80, 15, 5))[0])
            words.append([draw.randint(2000, 30000) for _ in range(width)])
            pieces -= width
        result.append(words)
    return result


def packed_text(samples: list[list[list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """token_ids and word_ids [rows] int32."""
    ids, numbers = [], []
    for words in samples:
        ids += [101, *(piece for word in words for piece in word), 102]
        numbers += [-1, *(number for number, word in enumerate(words) for _ in word), -1]
    return torch.tensor(ids, dtype=torch.int32), torch.tensor(numbers, dtype=torch.int32)
