"""How a layer uses its linear maps, so that an adapter which replaces, hooks or parametrises one of them takes part.

A plain `nn.Linear` is read: its bias is left to the fused operator that follows, and a part of its rows may be
multiplied alone. Any other module is called, on all that it is given, and what it returns is its whole output: nothing
is added to it. So an adapter that looks at its base layer's output or bias (DoRA, a forward hook) finds there what an
ordinary linear map returns.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops


def is_plain(linear: nn.Module) -> bool:
    """Whether calling the module can do nothing but multiply by its weight and add its bias."""
    hooks = linear._forward_pre_hooks, linear._forward_hooks, linear._backward_pre_hooks, linear._backward_hooks
    return type(linear) is nn.Linear and "forward" not in linear.__dict__ and not any(hooks)


def without_bias(linear: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The linear map of x [n, inputs], and the bias that is still to be added; None: there is none left."""
    return (F.linear(x, linear.weight), linear.bias) if is_plain(linear) else (linear(x), None)


def linear_gelu(linear: nn.Module, x: Tensor) -> Tensor:
    """gelu(W x + b), erf form. Args: x [n, inputs]. Returns: [n, outputs]."""
    product, bias = without_bias(linear, x)
    return F.gelu(product) if bias is None else ops.bias_gelu(product, bias)
