"""Which models can be trained by CUDA graphs, on which device."""

import pytest
import torch

from memofast.model import MemoBertConfig
from memofast.model.memobert.capturing import can_be_captured
from memofast.ops import backends, library


@pytest.mark.parametrize(
    ("sizes", "cuda", "triton", "captured"),
    [
        ({}, True, True, True),
        ({"hidden_size": 48, "num_attention_heads": 6}, True, True, True),  # heads for Triton alone
        ({}, False, True, False),  # no Triton kernel of the norms
        ({"hidden_size": 2048, "num_attention_heads": 32}, True, True, False),  # too wide for embed
        ({"hidden_size": 160, "num_attention_heads": 1}, True, True, False),  # a head too wide for attention
    ],
)
def test_what_can_be_captured(monkeypatch, sizes, cuda, triton, captured):
    """On an H200's row of the table, with these kernels installed; tensors of no device stand for its own."""
    monkeypatch.setattr(backends, "_generation", lambda device: "sm_90")
    monkeypatch.setattr(backends, "_order", backends._installed(cuda, triton))
    config = MemoBertConfig(**{"hidden_size": 64, "num_attention_heads": 2, **sizes})
    assert can_be_captured(config, "bf16", torch.device("meta")) == captured
    monkeypatch.setattr(library, "_debugging", True)
    assert not can_be_captured(config, "bf16", torch.device("meta"))
