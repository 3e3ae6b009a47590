"""An update step of the masked auto-encoder, which leaves nine tenths of the face and speech rows out before the
encoder, beside hiding as many in place.

Rules: bert-base's sizes from random weights, 32 samples of MEmoBERT's lengths, bf16 autocast where the CPU has units
for it, dropout 0.1 in the encoder, forward, loss, backward and AdamW. In place: of half of the samples nine tenths of
the faces are the mask vector and are predicted, of the other half so much of the speech. `floor` is the ratio of the
operations of both steps, decoder and all, which is what the time's ratio would be at equal speed; 2.5 is aimed at.
"""

import pytest
import torch
from step_facts import step_flop
from test_step import memobert_like

from memofast import objectives
from memofast.cpu import bf16_units
from memofast.data.view import View
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.objectives import Learner

SAMPLES, RNG, ROUNDS, AIM = 32, torch.tensor([1, 1]), 7, 2.5
DECODERS = {
    "decoder of 8 layers, 512 wide": {},
    "decoder of 2 layers, 256 wide": {
        "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 1024
    },
}  # fmt: skip
IN_PLACE = {
    f"span_{modality}_regression": {"policy": "independent", "ratio": "9/10"} for modality in ("visual", "speech")
}


class Side:
    """Update steps of some objectives on one batch."""

    def __init__(self, options: dict[str, dict]):
        config = MemoBertConfig()
        built = objectives.build(options, config)
        config.heads = {name: head.described() for one in built.values() for name, head in one.heads.items()}
        torch.manual_seed(0)
        self.learner = Learner(MemoBertForPreTraining(config), built).train()
        self.batch = memobert_like(config, SAMPLES)
        number = torch.arange(SAMPLES)
        chosen = {name: number % len(built) == place for place, name in enumerate(built)}
        (self.view,) = objectives.views_of(self.batch, built, chosen, RNG)
        self.optimiser = torch.optim.AdamW(self.learner.parameters(), lr=1e-6, fused=True)
        self.config = config

    def run(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(bf16_units())):
            losses = self.learner([self.view], RNG).values()
        sum(loss.total / loss.count for loss in losses).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    @property
    def flop(self) -> int:
        """Of encoder, heads and decoder."""
        heads = 0
        for read in self.view.reads.values():
            width = self.learner.model.heads.kinds[read.head].modality
            heads += (
                step_flop(self.config, nothing(self.view), read.count, self.config.feature_width(width)) if width else 0
            )
        return step_flop(self.config, self.view.batch, 0, 0) + heads + self._decoding()

    def _decoding(self) -> int:
        if not self.learner.objectives:
            return 0
        (decoder,) = self.learner.objectives.values()
        sizes = MemoBertConfig(
            hidden_size=decoder.mask.numel(), num_hidden_layers=len(decoder.encoder.layers), visual_width=0,
            intermediate_size=decoder.encoder.layers[0].intermediate.out_features, speech_width=0,
            num_attention_heads=decoder.encoder.layers[0].heads,
        )  # fmt: skip
        seen = 3 * 2 * self.view.batch.rows * decoder.projection.weight.numel()
        features = sum(
            3 * 2 * len(self.batch.rows_of(name)) * head.weight.numel() for name, head in decoder.features.items()
        )
        return step_flop(sizes, self.batch, 0, 0) + seen + features


def nothing(view: View):
    """The view's batch without its rows, of which only heads are left to count."""
    return view.batch.select(torch.zeros(0, dtype=torch.int64))


@pytest.fixture(scope="module")
def in_place():
    return Side(IN_PLACE)


@pytest.mark.parametrize("decoder", DECODERS)
def test_step(side_by_side, benchmark, in_place, decoder):
    ours = Side({"masked_autoencoder": {"decoder": DECODERS[decoder]}})
    side_by_side(ours.run, {"in place": in_place.run}, rounds=ROUNDS, beside=("in place",))
    benchmark.extra_info["facts"] = {
        "rows seen": ours.view.batch.rows, "rows": ours.batch.rows, "floor": round(in_place.flop / ours.flop, 3),
        "aimed at": AIM,
    }  # fmt: skip
