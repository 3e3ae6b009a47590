"""token_mask, and all three masks of a batch, against a Python loop: whole words, faces and speech of 1,000 samples.

The rival is the original's way with its avoidable costs left out: per sample one dice per word, 80/10/10, random ids by `randrange`
(the original builds a list of 29,523 ids for each), flat lists of ids and labels that become one tensor each for the
whole batch, where the original makes two a sample. Both sides deliver the ids to read, the labels and the target rows, as int32.
"""

import random

import masking_inputs as inputs
import torch
from test_span_mask import CASES
from test_span_mask import python_loop as span_loop

from memofast.ops import SpanPolicy, TokenPolicy, span_mask, token_mask


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


def packed_text():
    sizes = inputs.lengths(inputs.TEXT, seed=4)
    samples = inputs.sentences(sizes, seed=5)
    return sizes, samples, *inputs.packed_text(samples)


def test_token_mask(side_by_side):
    sizes, samples, ids, words = packed_text()
    offsets, keys, rng, policy = inputs.offsets(sizes), inputs.sample_keys(), torch.tensor([1, 2]), TokenPolicy()
    draw = random.Random(3)
    side_by_side(
        lambda: token_mask(ids, words, offsets, keys, rng, policy, site=1),
        {"python loop": lambda: python_loop(samples, 0.15, draw)},
        rounds=60,
        samples=inputs.SAMPLES,
        rows=sum(sizes),
    )


def test_all_masks(side_by_side):
    sizes, samples, ids, words = packed_text()
    keys, rng, draw, text_policy = inputs.sample_keys(), torch.tensor([1, 2]), random.Random(3), TokenPolicy()
    offsets = inputs.offsets(sizes)
    features = []
    for site, (bounds, ratio) in enumerate(CASES.values()):
        rows = inputs.lengths(bounds, seed=2)
        features.append((rows, sum(rows), inputs.offsets(rows), SpanPolicy(ratio=ratio), site))

    def ours():
        token_mask(ids, words, offsets, keys, rng, text_policy, site=9)
        for _, rows, starts, policy, site in features:
            span_mask(starts, keys, rng, policy, rows=rows, site=site)

    def loop():
        python_loop(samples, 0.15, draw)
        for sizes, _, _, policy, _ in features:
            span_loop(sizes, policy.ratio[0] / policy.ratio[1], policy.length, draw)

    side_by_side(ours, {"python loop": loop}, rounds=60, target={"python loop": 50}, samples=inputs.SAMPLES)
