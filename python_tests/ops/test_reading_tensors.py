"""How the extension reads tensors: through DLPack's exchange interface, or attribute by attribute where PyTorch lacks
it."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from memofast import _C

UNREADABLE = 6  # the element type that fits no kernel


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 4),
        torch.zeros(3, 4, requires_grad=True),
        torch.nn.Parameter(torch.zeros(3)),
        torch.zeros(3, 4, dtype=torch.bfloat16),
        torch.zeros(3, 4, dtype=torch.float16)[1:],
        torch.zeros(2, 3, 4, dtype=torch.int32)[:, 1],
        torch.zeros(5, 1, dtype=torch.int64).T,
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(0, 3)[:, :2],
        torch.zeros(3, 4).T,
        torch.zeros(()),
        torch.zeros(4, dtype=torch.float64),
    ],
    ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}",
)
def test_both_ways_agree_with_the_tensor(tensor):
    shown = _C.describe_tensor(tensor, False)
    assert shown == _C.describe_tensor(tensor, True)
    codes = [torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.int64, torch.bool]
    code = codes.index(tensor.dtype) if tensor.dtype in codes else UNREADABLE
    assert shown[:2] == (tensor.data_ptr(), code)
    assert shown[3:] == (list(tensor.shape), tensor.is_contiguous())


def test_what_has_no_memory_fits_nothing():
    with FakeTensorMode():
        fake = torch.zeros(3)
    for object in (fake, torch.zeros(3, device="meta"), "text"):
        assert _C.describe_tensor(object, False)[1] == UNREADABLE
    assert not _C.attention_fits((fake, None, None, fake, None, None, None), False, False)
