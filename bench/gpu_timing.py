"""Time on a GPU: what the device needs for a call, and what the call costs the host.

GPU time comes from a CUDA graph of 20 calls between two events, over inputs that rotate through more memory than the L2 cache holds, so that every
call reads cold inputs. What cannot be captured (or what a capture would change) is timed by events around 20 plain calls, and the row says so.
Call time is host time per plain call until it returns, with the device idle at the start.
"""

import itertools
import time
from collections.abc import Callable

import torch

CALLS = 20
_ROTATED_BYTES = 3


def copies_beyond_cache(bytes_of_one: int) -> int:
    """Input sets to rotate through: three times the L2 cache in all, at least 2 and at most 64."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return min(64, max(2, -(-_ROTATED_BYTES * cache // max(bytes_of_one, 1))))


class Timed:
    """One contestant. calls: the same work on different inputs. method: `graph` or `events`, how its GPU time is taken."""

    def __init__(self, calls: list[Callable[[], object]]):
        self._next = itertools.cycle(calls)
        self._calls = max(CALLS, len(calls))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm-up: kernels compiled, caches of the allocator filled
            for _ in range(3 + len(calls)):
                next(self._next)()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.method, self._replay = self._captured()

    def _captured(self) -> tuple[str, Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._all()
        except RuntimeError:
            torch.cuda.synchronize()
            torch.rand(
                1, device="cuda"
            )  # raises where the capture left PyTorch's generator behind in it, which would spoil all later rows
            return "events", self._all
        return "graph", graph.replay

    def _all(self) -> None:
        for _ in range(self._calls):
            next(self._next)()

    def gpu_seconds(self) -> float:
        """Per call."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
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
