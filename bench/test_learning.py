"""Does the fast step learn the same? Updates by ours and by the padded baseline, from the same weights on the same
batches and masks.

Rules: corpus, model, learning rate and clipping of the recipe `demo`; one objective per update, the four in turn; AdamW
with PyTorch's defaults on both sides, fused on ours; dropout from each side's own generator. On a GPU both sides run
under bf16 autocast, and ours replays its updates from CUDA graphs of one capacity. The curves are the loss of every
update.
"""

import pytest
import torch
from padded_step import PaddedModel, collate, wanted

from memofast import objectives
from memofast.data import Capacity, View
from memofast.data.batch import rounded_length
from memofast.data.demo import demo_corpus
from memofast.data.modality import MODALITIES
from memofast.data.view import pinned
from memofast.model import MemoBertForPreTraining
from memofast.model.memobert import conversion
from memofast.objectives import Learner
from memofast.train.captured_step import CapturedStep
from memofast.train.optimisation import set_capturable
from memofast.train.plan import Plan, make_plan
from memofast.train.recipe import read
from memofast.train.step import Step

UPDATES, SAMPLES, SEED = 200, 32, 1
Batch = tuple[View, torch.Tensor]


def batches(plan: Plan) -> list[Batch]:
    """Samples that every objective can serve, in a fixed random order; numbers [seed, update] are what masks and
    dropout are drawn from."""
    split = plan.parts[0].train
    whole = torch.from_numpy((split.lengths > 0).all(1)).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(SEED)
    order = torch.cat([whole[torch.randperm(len(whole), generator=generator)] for _ in range(UPDATES)])
    names, found = list(plan.objectives), []
    for update in range(UPDATES):
        batch = split.pack(order[update * SAMPLES : (update + 1) * SAMPLES].numpy())
        rng = torch.tensor([SEED, update + 1])
        (view,) = objectives.views_for(batch, plan.objectives[names[update % len(names)]], rng)
        found.append((view, rng))
    return found


def capacity_of(found: list[Batch]) -> Capacity:
    """Room for each of these batches."""
    batches = [view.batch for view, _ in found]
    most = [max(int(batch.offsets_of(modality)[-1]) for batch in batches) for modality in MODALITIES]
    longest = max(int(batch.offsets.diff().max()) for batch in batches)
    return Capacity(SAMPLES, *most, longest=rounded_length(longest))


def rate_of(plan: Plan, update: int) -> float:
    train = plan.recipe.train
    return train.lr * min(1.0, (update + 1) / train.warmup)


def learn(plan: Plan, learner: Learner, found: list[Batch], device: torch.device) -> list[float]:
    """Losses of our fast step."""
    optimiser = torch.optim.AdamW(learner.train().parameters(), lr=plan.recipe.train.lr, fused=True)
    on_gpu = device.type == "cuda"
    arguments = (learner, optimiser, plan.recipe.train.clip, "bf16" if on_gpu else "fp32", device)
    if on_gpu:
        set_capturable(optimiser, device)
        step = CapturedStep(*arguments, capacity_of(found), plan.objectives)
        found = [(*pinned([view]), rng) for view, rng in found]
    else:
        step = Step(*arguments)
    values = []
    for update, (view, rng) in enumerate(found):
        factors = {name: 1 / count for name, count in view.counts.items()}
        values.append(step.add_gradients([view], factors, rng, True)[0])
        step.clip()
        step.apply(lambda _, rate=rate_of(plan, update): rate)
    return [float(value) for value in values]


def learn_padded(plan: Plan, model: PaddedModel, found: list[Batch], device: torch.device) -> list[float]:
    """Losses of the baseline, operation by operation."""
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=plan.recipe.train.lr)
    on_gpu, values = device.type == "cuda", []
    for update, (view, _) in enumerate(found):
        for group in optimiser.param_groups:
            group["lr"] = rate_of(plan, update)
        head, targets = wanted(view, plan.config)
        collated = collate(view, plan.config).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            value = model.loss(head, collated, targets.to(device))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.recipe.train.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=not on_gpu)  # as the step does that it is compared with
        values.append(value.detach())
    return [float(value) for value in values]


def compare(benchmark, tmp_path, device: str) -> None:
    plan = make_plan(read("demo", [f"corpora.0.path={demo_corpus(tmp_path / 'demo')}"]))
    torch.set_num_threads(plan.recipe.train.threads)
    torch.manual_seed(SEED)
    ours = Learner(MemoBertForPreTraining(plan.config), plan.objectives)
    padded = PaddedModel(plan.config)
    padded.load_state_dict(conversion.to_original(ours.model))
    found, place = batches(plan), torch.device(device)
    curves = {"padded": learn_padded(plan, padded.to(place), found, place)}
    curves["memofast"] = benchmark.pedantic(learn, (plan, ours.to(place), found, place), rounds=1)
    assert all(torch.tensor(curve).isfinite().all() for curve in curves.values())
    benchmark.extra_info |= {"curves": curves, "objectives": list(plan.objectives)}
    if device == "cuda":
        benchmark.extra_info["device"] = "gpu"


def test_learning(benchmark, tmp_path):
    compare(benchmark, tmp_path, "cpu")


@pytest.mark.gpu
def test_gpu_learning(benchmark, tmp_path):
    compare(benchmark, tmp_path, "cuda")
