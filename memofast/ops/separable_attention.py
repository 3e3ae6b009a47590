"""Attention of folded queries over the rows of a grid of pixels, whose positions are tables of one axis each.

No row is made: a row is [pixels | shift | one-hot time | one-hot height | one-hot width], times its scale. Scores are a
product of pixels and three table entries, and what is gathered is a sum of pixels and, by axis, of the weights alone.
Source: the first cross-attention of Perceiver IO (Jaegle et al., 2021), with LayerNorm and projections folded into its
queries.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library, philox

BACKENDS = ("reference", "cpu", "cuda")
_MOST = 1 << 16  # latents (positions of dropout), and places of an axis
_CUDA_PIXELS = 48  # of a row that a thread of a GPU holds in registers


class Gathered(NamedTuple):
    """What latents gathered of each sample's rows.

    rows: [B, L, P + 1 + T + H + W], sum over rows of probability times row; mass: [B, L], sum of the probabilities,
    which is 1 but for dropout; lse: [B, L], log of the sum of exponentials of the scores. All fp32 (fp64 of fp64).
    """

    rows: Tensor
    mass: Tensor
    lse: Tensor


def grid_rows(pixels: Tensor, shift: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The rows of a grid before their scale, as the operator never makes them: [B, N, P + 1 + T + H + W]."""
    wide = torch.promote_types(pixels.dtype, torch.float32)
    places = torch.cartesian_prod(*(torch.arange(size, device=pixels.device) for size in grid))
    axes = torch.cat([F.one_hot(place, size) for place, size in zip(places.unbind(1), grid, strict=True)], 1)
    axes = axes.to(wide).expand(len(pixels), *axes.shape)
    return torch.cat([pixels.to(wide), shift[..., None], axes], -1)


def keep_mask(rng: Tensor, site: int, sample_keys: Tensor, latents: int, rows: int, p: float, first: int = 0) -> Tensor:
    """Which probabilities dropout keeps, of rows from `first` on: [B, L, rows] bool.

    Layout: that of attention with one head: position = latent, block = row // 8, lane = row % 8.
    """
    begin = first // 8
    blocks = torch.arange(begin, (first + rows + 7) // 8, device=rng.device)
    positions = torch.arange(latents, device=rng.device)
    key = philox.stream_key(rng, philox.Purpose.ATTENTION_DROPOUT, site)
    words = philox.draw(key, sample_keys[:, None, None], positions[:, None], blocks)
    lanes = philox.lanes16(words).flatten(2)[..., first - 8 * begin :][..., :rows]
    return lanes >= philox.drop_threshold(p)


def separable_attention_reference(
    queries: Tensor,
    pixels: Tensor,
    shift: Tensor,
    scale: Tensor,
    grid: tuple[int, int, int],
    *,
    p: float = 0.0,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    site: int = 0,
) -> Gathered:
    """The specification of `separable_attention`; differentiable (pixels too), any floating type, at least fp32
    inside."""
    rows = grid_rows(pixels, shift, grid) * scale[..., None]
    scores = queries.to(rows.dtype) @ rows.mT
    lse = scores.logsumexp(-1)
    used = (scores - lse[..., None]).exp() * _factors(scores, rng, sample_keys, site, p)
    return Gathered(used @ rows, used.sum(-1), lse)


def _factors(scores: Tensor, rng, sample_keys, site, p) -> Tensor | float:
    """What dropout multiplies each probability with: 0, or the inverse of the share kept."""
    if philox.drop_threshold(p) == 0:
        return 1.0
    return keep_mask(rng, site, sample_keys, *scores.shape[1:], p).to(scores.dtype) * philox.keep_scale(p)


def _reference_backward(grads, outputs, queries, pixels, shift, scale, rng, sample_keys, grid, site, p):
    (grad_rows, grad_mass, grad_lse), (gathered, mass, lse) = grads, outputs
    unscaled = grid_rows(pixels, shift, grid)
    rows = unscaled * scale[..., None]
    scores = queries.to(rows.dtype) @ rows.mT
    probability = (scores - lse[..., None]).exp()
    used = probability * _factors(scores, rng, sample_keys, site, p)
    delta = (grad_rows * gathered).sum(-1) + grad_mass * mass - grad_lse
    grad_scores = used * (grad_rows @ rows.mT + grad_mass[..., None]) - probability * delta[..., None]
    of_rows = grad_scores.mT @ queries.to(rows.dtype) + used.mT @ grad_rows
    grad_queries = (grad_scores @ rows).sum(0).to(queries.dtype)
    return grad_queries, of_rows[..., pixels.shape[2]] * scale, (of_rows * unscaled).sum(-1)


def _numbers(pixels: Tensor, site: int, p: float, backend: str) -> tuple:
    return site, philox.drop_threshold(p), philox.keep_scale(p), backend == "cuda", library.stream(pixels)


def _workspace(tensors: tuple, grid: tuple, backward: bool, backend: str) -> Tensor:
    floats = _C.separable_attention_workspace(tensors, grid, backward, backend == "cuda")
    return torch.empty(floats, dtype=torch.float32, device=tensors[1].device)


def _forward(queries, pixels, shift, scale, rng, sample_keys, times, heights, widths, site, p, backend):
    tensors, grid = (queries, pixels, shift, scale, rng, sample_keys), (times, heights, widths)
    if backend == "reference":
        options = {"p": p, "rng": rng, "sample_keys": sample_keys, "site": site}
        return tuple(separable_attention_reference(*tensors[:4], grid, **options))
    outputs = _outputs(queries, pixels)
    room = _workspace(tensors, grid, False, backend)
    status = _C.separable_attention(tensors, grid, *outputs, room, *_numbers(pixels, site, p, backend))
    faults.check_status("separable_attention", status, tensors)
    return outputs


def _backward(
    grad_rows, grad_mass, grad_lse, rows, mass, lse, queries, pixels, shift, scale, rng, sample_keys, times, heights,
    widths, site, p, backend,
):  # fmt: skip
    tensors, grid = (queries, pixels, shift, scale, rng, sample_keys), (times, heights, widths)
    grads = (grad_rows, grad_mass, grad_lse)
    if backend == "reference":
        return _reference_backward(grads, (rows, mass, lse), *tensors, grid, site, p)
    grad_queries = torch.empty_like(queries)
    of_rows = torch.empty((2, *shift.shape), dtype=torch.float32, device=shift.device)
    results = (grad_queries, of_rows, _workspace(tensors, grid, True, backend))
    numbers = _numbers(pixels, site, p, backend)
    status = _C.separable_attention_backward(tensors, grid, grads, (rows, mass, lse), *results, *numbers)
    faults.check_status("separable_attention_backward", status, tensors)
    return grad_queries, of_rows[0].clone(), of_rows[1].clone()


def _outputs(queries, pixels, *_):
    wide = torch.promote_types(pixels.dtype, torch.float32)
    shape = (pixels.shape[0], queries.shape[0])
    return (
        torch.empty((*shape, queries.shape[1]), dtype=wide, device=pixels.device),
        torch.empty(shape, dtype=wide, device=pixels.device),
        torch.empty(shape, dtype=wide, device=pixels.device),
    )


def _fake_backward(grad_rows, grad_mass, grad_lse, rows, mass, lse, queries, pixels, shift, scale, *_):
    return torch.empty_like(queries), torch.empty_like(shift), torch.empty_like(scale)


def _check(queries, pixels, shift, scale, rng, sample_keys, times, heights, widths, site, p, backend) -> None:
    name, sizes = "separable_attention", (times, heights, widths)
    library.require_tensor(name, "pixels", pixels)
    library.check_tensor(
        name, "pixels", pixels, shape=(None, None, None), dtype=library.row_types(pixels, backend == "reference")
    )
    for size in sizes:
        if not isinstance(size, torch.SymInt) and not (type(size) is int and 1 <= size <= _MOST):
            raise ValueError(f"{name}: grid must be three integers from 1 to {_MOST}, got {sizes}")
    device, rows = pixels.device, times * heights * widths
    most = _CUDA_PIXELS if backend == "cuda" else _MOST
    if not 1 <= pixels.shape[2] <= most:
        raise ValueError(f"{name}: pixels must be of 1 to {most} numbers a row, got {list(pixels.shape)}")
    wide = torch.float64 if pixels.dtype is torch.float64 else torch.float32
    library.check_tensor(name, "pixels", pixels, shape=(None, rows, None))
    library.require_tensor(name, "queries", queries)
    columns = pixels.shape[2] + 1 + sum(sizes)
    library.check_tensor(name, "queries", queries, shape=(None, columns), dtype=wide, device=device)
    if not 1 <= queries.shape[0] <= _MOST:
        raise ValueError(f"{name}: queries must be of 1 to {_MOST} latents, got {list(queries.shape)}")
    for argument, tensor in (("shift", shift), ("scale", scale)):
        library.check_tensor(name, argument, tensor, shape=tuple(pixels.shape[:2]), dtype=wide, device=device)
    library.check_site(name, site)
    library.refuse_tangents(name, queries, pixels, shift, scale)
    philox.drop_threshold(p)
    if p > 0:
        if rng is None or sample_keys is None:
            raise ValueError(f"{name}: dropout (p > 0) needs rng and sample_keys")
        library.check_tensor(name, "rng", rng, shape=(2,), dtype=torch.int64, device=device)
        library.check_tensor(
            name, "sample_keys", sample_keys, shape=(pixels.shape[0],), dtype=torch.int64, device=device
        )


def _check_backward(grad_rows, grad_mass, grad_lse, rows, mass, lse, queries, pixels, *rest) -> None:
    name = "separable_attention_backward"
    _check(queries, pixels, *rest)
    wide, shape = torch.promote_types(pixels.dtype, torch.float32), (pixels.shape[0], queries.shape[0])
    for argument, tensor, sizes in (
        ("grad_rows", grad_rows, (*shape, queries.shape[1])),
        ("grad_mass", grad_mass, shape),
        ("grad_lse", grad_lse, shape),
        ("rows", rows, (*shape, queries.shape[1])),
        ("mass", mass, shape),
        ("lse", lse, shape),
    ):
        library.check_tensor(name, argument, tensor, shape=sizes, dtype=wide, device=pixels.device)


_OPERANDS = (
    "Tensor queries, Tensor pixels, Tensor shift, Tensor scale, Tensor? rng, Tensor? sample_keys, int times, "
    "int heights, int widths, int site, float p, str backend"
)
_separable_attention = library.define(
    f"separable_attention({_OPERANDS}) -> (Tensor, Tensor, Tensor)", _forward, _outputs, BACKENDS, _check
)
_separable_attention_backward = library.define(
    "separable_attention_backward(Tensor grad_rows, Tensor grad_mass, Tensor grad_lse, Tensor rows, Tensor mass, "
    f"Tensor lse, {_OPERANDS}) -> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
    BACKENDS,
    _check_backward,
)


class _SeparableAttention(torch.autograd.Function):
    """Keeps its operands and results, two numbers a row and no score: backward computes scores anew."""

    @staticmethod
    def forward(ctx, options, queries, pixels, shift, scale, *random):
        outputs = _separable_attention(queries, pixels, shift, scale, *random, *options)
        ctx.save_for_backward(*outputs, queries, pixels, shift, scale, *random)
        ctx.options = options
        return outputs

    @staticmethod
    def backward(ctx, *grads):
        saved = ctx.saved_tensors
        grads = [grad.contiguous() for grad in grads]
        grad_queries, grad_shift, grad_scale = _separable_attention_backward(*grads, *saved, *ctx.options)
        return None, grad_queries, None, grad_shift, grad_scale, None, None


def separable_attention(
    queries: Tensor,
    pixels: Tensor,
    shift: Tensor,
    scale: Tensor,
    grid: tuple[int, int, int],
    *,
    p: float = 0.0,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    site: int = 0,
    backend: str = "auto",
) -> Gathered:
    """What each of L latents gathers of the N = T H W rows of each sample, by softmax over the sample's rows.

    Row n = (t, h, w) is x_n = scale_n [pixels_n | shift_n | e_t | e_h | e_w], e a one-hot row of each axis; the score
    of a latent is its query times x_n. Memory is for L x (P + T + H + W) numbers a sample, none for L x N.

    Args:
        queries: [L, P + 1 + T + H + W] fp32 (fp64 with fp64 pixels): what latents ask of pixels, shift and the places
            of each axis.
        pixels: [B, N, P] fp32 or bf16 (fp16 on GPUs; fp64 with backend reference), rows by time, height, width; they
            are data and get no gradient. At most 48 a row with backend cuda.
        shift, scale: [B, N] fp32 (fp64 with fp64 pixels).
        grid: T, H and W.
        p: dropout probability of the softmax's probabilities, see `keep_mask`; what is kept is scaled.
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        backend: auto, reference, cpu or cuda.
    Raises: ValueError for a wrong shape, type, device or stride, and for pixels that require a gradient.
    Notes: arithmetic in fp32; sums over rows are added line by line of the grid and gradients of rows by blocks of 64
    latents, in order, so that two runs are bitwise equal for any number of threads.
    """
    library.require_tensor("separable_attention", "pixels", pixels)
    if torch.is_grad_enabled() and pixels.requires_grad:
        raise ValueError(
            "separable_attention: pixels get no gradient; detach them, or call separable_attention_reference"
        )
    if not isinstance(grid, tuple | list) or len(grid) != 3:
        raise ValueError(f"separable_attention: grid must be three integers from 1 to {_MOST}, got {grid!r}")
    p = library.as_number("separable_attention", "p", p)
    uncovered = ("cuda",) if pixels.dim() == 3 and pixels.shape[2] > _CUDA_PIXELS else ()
    automatic = backends.automatic("separable_attention", pixels, uncovered)
    backend = library.resolve("separable_attention", backend, automatic, BACKENDS)
    if backend != automatic:
        library.require_device("separable_attention", backend, pixels)
    tensors = (queries, pixels, shift, scale, rng, sample_keys)
    options = (*grid, site, p, backend)
    _check(*tensors, *options)
    if torch.is_grad_enabled() and (queries.requires_grad or shift.requires_grad or scale.requires_grad):
        return Gathered(*_SeparableAttention.apply(options, *tensors))
    return Gathered(*_separable_attention(*tensors, *options))
