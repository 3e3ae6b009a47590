"""What the machine has: cores, memory, and what its CPU can do beyond the instruction sets that the kernels are built
for."""

import os
from functools import cache
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def memory() -> int:
    """Bytes of memory that this process may use at most: the machine's, or its control group's where that is less."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return pages
    return min(pages, int(limit)) if limit.isdecimal() else pages


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


_COMPILED_PRODUCTS = "64"  # several times the shapes of one step


def limit_compiled_products() -> None:
    """Let oneDNN keep the compiled bf16 products of a few steps, not of the last 1,024 shapes; call it before the first
    one.

    Packed batches hardly ever have the same number of rows twice, and each kept product holds a megabyte or more.
    Variables that are set already stay: ONEDNN_PRIMITIVE_CACHE_CAPACITY is oneDNN's own, LRU_CACHE_CAPACITY that of
    PyTorch's layer over it.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, _COMPILED_PRODUCTS)
