"""One whole-word update step, improved rung by rung, from padded eager PyTorch to ours.

Rules: the same samples, masks, weights and AdamW settings on every rung; each rung keeps what the one before it added; rungs run in turn,
round by round. `eager` is BERT as it is usually written: padded, fp32, attention written out, logits at every position, AdamW of
foreach kernels. From `unpadded` on the model is ours with operators in eager PyTorch (`plain_ops`), one after another replaced by our own.
On a GPU the last rung replays the step from CUDA graphs. Time is wall time of a whole step with the device idle at its end.
"""

import contextlib
from unittest import mock

import plain_ops
import pytest
import torch
from padded_step import PaddedModel, collate
from test_step import RNG, memobert_like

from memofast import objectives, ops
from memofast.data import Capacity
from memofast.model import MemoBertConfig, MemoBertForPreTraining, conversion
from memofast.train.captured_step import CapturedStep
from memofast.train.optimisation import set_capturable

OBJECTIVE = "whole_word_mlm"


class Rungs:
    """The same step on every rung; `rungs` maps their names to functions, in order."""

    def __init__(self, samples: int, device: str):
        config = MemoBertConfig()
        torch.manual_seed(0)
        ours = MemoBertForPreTraining(config).train()
        padded = PaddedModel(config).train()
        padded.load_state_dict(conversion.to_original(ours))
        batch = memobert_like(config, samples)
        corruption = objectives.corrupt(batch, objectives.build({OBJECTIVE: {}}), OBJECTIVE, RNG)
        self.device, self.rows, self.tokens = device, batch.rows, int(batch.offsets[-1])
        self.host = batch, corruption
        self.labels = corruption.targets[OBJECTIVE].labels.to(device)
        self.collated = collate(batch, config, corruption).to(device)
        self.batch, self.corruption, self.rng = batch.to(device), corruption.to(device), RNG.to(device)
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
            "unpadded": lambda: self._packed("embed", "attention", "dropout_add_norm", "bias_gelu"),
            "norm and gelu": lambda: self._packed("embed", "attention"),
            "attention": lambda: self._packed("embed"),
            "embeddings": lambda: self._packed(),
            "fused adamw": lambda: self._packed(fused=True),
        }
        if device == "cuda":
            self.rungs["cuda graphs"] = self._captured()

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
            (loss,) = objectives.losses(self.ours, self.batch, self.corruption, self.rng).values()
            loss = loss.total / loss.count
        self._update(loss, self.ours, fused)

    def _update(self, loss: torch.Tensor, model: torch.nn.Module, fused: bool) -> None:
        loss.backward()
        optimiser = self.optimisers[id(model), fused]
        optimiser.step()
        optimiser.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _captured(self):
        optimiser = torch.optim.AdamW(self.ours.parameters(), lr=1e-6, fused=True)
        set_capturable(optimiser, torch.device("cuda"))
        batch, corruption = self.host[0].pin_memory(), self.host[1].pin_memory()
        room = Capacity(
            batch.samples, *(getattr(batch, f"{m}_offsets")[-1].item() for m in ("text", "visual", "speech"))
        )
        step = CapturedStep(self.ours, optimiser, 5.0, "bf16", torch.device("cuda"), room)
        factors = {OBJECTIVE: 1 / corruption.targets[OBJECTIVE].count}

        def run():
            step.add_gradients(batch, corruption, factors, RNG, True)
            step.clip()
            step.apply(1e-6)
            torch.cuda.synchronize()

        return run


def climb(side_by_side, samples: int, device: str, rounds: int) -> None:
    rungs = Rungs(samples, device).rungs
    names = list(rungs)
    ours = rungs.pop(names[-1])
    side_by_side(ours, rivals=rungs, rounds=rounds, samples=samples, ladder=[*names[:-1], "ours"], last=names[-1])


def test_ladder(side_by_side):
    climb(side_by_side, 32, "cpu", rounds=3)


@pytest.mark.gpu
@pytest.mark.parametrize("samples", [64, 256])
def test_gpu_ladder(side_by_side, samples):
    climb(side_by_side, samples, "cuda", rounds=10)
