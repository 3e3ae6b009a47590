"""One whole-word update step, improved rung by rung, from padded eager PyTorch to ours.

Rules: the same samples, masks, weights and AdamW settings on every rung; each rung keeps what the one before it added;
rungs run in turn, round by round. `eager` is BERT as it is usually written: padded, fp32, attention written out, logits
at every position, AdamW of foreach kernels, gradients clipped as on every rung; `compiled`, beside the ladder, is the
rung `heads on targets` with its encoder through torch.compile. From `unpadded` on the model is ours with operators in
eager PyTorch (`plain_ops`), one after another replaced by our own. On a GPU the last rung replays the step from CUDA
graphs, with the room for rows that a run gives its micro-batches, some of which stays empty. Time is wall time of a
whole step with the device idle at its end; a call's time, on a GPU, is the host's until the step returns.
"""

import contextlib
import copy
from unittest import mock

import plain_ops
import pytest
import torch
from contests import LONGEST, room_of
from gpu_timing import until_idle
from padded_step import PaddedModel, collate
from step_facts import memory_and_launches, pool_bytes, step_flop
from test_step import RNG, memobert_like

from memofast import objectives, ops
from memofast.data import Capacity
from memofast.data.batch import rounded_length
from memofast.data.view import moved, pinned
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.model.memobert import conversion
from memofast.objectives import Learner
from memofast.train.captured_step import CapturedStep
from memofast.train.optimisation import set_capturable

OBJECTIVE = "whole_word_mlm"
ATTENTION = ("attention", "cross_attention")
CLIP = 5.0
_UNTIL_CAPTURED = 5


class Rungs:
    """The same step on every rung; `rungs` maps their names to functions, in order."""

    def __init__(self, samples: int, device: str, config: MemoBertConfig):
        torch.manual_seed(0)
        self.objectives = objectives.build({OBJECTIVE: {}})
        ours = Learner(MemoBertForPreTraining(config), self.objectives).train()
        padded = PaddedModel(config).train()
        padded.load_state_dict(conversion.to_original(ours.model))
        batch = memobert_like(config, samples)
        (view,) = self.host = objectives.views_for(batch, self.objectives[OBJECTIVE], RNG)
        self.device, self.batch = device, batch
        self.flop = step_flop(config, batch, view.reads[OBJECTIVE].count, config.vocab_size)
        self.labels = view.reads[OBJECTIVE].labels.to(device)
        self.collated = collate(view, config).to(device)
        self.views, self.rng = moved(self.host, device), RNG.to(device)
        self.ours, self.padded = ours.to(device), padded.to(device)
        self.optimisers = {
            (id(model), fused): torch.optim.AdamW(model.parameters(), lr=1e-6, fused=fused, foreach=not fused)
            for model, fused in ((self.padded, False), (self.ours, False), (self.ours, True))
        }
        self.rungs = {
            "eager": lambda: self._padded(bf16=False, everywhere=True),
            "bf16": lambda: self._padded(everywhere=True),
            "sdpa": lambda: self._padded(sdpa=True, everywhere=True),
            "heads on targets": lambda: self._padded(sdpa=True),
            "unpadded": lambda: self._packed("embed", *ATTENTION, "dropout_add_norm", "bias_gelu"),
            "norm and gelu": lambda: self._packed("embed", *ATTENTION),
            "attention": lambda: self._packed("embed"),
            "embeddings": lambda: self._packed(),
            "fused adamw": lambda: self._packed(fused=True),
        }
        self.graphs = None
        if device == "cuda":
            self.rungs["cuda graphs"] = self._captured()

    def compiled(self):
        """The rung `heads on targets` with its encoder through torch.compile."""
        encoder = self.padded.uniter
        forward = torch.compile(encoder.forward, dynamic=False)

        def run():
            with mock.patch.object(encoder, "forward", forward):
                self._padded(sdpa=True)

        return run

    def facts(self) -> dict[str, dict[str, int]]:
        """Memory and launches of every rung; to be asked once they have run a few times."""
        found = {name: memory_and_launches(rung, self.device) for name, rung in self.rungs.items()}
        if self.graphs:
            gradients = sum(parameter.nbytes for parameter in self.graphs.learner.parameters())
            found["cuda graphs"]["peak_bytes"] += pool_bytes(self.graphs.pool) + gradients
        return found

    def _padded(self, bf16: bool = True, sdpa: bool = False, everywhere: bool = False) -> None:
        self.padded.use_sdpa(sdpa)
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            if everywhere:
                loss = self.padded.word_loss_everywhere(self.collated, self.labels)
            else:
                loss = self.padded.loss("words", self.collated, self.labels)
        self._update(loss, self.padded, fused=False)

    def _packed(self, *plain: str, fused: bool = False) -> None:
        with contextlib.ExitStack() as stack:
            for name in plain:
                stack.enter_context(mock.patch.object(ops, name, getattr(plain_ops, name)))
            stack.enter_context(torch.autocast(self.device, torch.bfloat16))
            (loss,) = self.ours(self.views, self.rng).values()
            loss = loss.total / loss.count
        self._update(loss, self.ours, fused)

    def _update(self, loss: torch.Tensor, model: torch.nn.Module, fused: bool) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser = self.optimisers[id(model), fused]
        optimiser.step()
        optimiser.zero_grad()

    def _captured(self):
        """On weights and gradients of its own, which other rungs would put elsewhere than the graph has them."""
        learner = copy.deepcopy(self.ours)
        optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-6, fused=True)
        device, batch, views = torch.device(self.device), self.batch, self.host
        if device.type == "cuda":
            set_capturable(optimiser, device)
            views = pinned(views)
        room = {m: max(n, int(batch.offsets_of(m)[-1])) for m, n in room_of(batch.samples).items()}
        capacity = Capacity(batch.samples, **room, longest=rounded_length(LONGEST))
        self.graphs = step = CapturedStep(learner, optimiser, CLIP, "bf16", device, capacity, self.objectives)
        factors = {name: 1 / count for name, count in views[0].counts.items()}

        def run():
            step.add_gradients(views, factors, RNG, True)
            step.clip()
            step.apply(lambda _: 1e-6)

        for _ in range(_UNTIL_CAPTURED):
            run()
        return run


def climb(side_by_side, until_returned, benchmark, samples: int, device: str, rounds: int) -> None:
    ladder = Rungs(samples, device, MemoBertConfig())
    *earlier, last = ladder.rungs
    steps = {
        "ours": ladder.rungs[last],
        **{name: ladder.rungs[name] for name in earlier},
        "compiled": ladder.compiled(),
    }
    ours, *others = (until_idle(step) if device == "cuda" else step for step in steps.values())
    rivals = dict(zip(list(steps)[1:], others, strict=True))
    target = {"eager": 2.5, "compiled": 1.5}
    rows = int(ladder.batch.offsets[-1])
    side_by_side(
        ours, rivals, rounds=rounds, target=target, beside=earlier[earlier.index("unpadded") :], samples=samples,
        rows=rows,
        flop=ladder.flop, ladder=[*earlier, "ours"], last=last,
    )  # fmt: skip
    if device == "cuda":
        benchmark.extra_info["device"] = "gpu"
        until_returned(steps)  # before the profiler, after which calls may take longer
    facts = ladder.facts()
    benchmark.extra_info["facts"]["rungs"] = {name if name != last else "ours": facts[name] for name in facts}


def test_ladder(side_by_side, until_returned, benchmark):
    climb(side_by_side, until_returned, benchmark, 32, "cpu", rounds=3)


@pytest.mark.gpu
@pytest.mark.parametrize("samples", [64, 256])
def test_gpu_ladder(side_by_side, until_returned, benchmark, samples):
    climb(side_by_side, until_returned, benchmark, samples, "cuda", rounds=10)
