"""A whole optimisation step (forward, loss, backward, AdamW) on 32 MEmoBERT-like samples: ours against the padded
baseline.

The batch is that which the target of twice the padded step was set for. Of 32 samples the longest decides what padding
costs: another draw of the same ranges, 133 rows at most for 93 in the mean, gave 1.88 to 2.00 times.
"""

from contextlib import nullcontext

import pytest
import torch
from contests import RANGES, draw_by_modality
from padded_step import PaddedModel, collate, wanted
from step_facts import step_flop

from memofast import objectives
from memofast.data.batch import PackedBatch
from memofast.model import MemoBertConfig, MemoBertForPreTraining, padded_width
from memofast.model.memobert import conversion
from memofast.objectives import Learner

SAMPLES = 32
RNG = torch.tensor([1, 1])
OBJECTIVES = ("whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression")


SHORTER = {"text": (5, 30), "visual": (4, 64), "speech": (10, 64)}


def memobert_like(
    config: MemoBertConfig, samples: int, ranges: dict[str, tuple[int, int]] = RANGES, seed: int = 1
) -> PackedBatch:
    """Samples of MEmoBERT's lengths, features in fp16."""
    generator = torch.Generator().manual_seed(0)

    def offsets(counts: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0))).int()

    def features(rows: int, width: int) -> torch.Tensor:
        packed = torch.zeros(rows, padded_width(width), dtype=torch.float16)
        packed[:, :width] = torch.randn(rows, width, generator=generator)
        return packed

    text, visual, speech = draw_by_modality(samples, ranges, seed).values()
    token_ids = torch.randint(999, config.vocab_size, (int(text.sum()),), generator=generator).int()
    word_ids = torch.cat([torch.arange(-1, n - 1).int() for n in text.tolist()])
    ends = text.cumsum(0)
    token_ids[ends - text], token_ids[ends - 1], word_ids[ends - 1] = 101, 102, -1
    labels = torch.randn(int(visual.sum()), config.visual_classes, generator=generator).softmax(-1)
    return PackedBatch(
        token_ids, word_ids, offsets(text), offsets(visual), offsets(speech), offsets(text + visual + speech),
        torch.arange(samples), features(int(visual.sum()), config.visual_width),
        features(int(speech.sum()), config.speech_width), {"soft_labels": labels},
    )  # fmt: skip


def predicted(config: MemoBertConfig, head: str) -> int:
    """Numbers that a head says of a target."""
    return {
        "words": config.vocab_size,
        "visual_emotions": config.visual_classes,
        "visual_features": config.visual_width,
        "speech_features": config.speech_width,
    }[head]


class Step:
    """One objective's update step by both implementations, from the same weights on the same masks."""

    def __init__(self, config: MemoBertConfig, objective: str, autocast: bool):
        torch.manual_seed(0)
        built = objectives.build({objective: {}})
        self.ours = Learner(MemoBertForPreTraining(config), built)
        self.padded = PaddedModel(config)
        self.padded.load_state_dict(conversion.to_original(self.ours.model))
        self.batch = memobert_like(config, SAMPLES, SHORTER, seed=0)
        (self.view,) = objectives.views_for(self.batch, built[objective], RNG)
        self.head, self.wanted = wanted(self.view, config)
        self.collated = collate(self.view, config)
        self.targets = len(self.wanted)
        self.flop = step_flop(config, self.batch, self.targets, predicted(config, self.head))
        self.autocast = autocast
        self.optimisers = {
            id(model): torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) for model in (self.ours, self.padded)
        }

    def our_loss(self) -> torch.Tensor:
        (loss,) = self.ours([self.view], RNG).values()
        return loss.total / loss.count

    def padded_loss(self) -> torch.Tensor:
        return self.padded.loss(self.head, self.collated, self.wanted)

    def check(self) -> None:
        for model in (self.ours, self.padded):
            model.eval()
        with torch.no_grad():
            torch.testing.assert_close(self.our_loss(), self.padded_loss(), rtol=1e-4, atol=1e-5)
        for model in (self.ours, self.padded):
            model.train()

    def run(self, model: torch.nn.Module, loss) -> None:
        with torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext():
            value = loss()
        value.backward()
        self.optimisers[id(model)].step()
        self.optimisers[id(model)].zero_grad()


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_step(side_by_side, objective, dtype):
    step = Step(MemoBertConfig(), objective, dtype == "bf16")
    step.check()
    side_by_side(
        lambda: step.run(step.ours, step.our_loss),
        rivals={"padded": lambda: step.run(step.padded, step.padded_loss)},
        rounds=5,
        target={"padded": 2.0} if dtype == "bf16" else None,
        samples=SAMPLES,
        rows=step.batch.rows,
        targets=step.targets,
        flop=step.flop,
    )
