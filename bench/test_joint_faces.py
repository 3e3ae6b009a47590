"""An update step with a face network trained along, beside one on rows that were made before.

Rules: memobert-mini's sizes from random weights, 8 samples of 16 faces (crops of 64 pixels), words and speech of
MEmoBERT's lengths, words as the objective, bf16 autocast where the CPU has units for it, forward, loss, backward and
AdamW. `ready rows` reads 342 values a face; the others make them, trained whole, or with all of the network frozen.
`peak_bytes` is what PyTorch allocated in a step, at its most. Time is wall time.
"""

from dataclasses import replace

import pytest
import torch
from step_facts import memory_and_launches
from test_step import RANGES, memobert_like

from memofast import objectives
from memofast.cpu import bf16_units
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.model.face_networks.network import PARTS
from memofast.objectives import Learner

SAMPLES, FACES, CROP, RNG, ROUNDS = 8, 16, 64, torch.tensor([1, 1]), 5
SIZES = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
NETWORK = {"crop": CROP, "side": CROP, "mean": 127.5, "std": 64.0}
NETWORKS = {
    "denseface": {"network": "denseface"},
    "denseface, frozen": {"network": "denseface", "frozen": PARTS["denseface"]},
    "resnet3d": {"network": "resnet3d"},
}


class Side:
    """Update steps with a network of these entries, or without one."""

    def __init__(self, face: dict | None = None):
        config = MemoBertConfig(**SIZES, face=face and NETWORK | face)
        built = objectives.build({"whole_word_mlm": {}}, config)
        torch.manual_seed(0)
        self.learner = Learner(MemoBertForPreTraining(config), built).train()
        batch = memobert_like(config, SAMPLES, RANGES | {"visual": (FACES, FACES)})
        if face:
            crops = torch.randint(0, 256, (SAMPLES * FACES, CROP**2), dtype=torch.uint8)
            batch = replace(batch, visual=crops)
        chosen = {"whole_word_mlm": torch.ones(SAMPLES, dtype=torch.bool)}
        (self.view,) = objectives.views_of(batch, built, chosen, RNG)
        trained = [one for one in self.learner.parameters() if one.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def run(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(bf16_units())):
            losses = self.learner([self.view], RNG).values()
        sum(loss.total / loss.count for loss in losses).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


@pytest.fixture(scope="module")
def ready():
    return Side()


@pytest.mark.parametrize("network", NETWORKS)
def test_step(side_by_side, benchmark, ready, network):
    along = Side(NETWORKS[network])
    side_by_side(along.run, {"ready rows": ready.run}, rounds=ROUNDS, beside=("ready rows",))
    benchmark.extra_info["facts"] = {
        "faces": SAMPLES * FACES, "peak_bytes": memory_and_launches(along.run, "cpu")["peak_bytes"],
        "peak_bytes of ready rows": memory_and_launches(ready.run, "cpu")["peak_bytes"],
    }  # fmt: skip
