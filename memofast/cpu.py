"""What the CPU can do beyond the instruction sets that the kernels are built for."""

from functools import cache
from pathlib import Path


@cache
def bf16_units() -> str:
    """The CPU's bf16 matrix instructions: `AMX`, `AVX512-BF16`, or an empty string where it has none.

    With either, bf16 matrix products are the faster ones, which is why training then defaults to bf16.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    return "AMX" if "amx_bf16" in flags else "AVX512-BF16" if "avx512_bf16" in flags else ""
