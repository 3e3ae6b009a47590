"""Triton kernels, one file per operator; installed as `memofast.kernels`."""
