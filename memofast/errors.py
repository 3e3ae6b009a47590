class MemofastError(Exception):
    """A user's mistake or a broken input: one line that says what, where and what to do. Commands exit with code 2."""


class DeviceError(RuntimeError):
    """A GPU, or the compiler of its kernels, failed in an operator: one line with operator, tensors, device and what to do."""
