"""Multimodal embeddings forward and backward, projections and word gradient included, against plain PyTorch in the same process.

Rules of the rivals: the same parameters (fp32) and features, already padded to 344 and in the compute type; both sides run the whole
path from token ids and features to a packed [N, C] output and back, with gradients of every parameter; in bf16 the projections run in
bf16 through `F.linear` of weights cast once per call, embeddings and norms in fp32 with their results rounded to bf16, on both sides.
`padded` is the original's formulation: three padded blocks embedded by `F.embedding`, `F.linear` and `F.layer_norm`, concatenated, and
gathered into packed order. Padding of the inputs, gather index and position ids are made before the clock starts; the output gradient is
ready; the gather goes straight to the real rows (it pays for no padded tail). `packed` is the same without padding: it embeds packed
rows and orders them by one gather, which no framework does by itself. Dropout draws from each side's own generator. With masks, a
sixth of the feature rows read a learned mask feature: rivals put it in by `torch.where` before they project, we project it as one more
row and pass `source`; the mask features are leaves too. The vocabulary's gradient (94 MB in fp32) is fresh memory on both sides; our
kernel asks the system for huge pages there (`madvise`) while the rivals' allocator does not, which saves us page faults; with
transparent huge pages set to `always` both sides get them.
"""

import pytest
import torch
import torch.nn.functional as F
from plain_ops import Nothing

from memofast.ops import FeatureRows, TextRows, embed

SAMPLES, HIDDEN, VOCABULARY, P, EPS = 32, 768, 30522, 0.1, 1e-12
WIDTHS = {"visual": 344, "speech": 768}
RANGES = {"text": (5, 30), "visual": (4, 64), "speech": (10, 64)}


def parameters(generator):
    def random(*shape):
        return (0.02 * torch.randn(*shape, generator=generator)).requires_grad_()

    def norm():
        return [torch.ones(HIDDEN, requires_grad=True), torch.zeros(HIDDEN, requires_grad=True)]

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


def offsets_of(lengths):
    return torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))).to(torch.int32)


def packed_order(lengths, starts):
    """For each packed row, its row among the concatenated blocks; `starts[name][b]` is where a sample's rows lie there."""
    rows = [
        starts[name][b] + torch.arange(int(lengths[name][b])) for b in range(len(lengths["text"])) for name in RANGES
    ]
    return torch.cat(rows)


def padded(packed, lengths):
    return torch.nn.utils.rnn.pad_sequence(packed.split(lengths.tolist()), batch_first=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("with_masks", [False, True], ids=["unmasked", "masked"])
def test_embed(side_by_side, dtype, with_masks):
    generator = torch.Generator().manual_seed(1)
    lengths = {
        name: torch.randint(low, high + 1, (SAMPLES,), generator=generator) for name, (low, high) in RANGES.items()
    }
    token_ids = torch.randint(999, VOCABULARY, (int(lengths["text"].sum()),), generator=generator)
    features = {
        name: torch.randn(int(lengths[name].sum()), width, generator=generator).to(dtype)
        for name, width in WIDTHS.items()
    }
    tables = parameters(generator)
    leaves = [leaf for group in tables.values() for leaf in group]
    masking = {}
    if with_masks:
        for name, width in WIDTHS.items():
            masked = torch.rand(int(lengths[name].sum()), generator=generator) < 1 / 6
            masking[name] = (masked, torch.randn(width, generator=generator).requires_grad_())
            leaves.append(masking[name][1])
    sources = {
        name: torch.where(masked, -1, torch.arange(masked.shape[0])).to(torch.int32)
        for name, (masked, _) in masking.items()
    }
    offsets = {name: offsets_of(n) for name, n in lengths.items()}
    joint = sum(offsets.values())
    grad = torch.randn(int(joint[-1]), HIDDEN, generator=generator).to(dtype)
    random = {"rng": torch.tensor([1, 2]), "sample_keys": torch.arange(SAMPLES)}

    positions = {name: torch.cat([torch.arange(int(n)) for n in own]) for name, own in lengths.items()}
    first, starts = 0, {}
    for name in RANGES:
        starts[name] = first + offsets[name].to(torch.int64)
        first += int(offsets[name][-1])
    packed_gather = packed_order(lengths, starts)

    longest = {name: int(own.max()) for name, own in lengths.items()}
    samples, first, starts = torch.arange(SAMPLES) * sum(longest.values()), 0, {}
    for name in RANGES:
        starts[name] = samples + first
        first += longest[name]
    padded_gather = packed_order(lengths, starts)
    padded_ids = padded(token_ids, lengths["text"])
    padded_features = {name: padded(rows, lengths[name]) for name, rows in features.items()}
    padded_positions = {name: torch.arange(n).expand(SAMPLES, n) for name, n in longest.items()}
    padded_masking = {name: (padded(masked, lengths[name]), mask) for name, (masked, mask) in masking.items()}
    short_ids = token_ids.to(torch.int32)

    def rows_of(name):
        weight, bias, *own = tables[name]
        projected = F.linear(features[name], weight.to(dtype), bias.to(dtype))
        mask = None
        if with_masks:
            mask = F.linear(masking[name][1].to(dtype), weight.to(dtype), bias.to(dtype))
        return FeatureRows(projected, sources.get(name), offsets[name], mask, *own)

    def ours():
        text = TextRows(short_ids, offsets["text"], *tables["text"])
        own = {name: rows_of(name) for name in WIDTHS}
        out = embed(text, tables["types"][0], joint, **own, p=P, eps=EPS, dtype=dtype, **random)
        torch.autograd.grad(out, leaves, grad)

    def rival(*blocks):
        return lambda: torch.autograd.grad(plain(*blocks, tables, dtype), leaves, grad)

    rivals = {
        "padded": rival(padded_ids, padded_features, padded_positions, padded_gather, padded_masking),
        "packed": rival(token_ids, features, positions, packed_gather, masking),
    }
    rows = {name: int(own.sum()) for name, own in lengths.items()}
    side_by_side(ours, rivals, rounds=15, target={"padded": 2.0}, **rows)


def test_call_of_embed(side_by_side):
    """One row of 16 channels in each modality, forward with gradients: all is overhead."""
    index, offsets = torch.zeros(1, dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)

    def leaf(*shape):
        return torch.zeros(shape, requires_grad=True)

    text = TextRows(index, offsets, leaf(2, 16), leaf(2, 16), leaf(16), leaf(16))
    visual, speech = (
        FeatureRows(leaf(1, 16), index, offsets, leaf(16), leaf(2, 16), *(leaf(16) for _ in range(4))) for _ in WIDTHS
    )
    types, joint = leaf(3, 16), torch.tensor([0, 3], dtype=torch.int32)
    random = {"rng": torch.tensor([1, 2]), "sample_keys": torch.tensor([3])}
    operands = (*text, types, joint, *visual, *speech, *random.values())
    side_by_side(
        lambda: embed(text, types, joint, visual=visual, speech=speech, p=P, **random),
        {"empty Function": lambda: Nothing.apply(6, *operands)},
    )
