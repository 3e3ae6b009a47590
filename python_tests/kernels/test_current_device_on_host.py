"""Operators whose tensors lie on another device than the current one: they run on their own, and leave the current
one."""

import ctypes

import pytest
import torch
from test_devices import CASES, results


def current_device():
    """As the emulation left it: Python copies the environment when it starts."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    return getenv(b"MEMOFAST_CURRENT_DEVICE")


@pytest.mark.parametrize("name", CASES)
def test_another_device_is_current(cuda_on_host, poisoned_memory, monkeypatch, name):
    expected = results(name, "cpu", backend="cuda")
    assert current_device() is None  # not asked to change
    monkeypatch.setenv("MEMOFAST_CURRENT_DEVICE", "1")
    got = results(name, "cpu", backend="cuda")
    assert current_device() == b"1"
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got, expected, strict=True))
