"""Operands of `embed` for tests, and what results are held to."""

import pytest
import torch

from memofast.ops import FeatureRows, TextRows, philox
from memofast.ops.embed import BACKENDS
from memofast.ops.embed_operands import Operands

SITE = philox.site(0, philox.Place.EMBEDDING)
ODD = [(1, 15, 16), (17, 33, 0), (63, 0, 0), (0, 0, 0), (5, 100, 63), (33, 1, 129), (1, 0, 160), (30, 64, 64)]
ONE_LONG = [(100, 129, 160)]
FAST = [backend for backend in BACKENDS if backend == "cpu"]
every_backend = pytest.mark.parametrize("backend", ["reference", *FAST])
GRADIENTS = (
    "text.word",
    "text.position",
    "text.gamma",
    "text.beta",
    "text.added",
    "types",
    *tuple(
        f"{name}.{field}"
        for name in ("visual", "speech")
        for field in ("projected", "mask", "position", "feature_gamma", "feature_beta", "gamma", "beta")
    ),
)


def offsets_of(lengths):
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(torch.int32)


def some_sources(lengths, generator):
    """A third of the rows masked, some reading another row of their sample, the rest themselves."""
    start = 0
    parts = []
    for n in lengths:
        own = torch.arange(n)
        other = torch.randint(max(n, 1), (n,), generator=generator)
        choice = torch.rand(n, generator=generator)
        rows = start + torch.where(choice < 0.2, other, own)
        parts.append(torch.where(choice > 0.7, -1, rows))
        start += n
    return torch.cat([torch.zeros(0, dtype=torch.int64), *parts]).to(torch.int32)


def operands(
    lengths=ODD, width=40, dtype=torch.float32, table=torch.float32, sources=True, seed=0, spare=0, device="cpu"
):
    """Everything `embed` takes for samples of these (text, visual, speech) lengths; `spare` unused rows of each."""
    generator = torch.Generator().manual_seed(seed)
    columns = list(zip(*lengths, strict=True)) if lengths else [(), (), ()]

    def random(*shape, kind=table, shift=0.0):
        return (shift + torch.randn(*shape, generator=generator)).to(kind)

    def norm():
        return random(width, shift=1.0), random(width)

    rows = sum(columns[0]) + spare
    ids = torch.randint(60, (rows,), generator=generator, dtype=torch.int32)
    ids[sum(columns[0]) :] = 10**9
    text = TextRows(ids, offsets_of(columns[0]), random(60, width), random(170, width), *norm())

    def feature(own):
        source = some_sources(own, generator) if sources else None
        if sources:
            source = torch.cat((source, torch.arange(sum(own), sum(own) + spare, dtype=torch.int32)))
        projected = random(sum(own) + spare, width, kind=dtype)
        projected[sum(own) :] = float("nan")
        mask = random(width, kind=dtype) if sources else None
        return FeatureRows(projected, source, offsets_of(own), mask, random(170, width), *norm(), *norm())

    visual, speech = feature(columns[1]), feature(columns[2])
    keys = torch.randint(-(2**63), 2**63 - 1, (len(lengths),), generator=generator)
    joint = offsets_of([sum(sample) for sample in lengths])
    given = {"text": text, "types": random(3, width), "offsets": joint, "visual": visual, "speech": speech}
    given |= {"rng": torch.tensor([17, 40]), "sample_keys": keys}
    return move(given, lambda tensor: tensor.to(device)) | {"site": SITE, "dtype": dtype}


def further(given, positions=("text", "visual", "speech"), added=True, most=23, seed=1):
    """The same operands, whose rows of these modalities name positions below `most`, many of them alike; and with rows
    added to text."""
    generator = torch.Generator().manual_seed(seed)
    given = dict(given)
    for name in ("text", "visual", "speech"):
        own = given[name]
        if name in positions and own is not None:
            named = torch.randint(most, (len(own[0]),), generator=generator, dtype=torch.int32).to(own[0].device)
            named[int(own.offsets[-1]) :] = 10**9
            given[name] = own._replace(positions=named)
    text = given["text"]
    if added:
        rows = torch.randn(len(text.token_ids), text.word.shape[1], generator=generator).to(text.position)
        rows[int(text.offsets[-1]) :] = float("nan")
        given["text"] = given["text"]._replace(added=rows)
    return given


def move(given, change):
    def apply(value):
        if isinstance(value, tuple):
            return type(value)(*(apply(field) for field in value))
        return change(value) if isinstance(value, torch.Tensor) else value

    return {name: apply(value) for name, value in given.items()}


def cast(given, dtype):
    """The same operands with every floating tensor in `dtype`."""
    return move(given, lambda t: t.to(dtype) if t.is_floating_point() else t) | {"dtype": dtype}


def run(function, given, seed=5, **options):
    """Output and gradients by name."""
    leaves = {}

    def leaf(tensor):
        return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor

    given = move(given, leaf)
    for name in GRADIENTS:
        owner, _, field = name.partition(".")
        value = given.get(owner)
        value = getattr(value, field) if field and value is not None else value
        if value is not None:
            leaves[name] = value
    out = function(**given, **options)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out)
    if not out.shape[0]:
        return {"out": out.detach()} | dict.fromkeys(leaves)
    return {"out": out.detach()} | dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), grad), strict=True))


def assert_equal(one, other):
    for name in one:
        assert torch.equal(one[name], other[name]), name


def flat(given, p, backend, rows):
    """Arguments of the raw op."""
    names = ("text", "types", "offsets", "visual", "speech", "rng", "sample_keys")
    tensors = Operands(*(given[name] for name in names)).flat()
    return (*tensors, rows, p, 1e-12, SITE, given["dtype"], backend)
