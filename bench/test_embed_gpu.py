"""Multimodal embeddings on a GPU, projections and word gradient included, against plain PyTorch, its compiled form, and Liger-Kernel's LayerNorm.

Rules: as in test_embed.py, over 64 and 256 samples: the same parameters (fp32) and features in the compute type on both sides, from token ids
and features to packed [N, 768] rows, forward alone or with gradients of every parameter from a ready output gradient. `padded` is three
padded blocks, concatenated and gathered; `packed` the same over packed rows; `compiled` is `padded` by torch.compile; `liger` is `packed` with
Liger's LayerNorm. `flop` counts both projections (twice with backward: features have no gradient); `gigabytes` the features, the words'
rows and the output, and backward once more features and the output's gradient, and the dense gradient of the vocabulary.
Targets on an H200 at 256 samples in bf16: 60 us forward; padded eager's time 5 times ours.
"""

import pytest
import torch
import torch.nn.functional as F
from gpu_cases import DTYPES, SAMPLES, STAGES, compiled, liger_layer_norm, stage
from test_embed import EPS, HIDDEN, RANGES, VOCABULARY, WIDTHS, P, offsets_of, packed_order, padded, parameters, plain
from torch.utils._pytree import tree_leaves, tree_map

from memofast.ops import FeatureRows, TextRows, embed


def layout(samples, device):
    """Row counts by modality, and for packed and for padded blocks: positions, and the gather that orders rows as ours."""
    generator = torch.Generator().manual_seed(1)
    lengths = {
        name: torch.randint(low, high + 1, (samples,), generator=generator) for name, (low, high) in RANGES.items()
    }
    longest = {name: int(own.max()) for name, own in lengths.items()}
    positions = {
        "packed": {name: torch.cat([torch.arange(int(n)) for n in own]) for name, own in lengths.items()},
        "padded": {name: torch.arange(n).expand(samples, n) for name, n in longest.items()},
    }
    starts, first, column = {"packed": {}, "padded": {}}, 0, 0
    for name, own in lengths.items():
        starts["packed"][name] = first + offsets_of(own).to(torch.int64)
        starts["padded"][name] = column + torch.arange(samples) * sum(longest.values())
        first, column = first + int(own.sum()), column + longest[name]
    gathers = {kind: packed_order(lengths, own) for kind, own in starts.items()}
    return lengths, *tree_map(lambda tensor: tensor.to(device), (positions, gathers))


def contest(samples, masked, dtype, backward, device):
    lengths, positions, gathers = layout(samples, device)
    counts = {name: int(own.sum()) for name, own in lengths.items()}
    rows = sum(counts.values())
    offsets = {name: offsets_of(own).to(device) for name, own in lengths.items()}
    joint = sum(offsets.values())
    random = {"rng": torch.tensor([1, 2], device=device), "sample_keys": torch.arange(samples, device=device)}

    def values(number):
        """Parameters, ids, features, which feature rows are masked by what, leaves, and the output's gradient."""
        generator = torch.Generator().manual_seed(number)
        tables = tree_map(lambda leaf: leaf.detach().to(device).requires_grad_(), parameters(generator))
        ids = torch.randint(999, VOCABULARY, (counts["text"],), generator=generator)
        features = {n: torch.randn(counts[n], w, generator=generator).to(device, dtype) for n, w in WIDTHS.items()}
        masking = {}
        for name, width in WIDTHS.items() if masked else ():
            chosen = (torch.rand(counts[name], generator=generator) < 1 / 6).to(device)
            masking[name] = chosen, torch.randn(width, generator=generator).to(device).requires_grad_()
        leaves = [*tree_leaves(tables), *(mask for _, mask in masking.values())]
        grad = torch.randn(rows, HIDDEN, generator=generator).to(device, dtype)
        return tables, ids.to(device), features, masking, leaves, grad

    def ours(number):
        tables, ids, features, masking, leaves, grad = values(number)
        short_ids = ids.to(torch.int32)
        sources = {
            name: torch.where(chosen, -1, torch.arange(len(chosen), device=device)).to(torch.int32)
            for name, (chosen, _) in masking.items()
        }

        def rows_of(name):
            weight, bias, *own = tables[name]
            weight, bias = weight.to(dtype), bias.to(dtype)
            mask = F.linear(masking[name][1].to(dtype), weight, bias) if masked else None
            return FeatureRows(F.linear(features[name], weight, bias), sources.get(name), offsets[name], mask, *own)

        def run():
            text = TextRows(short_ids, offsets["text"], *tables["text"])
            own = {name: rows_of(name) for name in WIDTHS}
            options = {"p": P, "eps": EPS, "dtype": dtype, "backend": device}
            return embed(text, tables["types"][0], joint, **own, **random, **options)

        return stage(run, leaves, grad, backward)

    def rival(function, kind, **extra):
        def make(number):
            tables, ids, features, masking, leaves, grad = values(number)
            if kind == "padded":
                ids = padded(ids, lengths["text"])
                features = {name: padded(own, lengths[name]) for name, own in features.items()}
                masking = {name: (padded(chosen, lengths[name]), mask) for name, (chosen, mask) in masking.items()}
            blocks = (ids, features, positions[kind], gathers[kind], masking, tables, dtype)
            return stage(lambda: function(*blocks, **extra), leaves, grad, backward)

        return make

    read = sum(counts[name] * width for name, width in WIDTHS.items()) * dtype.itemsize
    out, words = rows * HIDDEN * dtype.itemsize, counts["text"] * HIDDEN * 4
    moved = read + words + out + (read + out + VOCABULARY * HIDDEN * 4 if backward else 0)
    return {
        "ours": ours,
        "rivals": {
            "padded": rival(plain, "padded"),
            "packed": rival(plain, "packed"),
            "compiled": rival(compiled(plain), "padded"),
            "liger": rival(plain, "packed", norm=liger_layer_norm),
        },
        "bytes_of_one": read + out,
        "target": {"padded": 5.0} if dtype == torch.bfloat16 and samples == 256 and not backward else None,
        "rows": rows,
        **counts,
        "flop": (4 if backward else 2) * HIDDEN * sum(counts[name] * width for name, width in WIDTHS.items()),
        "gigabytes": moved / 1e9,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("passes", STAGES)
def test_embed_gpu(on_gpu, passes, samples, masked, dtype):
    on_gpu(**contest(samples, masked, DTYPES[dtype], STAGES[passes], "cuda"))
