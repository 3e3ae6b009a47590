"""The steps of a fine-tuning: accumulated, in tensors of fixed shape as CUDA graphs replay them, and which parameters
they leave alone."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from replays import check_replays
from runs import first_updates

from memofast.data import Stream, write_corpus
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.model.problems import PROBLEMS
from memofast.objectives.label_space import LabelSpace
from memofast.store import FeatureWriter, TextWriter
from memofast.train import captured_step, optimisation
from memofast.train.captured_step import CapturedStep
from memofast.train.fine_tuning import OBJECTIVE, FineTuning
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.processes import Processes
from memofast.train.step import Step
from memofast.train.trainer import Trainer

CLASSES, EMOTIONS = ("calm", "glad", "cross"), ("joy", "fear")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """46 samples to train on, of which every seventh label and every fifth value is unknown; some without faces, some
    without speech."""
    folder, random = tmp_path_factory.mktemp("steps") / "corpus", np.random.default_rng(4)
    ids = [f"s{number:02}" for number in range(58)]
    with (
        TextWriter(folder / "text", classes=CLASSES, emotions=EMOTIONS, value="from -3 to 3") as text,
        FeatureWriter(folder / "visual", 4) as faces,
        FeatureWriter(folder / "speech", 5) as speech,
    ):
        for number, id in enumerate(ids):
            label = None if number % 7 == 3 else (0, 0, 1, 0, 2)[number % 5]
            shares = random.random(2).astype(np.float32)
            value = None if number % 5 == 1 else float(random.uniform(-3, 3))
            words = random.integers(5, 90, number % 6)
            text.put(id, words, range(len(words)), label=label, emotions=shares / shares.sum(), value=value)
            if number % 8 != 5:
                faces.put(id, random.normal(size=(1 + number % 9, 4)))
            if number % 9 != 2:
                speech.put(id, random.normal(size=(1 + number % 11, 5)))
    stores = {name: folder / name for name in ("text", "visual", "speech")}
    return write_corpus(folder, "mixed", stores, {"train": ids[:46], "validation": ids[46:]})


def task_of(corpus, kind="single", conditions=("lva",), freeze=0, dropout=0.1, world=1, eligible=None, **options):
    torch.manual_seed(5)
    target = LabelSpace.of_corpus(corpus, kind)
    model = MemoBertForEmotion(
        MemoBertConfig(
            vocab_size=110, mask_token_id=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, visual_width=4, speech_width=5, initializer_range=0.2, hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout, problem_type=PROBLEMS[kind], emotion_head="vqa",
            id2label=dict(enumerate(target.classes)),
        )
    )  # fmt: skip
    model.memobert.freeze(freeze)
    streams = [Stream(corpus.split("train"), objective=condition, eligible=eligible) for condition in conditions]
    tuning = {"epochs": 4, "samples": 8, "lr": 1e-2, "precision": "fp32", "device": "cpu", "metric": "ua"} | options
    return FineTuning(model, streams, corpus.split("validation"), Tuning(**tuning), 3, ("lva",), target, world)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("single", {}),
        ("single", {"class_weights": "balanced", "smoothing": 0.2, "hide": 0.4, "hide_columns": 0.3}),
        ("multi", {"class_weights": "balanced", "smoothing": 0.1}),
        ("regression", {"hide": 0.3}),
    ],
    ids=["single", "weighted and hidden", "multi", "regression"],
)
def test_what_is_captured_gives_the_same_gradients(corpus, precision, kind, options):
    """46 samples in batches of eight end an epoch with six, and what is unknown is no target."""
    conditions = ("l", "va", "lva")
    task = task_of(corpus, kind, conditions, **options)
    batches = [(update.micro_batches[0].views, update.step) for update in first_updates(task, 20)]
    counts = {views[0].counts[OBJECTIVE] for views, _ in batches}
    assert counts == {8, 6} if kind == "multi" else len(counts) > 2 and max(counts) < 9
    check_replays(task, batches, precision, kinds=2)  # without words too there is [CLS], so that va and lva are one


def test_a_micro_batch_of_which_nothing_is_known_leaves_zeros(corpus):
    """Alone it is no loss; beside another one it adds nothing, and its modalities are stepped as usual."""
    unknown = np.arange(46) % 7 == 3
    task = task_of(corpus, eligible=unknown)
    (update,) = first_updates(task, 1)
    views = update.micro_batches[0].views
    assert views[0].counts == {OBJECTIVE: 0} and views[0].batch.samples == 7
    learner = task.learner()
    total, losses = Step(learner, None, 1.0, "fp32", CPU).add_gradients(
        views, {OBJECTIVE: 1.0}, torch.tensor([3, 1]), True
    )
    assert float(total) == 0 == losses[OBJECTIVE].count
    reached = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    assert "model.memobert.embeddings.speech.projection.weight" in reached
    assert not any(grad.any() for grad in reached.values())


def weights(task):
    return {name: p.detach().clone() for name, p in task.model.named_parameters()}


def trained(task, folder, updates):
    """Losses by update, and the weights."""
    folder.mkdir()
    task.options = task.options.model_copy(update={"updates": updates, "log_every": 1})
    task.every = updates + 1
    task.validation = None
    trainer, found = Trainer(task, folder, Processes()), []
    settle = trainer._settle

    def noted():
        found.extend(sums["loss"] / sums["targets"] for done in trainer._pending for sums in done.tally.sums().values())
        settle()

    trainer._settle = noted
    trainer.run()
    return found, weights(task)


def test_accumulated_micro_batches_are_one_batch_of_all_their_samples(corpus, tmp_path):
    """Where all is known: the same losses and weights, dropout and all."""
    known = np.arange(46) % 7 != 3
    known[np.flatnonzero(known)[32:]] = False  # two updates of sixteen make an epoch
    options = {"eligible": known, "eps": 1e-3}  # else Adam makes much of rounding where a gradient is all but zero
    whole = trained(task_of(corpus, samples=16, **options), tmp_path / "whole", 6)
    parts = trained(task_of(corpus, samples=8, accumulate=2, **options), tmp_path / "parts", 6)
    assert len(whole[0]) == len(parts[0]) == 6
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    for name, weight in whole[1].items():
        torch.testing.assert_close(parts[1][name], weight, rtol=1e-5, atol=1e-5, msg=name)


def test_targets_of_all_micro_batches_weigh_alike(corpus):
    """Unknown labels are no targets: two micro-batches with unlike numbers of them give the mean over all of them."""
    task = task_of(corpus, samples=8, accumulate=2, dropout=0.0)
    (update,) = first_updates(task, 1)
    parts = [micro_batch.views for micro_batch in update.micro_batches]
    counts = [views[0].counts[OBJECTIVE] for views in parts]
    assert len(set(counts)) == 2
    learner = task.learner()
    sums = [learner(views)[OBJECTIVE].total for views in parts]
    (sum(sums) / sum(counts)).backward()
    wanted = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    learner.zero_grad()
    trainer = Trainer.__new__(Trainer)
    trainer.task, trainer.options, trainer.processes, trainer.device = task, task.options, Processes(), CPU
    trainer.step = Step(learner, None, 1e9, "fp32", CPU)
    trainer.step.apply = lambda rate: None
    trainer._pending, trainer._samples, trainer._rows = [], 0, 0
    trainer._settle = lambda: None
    trainer.update(update)
    for name, p in learner.named_parameters():
        assert (p.grad is None) == (name not in wanted), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, wanted[name], rtol=1e-5, atol=1e-7)


@pytest.fixture
def on_cpu(monkeypatch):
    """`CapturedStep` as it runs before it captures anything, with neither streams nor page-locked memory."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(CapturedStep, "_aside", lambda self, function: function())
    monkeypatch.setattr(CapturedStep, "_capture", lambda self, graph: nullcontext())
    monkeypatch.setattr(captured_step, "_WARM_UP", 10**6)
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *a, pin_memory=False, **k: tensor(*a, **k))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_an_update_does_not_reach_is_left_alone(corpus, on_cpu, accumulate):
    """Frozen parameters, mask vectors of a run that hides nothing, and modalities that no micro-batch showed: in
    replayed steps as in plain ones."""
    after, moved = [], []
    for kind in (Step, CapturedStep):
        task = task_of(corpus, conditions=("l", "v", "lva"), freeze=1, accumulate=accumulate, weight_decay=0.5)
        task.model.memobert.embeddings.requires_grad_(True)
        learner, optimiser = task.learner().train(), None
        optimiser = optimisation.adamw(learner, task.options)
        room = (task.capacity, task.objectives) if kind is CapturedStep else ()
        step, begun = kind(learner, optimiser, 1.0, "fp32", CPU, *room), weights(task)
        changed = []
        for update in first_updates(task, 12):
            before = weights(task)
            for number, micro_batch in enumerate(update.micro_batches, 1):
                rng, last = torch.tensor([3, update.step]), number == accumulate
                step.add_gradients(micro_batch.views, {OBJECTIVE: 0.1}, rng, last)
            step.clip()
            step.apply(lambda _: 1e-2)
            changed.append({name for name, weight in weights(task).items() if not torch.equal(weight, before[name])})
            shown = "".join(micro_batch.objective for micro_batch in update.micro_batches)
            speech = {name for name in changed[-1] if "embeddings.speech" in name}
            assert bool(speech) == ("a" in shown)
        after.append(weights(task))
        moved.append(changed)
        left = {name for name, weight in weights(task).items() if torch.equal(weight, begun[name])}
        assert left == {name for name in begun if name.endswith(".mask") or "encoder.layers.0." in name}
    assert moved[0] == moved[1] and len({frozenset(changed) for changed in moved[0]}) > 1
    for name, weight in after[0].items():
        replayed = after[1][name]
        if name.endswith("qkv.bias"):  # of keys, whose gradient is rounding alone, AdamW makes whole steps
            replayed, weight = (torch.cat((bias.chunk(3)[0], bias.chunk(3)[2])) for bias in (replayed, weight))
        torch.testing.assert_close(replayed, weight, rtol=1e-4, atol=1e-4, msg=name)
