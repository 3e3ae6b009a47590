"""Recurrences over steps [L, B, ...] with a backward pass of their own: in the loop stands only what waits for the step
before, all gradients of weights are products over all steps."""

from __future__ import annotations

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
        active, weight = gates.clone(memory_format=torch.contiguous_format), weight.contiguous()
        length, samples, size = *gates.shape[:2], weight.shape[1]
        hidden, cells = (gates.new_zeros(length + 1, samples, size) for _ in range(2))
        squashed = torch.empty_like(hidden[1:])
        if _is_compiled(gates):
            _check(_C.lstm(active, weight, hidden, cells, squashed))
        else:
            lstm_reference(active, weight, hidden, cells, squashed)
        ctx.save_for_backward(active, weight, hidden, cells, squashed)
        return hidden[1:], cells[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, to_hidden: Tensor, to_cells: Tensor) -> tuple[Tensor, Tensor]:
        active, weight, hidden, cells, squashed = ctx.saved_tensors
        grads = torch.empty_like(active)
        given = active, weight, cells, squashed, to_hidden.contiguous(), to_cells.contiguous(), grads
        if _is_compiled(active):
            _check(_C.lstm_backward(*given))
        else:
            lstm_backward_reference(*given)
        return grads, grads[1:].flatten(0, 1).t() @ hidden[1:-1].flatten(0, 1)


def _check(status: int) -> None:
    if status:
        raise ValueError(f"an LSTM: weight and gates must be of one type and device and fit, status {status}")


def _is_compiled(gates: Tensor) -> bool:
    return gates.is_cpu and gates.dtype == torch.float32


def lstm_reference(gates: Tensor, weight: Tensor, hidden: Tensor, cells: Tensor, squashed: Tensor) -> None:
    """Write gates, hidden states, cells and tanh(cells) of every step; what `_C.lstm` does.

    Args: gates [L, B, 4 C]: what inputs give them, then what they are. weight [4 C, C]. hidden, cells [L+1, B, C], of
        which the first are given. squashed [L, B, C].
    """
    transposed = weight.t()
    for now, before, state, cell, flat, next_state in zip(
        *(one.unbind() for one in (gates, cells[:-1], hidden[:-1], cells[1:], squashed, hidden[1:])), strict=True
    ):
        now.addmm_(state, transposed)
        entry, forget, proposed, out = now.chunk(4, 1)
        for gate in (entry, forget, out):
            gate.sigmoid_()
        torch.mul(entry, proposed.tanh_(), out=cell).addcmul_(forget, before)
        torch.mul(out, torch.tanh(cell, out=flat), out=next_state)


def lstm_backward_reference(
    gates: Tensor,
    weight: Tensor,
    cells: Tensor,
    squashed: Tensor,
    to_hidden: Tensor,
    to_cells: Tensor,
    of_gates: Tensor,
) -> None:
    """Write the gradients [L, B, 4 C] of what inputs give the gates; what `_C.lstm_backward` does."""
    of_hidden, of_cells = torch.zeros_like(squashed[0]), torch.zeros_like(squashed[0])
    for now, before, flat, by_hidden, by_cells, found in _backwards(
        gates, cells[:-1], squashed, to_hidden, to_cells, of_gates
    ):
        entry, forget, proposed, out = now.chunk(4, 1)
        hidden = of_hidden + by_hidden
        cell = of_cells + by_cells + hidden * out * (1 - flat.square())
        parts = (
            cell * proposed * entry * (1 - entry),
            cell * before * forget * (1 - forget),
            cell * entry * (1 - proposed.square()),
            hidden * flat * out * (1 - out),
        )
        torch.cat(parts, 1, out=found)
        torch.mm(found, weight, out=of_hidden)
        of_cells = cell * forget


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
