"""Multimodal embeddings, projections and word gradient included, against plain PyTorch, its compiled form, and
Liger-Kernel's LayerNorm.

Rules of the rivals: the same parameters (fp32) and features, already padded to 344 and in the compute type; all run the
whole path from token ids and features to a packed [N, C] output, forward alone or with gradients of every parameter
from a ready output gradient; in bf16 the projections run in bf16 through `F.linear` of weights cast once per call,
embeddings and norms in fp32 with their results rounded to bf16, on all sides. `padded` is the original's formulation:
three padded blocks embedded by `F.embedding`, `F.linear` and `F.layer_norm`, concatenated, and gathered into packed
order. Padding of the inputs, gather index and position ids are made before the clock starts; the gather goes straight
to the real rows (it pays for no padded tail). `packed` is the same without padding: it embeds packed rows and orders
them by one gather, which no framework does by itself. `compiled` is `padded` by torch.compile; `liger`, on a GPU, is
`packed` with Liger's LayerNorm. Dropout draws from each side's own generator. With masks, a sixth of the feature rows
read a learned mask feature: rivals put it in by `torch.where` before they project, we project it as one more row and
pass `source`; the mask features are leaves too. On a CPU the vocabulary's gradient (94 MB in fp32) is fresh memory on
all sides; our kernel asks the system for huge pages there (`madvise`) while the rivals' allocator does not, which saves
us page faults; with transparent huge pages set to `always` all sides get them. `flop` counts both projections (twice
with backward: features have no gradient); `gigabytes` the features, the words' rows and the output, and backward once
more features and the output's gradient, and the dense gradient of the vocabulary.
Targets on an H200 at 256 samples in bf16: 60 us forward; padded eager's time 5 times ours.
"""

import pytest
import torch
import torch.nn.functional as F
from contests import (
    DTYPES,
    RANGES,
    SAMPLES,
    SAMPLES_ON_CPU,
    STAGES,
    compiled,
    draw_by_modality,
    dropout_of,
    liger_layer_norm,
    offsets_of,
    stage,
)
from torch.utils._pytree import tree_leaves, tree_map

from memofast.ops import FeatureRows, TextRows, embed

HIDDEN, VOCABULARY, P, EPS = 768, 30522, 0.1, 1e-12
WIDTHS = {"visual": 344, "speech": 768}


def parameters(generator):
    device = generator.device

    def random(*shape):
        return (0.02 * torch.randn(*shape, generator=generator, device=device)).requires_grad_()

    def norm():
        return [make(HIDDEN, requires_grad=True, device=device) for make in (torch.ones, torch.zeros)]

    found = {"types": [random(3, HIDDEN)], "text": [random(VOCABULARY, HIDDEN), random(512, HIDDEN), *norm()]}
    for name, width in WIDTHS.items():
        found[name] = [random(HIDDEN, width), random(HIDDEN), random(512, HIDDEN), *norm(), *norm()]
    return found


def layer_norm(x, gamma, beta, eps):
    return F.layer_norm(x, (HIDDEN,), gamma, beta, eps)


def feature_rows(features, kind, position_ids, types, weights, dtype, masking, norm=layer_norm):
    if masking is not None:
        masked, mask = masking
        features = torch.where(masked[..., None], mask.to(dtype), features)
    weight, bias, position, feature_gamma, feature_beta, gamma, beta = weights
    hidden = F.linear(features, weight.to(dtype), bias.to(dtype)).float()
    hidden = norm(hidden, feature_gamma, feature_beta, EPS)
    total = hidden + F.embedding(position_ids, position) + types[kind]
    return F.dropout(norm(total, gamma, beta, EPS), P).to(dtype)


def text_rows(token_ids, position_ids, types, weights, dtype, norm=layer_norm):
    word, position, gamma, beta = weights
    total = F.embedding(token_ids, word) + F.embedding(position_ids, position) + types[0]
    return F.dropout(norm(total, gamma, beta, EPS), P).to(dtype)


def plain(token_ids, features, positions, gather, masking, tables, dtype, norm=layer_norm):
    """Embed three blocks of rows ([rows] or [B, longest]), concatenate them, gather the packed order."""
    types = tables["types"][0]
    blocks = [text_rows(token_ids, positions["text"], types, tables["text"], dtype, norm)]
    for kind, name in enumerate(WIDTHS, start=1):
        blocks.append(
            feature_rows(features[name], kind, positions[name], types, tables[name], dtype, masking.get(name), norm)
        )
    return torch.cat(blocks, dim=-2).flatten(0, -2).index_select(0, gather)


def packed_order(lengths, starts):
    """For each packed row, its row among the concatenated blocks; `starts[name][b]` is where a sample's rows lie
    there."""
    rows = [
        starts[name][b] + torch.arange(int(lengths[name][b])) for b in range(len(lengths["text"])) for name in RANGES
    ]
    return torch.cat(rows)


def padded(packed, lengths):
    return torch.nn.utils.rnn.pad_sequence(packed.split(lengths.tolist()), batch_first=True)


def layout(samples, device):
    """Row counts by modality, and for packed and for padded blocks: positions, and the gather that orders rows as
    ours."""
    lengths = draw_by_modality(samples)
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
    options = {"p": P, "eps": EPS, "dtype": dtype, "backend": device, **dropout_of(samples, device)}

    def values(number):
        """Parameters, ids, features, which feature rows are masked by what, leaves, and the output's gradient."""
        generator = torch.Generator(device).manual_seed(number)
        here = {"generator": generator, "device": device}
        tables = parameters(generator)
        ids = torch.randint(999, VOCABULARY, (counts["text"],), **here)
        features = {name: torch.randn(counts[name], width, **here).to(dtype) for name, width in WIDTHS.items()}
        masking = {}
        for name, width in WIDTHS.items() if masked else ():
            chosen = torch.rand(counts[name], **here) < 1 / 6
            masking[name] = chosen, torch.randn(width, **here).requires_grad_()
        leaves = [*tree_leaves(tables), *(mask for _, mask in masking.values())]
        return tables, ids, features, masking, leaves, torch.randn(rows, HIDDEN, **here).to(dtype)

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
            return embed(text, tables["types"][0], joint, **own, **options)

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
    rivals = {
        "padded": rival(plain, "padded"),
        "packed": rival(plain, "packed"),
        "compiled": rival(compiled(plain), "padded"),
    }
    if device == "cuda":
        rivals["liger"] = rival(plain, "packed", norm=liger_layer_norm)
    return {
        "ours": ours,
        "rivals": rivals,
        "bytes_of_one": read + out,
        "rows": rows,
        **counts,
        "flop": (4 if backward else 2) * HIDDEN * sum(counts[name] * width for name, width in WIDTHS.items()),
        "gigabytes": moved / 1e9,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
def test_embed(on_cpu, masked, dtype):
    on_cpu(**contest(SAMPLES_ON_CPU, masked, DTYPES[dtype], True, "cpu"), target={"padded": 2.0})


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("passes", STAGES)
def test_embed_gpu(on_gpu, passes, samples, masked, dtype):
    target = {"padded": 5.0} if dtype == "bf16" and samples == 256 and passes == "forward" else None
    on_gpu(**contest(samples, masked, DTYPES[dtype], STAGES[passes], "cuda"), target=target)
