"""GELU (erf form) of x + bias: the middle of a transformer's feed-forward part, with the gradient of the bias."""

import math

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library

BACKENDS = ("reference", "cpu", "cuda")


def bias_gelu_reference(x: Tensor, bias: Tensor) -> Tensor:
    """The specification of `bias_gelu`; differentiable, any floating type, at least fp32 inside."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.nn.functional.gelu(x.to(wide) + bias.to(wide)).to(x.dtype)


def _reference_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    v = x.to(wide) + bias.to(wide)
    cumulative = 0.5 * (1 + torch.erf(v * math.sqrt(0.5)))
    grad_v = grad.to(wide) * (cumulative + v * torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi))
    return grad_v.to(x.dtype), grad_v.sum(0)


def _forward(x: Tensor, bias: Tensor, backend: str) -> Tensor:
    if backend == "reference":
        return bias_gelu_reference(x, bias)
    out = library.output_like(x)
    faults.check_status("bias_gelu", _C.bias_gelu(x, bias, out, backend == "cuda", library.stream(x)), (x, bias))
    return out


def _backward(grad: Tensor, x: Tensor, bias: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "reference":
        return _reference_backward(grad, x, bias)
    grad_x = library.output_like(x)
    grad_bias = torch.empty(x.shape[1], dtype=torch.float32, device=x.device)
    partials = torch.empty((-(-x.shape[0] // 64), x.shape[1]), dtype=torch.float32, device=x.device)
    results = (grad_x, partials, grad_bias)
    status = _C.bias_gelu_backward(x, bias, grad, *results, backend == "cuda", library.stream(x))
    faults.check_status("bias_gelu_backward", status, (x, bias))
    return grad_x, grad_bias


def _check(x: Tensor, bias: Tensor, backend: str) -> None:
    library.require_tensor("bias_gelu", "x", x)
    types = library.row_types(x, backend == "reference")
    library.check_tensor("bias_gelu", "x", x, shape=(None, None), dtype=types)
    types = (torch.float64 if x.dtype is torch.float64 else torch.float32, x.dtype)
    types = bias.dtype if isinstance(bias, Tensor) and bias.dtype in types else types
    library.check_tensor("bias_gelu", "bias", bias, shape=(x.shape[1],), dtype=types, device=x.device)
    library.refuse_tangents("bias_gelu", x, bias)


def _check_backward(grad: Tensor, x: Tensor, bias: Tensor, backend: str) -> None:
    _check(x, bias, backend)
    library.check_tensor("bias_gelu_backward", "grad", grad, shape=tuple(x.shape), dtype=x.dtype, device=x.device)


_bias_gelu = library.define(
    "bias_gelu(Tensor x, Tensor bias, str backend) -> Tensor",
    _forward,
    lambda x, *_: torch.empty_like(x),
    BACKENDS,
    _check,
)
_bias_gelu_backward = library.define(
    "bias_gelu_backward(Tensor grad, Tensor x, Tensor bias, str backend) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, *_: (
        torch.empty_like(x),
        x.new_empty(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32)),
    ),
    BACKENDS,
    _check_backward,
)


class _BiasGelu(torch.autograd.Function):
    """`at_once`: see `library.calls_at_once`."""

    @staticmethod
    def forward(ctx, at_once, x, bias, backend):
        ctx.save_for_backward(x, bias)
        ctx.options = at_once, backend
        return (_forward if at_once else _bias_gelu)(x, bias, backend)

    @staticmethod
    def backward(ctx, grad):
        at_once, backend = ctx.options
        x, bias = ctx.saved_tensors
        run = _backward if at_once and library.records_nothing() else _bias_gelu_backward
        grad_x, grad_bias = run(grad.contiguous(), x, bias, backend)
        return None, grad_x, grad_bias.to(bias.dtype), None


def bias_gelu(x: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """v Phi(v) of v = x + bias, Phi the cumulative normal distribution.

    Args:
        x: [N, C] fp32 or bf16 (fp16 on GPUs; fp64 with backend reference); bias: [C] fp32 or the type of x.
        backend: auto, reference, cpu or cuda.
    Returns: [N, C] of x's type.
    Raises: ValueError for a wrong shape, type, device or stride, or an unknown backend.
    Notes: arithmetic in fp32, rounded once; the gradient of the bias is partials of 64 rows added in order, so that two
    runs are bitwise equal for any number of threads. Source: Hendrycks & Gimpel, "Gaussian error linear units", 2016.
    """
    if not isinstance(x, Tensor):
        library.require_tensor("bias_gelu", "x", x)
    automatic = backends.automatic("bias_gelu", x)
    backend = library.resolve("bias_gelu", backend, automatic, BACKENDS)
    if backend != automatic:
        library.require_device("bias_gelu", backend, x)
    kernel = backend != "reference"
    at_once = kernel and library.calls_at_once() and _C.bias_gelu_fits(x, bias, backend == "cuda")
    if not at_once:
        _check(x, bias, backend)
    if torch.is_grad_enabled() and (x.requires_grad or bias.requires_grad):
        return _BiasGelu.apply(at_once, x, bias, backend)
    return (_forward if at_once else _bias_gelu)(x, bias, backend)
