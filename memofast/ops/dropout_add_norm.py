"""LayerNorm(residual + dropout(x + bias)): the end of both halves of a post-norm transformer layer, in one pass."""

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library, philox

BACKENDS = ("reference", "cpu", "cuda")


def dropout_add_norm_reference(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    bias: Tensor | None = None,
    p: float = 0.0,
    eps: float = 1e-12,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    offsets: Tensor | None = None,
    site: int = 0,
) -> Tensor:
    """The specification of `dropout_add_norm`; differentiable, any floating type, at least fp32 inside."""
    inside = _inside(offsets, x.shape[0], x.device)
    factors = _factors(x, rng, sample_keys, offsets, site, p)
    z = _summed(x, residual, bias, inside, factors)
    out = torch.nn.functional.layer_norm(z, z.shape[1:], gamma.to(z.dtype), beta.to(z.dtype), eps)
    return out.masked_fill(~inside, 0).to(x.dtype)


def _inside(offsets: Tensor | None, rows: int, device: torch.device) -> Tensor:
    """Which rows belong to a sample: [rows, 1] bool."""
    if offsets is None:
        return torch.ones(rows, 1, dtype=torch.bool, device=device)
    bounds = offsets.to(torch.int64)
    if bounds[0] != 0 or bounds[-1] > rows or (bounds[1:] < bounds[:-1]).any():
        faults.check_status("dropout_add_norm", -2)
    return (torch.arange(rows, device=device) < bounds[-1])[:, None]


def _factors(x, rng, sample_keys, offsets, site, p) -> Tensor | float:
    """What dropout multiplies each element with: 0, or the inverse of the share kept."""
    if philox.drop_threshold(p) == 0:
        return 1.0
    return philox.hidden_keep_mask(rng, site, sample_keys, offsets, *x.shape, p) * philox.keep_scale(p)


def _summed(x, residual, bias, inside, factors) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    x = x.masked_fill(~inside, 0).to(wide)
    x = x if bias is None else x + bias.to(wide)
    return residual.masked_fill(~inside, 0).to(wide) + x * factors


def _reference_forward(
    x, residual, gamma, beta, bias, rng, sample_keys, offsets, site, p, eps
) -> tuple[Tensor, Tensor]:
    options = {"p": p, "eps": eps, "rng": rng, "sample_keys": sample_keys, "offsets": offsets, "site": site}
    out = dropout_add_norm_reference(x, residual, gamma, beta, bias=bias, **options)
    inside = _inside(offsets, x.shape[0], x.device)
    z = _summed(x, residual, bias, inside, _factors(x, rng, sample_keys, offsets, site, p))
    mean = z.mean(1, keepdim=True)
    rstd = ((z - mean).square().mean(1, keepdim=True) + eps).rsqrt()
    return out, torch.cat((mean, rstd), 1)


def _reference_backward(grad, x, residual, gamma, bias, statistics, rng, sample_keys, offsets, site, p):
    inside = _inside(offsets, x.shape[0], x.device)
    factors = _factors(x, rng, sample_keys, offsets, site, p)
    z = _summed(x, residual, bias, inside, factors)
    mean, rstd = statistics.to(z.dtype).split(1, 1)
    normal = (z - mean) * rstd
    grad = grad.masked_fill(~inside, 0).to(z.dtype)
    scaled = grad * gamma
    grad_z = scaled - scaled.mean(1, keepdim=True) - normal * (scaled * normal).mean(1, keepdim=True)
    grad_z = (grad_z * rstd).masked_fill_(~inside, 0)
    grad_x = grad_z * factors
    sums = [(grad * normal).sum(0), grad.sum(0), *([] if bias is None else [grad_x.sum(0)])]
    return (grad_x if p > 0 else grad_x[:0]).to(x.dtype), grad_z.to(x.dtype), torch.stack(sums)


def _numbers(x: Tensor, site: int, p: float, *eps: float, backend: str) -> tuple:
    return site, philox.drop_threshold(p), philox.keep_scale(p), *eps, backend == "cuda", library.stream(x)


def _forward(x, residual, gamma, beta, bias, rng, sample_keys, offsets, site, p, eps, backend):
    if backend == "reference":
        return _reference_forward(x, residual, gamma, beta, bias, rng, sample_keys, offsets, site, p, eps)
    out, statistics = library.output_like(x), torch.empty((x.shape[0], 2), dtype=torch.float32, device=x.device)
    tensors = (x, residual, gamma, beta, bias, rng, sample_keys, offsets)
    status = _C.dropout_add_norm(tensors, out, statistics, *_numbers(x, site, p, eps, backend=backend))
    faults.check_status("dropout_add_norm", status, tensors)
    return out, statistics


def _backward(grad, x, residual, gamma, bias, statistics, rng, sample_keys, offsets, site, p, backend):
    if backend == "reference":
        return _reference_backward(grad, x, residual, gamma, bias, statistics, rng, sample_keys, offsets, site, p)
    grad_residual = library.output_like(x)
    grad_x = library.output_like(x) if p > 0 else x.new_empty(0, x.shape[1])
    sums = torch.empty((2 if bias is None else 3, x.shape[1]), dtype=torch.float32, device=x.device)
    partials = torch.empty((-(-x.shape[0] // 64), *sums.shape), dtype=torch.float32, device=x.device)
    tensors = (x, residual, gamma, None, bias, rng, sample_keys, offsets)
    results = (grad_x if p > 0 else None, grad_residual, partials, sums)
    status = _C.dropout_add_norm_backward(tensors, grad, statistics, *results, *_numbers(x, site, p, backend=backend))
    faults.check_status("dropout_add_norm_backward", status, tensors)
    return grad_x, grad_residual, sums


def _fake_forward(x, *_):
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.empty_like(x), x.new_empty((x.shape[0], 2), dtype=wide)


def _fake_backward(grad, x, residual, gamma, bias, statistics, rng, sample_keys, offsets, site, p, backend):
    sums = x.new_empty((2 if bias is None else 3, x.shape[1]), dtype=statistics.dtype)
    return torch.empty_like(x) if p > 0 else x.new_empty(0, x.shape[1]), torch.empty_like(x), sums


def _check(x, residual, gamma, beta, bias, rng, sample_keys, offsets, site, p, eps, backend) -> None:
    name = "dropout_add_norm"
    exact = backend == "reference"
    library.require_tensor(name, "x", x)
    library.check_tensor(name, "x", x, shape=(None, None), dtype=library.row_types(x, exact))
    if x.shape[1] == 0:
        raise ValueError(f"{name}: x must have at least one channel, got {list(x.shape)}")
    device, width = x.device, (x.shape[1],)
    library.check_tensor(name, "residual", residual, shape=tuple(x.shape), dtype=x.dtype, device=device)
    statistics = torch.float64 if x.dtype is torch.float64 else torch.float32
    library.check_tensor(name, "gamma", gamma, shape=width, dtype=statistics, device=device)
    library.check_tensor(name, "beta", beta, shape=width, dtype=statistics, device=device)
    if bias is not None:
        types = (statistics, x.dtype)
        types = bias.dtype if isinstance(bias, Tensor) and bias.dtype in types else types
        library.check_tensor(name, "bias", bias, shape=width, dtype=types, device=device)
    if offsets is not None:
        library.check_tensor(name, "offsets", offsets, shape=(None,), dtype=torch.int32, device=device)
        if not offsets.shape[0]:
            raise ValueError(f"{name}: offsets must have shape [B + 1], got [0]")
    library.check_number(name, "eps", eps, 0.0)
    library.check_site(name, site)
    library.refuse_tangents(name, x, residual, gamma, beta, bias)
    philox.drop_threshold(p)
    if p > 0:
        if rng is None or sample_keys is None or offsets is None:
            raise ValueError(f"{name}: dropout (p > 0) needs rng, sample_keys and offsets")
        library.check_tensor(name, "rng", rng, shape=(2,), dtype=torch.int64, device=device)
        samples = (offsets.shape[0] - 1,)
        library.check_tensor(name, "sample_keys", sample_keys, shape=samples, dtype=torch.int64, device=device)


def _check_backward(grad, x, residual, gamma, bias, statistics, rng, sample_keys, offsets, site, p, backend) -> None:
    name = "dropout_add_norm_backward"
    _check(x, residual, gamma, gamma, bias, rng, sample_keys, offsets, site, p, 0.0, backend)
    library.check_tensor(name, "grad", grad, shape=tuple(x.shape), dtype=x.dtype, device=x.device)
    wide = torch.promote_types(x.dtype, torch.float32)
    library.check_tensor(name, "statistics", statistics, shape=(x.shape[0], 2), dtype=wide, device=x.device)


_RANDOM = "Tensor? rng, Tensor? sample_keys, Tensor? offsets, int site, float p"
_dropout_add_norm = library.define(
    "dropout_add_norm(Tensor x, Tensor residual, Tensor gamma, Tensor beta, Tensor? bias, "
    f"{_RANDOM}, float eps, str backend) -> (Tensor, Tensor)",
    _forward,
    _fake_forward,
    BACKENDS,
    _check,
)
_dropout_add_norm_backward = library.define(
    "dropout_add_norm_backward(Tensor grad, Tensor x, Tensor residual, Tensor gamma, Tensor? bias, Tensor statistics, "
    f"{_RANDOM}, str backend) -> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
    BACKENDS,
    _check_backward,
)


class _DropoutAddNorm(torch.autograd.Function):
    """Keeps x, residual and two numbers per row: as little traffic as keeping the sum, and nothing is rounded twice.
    `at_once`: see `library.calls_at_once`."""

    @staticmethod
    def forward(ctx, at_once, options, x, residual, gamma, beta, bias, *random):
        run = _forward if at_once else _dropout_add_norm
        out, statistics = run(x, residual, gamma, beta, bias, *random, *options)
        ctx.save_for_backward(x, residual, gamma, bias, statistics, *random)
        ctx.options = at_once, options
        return out

    @staticmethod
    def backward(ctx, grad):
        at_once, (site, p, _, backend) = ctx.options
        saved = ctx.saved_tensors  # each look unpacks them anew
        run = _backward if at_once and library.records_nothing() else _dropout_add_norm_backward
        grad_x, grad_residual, sums = run(grad.contiguous(), *saved, site, p, backend)
        grad_gamma, grad_beta, *grad_bias = sums.unbind()
        grad_bias = grad_bias[0].to(saved[3].dtype) if grad_bias else None
        grad_x = grad_x if p > 0 else grad_residual
        return None, None, grad_x, grad_residual, grad_gamma, grad_beta, grad_bias, None, None, None


def dropout_add_norm(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    bias: Tensor | None = None,
    p: float = 0.0,
    eps: float = 1e-12,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    offsets: Tensor | None = None,
    site: int = 0,
    backend: str = "auto",
) -> Tensor:
    """LayerNorm(residual + dropout(x + bias)) over the channels of every row.

    Args:
        x, residual: [N, C] fp32 or bf16 (fp16 on GPUs; fp64 with backend reference), of one type.
        gamma, beta: [C] fp32, scale and shift of the norm; bias: [C] fp32 or the type of x, or None.
        p: dropout probability; what is kept is scaled. Which elements are kept: `philox.hidden_keep_mask`.
        eps: added to the variance (BERT: 1e-12).
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        offsets: [B+1] int32, first row of every sample; needed where p > 0. None: all rows count.
        backend: auto, reference, cpu or cuda.
    Returns: [N, C] of x's type; zero in rows past offsets[-1], as are the gradients.
    Raises: ValueError for a wrong shape, type, device or stride, or offsets out of range.
    Notes: arithmetic in fp32, rounded once; sums over rows are partials of 64 rows added in order, so that two runs are
    bitwise equal for any number of threads.
    """
    if not isinstance(x, Tensor):
        library.require_tensor("dropout_add_norm", "x", x)
    if type(p) is not float or type(eps) is not float:
        p, eps = library.as_number("dropout_add_norm", "p", p), library.as_number("dropout_add_norm", "eps", eps)
    automatic = backends.automatic("dropout_add_norm", x)
    backend = library.resolve("dropout_add_norm", backend, automatic, BACKENDS)
    if backend != automatic:
        library.require_device("dropout_add_norm", backend, x)
    tensors = (x, residual, gamma, beta, bias, rng, sample_keys, offsets)
    kernel = backend != "reference"
    at_once = kernel and library.calls_at_once() and _C.dropout_add_norm_fits(tensors, p > 0, backend == "cuda")
    if not at_once:
        _check(*tensors, site, p, eps, backend)
    options = (site, p, eps, backend)
    if torch.is_grad_enabled() and (
        x.requires_grad
        or residual.requires_grad
        or gamma.requires_grad
        or beta.requires_grad
        or (bias is not None and bias.requires_grad)
    ):
        return _DropoutAddNorm.apply(at_once, options, *tensors)
    return (_forward if at_once else _dropout_add_norm)(*tensors, *options)[0]
