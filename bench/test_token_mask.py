"""token_mask, and all three masks of a batch: 1,000 samples on a CPU, 64 and 256 on a GPU, at fixed capacity.

Rules: operands lie on the device, the host learns no number of targets, and all deliver the ids to read, the labels and
the target rows, as int32. `eager` is our reference, vectorised PyTorch, and `compiled` that by torch.compile; both give
the same bits as ours. `pieces` is what a collator
does on the device, for kind `token` only: Bernoulli draws over word pieces with 80/10/10, ids and labels but no list of
targets. `python loop`, on a CPU, is the original's way with its avoidable costs left out: per sample one dice per word,
80/10/10, random ids by `randrange` (the original builds a list of 29,523 ids for each), flat lists of ids and labels
that become one tensor each for the whole batch, where the original makes two a sample. `all_masks` is text, faces and
speech, one call after the other. `gigabytes` counts ids, word ids, results and targets once; there is no arithmetic on
floating numbers.
Target on an H200 for all masks of 256 samples: 15 us.
"""

import random
from functools import partial

import masking_inputs as inputs
import pytest
import test_span_mask as spans
import torch
from contests import SAMPLES, compiled

from memofast.ops import TokenPolicy, token_mask, token_mask_reference


def python_loop(samples: list[list[list[int]]], probability: float, draw: random.Random) -> tuple[torch.Tensor, ...]:
    ids, labels = [], []
    dice, any_id = draw.random, draw.randrange
    for words in samples:
        ids.append(101)
        labels.append(-1)
        for word in words:
            chance = dice()
            if chance < probability:
                chance /= probability
                labels += word
                if chance < 0.8:
                    ids += [103] * len(word)
                elif chance < 0.9:
                    ids += [any_id(999, 30522) for _ in word]
                else:
                    ids += word
            else:
                ids += word
                labels += [-1] * len(word)
        ids.append(102)
        labels.append(-1)
    label = torch.tensor(labels, dtype=torch.int32)
    return torch.tensor(ids, dtype=torch.int32), label, (label >= 0).nonzero()[:, 0].to(torch.int32)


def text(samples):
    """Lengths, words, and packed ids and word ids of sentences."""
    sizes = inputs.lengths("text")[:samples]
    words = inputs.sentences(sizes, seed=5)
    return sizes, words, *inputs.packed_text(words)


def pieces(ids, word_ids, *_, **__):
    chosen = (torch.rand(ids.shape, device=ids.device) < 0.15) & (word_ids >= 0)
    dice, any_id = torch.rand(ids.shape, device=ids.device), torch.randint_like(ids, 999, 30522)
    seen = torch.where(chosen & (dice < 0.9), torch.where(dice < 0.8, 103, any_id), ids)
    return seen, torch.where(chosen, ids, -1)


def contest(samples, kind, device):
    sizes, words, ids, word_ids = text(samples)
    rows, policy = sum(sizes), TokenPolicy(kind)
    options = {"site": 9, "capacity": policy.capacity(rows, samples)}

    def contestant(function, **extra):
        def make(number):
            batch = ids, word_ids, inputs.offsets(sizes), inputs.sample_keys()[:samples], torch.tensor([1, number])
            batch = [tensor.to(device, copy=True) for tensor in batch]
            return lambda: function(*batch, policy, **options, **extra)

        return make

    rivals = {"eager": contestant(token_mask_reference), "compiled": contestant(compiled(token_mask_reference))}
    if kind == "token":
        rivals["pieces"] = contestant(pieces)
    if device == "cpu":
        rivals["python loop"] = lambda number: partial(python_loop, words, 0.15, random.Random(number))
    size = 16 * rows + 12 * samples + 4 * options["capacity"]
    return {
        "ours": contestant(token_mask, backend=device),
        "rivals": rivals,
        "bytes_of_one": size,
        "samples": samples,
        "rows": rows,
        "gigabytes": size / 1e9,
    }


def contest_of_all(samples, device):
    """Text, faces and speech, for whoever takes part in all three."""
    parts = [contest(samples, "whole_word", device), *(spans.contest(samples, name, device) for name in spans.RATIOS)]

    def all_of(makes):
        def make(number):
            calls = [made(number) for made in makes]
            return lambda: [call() for call in calls]

        return make

    shared = set.intersection(*(set(part["rivals"]) for part in parts))
    return {
        "ours": all_of([part["ours"] for part in parts]),
        "rivals": {name: all_of([part["rivals"][name] for part in parts]) for name in sorted(shared)},
        "bytes_of_one": sum(part["bytes_of_one"] for part in parts),
        "samples": samples,
        "rows": sum(part["rows"] for part in parts),
        "gigabytes": sum(part["gigabytes"] for part in parts),
    }


def test_token_mask(on_cpu):
    on_cpu(**contest(inputs.SAMPLES, "whole_word", "cpu"), rounds=20)


def test_all_masks(on_cpu):
    on_cpu(**contest_of_all(inputs.SAMPLES, "cpu"), rounds=20, target={"python loop": 50})


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["whole_word", "token"])
@pytest.mark.parametrize("samples", SAMPLES)
def test_token_mask_gpu(on_gpu, samples, kind):
    on_gpu(**contest(samples, kind, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("samples", SAMPLES)
def test_all_masks_gpu(on_gpu, samples):
    on_gpu(**contest_of_all(samples, "cuda"))
