"""Losses beside that of the labels in a fine-tuning: what the log says of them, resumed runs, and what is refused."""

import json

import pytest
import torch
from runs import first_updates
from test_fine_tuning_steps import corpus, task_of  # noqa: F401 (a fixture)

from memofast.data import Stream
from memofast.errors import MemofastError
from memofast.objectives.class_prototypes import class_means
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import FineTuneRecipe, Tuning, read
from memofast.train.further_losses import UncertaintyWeights
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer


def losses_of(**sections):
    return FineTuneRecipe(corpus="x", losses=sections).losses


def losing(corpus, losses, seed=3, world=1, conditions=("lva",), epochs=2, **options):  # noqa: F811
    plain = task_of(corpus)
    tuning = {"samples": 8, "lr": 1e-2, "precision": "fp32", "device": "cpu", "metric": "ua"} | options
    streams = [Stream(corpus.split("train"), objective=condition) for condition in conditions]
    return FineTuning(
        plain.model, streams, corpus.split("validation"), Tuning(epochs=epochs, **tuning), seed, ("lva",), plain.target,
        world, losses=losses_of(**losses),
    )  # fmt: skip


def train(task, folder, dies_at=None):
    """To the end, or to an update at which the process is gone; saved every third."""
    folder.mkdir(exist_ok=True)
    task.options = task.options.model_copy(update={"save_every": 3, "log_every": 1})
    trainer = Trainer(task, folder, Processes())
    update = trainer.update

    def updated(one):
        if one.step == dies_at:
            raise KeyboardInterrupt
        update(one)

    trainer.update = updated
    if dies_at:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return trainer


def logged(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == "train"]


SPCL = {"kind": "spcl", "pool": 12, "support": 4, "weight": 0.3, "curriculum": True}
KEEPING = {
    "spcl": SPCL,
    "spcl_random": {
        "kind": "spcl",
        "centres": "random",
        "form": "decoupled",
        "anchors": "all",
        "pool": 9,
        "support": 3,
    },
    "apcl": {"kind": "apcl", "weight": 2},
    "apcl_first": {"kind": "apcl", "form": "first", "compat": True},
    "contrast": {"kind": "supervised_contrast", "weight": 0.5},
}


def test_every_loss_is_logged_once_with_its_weight(corpus, tmp_path):  # noqa: F811
    train(losing(corpus, KEEPING, loss={"kind": "focal", "weight": 0.7}), tmp_path)
    lines = logged(tmp_path)
    weights = {"emotion": 0.7, "spcl": 0.3, "spcl_random": 1, "apcl": 2, "apcl_first": 1, "contrast": 0.5}
    for step in {line["step"] for line in lines}:
        of_step = [line for line in lines if line["step"] == step]
        assert {line["objective"]: pytest.approx(line["weight"]) for line in of_step} == weights
        assert len(of_step) == len(weights)
    assert all(line["loss"] > 0 for line in lines if line["objective"] != "apcl")


@pytest.mark.parametrize("name", KEEPING)
def test_each_loss_trains_the_encoder(corpus, name):  # noqa: F811
    """The labels' loss is detached, so that the contrast alone reaches it; and with its weight."""
    reached = []
    for weight in (1.0, 3.0):
        task = losing(
            corpus, {name: KEEPING[name] | {"weight": weight}}, loss={"kind": "cross_entropy", "detached": True}
        )
        assert not task.capturable("fp32", torch.device("cpu"))
        learner = task.learner().train()
        (update,) = first_updates(task, 1)
        views = update.micro_batches[0].views
        found = learner(views, torch.tensor([3, 1]))
        assert list(found) == ["emotion", name] == views[0].readers
        total = sum(task.share(update.micro_batches[0], one) * sums.total / sums.count for one, sums in found.items())
        total.backward()
        reached.append(task.model.memobert.encoder.layers[0].qkv.weight.grad.clone())
        assert task.model.emotion.classifier.weight.grad.any()
    assert reached[0].any()
    torch.testing.assert_close(reached[1], 3 * reached[0], rtol=1e-4, atol=1e-7)


WEIGHED = {"weighting": "uncertainty", "groups": {"objectives.weighting.*": {"lr": 10.0}}}


@pytest.mark.parametrize("options", [{}, WEIGHED], ids=["fixed", "uncertainty"])
def test_a_killed_run_goes_on_with_the_same_bits(corpus, tmp_path, options):  # noqa: F811
    """Pools, prototypes, the curriculum's choice and learnt weights are saved; it dies within an epoch."""
    whole = train(losing(corpus, KEEPING, **options), tmp_path / "whole")
    train(losing(corpus, KEEPING, **options), tmp_path / "killed", dies_at=11)
    state = losing(corpus, KEEPING, **options).learner().state_dict()
    resumed = train(losing(corpus, KEEPING, **options), tmp_path / "killed")
    assert resumed.state.step == whole.state.step == 12
    for name, values in whole.learner.state_dict().items():
        assert torch.equal(values, resumed.learner.state_dict()[name]), name
        if name.startswith("objectives.") and not name.endswith("random.pools.centres"):
            assert not torch.equal(values, state[name]), name
    steps = [[line | {"samples_per_s": 0, "rows_per_s": 0, "peak_memory_gib": 0} for line in logged(tmp_path / name)]
             for name in ("whole", "killed")]  # fmt: skip
    assert steps[0] == steps[1]


def test_half_precision_compares_rows_of_whole_precision(corpus, tmp_path):  # noqa: F811
    """What autocast makes is bf16; products of similarities are not."""
    trainer = train(losing(corpus, KEEPING, precision="bf16"), tmp_path)
    assert trainer.precision == "bf16"
    prototypes = trainer.learner.objectives["apcl"].prototypes.prototypes
    torch.testing.assert_close(prototypes @ prototypes.T, torch.eye(3), rtol=0, atol=1e-5)
    assert all(line["loss"] < 50 for line in logged(tmp_path))


def test_validation_changes_no_state(corpus, tmp_path):  # noqa: F811
    trainer = train(losing(corpus, KEEPING), tmp_path)
    before = {name: values.clone() for name, values in trainer.learner.objectives.state_dict().items()}
    trainer.validate()
    after = trainer.learner.objectives.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items()) and len(before) > 10


def test_learnt_weights_are_the_formula_and_begin_as_given(corpus):  # noqa: F811
    sigma, losses = torch.tensor([0.7, 1.3, 2.0]).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    weights = UncertaintyWeights({"a": 0.5, "b": 2.0, "c": 1.0})
    found = [weights(name, 3.0 * loss, 3) for name, loss in zip("abc", losses, strict=True)]
    assert [float(weight) for _, weight in found] == pytest.approx([0.5, 2, 1])
    assert [total.item() for total, _ in found] == pytest.approx([3, 6, 1.5])  # the log shows losses as they are
    for value, one in zip(sigma, weights.log_variances.values(), strict=True):
        one.data = value.log()
    loss = losses.clone().requires_grad_()
    total = sum(weights(name, one, 1)[0] for name, one in zip("abc", loss, strict=True))
    given = [sigma.clone().requires_grad_(), losses.clone().requires_grad_()]
    original = (0.5 / given[0] * given[1]).sum() + given[0].log().sum()
    assert original.item() == pytest.approx(2.2073529846051874)  # as the golden file has it
    wanted = torch.autograd.grad(original, given)
    torch.testing.assert_close(torch.autograd.grad(total, loss, retain_graph=True)[0], wanted[1])
    own = torch.autograd.grad(total, list(weights.log_variances.values()))
    torch.testing.assert_close(torch.stack(own), wanted[0] * sigma)  # by the logarithm


def test_learnt_weights_learn(corpus, tmp_path):  # noqa: F811
    train(losing(corpus, {"contrast": KEEPING["contrast"]}, **WEIGHED), tmp_path)
    weights = [line["weight"] for line in logged(tmp_path) if line["objective"] == "contrast"]
    assert weights[0] == pytest.approx(0.5) and abs(weights[-1] - weights[0]) > 0.05


def test_curriculum_and_centres_are_of_the_epoch(corpus, tmp_path):  # noqa: F811
    """Of the training's samples in evaluation; unknown labels have none of it."""
    task = losing(corpus, {"spcl": SPCL}, lr=1e-9, conditions=("l", "va"))
    keys, labels, z = task._everything("fp32", torch.device("cpu"))
    split = corpus.split("train")
    known = [number for number in range(46) if number % 7 != 3]
    assert sorted(keys.tolist()) == sorted(2 * split.keys[known].tolist())
    trainer = train(task, tmp_path)
    spcl = trainer.learner.objectives["spcl"]
    torch.testing.assert_close(spcl.pools.centres, class_means(z, labels, 3), rtol=1e-4, atol=1e-5)
    assert int(spcl.epoch) == 2
    chosen = spcl.curriculum.of(torch.from_numpy(split.keys))
    assert 0 < chosen.sum() < len(known) and not chosen[[number for number in range(46) if number % 7 == 3]].any()
    assert task.model.training


def test_only_those_that_the_curriculum_chose_take_part(corpus):  # noqa: F811
    """And the model, which was asked in evaluation, goes on in training."""
    task = losing(corpus, {"spcl": SPCL | {"pool": 99}}, samples=46)
    (update,) = first_updates(task, 1)
    views, learner = update.micro_batches[0].views, task.learner().train()
    learner(views, torch.tensor([3, 1]))
    spcl, read = learner.objectives["spcl"], views[0].reads["spcl"]
    chosen = spcl.curriculum.of(views[0].batch.sample_keys[read.labels]).sum()
    assert spcl.pools.counts.sum() == 3 + chosen and 3 < chosen < read.count - 3
    assert all(module.training for module in learner.model.modules())


def test_a_batch_of_which_nothing_is_known_changes_no_weight(corpus):  # noqa: F811
    task = losing(corpus, KEEPING, samples=46)
    (update,) = first_updates(task, 1)
    views, learner = update.micro_batches[0].views, task.learner().train()
    for one in views[0].reads.values():
        one.rows, one.labels, one.count = one.rows[:0], one.labels[:0], 0
    found = learner(views, torch.tensor([3, 1]))
    assert {name: sums.total.item() for name, sums in found.items()} == dict.fromkeys(found, 0.0)
    sum(sums.total for sums in found.values()).backward()
    assert not any(p.grad.any() for p in task.model.parameters() if p.grad is not None)


def test_what_losses_count_in_an_update(corpus):  # noqa: F811
    for options, shares in (({}, [1.0, 0.5]), (WEIGHED, [1.0, 1.0])):
        task = losing(corpus, {"contrast": KEEPING["contrast"]}, **options)
        assert [task.share(None, name) for name in task.objectives] == shares


@pytest.mark.parametrize("name", ["spcl", "apcl"])
def test_several_processes_are_refused_where_samples_are_kept(corpus, name):  # noqa: F811
    with pytest.raises(MemofastError, match=f"2 processes would not share; set losses.{name}.gather=ranks"):
        losing(corpus, {name: KEEPING[name]}, world=2)
    losing(corpus, {name: {**KEEPING[name], "gather": "ranks"}}, world=2)
    losing(corpus, {"contrast": KEEPING["contrast"]}, world=2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["losses.a.kind=spcll"], "losses.a has no kind 'spcll'; did you mean"),
        (["losses.a.weight=1"], "losses.a has no kind ''"),
        (["losses.a={kind: spcl, temperatur: 1}"], "unknown key losses.a.temperatur.*losses.a.temperature"),
        (["losses.A={kind: spcl}"], "losses.A"),
        (["train.loss={kind: focal, gama: 1}"], "unknown key train.loss.gama; did you mean train.loss.gamma"),
        (["losses.a={kind: spcl, support: 300}"], "losses.a: support 300 is more than a pool of 256"),
        (["losses.a={kind: spcl, curriculum: true, centres: random}"], "losses.a: curriculum measures"),
        (["losses.a={kind: apcl, beta: 0.5}"], "losses.a: form head has no beta"),
        (["losses.a={kind: dist, teachers: []}"], "losses.a.teachers"),
        (["losses.a={kind: dist, teachers: [{path: x, condition: x}]}"], "'x' is no condition"),
        (["losses.a={kind: dist, within: 0, between: 0, teachers: [{path: x}]}"], "both 0"),
        (["losses.a={kind: apcl}", "target.kind=regression"], "losses.a is of one class of several.*regression"),
        (["losses.a={kind: supervised_contrast}", "target.kind=multi"], "losses.a is of one class.*multi"),
        (["train.loss={kind: focal}", "target.kind=multi"], "train.loss is of one class of several"),
        (["train.decode=nearest_centre", "target.kind=multi"], "train.decode names one class of several"),
        (["train.loss={kind: focus}"], "train.loss has no kind 'focus'"),
        (
            ["losses.a={kind: dist, teachers: [{path: x}]}", "search={train.lr: [1, 2]}"],
            "losses.a: a teacher has learnt from what search holds out",
        ),
    ],
)
def test_recipes_are_refused_in_one_line(overrides, message):
    with pytest.raises(MemofastError, match=message) as found:
        read("finetune", ["corpus=x", *overrides])
    assert "\n" not in str(found.value)
