"""One update against numbers worked out by hand: unequal shares, unequal numbers of targets, two micro-batches, ranks,
unequal corpora."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from runs import SMALL, first_updates, small_corpus, small_recipe

from memofast.data import Draw, MicroBatch, Read, Stream, Update, View
from memofast.objectives import LossSum
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.processes import Processes
from memofast.train.recipe import read
from memofast.train.state import State
from memofast.train.trainer import Trainer
from memofast.train.validation import relative_loss

SPEECH, EMOTION, FACES, WORDS = SMALL["objectives"]
SHARES = {WORDS: {"share": 5}, FACES: {"share": 2}, EMOTION: {"share": 2}, SPEECH: {"share": 1}}  # .5, .2, .2, .1
COUNTS = ({WORDS: 3, FACES: 2, EMOTION: 0, SPEECH: 1}, {WORDS: 5, FACES: 0, EMOTION: 0, SPEECH: 7})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("update"))


def trainer_of(folder, corpus, processes=None, **train):
    options = {"accumulate": 2, "precision": "fp32", "device": "cpu", **train}
    recipe = small_recipe(folder, corpus, objectives=SHARES, train=options)
    return Trainer(PreTraining(make_plan(read(str(recipe)))), folder, processes or Processes())


class OtherRank(Processes):
    """The first of two ranks; the other one has these targets, and as many samples and rows."""

    def __init__(self, counts):
        super().__init__(rank=0, world=2)
        self.counts = counts

    def host_sum(self, values):
        others = (*(self.counts[name] for name in sorted(self.counts)), *values[4:])  # in the recipe's order
        return [mine + other for mine, other in zip(values, others, strict=True)]

    def sum_(self, values):
        return values

    def wrap(self, learner, device, partial):
        return learner


def factors_of(trainer, objective=None):
    """What each micro-batch of `COUNTS` is told to multiply sums of losses with, and whether it is the last."""
    nothing = SimpleNamespace(ids=["a"], samples=1, rows=2)
    stream = Stream(trainer.task.plan.parts[0].train, objective=objective)
    parts = []
    for counts in COUNTS:
        counts = counts if objective is None else {objective: counts[objective]}
        reads = {name: Read(name, torch.zeros(count, dtype=torch.int64)) for name, count in counts.items()}
        parts.append(MicroBatch(nothing, Draw(stream, [0], 0), [View(nothing, reads=reads)]))
    told = []

    def add_gradients(views, factors, rng, last):
        told.append((factors, last))
        assert rng.tolist() == [trainer.options.seed, 1]
        return torch.tensor(0.0), {name: LossSum(torch.tensor(0.0), n) for name, n in views[0].counts.items()}

    trainer.step = SimpleNamespace(
        add_gradients=add_gradients, clip=lambda: torch.tensor(0.0), apply=lambda rate_of: told.append(rate_of(None))
    )
    trainer.update(Update(1, parts))
    return told


def test_each_objective_is_its_share_of_the_mean_over_all_its_targets(corpus, tmp_path):
    (first, not_last), (second, last), rate = factors_of(trainer_of(tmp_path, corpus, warmup=4, lr=1e-2))
    wanted = {WORDS: 0.5 / 8, FACES: 0.2 / 2, EMOTION: 0.2, SPEECH: 0.1 / 8}
    assert first == pytest.approx(wanted) and second == pytest.approx(wanted)
    assert (not_last, last) == (False, True) and rate == pytest.approx(1e-2 / 4)


def test_an_update_of_one_objective_is_its_mean(corpus, tmp_path):
    (first, _), (second, _), _ = factors_of(trainer_of(tmp_path, corpus, mixing="update"), SPEECH)
    assert first == second == {SPEECH: 1 / 8}


def test_targets_of_other_ranks_count_and_their_average_is_undone(corpus, tmp_path):
    other = OtherRank({WORDS: 2, FACES: 0, EMOTION: 4, SPEECH: 11})
    (first, _), (second, _), _ = factors_of(trainer_of(tmp_path, corpus, other))
    wanted = {WORDS: 2 * 0.5 / 10, FACES: 2 * 0.2 / 2, EMOTION: 2 * 0.2 / 4, SPEECH: 2 * 0.1 / 19}
    assert first == pytest.approx(wanted) and second == pytest.approx(wanted)


def test_gradients_are_those_of_the_sum_over_objectives_of_share_times_mean(corpus, tmp_path):
    trainer = trainer_of(tmp_path, corpus, samples=6)
    trainer.learner.eval()  # no dropout
    (update,) = first_updates(trainer.task, 1)
    trainer.step.apply = lambda rate_of: None
    trainer.step.clip = lambda: torch.tensor(0.0)
    trainer.update(update)
    found = [parameter.grad.clone() for parameter in trainer.learner.parameters()]
    trainer.learner.zero_grad()
    totals, counts = dict.fromkeys(SHARES, 0.0), dict.fromkeys(SHARES, 0)
    for part in update.micro_batches:
        for name, loss in trainer.learner(part.views).items():
            totals[name], counts[name] = totals[name] + loss.total, counts[name] + loss.count
    assert all(counts.values()) and len(set(counts.values())) > 2
    for name, share in zip(SHARES, (0.5, 0.2, 0.2, 0.1), strict=True):
        (share * totals[name] / counts[name]).backward(retain_graph=True)
    for mine, parameter in zip(found, trainer.learner.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-7)


def test_checkpoints_are_chosen_by_corpora_and_objectives_as_they_are_weighted(corpus, tmp_path):
    """The second corpus is drawn three times as often, for words and speech alone, of whose shares of .5 and .1 it
    makes 5/6 and 1/6."""
    other = small_corpus(tmp_path)
    description = json.loads((other / "corpus.json").read_text())
    (other / "corpus.json").write_text(json.dumps(description | {"name": "other"}))
    values = yaml.safe_load(small_recipe(tmp_path, corpus, objectives=SHARES).read_text())
    values["corpora"].append({"path": str(other), "weight": 3.0, "objectives": [WORDS, SPEECH]})
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(values))
    plan = make_plan(read(str(tmp_path / "two.yaml"), ["train.mixing=update"]))
    weights = PreTraining(plan)._weights
    own = {WORDS: 0.5, FACES: 0.2, EMOTION: 0.2, SPEECH: 0.1}
    wanted = {("demo", name): share for name, share in own.items()}
    wanted |= {("other", WORDS): 3 * 5 / 6, ("other", SPEECH): 3 * 1 / 6}
    assert weights == pytest.approx(wanted)
    assert {(s.name, s.objective): s.weight for s in plan.streams()} == pytest.approx(wanted)
    scores = {key: {"loss": 1.0 + number, "trivial": 2.0} for number, key in enumerate(wanted)}
    bounded = [0.5, 1.0, 2 - 1 / 1.5, 2 - 1 / 2.0, 2 - 1 / 2.5, 2 - 1 / 3.0]
    by_hand = sum(weight * ratio for weight, ratio in zip((0.5, 0.2, 0.2, 0.1, 2.5, 0.5), bounded, strict=True))
    assert relative_loss(scores, weights) == pytest.approx(by_hand / 4)


def test_of_equal_validations_the_first_is_the_best():
    state = State()
    for step, value in ((1, 0.9), (2, 0.8), (3, 0.8), (4, 0.85)):
        state.step = step
        state.consider({("a", "x"): {"loss": value}}, value)
    assert (state.best, state.best_value, state.scores) == (2, 0.8, {("a", "x"): {"loss": 0.8}})
