"""token_mask, and all three masks of a batch, on a GPU: 64 and 256 samples, at fixed capacity.

Rules: operands lie on the device, and the host learns no number of targets. `eager` is our reference, vectorised PyTorch on the device,
and `compiled` that by torch.compile; both give the same bits as ours. `pieces` is what a collator does on the device, for kind `token` only:
Bernoulli draws over word pieces with 80/10/10, ids and labels but no list of targets. `all_masks` is text, faces and speech: ours in one call,
`one_by_one` our own three calls, and theirs one each.
`gigabytes` counts ids, word ids, results and targets once.
Target on an H200 for all masks of 256 samples: 15 us. Data loaders mask on the host, in milliseconds; see test_token_mask.py for that rival.
"""

import masking_inputs as inputs
import pytest
import test_span_mask_gpu as spans
import torch
from gpu_cases import SAMPLES, compiled
from test_span_mask import CASES

from memofast.ops import RowsToMask, SpanPolicy, TokenPolicy, WordsToMask, masks, token_mask, token_mask_reference


def text(samples):
    sizes = inputs.lengths(inputs.TEXT, seed=4)[:samples]
    return sizes, *inputs.packed_text(inputs.sentences(sizes, seed=5))


def pieces(ids, word_ids, *_, **__):
    chosen = (torch.rand(ids.shape, device=ids.device) < 0.15) & (word_ids >= 0)
    dice, any_id = torch.rand(ids.shape, device=ids.device), torch.randint_like(ids, 999, 30522)
    seen = torch.where(chosen & (dice < 0.9), torch.where(dice < 0.8, 103, any_id), ids)
    return seen, torch.where(chosen, ids, -1)


def contest(samples, kind, device):
    sizes, ids, word_ids = text(samples)
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
    """Text, faces and speech: ours at once, and one after the other whoever takes part in all three."""
    parts = [contest(samples, "whole_word", device), *(spans.contest(samples, name, device) for name in CASES)]

    def all_of(makes):
        def make(number):
            calls = [made(number) for made in makes]
            return lambda: [call() for call in calls]

        return make

    def at_once(number):
        sizes, ids, word_ids = text(samples)
        policy = TokenPolicy("whole_word")
        options = {"site": 9, "capacity": policy.capacity(sum(sizes), samples)}
        ids, word_ids, offsets = (x.to(device, copy=True) for x in (ids, word_ids, inputs.offsets(sizes)))
        wanted = [WordsToMask(ids, word_ids, offsets, policy, **options)]
        for bounds, ratio in CASES.values():
            sizes = inputs.lengths(bounds, seed=2)[:samples]
            rows, policy = sum(sizes), SpanPolicy(ratio=ratio)
            capacity = policy.capacity(rows, samples)
            wanted.append(RowsToMask(inputs.offsets(sizes).to(device), rows, policy, site=1, capacity=capacity))
        keys, rng = inputs.sample_keys()[:samples].to(device), torch.tensor([1, number], device=device)
        return lambda: masks(wanted, keys, rng, backend=device)

    rivals = {name: all_of([part["rivals"][name] for part in parts]) for name in ("eager", "compiled")}
    return {
        "ours": at_once,
        "rivals": {"one_by_one": all_of([part["ours"] for part in parts]), **rivals},
        "bytes_of_one": sum(part["bytes_of_one"] for part in parts),
        "samples": samples,
        "rows": sum(part["rows"] for part in parts),
        "gigabytes": sum(part["gigabytes"] for part in parts),
    }


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["whole_word", "token"])
@pytest.mark.parametrize("samples", SAMPLES)
def test_token_mask_gpu(on_gpu, samples, kind):
    on_gpu(**contest(samples, kind, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("samples", SAMPLES)
def test_all_masks_gpu(on_gpu, samples):
    on_gpu(**contest_of_all(samples, "cuda"))
