"""The step as CUDA graphs: tensors of fixed shape and place, so that one launch replays a whole forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module

import torch
from torch import Tensor, nn

from memofast.data import Capacity, PackedBatch
from memofast.model import MemoBertConfig
from memofast.objectives import Corruption, LossSum
from memofast.ops import backends, library
from memofast.train import optimisation
from memofast.train.step import Step

# the modules, not the functions of the same names
attention, embed, dropout_add_norm, bias_gelu = (
    import_module(f"memofast.ops.{name}") for name in ("attention", "embed", "dropout_add_norm", "bias_gelu")
)
_WARM_UP = 3
_WARM_UP_OF_RANKS = 11  # DistributedDataParallel settles its buckets and statistics in its first ten backward passes


@dataclass
class _Shape:
    """Micro-batches of one kind: their place on the device, and their graph once it is captured."""

    batch: PackedBatch
    corruption: Corruption
    weights: Tensor
    seen: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    result: tuple[Tensor, dict[str, LossSum]] = field(default=None)


def can_be_captured(config: MemoBertConfig, precision: str, device: torch.device) -> bool:
    """Whether every operator of such a model runs by a kernel of a GPU, and not in debug mode, which waits for each of them.

    References and plain PyTorch look at lengths on the host, which a capture forbids.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    hidden, heads = config.hidden_size, config.num_attention_heads
    rows = torch.empty(0, hidden, dtype=dtype, device=device)
    tables = rows.float()
    automatic = {
        attention: attention.automatic_backend(rows.new_empty(0, 3, heads, hidden // heads)),
        embed: embed.automatic_backend(tables, tables, dtype),
        dropout_add_norm: backends.automatic("dropout_add_norm", rows),
        bias_gelu: backends.automatic("bias_gelu", rows),
    }
    chosen = {library.resolve(of.__name__, "auto", backend, of.BACKENDS) for of, backend in automatic.items()}
    return chosen <= {"cuda", "triton"} and not library.debugging()


def with_spare_row(capacity: Capacity) -> Capacity:
    """Room for one row more, so that entries which only fill lists up name a row of no sample: as queries of a full batch's last sample they would
    make it longer than any."""
    return replace(capacity, text=capacity.text + 1)


def kind_of(batch: PackedBatch, corruption: Corruption, last: bool) -> tuple:
    """What decides the shapes of a micro-batch at a capacity: objectives, modalities and targets there are, and whether it is the last of its update.

    So a run of mixing `update` has one kind per objective, and one of mixing `sample` a single one; twice as many with accumulation.
    """
    return (
        last,
        tuple(corruption.targets),
        *(None if rows is None else (rows.shape[1], rows.dtype) for rows in (batch.visual, batch.speech)),
        *(values is None for values in vars(corruption.inputs).values()),
        *((name, *values.shape[1:]) for name, values in batch.targets.items()),
    )


class Places:
    """Tensors of fixed shape on the device, one set for every kind of micro-batch, into which those are copied.

    Args: capacity: room of a micro-batch.
    """

    def __init__(self, capacity: Capacity, device: torch.device):
        self.capacity, self.device = with_spare_row(capacity), device
        self.shapes: dict[tuple, _Shape] = {}

    def take(self, batch: PackedBatch, corruption: Corruption, last: bool) -> _Shape:
        """Copy a micro-batch to the place of its kind."""
        kind = kind_of(batch, corruption, last)
        if kind not in self.shapes:
            placed = batch.padded_to(self.capacity)
            self.shapes[kind] = _Shape(
                placed.to(self.device),
                corruption.padded_to(self.capacity, placed).to(self.device),
                torch.zeros(len(corruption.targets), device=self.device),
            )
        else:
            self.shapes[kind].batch.copy_from(batch)
            self.shapes[kind].corruption.copy_from(corruption)
        return self.shapes[kind]


class CapturedStep(Step):
    """Replays forward and backward, clipping and the optimiser from CUDA graphs, one per kind of micro-batch (`kind_of`).

    The first few of a kind run operation by operation on the same tensors, which gives the same numbers. So does a micro-batch with more targets
    than its capacity, which masks reach once in 10^15 batches.

    Args: capacity: room of a micro-batch; the rest as in `Step`. The optimiser must be capturable, with its rate in a tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        clip: float,
        precision: str,
        device: torch.device,
        capacity: Capacity,
    ):
        super().__init__(model, optimiser, clip, precision, device)
        self._places = Places(capacity, device)
        self._warm_up = _WARM_UP_OF_RANKS if isinstance(model, nn.parallel.DistributedDataParallel) else _WARM_UP
        self._rng = torch.zeros(2, dtype=torch.int64, device=device)
        self._stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self._applied = 0
        self._clip: torch.cuda.CUDAGraph | None = None
        self._apply: torch.cuda.CUDAGraph | None = None
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def add_gradients(
        self, batch: PackedBatch, corruption: Corruption, factors: Mapping[str, float], rng: Tensor, last: bool
    ) -> tuple[Tensor, dict[str, LossSum]]:
        if not corruption.fits(self._places.capacity):
            return super().add_gradients(batch, corruption, factors, rng, last)
        shape = self._places.take(batch, corruption, last)
        self._rng.copy_(rng.pin_memory(), non_blocking=True)
        weights = torch.tensor([factors[name] for name in corruption.targets], pin_memory=True)
        shape.weights.copy_(weights, non_blocking=True)
        shape.seen += 1
        arguments = (shape.batch, shape.corruption, shape.weights, self._rng, last)
        if shape.seen <= self._warm_up:
            return self._aside(lambda: self._backward(*arguments))
        if shape.graph is None:
            shape.graph = torch.cuda.CUDAGraph()
            with self._capture(shape.graph):
                shape.result = self._backward(*arguments)
        shape.graph.replay()
        total, losses = shape.result
        for name, loss in losses.items():
            loss.count = corruption.targets[name].count
        return total.clone(), losses

    def clip(self) -> Tensor:
        if self._applied < self._warm_up:
            return self._aside(super().clip)
        if self._clip is None:
            self._clip = torch.cuda.CUDAGraph()
            with self._capture(self._clip):
                self._norm = super().clip()
        self._clip.replay()
        return self._norm.clone()

    def apply(self, rate: float) -> None:
        optimisation.set_rate(self.optimiser, rate)
        self._applied += 1
        if self._applied <= self._warm_up:
            return self._aside(self._update)
        if self._apply is None:
            self._apply = torch.cuda.CUDAGraph()
            with self._capture(self._apply):
                self._update()
        self._apply.replay()

    def _update(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=False)

    def close(self) -> None:
        """Give the graphs back: a process group that they captured waits for them when it ends."""
        graphs = [shape.graph for shape in self._places.shapes.values()]
        for graph in (*graphs, self._clip, self._apply):
            if graph is not None:
                graph.reset()

    @contextmanager
    def _capture(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        """A failure is told as what failed, and not as that the capture did."""
        cause = None
        try:
            # thread_local: the loader's threads may allocate page-locked memory meanwhile, which a global capture forbids
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
