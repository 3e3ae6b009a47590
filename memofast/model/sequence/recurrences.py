"""Recurrences over steps [L, B, ...] with a backward pass of their own: in the loop stands only what waits for the step
before, all gradients of weights are products over all steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from memofast import _C


def cell_states(cell: nn.LSTMCell, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell states [L, B, C] of every step, from states of 0. steps [L, B, D]."""
    return lstm(F.linear(steps, cell.weight_ih, cell.bias_ih + cell.bias_hh), cell.weight_hh)


@torch.compiler.disable  # which cannot look into steps that are compiled already
def lstm(gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell states [L, B, C] of an LSTM from states of 0.

    Args: gates [L, B, 4 C]: what inputs and biases give the gates, in the order input, forget, cell, output. weight
        [4 C, C]: of the hidden state before.
    """
    with torch.autocast(gates.device.type, enabled=False):
        return _Lstm.apply(gates.to(weight.dtype), weight)


@torch.compiler.disable
def gated_memory(
    proposals: Tensor, inner: Tensor, mask: Tensor | None, weight: Tensor, gates: tuple[nn.Linear, nn.Linear]
) -> Tensor:
    """Memories m_t = g_1 m_(t-1) + g_2 u_t of every step [L, B, M], from 0.

    g = sigmoid(gates(mask * relu(a_t + weight m_(t-1)))), where each of the two gates, retain and update, reads its
    part of the K inner units.

    Args: proposals u [L, B, M]; inner a [L, B, K]; mask [L, B, K] of dropout; weight [K, M]; gates: to M, whose inputs
        are K together.
    """
    dtype = weight.dtype
    with torch.autocast(inner.device.type, enabled=False):
        retain, update = gates
        return _GatedMemory.apply(
            proposals.to(dtype), inner.to(dtype), mask, weight, retain.weight, retain.bias, update.weight, update.bias
        )


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        length, samples, size = *gates.shape[:2], weight.shape[1]
        active, transposed = gates.clone(memory_format=torch.contiguous_format), weight.t()
        hidden, cells = (gates.new_zeros(length + 1, samples, size) for _ in range(2))
        squashed, step = torch.empty_like(hidden[1:]), _step_of(gates)
        before, state = cells[0], hidden[0]
        for now, *here in zip(*(one.unbind() for one in (active, cells[1:], squashed, hidden[1:])), strict=True):
            now.addmm_(state, transposed)
            _check(step(now, before, *here))
            before, _, state = here
        ctx.save_for_backward(active, weight, hidden, cells, squashed)
        return hidden[1:], cells[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, to_hidden: Tensor, to_cells: Tensor) -> tuple[Tensor, Tensor]:
        active, weight, hidden, cells, squashed = ctx.saved_tensors
        grads, step = torch.empty_like(active), _step_backward_of(active)
        of_hidden, of_cells = torch.zeros_like(hidden[0]), torch.zeros_like(cells[0])
        given = active, cells[:-1], squashed, to_hidden.contiguous(), to_cells.contiguous(), grads
        for *here, out in _backwards(*given):
            _check(step(*here, of_hidden, of_cells, out))
            torch.mm(out, weight, out=of_hidden)
        return grads, grads[1:].flatten(0, 1).t() @ hidden[1:-1].flatten(0, 1)


def _step_of(gates: Tensor) -> Callable:
    """What makes a step's states of its gates in place, [B, 4 C] and [B, C]."""
    return _C.lstm_step if _is_compiled(gates) else lstm_step_reference


def _step_backward_of(gates: Tensor) -> Callable:
    return _C.lstm_step_backward if _is_compiled(gates) else lstm_step_backward_reference


def _check(status: int | None) -> None:
    if status:
        raise ValueError(f"an LSTM's step: weight and gates must be of one type and device, status {status}")


def _is_compiled(gates: Tensor) -> bool:
    return gates.is_cpu and gates.dtype == torch.float32


def lstm_step_reference(gates: Tensor, before: Tensor, cells: Tensor, squashed: Tensor, hidden: Tensor) -> None:
    """Write gates, cells, tanh(cells) and hidden states of a step, from what goes into the gates [B, 4 C], in their
    place, and the cells before [B, C]; what `_C.lstm_step` does."""
    entry, forget, proposed, out = gates.chunk(4, 1)
    for gate in (entry, forget, out):
        gate.sigmoid_()
    torch.mul(entry, proposed.tanh_(), out=cells).addcmul_(forget, before)
    torch.mul(out, torch.tanh(cells, out=squashed), out=hidden)


def lstm_step_backward_reference(
    gates: Tensor,
    before: Tensor,
    squashed: Tensor,
    to_hidden: Tensor,
    to_cells: Tensor,
    of_hidden: Tensor,
    of_cells: Tensor,
    of_gates: Tensor,
) -> None:
    """Write the gradients of what goes into the gates, and in place of `of_cells`, those by the next step, the ones for
    the step before; what `_C.lstm_step_backward` does."""
    entry, forget, proposed, out = gates.chunk(4, 1)
    hidden = of_hidden + to_hidden
    cells = of_cells + to_cells + hidden * out * (1 - squashed.square())
    parts = (
        cells * proposed * entry * (1 - entry),
        cells * before * forget * (1 - forget),
        cells * entry * (1 - proposed.square()),
        hidden * squashed * out * (1 - out),
    )
    torch.cat(parts, 1, out=of_gates)
    torch.mul(cells, forget, out=of_cells)


class _GatedMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, proposals, inner, mask, weight, retain, retain_bias, update, update_bias) -> Tensor:
        (length, samples, size), part = proposals.shape, retain.shape[1]
        units = inner.clone(memory_format=torch.contiguous_format)
        memories = proposals.new_zeros(length + 1, samples, size)
        gates = proposals.new_empty(length, samples, 2 * size)
        transposed, to_retain, to_update = weight.t(), retain.t(), update.t()
        before = memories[0]
        masks = [None] * length if mask is None else mask.unbind()
        parts = (units, units[..., :part], units[..., part:], gates, gates[..., :size], gates[..., size:], proposals)
        steps = zip(*(one.unbind() for one in parts), masks, memories[1:].unbind(), strict=True)
        for now, for_retain, for_update, both, kept, new, proposal, dropped, memory in steps:
            now.addmm_(before, transposed).relu_()
            if dropped is not None:
                now.mul_(dropped)
            torch.addmm(retain_bias, for_retain, to_retain, out=kept)
            torch.addmm(update_bias, for_update, to_update, out=new)
            both.sigmoid_()
            torch.mul(new, proposal, out=memory).addcmul_(kept, before)
            before = memory
        ctx.save_for_backward(proposals, units, mask, weight, retain, update, memories, gates)
        return memories[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, to_memories: Tensor) -> tuple[Tensor | None, ...]:
        proposals, units, mask, weight, retain, update, memories, gates = ctx.saved_tensors
        size, part = proposals.shape[2], retain.shape[1]
        grads = torch.addcmul(gates, gates, gates, value=-1)  # first of memories by gates, then of the loss
        grads[..., :size] *= memories[:-1]
        grads[..., size:] *= proposals
        passes = (units > 0).to(units.dtype) if mask is None else (units > 0) * mask
        of_units, of_memories, carried = torch.empty_like(units), torch.empty_like(proposals), None
        parts = (grads.unflatten(-1, (2, size)), grads[..., :size], grads[..., size:], gates[..., :size])
        parts += (of_units, of_units[..., :part], of_units[..., part:], passes, to_memories, of_memories)
        carried = torch.zeros_like(memories[0])
        for both, kept, new, gate, inner, for_retain, for_update, passed, here, of_memory in _backwards(*parts):
            torch.add(carried, here, out=of_memory)
            both.mul_(of_memory[:, None])
            torch.mm(kept, retain, out=for_retain)
            torch.mm(new, update, out=for_update)
            inner.mul_(passed)
            torch.mul(of_memory, gate, out=carried).addmm_(inner, weight)
        flat, read = grads.flatten(0, 1), units.flatten(0, 1)
        biases = flat.sum(0)
        return (
            of_memories * gates[..., size:],
            of_units,
            None,
            of_units[1:].flatten(0, 1).t() @ memories[1:-1].flatten(0, 1),
            flat[:, :size].t() @ read[:, :part],
            biases[:size],
            flat[:, size:].t() @ read[:, part:],
            biases[size:],
        )


def _backwards(*steps: Tensor) -> zip:
    """Views of each step, the last first; made at once, as indexing would cost more than small products."""
    return zip(*(one.unbind()[::-1] for one in steps), strict=True)
