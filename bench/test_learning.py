"""Does the fast step learn the same? Updates by ours and by the padded baseline, from the same weights on the same batches and masks.

Rules: corpus, model, learning rate and clipping of the recipe `demo`; one objective per update, the four in turn; AdamW as PyTorch has it on both
sides; dropout from each side's own generator. On a GPU both sides run under bf16 autocast. The curves are the loss of every update.
"""

from collections.abc import Callable

import pytest
import torch
from padded_step import PaddedModel, collate, wanted

from memofast import objectives
from memofast.data.batch import PackedBatch
from memofast.data.demo import demo_corpus
from memofast.model import MemoBertForPreTraining, conversion
from memofast.objectives import Corruption
from memofast.train.plan import Plan, make_plan
from memofast.train.recipe import read

UPDATES, SAMPLES, SEED = 200, 32, 1
Batch = tuple[PackedBatch, Corruption, torch.Tensor]


def batches(plan: Plan) -> list[Batch]:
    """Samples that every objective can serve, in a fixed random order; numbers [seed, update] are what masks and dropout are drawn from."""
    split = plan.parts[0].train
    whole = torch.from_numpy((split.lengths > 0).all(1)).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(SEED)
    order = torch.cat([whole[torch.randperm(len(whole), generator=generator)] for _ in range(UPDATES)])
    names, found = list(plan.objectives), []
    for update in range(UPDATES):
        batch = split.pack(order[update * SAMPLES : (update + 1) * SAMPLES].numpy())
        rng = torch.tensor([SEED, update + 1])
        corruption = objectives.corrupt(batch, plan.objectives, names[update % len(names)], rng)
        found.append((batch, corruption, rng))
    return found


def learn(plan: Plan, model: torch.nn.Module, loss: Callable[[Batch], torch.Tensor], device: str) -> list[float]:
    train = plan.recipe.train
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=train.lr)
    values = []
    for update, batch in enumerate(batches(plan)):
        for group in optimiser.param_groups:
            group["lr"] = train.lr * min(1.0, (update + 1) / train.warmup)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
        optimiser.step()
        optimiser.zero_grad()
        values.append(value.detach())
    return [float(value) for value in values]


def compare(benchmark, tmp_path, device: str) -> None:
    plan = make_plan(read("demo", [f"corpora.0.path={demo_corpus(tmp_path / 'demo')}"]))
    torch.manual_seed(SEED)
    ours = MemoBertForPreTraining(plan.config)
    padded = PaddedModel(plan.config)
    padded.load_state_dict(conversion.to_original(ours))
    ours, padded = ours.to(device), padded.to(device)

    def our_loss(batch: Batch) -> torch.Tensor:
        rows, corruption, rng = (part.to(device) for part in batch)
        (loss,) = objectives.losses(ours, rows, corruption, rng).values()
        return loss.total / loss.count

    def padded_loss(batch: Batch) -> torch.Tensor:
        rows, corruption, _ = batch
        head, targets = wanted(rows, plan.config, corruption)
        return padded.loss(head, collate(rows, plan.config, corruption).to(device), targets.to(device))

    curves = {"padded": learn(plan, padded, padded_loss, device)}
    curves["memofast"] = benchmark.pedantic(learn, (plan, ours, our_loss, device), rounds=1)
    assert all(torch.tensor(curve).isfinite().all() for curve in curves.values())
    benchmark.extra_info |= {"curves": curves, "objectives": list(plan.objectives)}


def test_learning(benchmark, tmp_path):
    compare(benchmark, tmp_path, "cpu")


@pytest.mark.gpu
def test_gpu_learning(benchmark, tmp_path):
    compare(benchmark, tmp_path, "cuda")
