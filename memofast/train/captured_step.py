"""The step as CUDA graphs: tensors of fixed shape and place, so that one launch replays a whole forward and
backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from memofast.data import Capacity
from memofast.data.view import View, copy_views, moved, padded
from memofast.objectives import LossSum, Objective, padding_of
from memofast.train import optimisation
from memofast.train.step import Step

_WARM_UP = 3
_WARM_UP_OF_RANKS = 11  # DistributedDataParallel settles its buckets and statistics in its first ten backward passes


@dataclass
class _Shape:
    """Micro-batches of one kind: their place on the device, and their graph once it is captured."""

    views: list[View]
    weights: Tensor
    seen: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    result: tuple[Tensor, dict[str, LossSum]] = field(default=None)
    reached: frozenset[Tensor] = frozenset()


@dataclass
class _Apply:
    """The optimiser's step over one set of parameters, and its graph once it is captured."""

    seen: int = 0
    graph: torch.cuda.CUDAGraph | None = None


def with_spare_row(capacity: Capacity) -> Capacity:
    """Room for one row more, so that entries which only fill lists up name a row of no sample: as queries of a full
    batch's last sample they would make it longer than any."""
    return replace(capacity, text=capacity.text + 1)


def kind_of(views: Sequence[View], last: bool) -> tuple:
    """What decides the shapes of a micro-batch at a capacity: the kinds of its views, and whether it is the last of its
    update.

    So a run of mixing `update` has one kind per objective, and one of mixing `sample` a single one; twice as many with
    accumulation.
    """
    return (last, *(view.kind for view in views))


class Places:
    """Tensors of fixed shape on the device, one set for every kind of micro-batch, into which those are copied.

    Args: capacity: room of a micro-batch; objectives: by name, they say what bounds their views.
    """

    def __init__(self, capacity: Capacity, objectives: Mapping[str, Objective], device: torch.device):
        self.capacity, self.objectives, self.device = with_spare_row(capacity), objectives, device
        self.shapes: dict[tuple, _Shape] = {}

    def fits(self, views: Sequence[View]) -> bool:
        """Whether the places hold all that is read."""
        _, rooms = padding_of(views, self.objectives, self.capacity)
        return all(
            read.count <= room[name]
            for view, room in zip(views, rooms, strict=True)
            for name, read in view.reads.items()
        )

    def take(self, views: Sequence[View], last: bool) -> _Shape:
        """Copy a micro-batch to the place of its kind."""
        kind = kind_of(views, last)
        if kind not in self.shapes:
            placed = padded(views, *padding_of(views, self.objectives, self.capacity))
            weights = torch.zeros(len(views[0].readers), device=self.device)
            self.shapes[kind] = _Shape(moved(placed, self.device), weights)
        else:
            copy_views(self.shapes[kind].views, views)
        return self.shapes[kind]


class CapturedStep(Step):
    """Replays forward and backward, clipping and the optimiser from CUDA graphs, one per kind of micro-batch
    (`kind_of`).

    The first few of a kind run operation by operation on the same tensors, which gives the same numbers. So does a
    micro-batch with more targets than its capacity, which masks reach once in 10^15 batches. Parameters that no
    micro-batch of an update reached are not stepped, as in `Step`; so there is a graph of the optimiser for every set
    of those that were.

    Args: capacity: room of a micro-batch; objectives: of the learner, by name; the rest as in `Step`. The optimiser
        must be capturable, with its rate in a tensor.
    """

    def __init__(
        self,
        learner: nn.Module,
        optimiser: torch.optim.Optimizer,
        clip: float,
        precision: str,
        device: torch.device,
        capacity: Capacity,
        objectives: Mapping[str, Objective],
    ):
        super().__init__(learner, optimiser, clip, precision, device)
        self._places = Places(capacity, objectives, device)
        self._warm_up = _WARM_UP_OF_RANKS if isinstance(learner, nn.parallel.DistributedDataParallel) else _WARM_UP
        self._rng = torch.zeros(2, dtype=torch.int64, device=device)
        self._stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self._clip = _Apply()
        self._applies: dict[frozenset[Tensor], _Apply] = {}
        self._reached: set[Tensor] = set()
        self._trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)
        self._hooks = [parameter.register_post_accumulate_grad_hook(self._reach) for parameter in self._trained]

    def add_gradients(
        self, views: Sequence[View], factors: Mapping[str, float], rng: Tensor, last: bool
    ) -> tuple[Tensor, dict[str, LossSum]]:
        if not self._places.fits(views):
            return super().add_gradients(views, factors, rng, last)
        shape = self._places.take(views, last)
        self._rng.copy_(rng.pin_memory(), non_blocking=True)
        weights = torch.tensor([factors[name] for name in views[0].readers], pin_memory=True)
        shape.weights.copy_(weights, non_blocking=True)
        shape.seen += 1
        arguments = (shape.views, shape.weights, self._rng, last)
        if shape.seen <= self._warm_up:
            return self._aside(lambda: self._backward(*arguments))
        if shape.graph is None:
            shape.graph = torch.cuda.CUDAGraph()
            before, self._reached = self._reached, set()
            with self._capture(shape.graph):
                shape.result = self._backward(*arguments)
            shape.reached, self._reached = frozenset(self._reached), before
        shape.graph.replay()
        self._reached |= shape.reached
        total, losses = shape.result
        for name, loss in losses.items():
            loss.count = views[0].reads[name].targets
        return total.clone(), losses

    def clip(self) -> Tensor:
        self._clip.seen += 1
        if self._clip.seen <= self._warm_up:
            return self._aside(super().clip)
        if self._clip.graph is None:
            self._clip.graph = torch.cuda.CUDAGraph()
            with self._capture(self._clip.graph):
                self._norm = super().clip()
        self._clip.graph.replay()
        return self._norm.clone()

    def apply(self, rate_of: Callable[[int | None], float]) -> None:
        optimisation.set_rates(self.optimiser, rate_of)
        reached, self._reached = frozenset(self._reached), set()
        own = self._applies.setdefault(reached, _Apply())
        own.seen += 1
        if own.seen <= self._warm_up:
            return self._aside(lambda: self._update(reached))
        if own.graph is None:
            own.graph = torch.cuda.CUDAGraph()
            with self._capture(own.graph):
                self._update(reached)
        own.graph.replay()

    def _reach(self, parameter: Tensor) -> None:
        self._reached.add(parameter)

    def _update(self, reached: frozenset[Tensor]) -> None:
        """Step the parameters that were reached; the others keep their gradients of zeros for later."""
        left = {parameter: parameter.grad for parameter in self._trained if parameter not in reached}
        for parameter in left:
            parameter.grad = None
        self.optimiser.step()
        for parameter, zeros in left.items():
            parameter.grad = zeros
        self.optimiser.zero_grad(set_to_none=False)

    def close(self) -> None:
        """Give the graphs back: a process group that they captured waits for them when it ends."""
        for hook in self._hooks:
            hook.remove()
        for captured in (*self._places.shapes.values(), *self._applies.values(), self._clip):
            if captured.graph is not None:
                captured.graph.reset()

    @contextmanager
    def _capture(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        """A failure is told as what failed, and not as that the capture did."""
        cause = None
        try:
            # thread_local: the loader's threads may allocate page-locked memory meanwhile, which a global capture
            # forbids
            with torch.cuda.graph(graph, pool=self.pool, stream=self._stream, capture_error_mode="thread_local"):
                try:
                    yield
                except Exception as error:
                    cause = error
                    raise
        except Exception as error:
            raise cause or error from None

    def _aside(self, function):
        """Run on the stream of the captures, as work before a capture must."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = function()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result
