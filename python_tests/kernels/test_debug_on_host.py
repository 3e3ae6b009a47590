"""MEMOFAST_DEBUG=1: what a kernel of a GPU is given is checked before it runs, and its fault is told by the operator
that had it."""

import os
import subprocess
import sys

import embed_cases
import pytest
import torch

from memofast.errors import DeviceError
from memofast.ops import (
    SpanPolicy,
    TokenPolicy,
    attention,
    bias_gelu,
    cross_attention,
    dropout_add_norm,
    embed,
    library,
    span_mask,
    token_mask,
)

RNG, KEYS = torch.tensor([1, 2]), torch.tensor([3, 4])


@pytest.fixture
def debugging(cuda_on_host, monkeypatch):
    monkeypatch.setattr(library, "_debugging", True)


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def run_attention(offsets, backend="cuda", lengths=None):
    qkv = torch.ones(6, 3, 1, 32, requires_grad=backend == "cuda")
    return qkv, attention(qkv, offsets, lengths=lengths, backend=backend)


def run_cross_attention(query_offsets, offsets, backend="cuda"):
    q, kv = torch.ones(6, 1, 32, requires_grad=backend == "cuda"), torch.ones(6, 2, 1, 32)
    return q, cross_attention(q, kv, query_offsets, offsets, backend=backend)


def run_norm(offsets):
    x = torch.ones(6, 8, requires_grad=True)
    return x, dropout_add_norm(x, x, x[0], x[0], offsets=offsets, backend="cuda")


def run_span_mask(offsets, backend="cuda"):
    return span_mask(offsets, KEYS, RNG, SpanPolicy(), rows=6, site=1, capacity=128, backend=backend)


def run_token_mask(offsets):
    return token_mask(
        ints(*range(6)), ints(*range(6)), offsets, KEYS, RNG, TokenPolicy(), site=1, capacity=128, backend="cuda"
    )


@pytest.mark.parametrize("offsets", [(0, 3, 7), (1, 3, 6), (0, 5, 4)], ids=["beyond", "late", "falling"])
@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("attention", run_attention),
        ("attention", lambda offsets: run_attention(offsets, "triton")),
        ("cross_attention", lambda offsets: run_cross_attention(offsets, ints(0, 3, 6))),
        ("cross_attention", lambda offsets: run_cross_attention(ints(0, 3, 6), offsets, "triton")),
        ("dropout_add_norm", run_norm),
        ("span_mask", run_span_mask),
        ("span_mask", lambda offsets: run_span_mask(offsets, "triton")),
        ("token_mask", run_token_mask),
    ],
)
def test_bad_offsets(debugging, name, run, offsets):
    with pytest.raises(ValueError, match=f"^{name}: offsets must start at 0"):
        run(ints(*offsets))


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_bad_lengths(debugging, backend):
    with pytest.raises(ValueError, match="attention: offsets must"):
        run_attention(ints(0, 3, 6), backend, ints(3, 4))


def test_bad_ids(debugging):
    given = embed_cases.operands([(3, 4, 2), (2, 3, 1)], 40, torch.float32)
    text = given["text"]._replace(token_ids=given["text"].token_ids + 60)
    with pytest.raises(ValueError, match="token_ids must lie in"):
        embed(**given | {"text": text}, p=0.1, backend="cuda")


def test_sound_operands_give_the_same_bits(cuda_on_host, monkeypatch):
    def results():
        given = embed_cases.operands([(3, 4, 2), (2, 3, 1)], 40, torch.float32, spare=2)
        masks = *run_span_mask(ints(0, 3, 6)), *run_token_mask(ints(0, 3, 6))
        gradients = [torch.autograd.grad(out.sum(), leaf)[0] for leaf, out in map(run_norm, [ints(0, 3, 5)])]
        gradients += torch.autograd.grad(
            (cross := run_cross_attention(ints(0, 2, 4), ints(0, 3, 6)))[1].sum(), cross[0]
        )
        leaf, out = run_attention(ints(0, 3, 6))
        embedded = embed_cases.run(embed, given, p=0.1, backend="cuda").values()
        return *masks, *gradients, out, *torch.autograd.grad(out.sum(), leaf), *embedded

    plain = results()
    monkeypatch.setattr(library, "_debugging", True)
    assert all(torch.equal(a, b) for a, b in zip(plain, results(), strict=True))


def test_the_fault_is_told_by_its_operator(debugging, monkeypatch):
    """`_synchronise` stands in for a device that stopped in the kernel before."""
    x, offsets = torch.ones(6, 8, requires_grad=True), ints(0, 3, 6)
    out = bias_gelu(x, x[0].detach(), backend="cuda")

    def stopped(arguments):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(library, "_synchronise", stopped)
    illegal = r"illegal memory access was encountered \("
    with pytest.raises(DeviceError, match=rf"^bias_gelu_backward: CUDA error: an {illegal}.*grad \[6, 8\] float32"):
        out.sum().backward()
    with pytest.raises(DeviceError, match=rf"^attention: CUDA error: an {illegal}qkv \[6, 3, 1, 32\] float32"):
        run_attention(offsets)
    bias_gelu(x, x[0], backend="reference")  # nothing to wait for


def test_the_environment_is_read_once():
    code = "from memofast.ops import library; print(library.debugging())"
    environment = os.environ | {"MEMOFAST_DEBUG": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "True"


@pytest.mark.gpu
def test_gpu_names_the_operator(monkeypatch):
    monkeypatch.setattr(library, "_debugging", True)
    qkv = torch.zeros(6, 3, 1, 32, device="cuda")
    for backend in ("cuda", "triton"):
        with pytest.raises(ValueError, match="attention: offsets must"):
            attention(qkv, ints(0, 7).cuda(), backend=backend)
        attention(qkv, ints(0, 6).cuda(), backend=backend)
