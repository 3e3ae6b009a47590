"""What this machine can do at most, measured first: copies of memory, and matrix products at 8192^3 and at the model's
own shapes.

Every percentage of a floor in the report is of these numbers, not of a data sheet. Bytes of a copy are those read and
written. GEMM shapes are the four of a base-size layer (QKV, attention output, both of the feed-forward part) over the
rows of a packed batch.
"""

import pytest
import torch

GIGABYTE = 1e9
SHAPES = {"qkv": (768, 2304), "output": (768, 768), "inner": (768, 3072), "outer": (3072, 768)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture
def ceiling(benchmark):
    """Record the best rate of `function`: work done per second, in units of 10^9."""

    def measure(function, work: float, unit: str) -> None:
        function()
        benchmark.pedantic(function, rounds=7, iterations=1, warmup_rounds=2)
        best = benchmark.stats.stats.min
        benchmark.extra_info["ceiling"] = {"rate": work / best / GIGABYTE, "unit": unit}

    return measure


@pytest.fixture
def gpu_ceiling(benchmark):
    import gpu_timing

    def measure(make, bytes_of_one: int, work: float, unit: str) -> None:
        copies = gpu_timing.copies_beyond_cache(bytes_of_one)
        timed = gpu_timing.Timed([make() for _ in range(copies)])
        best = min(timed.gpu_seconds() for _ in range(10))
        benchmark.extra_info["ceiling"] = {"rate": work / best / GIGABYTE, "unit": unit}
        benchmark.pedantic(timed.gpu_seconds, rounds=3)

    return measure


def test_copy(ceiling):
    source, target = torch.ones(2, 256 << 20, dtype=torch.uint8).unbind()
    ceiling(lambda: target.copy_(source), 2 * source.numel(), "GB/s")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_product(ceiling, shape, dtype):
    inner, outer = SHAPES[shape]
    a = torch.randn(2816, inner).to(DTYPES[dtype])
    b = torch.randn(outer, inner).to(DTYPES[dtype])
    ceiling(lambda: torch.nn.functional.linear(a, b), 2 * 2816 * inner * outer, "GFLOP/s")


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise(on_cpu, dtype):
    """The same product as two contestants: what a ratio of this machine says where there is nothing to say."""
    on_cpu(**the_same_twice(2816, DTYPES[dtype], "cpu"), rounds=20)


def the_same_twice(rows, dtype, device):
    inner, outer = SHAPES["qkv"]

    def make(number):
        a = torch.randn(rows, inner, device=device).to(dtype)
        b = torch.randn(outer, inner, device=device).to(dtype)
        return lambda: torch.nn.functional.linear(a, b)

    size = (rows * inner + outer * inner + rows * outer) * dtype.itemsize
    return {"ours": make, "rivals": {"the same": make}, "bytes_of_one": size}


@pytest.mark.gpu
def test_gpu_noise(on_gpu):
    on_gpu(**the_same_twice(25600, torch.bfloat16, "cuda"), rounds=20)


@pytest.mark.gpu
def test_gpu_copy(gpu_ceiling):
    size = 1 << 30

    def make():
        source, target = torch.ones(2, size, dtype=torch.uint8, device="cuda").unbind()
        return lambda: target.copy_(source)

    gpu_ceiling(make, 2 * size, 2 * size, "GB/s")


@pytest.mark.gpu
@pytest.mark.parametrize("shape", ["8192", *SHAPES])
@pytest.mark.parametrize("rows", [6400, 25600])
def test_gpu_matrix_product(gpu_ceiling, shape, rows):
    inner, outer = SHAPES.get(shape, (8192, 8192))
    rows = 8192 if shape == "8192" else rows

    def make():
        a = torch.randn(rows, inner, device="cuda").bfloat16()
        b = torch.randn(outer, inner, device="cuda").bfloat16()
        return lambda: torch.nn.functional.linear(a, b)

    gpu_ceiling(make, 2 * (rows * inner + outer * inner + rows * outer), 2 * rows * inner * outer, "GFLOP/s")
