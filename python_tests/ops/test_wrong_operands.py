"""Raw operators and public ones that are given what no kernel can read: a `ValueError` before any memory is read."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from memofast import _C, ops
from memofast.ops import FeatureRows, SpanPolicy, TextRows, TokenPolicy, library, philox, row_lists
from memofast.ops.span_mask import parameters_of as span_parameters
from memofast.ops.token_mask import parameters_of as token_parameters

RAW = torch.ops.memofast
INT, LONG, NAN = torch.int32, torch.int64, float("nan")
OFFSETS, KEYS, RNG = torch.tensor([0, 4, 9], dtype=INT), torch.tensor([11, -7]), torch.tensor([3, 4])
IDS, WORDS = torch.arange(9, dtype=INT), torch.tensor([-1, 0, 1, -1, -1, 0, 0, 1, -1], dtype=INT)
X, GAMMA = torch.randn(9, 16), torch.randn(16)
QKV, Q, KV = torch.randn(9, 3, 2, 8), torch.randn(5, 2, 8), torch.randn(9, 2, 2, 8)
QUERIES = torch.tensor([0, 2, 5], dtype=INT)
FACES, JOINT = torch.tensor([0, 3, 5], dtype=INT), torch.tensor([0, 7, 14], dtype=INT)
TABLE = torch.randn(6, 16)
GRID = {
    "queries": torch.randn(5, 11),
    "pixels": torch.randn(2, 6, 4),
    "shift": torch.randn(2, 6),
    "scale": torch.rand(2, 6),
}
PLACES = {"times": 1, "heights": 2, "widths": 3}
EMBED = [
    *(IDS, OFFSETS, torch.randn(30, 16), TABLE, GAMMA, GAMMA, None, None), torch.randn(3, 16), JOINT,
    *(torch.randn(5, 16), torch.tensor([0, -1, 2, 3, 4], dtype=INT), FACES, GAMMA, TABLE, *[GAMMA] * 4, None),
    *[None] * 10, RNG, KEYS,
]  # fmt: skip
SPAN, TOKEN = [*span_parameters(SpanPolicy(), 3, 5)], [*token_parameters(TokenPolicy(), 3, 5)]
ATTENTION = {"offsets": OFFSETS, "lengths": None, "rng": RNG, "sample_keys": KEYS, "site": 1, "p": 0.1, "scale": 0.3}
DROPOUT = {"rng": RNG, "sample_keys": KEYS, "offsets": OFFSETS, "site": 3, "p": 0.1}


def sound(backend="cpu"):
    """Every raw operator and what it takes, by name."""
    out, lse = RAW.attention(QKV, *ATTENTION.values(), backend)
    crossed, crossed_lse = RAW.cross_attention(Q, KV, QUERIES, *ATTENTION.values(), backend)
    normed, statistics = RAW.dropout_add_norm(X, X, GAMMA, GAMMA, GAMMA, *DROPOUT.values(), 1e-12, backend)
    embedded, known = RAW.embed(*EMBED, 14, 0.1, 1e-12, 1, torch.float32, backend)
    names = [argument.name for argument in RAW.embed.default._schema.arguments]
    embed = dict(zip(names, [*EMBED, 14, 0.1, 1e-12, 1, torch.float32], strict=False))
    batch = {"offsets": OFFSETS, "sample_keys": KEYS, "rng": RNG}
    cross = {"q": Q, "kv": KV, "query_offsets": QUERIES, **ATTENTION}
    norm = {"x": X, "residual": X, "gamma": GAMMA, "bias": GAMMA}
    grid = {**GRID, "rng": RNG, "sample_keys": KEYS, **PLACES, "site": 3, "p": 0.1}
    rows, mass, logs = RAW.separable_attention(*grid.values(), backend)
    gathered = {"rows": rows, "mass": mass, "lse": logs}
    tokens = {"token_ids": IDS, "word_ids": WORDS, **batch, "emotion": None, "selected": None, "capacity": 128}
    calls = {
        "span_mask": {**batch, "selected": None, "rows": 9, "capacity": 128, "parameters": SPAN},
        "token_mask": {**tokens, "parameters": TOKEN},
        "attention": {"qkv": QKV, **ATTENTION},
        "attention_backward": {"grad": out, "out": out, "lse": lse, "qkv": QKV, **ATTENTION},
        "cross_attention": cross,
        "cross_attention_backward": {"grad": crossed, "out": crossed, "lse": crossed_lse, **cross},
        "bias_gelu": {"x": X, "bias": GAMMA},
        "bias_gelu_backward": {"grad": X, "x": X, "bias": GAMMA},
        "dropout_add_norm": {"x": X, "residual": X, "gamma": GAMMA, "beta": GAMMA, "bias": GAMMA, **DROPOUT,
                             "eps": 1e-12},
        "dropout_add_norm_backward": {"grad": normed, **norm, "statistics": statistics, **DROPOUT},
        "separable_attention": grid,
        "separable_attention_backward": {**{f"grad_{name}": t for name, t in gathered.items()}, **gathered, **grid},
        "embed": embed,
        "embed_backward": {"grad": embedded, "statistics": known, **embed},
    }  # fmt: skip
    return {name: {**arguments, "backend": backend} for name, arguments in calls.items()}


@pytest.fixture(scope="module", params=["cpu", "reference"])
def calls(request):
    return sound(request.param)


def changed_tensors(tensor):
    """Another length, type, stride, number of dimensions, device, or no elements."""
    yield torch.cat([tensor, tensor])
    yield tensor[:-1].clone() if tensor.dim() == 1 else tensor[:, :-1].clone()
    yield tensor.to(torch.float64 if not tensor.is_floating_point() else LONG)
    yield tensor.repeat_interleave(2, -1)[..., ::2]
    yield tensor[None]
    yield tensor.new_zeros(())
    yield tensor[:0].clone()
    yield tensor.new_zeros(tensor.shape, device="meta")


OF_ANY_LENGTH = {"queries", "x", "qkv", "q", "kv", "text_token_ids", "text_word", "text_position", "visual_position"}


@pytest.mark.parametrize("name", list(sound()))
def test_each_tensor_is_checked(calls, name):
    arguments = calls[name]
    refused = 0
    for argument, value in arguments.items():
        if not isinstance(value, torch.Tensor):
            continue
        for number, other in enumerate(changed_tensors(value)):
            try:
                getattr(RAW, name)(**{**arguments, argument: other})
            except (ValueError, NotImplementedError):
                refused += 1
            else:  # number 7, without memory, has a tracer's answer; the reference of `embed` has no statistics
                fits = number == 7 or (number in (0, 6) and argument in OF_ANY_LENGTH) or not value.numel()
                assert fits, (argument, number)
    assert refused > 5


@pytest.mark.parametrize("name", list(sound()))
def test_each_number_is_checked(calls, name):
    for argument, value in calls[name].items():
        wrong = {"site": (-1, 2**32), "p": (NAN, -0.1, 1.0), "scale": (NAN, float("inf")), "eps": (NAN, -1e-9)}
        wrong |= {"rows": (-1, 2**31, 13), "capacity": (-1, 2**31), "backend": ("", "gpu")}
        wrong |= dict.fromkeys(PLACES, (0, -1, 2**32))
        if name == "separable_attention_backward":
            del wrong["scale"], wrong["rows"]  # which are tensors there
        if name == "separable_attention":
            del wrong["scale"]
        if name == "span_mask":
            wrong["rows"] = (-1, 2**31, 8)
        if name == "embed_backward":
            del wrong["eps"]  # which its kernel does not read
        for other in wrong.get(argument, ()):
            with pytest.raises(ValueError):
                getattr(RAW, name)(**{**calls[name], argument: other})
        if argument == "parameters":
            assert_policies_are_checked(name, calls[name], value)


def assert_policies_are_checked(name, arguments, numbers):
    span = [(0, 4), (0, -1), (1, -1), (1, 6), (2, 0), (2, 1001), (3, 0), (3, 32769)]
    token = [(0, 4), (1, 21), (2, 0), (3, -1), (4, 0), (6, -1), (7, -1), (7, 30522), (8, 999)]
    for place, other in [*(span if name == "span_mask" else token), (-1, -1), (-1, 2**32), (-2, -1)]:
        wrong = [*numbers]
        wrong[place] = other
        with pytest.raises(ValueError):
            getattr(RAW, name)(**{**arguments, "parameters": wrong})
    for wrong in (numbers[:-1], [*numbers, 0], []):
        with pytest.raises(ValueError, match="parameters are kind, numerator"):
            getattr(RAW, name)(**{**arguments, "parameters": wrong})


def test_a_raw_operator_names_the_argument():
    calls = sound()
    wrong = {**calls["attention_backward"], "lse": torch.zeros(0)}
    with pytest.raises(ValueError, match=r"attention_backward: lse must have shape \[9, 2\], got \[0\]"):
        RAW.attention_backward(**wrong)
    wrong = {**calls["dropout_add_norm_backward"], "statistics": torch.zeros(0, 2)}
    with pytest.raises(ValueError, match=r"statistics must have shape \[9, 2\], got \[0, 2\]"):
        RAW.dropout_add_norm_backward(**wrong)
    with pytest.raises(ValueError, match=r"a number \(of the policy"):
        RAW.span_mask(**{**calls["span_mask"], "parameters": [0, 1, 0, 3, 0, 0, 3, 3]})
    with pytest.raises(ValueError, match="needs emotion"):
        RAW.token_mask(**{**calls["token_mask"], "parameters": [2, *TOKEN[1:]]})


def test_the_extension_looks_at_what_it_writes():
    """Statuses of `memofast._C`, which the operators give what they made themselves."""
    short, empty = torch.empty(3, dtype=INT), torch.empty(0, dtype=INT)
    one = torch.empty(1, dtype=INT)
    refused = -7
    assert _C.bias_gelu(X, GAMMA, X[:3].clone(), False, 0) == refused
    assert _C.bias_gelu(X, GAMMA, torch.empty_like(X), True, 0) == refused  # not on a GPU
    assert _C.bias_gelu_backward(X, GAMMA, X, X.clone(), torch.empty(1, 15), GAMMA.clone(), False, 0) == refused
    assert _C.list_targets(IDS.clone(), False, short, empty, one) == refused
    assert _C.list_targets(IDS.long(), False, short, one, one) == refused
    assert _C.sample_words(RNG, 1, 2, KEYS, torch.empty(1, 4, dtype=LONG)) == refused
    assert _C.sample_words(RNG, -1, 2, KEYS, torch.empty(2, 4, dtype=LONG)) == -9
    assert _C.span_mask(OFFSETS, KEYS, RNG, torch.ones(2, dtype=torch.uint8), IDS.clone(), SPAN_TUPLE) == refused
    assert _C.span_mask(OFFSETS, KEYS, RNG, torch.ones(2, dtype=torch.bool), IDS.clone(), SPAN_TUPLE) > 0
    with pytest.raises(MemoryError):
        _C.BatchBuffer(2**64 - 1)


SPAN_TUPLE = span_parameters(SpanPolicy(), 3, 5)


def test_memory_that_is_not_aligned_is_refused():
    shifted = torch.frombuffer(bytearray(9 * 16 * 4 + 4), dtype=torch.float32, count=9 * 16, offset=1).view(9, 16)
    assert not _C.bias_gelu_fits(shifted, GAMMA, False) and _C.bias_gelu_fits(shifted.clone(), GAMMA, False)


TEXT, VISUAL = TextRows(*EMBED[:8]), FeatureRows(*EMBED[10:20])
PUBLIC = {
    "span_mask": (ops.span_mask, [OFFSETS, KEYS, RNG, SpanPolicy()], {"rows": 9, "site": 1}),
    "token_mask": (ops.token_mask, [IDS, WORDS, OFFSETS, KEYS, RNG, TokenPolicy()], {"site": 1}),
    "attention": (ops.attention, [QKV, OFFSETS], {"rng": RNG, "sample_keys": KEYS, "site": 1, "p": 0.1, "longest": 0}),
    "cross_attention": (ops.cross_attention, [Q, KV, QUERIES, OFFSETS], {"rng": RNG, "sample_keys": KEYS, "p": 0.1}),
    "bias_gelu": (ops.bias_gelu, [X, GAMMA], {}),
    "dropout_add_norm": (ops.dropout_add_norm, [X, X, GAMMA, GAMMA], {**DROPOUT, "eps": 1e-12}),
    "separable_attention": (ops.separable_attention, [*GRID.values(), (1, 2, 3)],
                            {"rng": RNG, "sample_keys": KEYS, "p": 0.1, "site": 1}),
    "embed": (ops.embed, [TEXT, EMBED[8], JOINT], {"rng": RNG, "sample_keys": KEYS, "p": 0.1, "eps": 1e-9, "site": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PUBLIC))
@pytest.mark.parametrize("wrong", [None, "text", [1, 2]])
def test_public_operators_refuse_what_is_no_tensor_or_number(name, wrong):
    function, tensors, options = PUBLIC[name]
    for place in range(len(tensors)):
        with pytest.raises(ValueError):
            function(*tensors[:place], wrong, *tensors[place + 1 :], **options)
    for option in options:
        with pytest.raises(ValueError):
            function(*tensors, **{**options, option: wrong})


def test_public_operators_refuse_counts_below_zero():
    function, tensors, options = PUBLIC["span_mask"]
    for wrong in ({"rows": -1}, {"rows": 9.0}, {"rows": 2**31}, {"capacity": -1}, {"site": -1}, {"purpose": -2}):
        with pytest.raises(ValueError, match=r"span_mask: (rows|capacity|a number)"):
            function(*tensors, **{**options, **wrong})
    with pytest.raises(ValueError, match="rows must be an integer from 0"):
        ops.embed(TEXT, EMBED[8], OFFSETS, rows=-1)
    with pytest.raises(ValueError, match="capacity"):
        ops.token_mask(*PUBLIC["token_mask"][1], site=1, capacity=-1)
    policies = ((TokenPolicy, {"mask_id": -1}), (TokenPolicy, {"random_low": NAN}), (SpanPolicy, {"length": NAN}))
    for kind, wrong in policies:
        with pytest.raises(ValueError):
            kind(**wrong)
    with pytest.raises(ValueError, match="site"):
        philox.sample_words(RNG, 1, -1, KEYS)
    with pytest.raises(ValueError, match="list_targets"):
        row_lists.listed(IDS.long(), 1, False, None)


DIFFERENTIABLE = ["attention", "cross_attention", "bias_gelu", "dropout_add_norm", "separable_attention", "embed"]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("by", ["functorch", "dual", "with gradients"])
def test_forward_mode_derivatives_are_refused(name, by):
    function, tensors, options = PUBLIC[name]
    given = {**options, "p": 0.0} if "p" in options else options

    def call(x):
        if name == "embed":
            return function(TEXT._replace(gamma=x), *tensors[1:], visual=VISUAL, **given)
        return function(x, *tensors[1:], **given)

    x = GAMMA if name == "embed" else tensors[0]
    with pytest.raises(RuntimeError, match=f"{name} has no forward-mode derivative.*{name}_reference"):
        if by == "functorch":
            torch.func.jvp(call, (x,), (torch.ones_like(x),))
        else:
            with torch.autograd.forward_ad.dual_level():
                held = x.clone().requires_grad_(by == "with gradients")
                call(torch.autograd.forward_ad.make_dual(held, torch.ones_like(x)))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_without_a_tangent_a_dual_level_changes_nothing(name):
    function, tensors, options = PUBLIC[name]
    options = {**options, "visual": VISUAL} if name == "embed" else options
    expected = function(*tensors, **options)
    with torch.autograd.forward_ad.dual_level():
        again = function(*tensors, **options)
    assert all(map(torch.equal, tree_leaves(again), tree_leaves(expected)))
    assert library.calls_at_once()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_derivatives_are_refused_by_name(name):
    function, tensors, options = PUBLIC[name]
    x = (GAMMA if name == "embed" else tensors[0]).clone().requires_grad_()
    first = TEXT._replace(gamma=x) if name == "embed" else x
    options = {**options, "visual": VISUAL} if name == "embed" else options
    out, *_ = tree_leaves(function(first, *tensors[1:], **options))
    with pytest.raises(RuntimeError, match=f"{name}: its gradient has no derivative.*ops.{name}_reference"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


def test_empty_batches():
    """No sample, no row, no target; under the sanitizers too."""
    none, nobody = torch.zeros(1, dtype=INT), KEYS[:0]
    found = ops.span_mask(none, nobody, RNG, SpanPolicy(), rows=0, site=1)
    assert [len(part) for part in found] == [0, 0, 1, 1] and not found.count
    found = ops.span_mask(OFFSETS * 0, KEYS, RNG, SpanPolicy("mixed", dice=True), rows=3, site=1)
    assert found.source.tolist() == [0, 1, 2] and not found.count
    masked = ops.token_mask(IDS[:0], WORDS[:0], none, nobody, RNG, TokenPolicy(), site=1)
    assert len(masked.token_ids) == len(masked.indices) == 0
    masked = ops.token_mask(
        IDS, WORDS * 0 - 1, OFFSETS, KEYS, RNG, TokenPolicy("whole_word", at_least_one=True), site=1
    )
    assert masked.token_ids.tolist() == IDS.tolist() and not masked.count
    x = torch.zeros(0, 16, requires_grad=True)
    for rows in (ops.bias_gelu(x, GAMMA), ops.dropout_add_norm(x, x, GAMMA, GAMMA, offsets=none)):
        (grad,) = torch.autograd.grad(rows.sum(), x)
        assert grad.shape == rows.shape == (0, 16)
    qkv = torch.zeros(0, 3, 2, 8, requires_grad=True)
    for offsets in (none, OFFSETS * 0):
        (grad,) = torch.autograd.grad(ops.attention(qkv, offsets).sum(), qkv)
        assert grad.shape == (0, 3, 2, 8)
    kv = torch.ones(9, 2, 2, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.cross_attention(Q[:0], kv, OFFSETS * 0, OFFSETS).sum(), kv)
    assert not grad.any()
    word = torch.randn(30, 16, requires_grad=True)
    text = TextRows(IDS[:0], none, word, TABLE, GAMMA, GAMMA)
    visual = FeatureRows(torch.zeros(0, 16), IDS[:0], none, GAMMA, TABLE, GAMMA, GAMMA, GAMMA, GAMMA)
    for own in (visual, visual._replace(source=None, mask=None), None):
        (grad,) = torch.autograd.grad(ops.embed(text, EMBED[8], none, visual=own).sum(), word)
        assert grad.shape == (30, 16) and not grad.any()
