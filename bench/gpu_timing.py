"""Time on a GPU: what the device needs for a call, and what the call costs the host.

GPU time comes from a CUDA graph of 20 calls between two events, over inputs that rotate through more memory than the L2
cache holds, so that every call reads cold inputs; where 64 input sets are less than that, the row says so. What cannot
be captured is timed by events around 20 plain calls, and the row says so.
Call time is host time per plain call until it returns, with the device idle at the start.
"""

import contextlib
import itertools
import time
from collections.abc import Callable
from functools import cache

import torch

CALLS = 20
# Kept, as before torch 2.12 allocators go on asking graphs whose capture failed.
_failed: list[torch.cuda.CUDAGraph] = []


def until_idle(step: Callable[[], object]) -> Callable[[], None]:
    """`step`, waiting for the device at its end."""

    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def returned_seconds(step: Callable[[], object]) -> float:
    """Time on the host until `step` returns, with the device idle at its start."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


@cache
def _side_stream() -> torch.cuda.Stream:
    """One for all warm-ups and captures, as matrix products keep a workspace for every stream."""
    return torch.cuda.Stream()


def _rotated_bytes() -> int:
    """Three times the L2 cache."""
    return 3 * torch.cuda.get_device_properties(0).L2_cache_size


def copies_beyond_cache(bytes_of_one: int) -> int:
    """Input sets to rotate through: three times the L2 cache in all, at least 2 and at most 64."""
    return min(64, max(2, -(-_rotated_bytes() // max(bytes_of_one, 1))))


def stay_in_cache(copies: int, bytes_of_one: int) -> bool:
    """Whether so many input sets are too few to leave the L2 cache between two calls."""
    return copies * bytes_of_one < _rotated_bytes()


def capture(function: Callable[[], object], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph | None:
    """A graph of the work that `function` starts; None where it cannot be captured, with PyTorch as it was before.

    By hand: at a failure `torch.cuda.graph` would leave its stream current, PyTorch's generator marked as capturing and
    its allocator recording.
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a capture cannot take back what others cached
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool)
        try:
            function()
        except Exception:  # whatever the error was, the capture has to end
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
        else:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
                return graph
    graph.reset()
    _failed.append(graph)
    with contextlib.suppress(RuntimeError):  # which says that capture_end did this
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
    _heal_generator(stream)
    return None


def _heal_generator(stream: torch.cuda.Stream) -> None:
    """A capture that ends well unmarks the generator. Raises where it does not, as all later rows would be spoilt."""
    one, graph = torch.zeros(1, device="cuda"), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        graph.capture_begin()
        one.add_(1)
        graph.capture_end()
    torch.cuda.synchronize()
    torch.rand(1, device="cuda")


class Timed:
    """One contestant. calls: the same work on different inputs. method: `graph` or `events`, how its GPU time is
    taken."""

    def __init__(self, calls: list[Callable[[], object]]):
        self._next = itertools.cycle(calls)
        self._calls = max(CALLS, len(calls))
        stream = _side_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm-up: kernels compiled, caches of the allocator filled
            for _ in range(3 + len(calls)):
                next(self._next)()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = capture(self._all, stream)
        self.method = "events" if self._graph is None else "graph"

    def _replay(self) -> None:
        if self._graph is None:
            self._all()
        else:
            self._graph.replay()

    def _all(self) -> None:
        for _ in range(self._calls):
            next(self._next)()

    def gpu_seconds(self) -> float:
        """Per call."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(100_000)  # clocks, in which the host gets ahead: no launch is waited for between the events
        start.record()
        self._replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / self._calls

    def call_seconds(self) -> float:
        """Per call, on the host."""
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(CALLS):
            next(self._next)()
        seconds = (time.perf_counter() - begin) / CALLS
        torch.cuda.synchronize()
        return seconds
