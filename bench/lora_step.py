"""A fine-tuning step of adapters against one of all weights: `python bench/lora_step.py MODEL full|lora`.

Rules: an emotion model of seven classes (head `emocls`) on a BERT, fp32, dropout .1; 32 sentences of 20 word pieces;
forward, backward, clipping and fused AdamW, as the trainer does them; adapters of rank 8 on every map of the layers
and the pooler, their dropout .1 unless it is given. The median of 20 steps after 5, by the clock and by the processor's
own time, which other programs disturb less. Memory is what the process holds at most beyond what it held before the
model was made, and what weights, gradients and moments take.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from memofast.data.batch import PackedBatch
from memofast.model.adapters.kept import lines_on_training
from memofast.model.memobert.section import MemoBertEmotionSection
from memofast.model.memobert.starting import start
from memofast.train import optimisation
from memofast.train.fine_tuning_recipe import Tuning

SAMPLES, TOKENS, CLASSES, BEFORE, MEASURED = 32, 20, 7, 5, 20


def sentences() -> PackedBatch:
    generator = torch.Generator().manual_seed(0)
    pieces = torch.randint(1000, 30000, (SAMPLES, TOKENS), generator=generator, dtype=torch.int32)
    pieces[:, 0], pieces[:, -1] = 101, 102
    offsets, none = torch.arange(SAMPLES + 1, dtype=torch.int32) * TOKENS, torch.zeros(SAMPLES + 1, dtype=torch.int32)
    return PackedBatch(
        token_ids=pieces.flatten(), word_ids=torch.zeros(SAMPLES * TOKENS, dtype=torch.int32), text_offsets=offsets,
        visual_offsets=none, speech_offsets=none, offsets=offsets, sample_keys=torch.arange(SAMPLES), visual=None,
        speech=None, targets={},
    )  # fmt: skip


def held() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("kind", choices=["full", "lora"])
    parser.add_argument("--dropout", type=float, default=0.1, help="of adapters")
    asked = parser.parse_args()
    lora = {"target_modules": "all-linear", "r": 8, "lora_alpha": 16, "lora_dropout": asked.dropout}
    if asked.kind == "lora":
        import peft  # noqa: F401 (whose memory is not a step's)
    labels, batch, before = torch.arange(SAMPLES) % CLASSES, sentences(), held()
    section = MemoBertEmotionSection(init=str(asked.model), head="emocls", lora=lora if asked.kind == "lora" else None)
    model = start(section, "single", [str(number) for number in range(CLASSES)], None).train()
    optimiser = optimisation.adamw(model, Tuning().options(1, 1000, 1)[0])
    seconds = []
    for step in range(BEFORE + MEASURED):
        begun = time.perf_counter(), time.process_time()
        F.cross_entropy(model(batch, rng=torch.tensor([1, step + 1])), labels).backward()
        optimisation.clip(model, 1.0, optimiser, waits=True)
        optimiser.step()
        optimiser.zero_grad()
        seconds.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() * p.element_size() for p in model.parameters())
    print(*lines_on_training(model), sep="\n")
    clock, own = (1000 * statistics.median(one) for one in zip(*seconds[BEFORE:], strict=True))
    print(f"{clock:.1f} ms a step, {own:.1f} ms of the processor")
    print(f"{held() - before:.0f} MiB at most, {(every + 3 * trained) / 2**20:.1f} MiB of weights and what trains them")


if __name__ == "__main__":
    main()
