"""Runs that learn from teachers: one run with modalities alone from the answers of a run of all of them."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console
from test_fine_tuning_runs import SMALL, corpus, recipe, run  # noqa: F401 (fixtures)

from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.metrics.sample_statistics import metrics_of
from memofast.model.families import open_emotion_model
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_run import FoldRun
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.loss_sections import TeacherSection
from memofast.train.teachers import taught
from memofast.train.trainer import Trainer


@pytest.fixture(scope="module")
def teacher(corpus, tmp_path_factory):  # noqa: F811
    """A run of all modalities."""
    from memofast.train.fine_tuning_recipe import FineTuneRecipe

    values = {"epochs": 4, "samples": 8, "lr": 1e-2, "patience": 20, "precision": "fp32", "device": "cpu"}
    folder = tmp_path_factory.mktemp("teacher") / "run"
    plan = make_fine_tuning_plan(
        FineTuneRecipe(corpus=str(corpus), model=SMALL, train=values, settings_chosen_on="nothing")
    )
    fine_tune(plan, folder, Console(quiet=True))
    return folder


def distilled(kind, teacher, *more):
    teachers = f"[{{path: {teacher}}}, {{path: {teacher}, condition: v}}]"
    return f"losses.{kind}={{kind: {kind}, teachers: {teachers}{''.join(more)}}}"


@pytest.mark.parametrize("kind", ["dist", "soft_cross_entropy", "feature_distillation"])
def test_one_run_teaches_every_modality(recipe, teacher, tmp_path, kind):  # noqa: F811
    """Faces alone and speech alone learn from two teachers; each condition of a sample from the same answers."""
    more = ", queue: 10" if kind == "dist" else ""
    plan, _ = run(recipe(distilled(kind, teacher, more), "modalities.train=[v,a]", "train.epochs=2"), tmp_path / "run")
    (log,) = (tmp_path / "run").glob("*/seed-42/metrics.jsonl")
    lines = map(json.loads, log.read_text().splitlines())
    found = [line for line in lines if line["split"] == "train" and line["objective"] == kind]
    assert found and all(line["weight"] == 1 and np.isfinite(line["loss"]) for line in found)
    assert f"learns by the labels and {kind} ({kind}, 1)" in plan.describe()
    assert {condition for _, _, condition, _, _, _ in answers(plan, tmp_path / "run")} >= {"v", "a"}


def test_answers_of_a_teacher_are_its_own_in_the_order_of_our_classes(corpus, teacher):  # noqa: F811
    split = Corpus.open(corpus).split("train")
    sections = [TeacherSection(path=str(teacher)), TeacherSection(path=str(teacher), condition="a")]
    said = taught(sections, [split, split], ("glad", "calm"), False, torch.device("cpu"))
    model = open_emotion_model(teacher)
    assert model.classes == ("calm", "glad")
    some = np.array([7, 3, 30])
    with torch.no_grad():
        wanted = model(split.pack(some))[:, [1, 0]]
    whole, speech = said.of(torch.from_numpy(split.keys[some]))
    torch.testing.assert_close(whole, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(speech, wanted, atol=1e-2) and not said.state_dict()


def test_a_student_follows_its_teacher(recipe, teacher, tmp_path):  # noqa: F811
    """With labels that all but do not count, what is learnt is the teacher's."""
    chosen = recipe(
        distilled("soft_cross_entropy", teacher), "train.loss={kind: cross_entropy, weight: 1.0e-6}", "train.epochs=6"
    )
    plan, _ = run(chosen, tmp_path / "run")
    right = {
        c: float((p.named == p.truth).mean()) for *_, c, part, _, p in answers(plan, tmp_path / "run") if part == "test"
    }
    assert right["lva"] > 0.9


def test_a_queue_is_saved(recipe, teacher, tmp_path):  # noqa: F811
    plan = make_fine_tuning_plan(recipe(distilled("dist", teacher, ", queue: 10")))
    task = FoldRun(plan, plan.folds[0], 1, tmp_path, tmp_path).task()
    names = set(task.learner().objectives.state_dict())
    assert names == {f"dist.queues.{n}.{part}" for n in (0, 1) for part in ("student", "teacher", "count")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["folds.scheme=speaker"], "a teacher has seen test parts of 4 folds"),
        (["target.map={calm: calm, glad: cross}"], "names calm, glad, the model calm, cross"),
        (["losses.dist.teachers=[{path: /nowhere}]"], "losses.dist: .*nowhere"),
        (
            ["losses.dist.kind=feature_distillation", "model.hidden_size=32"],
            "representations 16 wide, the model's are 32",
        ),
    ],
)
def test_teachers_that_do_not_fit(recipe, teacher, overrides, message):  # noqa: F811
    with pytest.raises(MemofastError, match=message) as found:
        make_fine_tuning_plan(recipe(distilled("dist", teacher), *overrides))
    assert "\n" not in str(found.value) and "losses.dist: " in str(found.value)


def test_small_batches_are_warned_of(recipe, teacher):  # noqa: F811
    warned = "warning: losses.dist correlates the answers of 2 samples"
    small = [distilled("dist", teacher), "train.samples=2"]
    assert warned in make_fine_tuning_plan(recipe(*small)).describe()
    for other in ("losses.dist.queue=8", "losses.dist.between=0", "train.samples=3"):
        assert "correlates" not in make_fine_tuning_plan(recipe(*small, other)).describe()


def test_how_many_samples_a_contrast_compares_is_told(recipe):  # noqa: F811
    def told(*overrides):
        plan = make_fine_tuning_plan(recipe("losses.near={kind: supervised_contrast}", *overrides))
        return [line for line in plan.describe().splitlines() if "losses.near compares" in line]

    assert told("train.samples=6") == []
    (line,) = told("train.samples=6", "train.accumulate=4")
    assert line == "losses.near compares 6 samples at a time (train.samples), not the 24 of an update"
    (line,) = told("train.samples=1")
    assert line == "warning: losses.near compares samples, of which a batch has one; raise train.samples"


def test_conditions_that_training_never_shows_are_told(recipe):  # noqa: F811
    plan = make_fine_tuning_plan(recipe("modalities.train=[v]", "modalities.evaluate=[v, lv, va]"))
    wanted = "warning: conditions lv, va show text and speech, which is not learnt from (modalities.train)"
    assert f"{wanted}; set modalities.evaluate" in plan.notes
    assert not any("show" in line for line in make_fine_tuning_plan(recipe("modalities.train=[v, la]")).notes)


LSTM = {"family": "lstm_fusion", "hidden_size": 8}


@pytest.mark.parametrize(
    ("overrides", "message", "model"),
    [
        (["losses.a.kind=spcl"], "losses.a: this model gives no representation", LSTM),
        (["train.loss.detached=true"], "train.loss.detached: this model gives no", LSTM),
        (["train.loss.detached=true"], "nothing else trains the encoder", SMALL),
        (["losses.emotion.kind=spcl"], "losses.emotion: the name is taken", SMALL),
        (["losses.weighting.kind=spcl"], "losses.weighting: the name is taken", SMALL),
        (["train.decode=nearest_centre", "model.head=vqa"], "take a memobert with model.head=emocls", SMALL),
        (["train.decode=nearest_centre"], "train.decode nearest_centre makes a linear head", LSTM),
        (["train.weighting=uncertainty"], "of which there is one", SMALL),
        (["train.groups={objectives.weighting.*: {lr: 10}}"], "no parameter has such a name", SMALL),
    ],
)
def test_losses_that_do_not_fit_the_model(recipe, overrides, message, model):  # noqa: F811
    with pytest.raises(MemofastError, match=message) as found:
        make_fine_tuning_plan(recipe(*overrides, model=model))
    assert "\n" not in str(found.value)


def test_the_nearest_centre_names_the_class(recipe, tmp_path, monkeypatch):  # noqa: F811
    """That of the training's representations, in validation and in the finished model; training keeps its own head."""
    heads, trained = [], Trainer.keep_best

    def kept(trainer):
        trained(trainer)
        heads.append(trainer.learner.model.emotion.classifier.weight.detach().clone())

    monkeypatch.setattr(Trainer, "keep_best", kept)
    chosen = recipe("train.decode=nearest_centre", "losses.spcl={kind: spcl, pool: 20, support: 5}", "train.epochs=2")
    plan, (done,) = run(chosen, tmp_path / "run")
    model, fold = open_emotion_model(tmp_path / "run"), plan.folds[0]
    assert not torch.equal(model.emotion.classifier.weight, heads[0])  # which is that of the checkpoint
    with torch.no_grad():
        z, labels = model.represented(fold.train.pack(np.arange(56))), torch.arange(56) // 4 % 2
        centres = torch.stack([z[labels == number].mean(0) for number in range(2)])
        for part, split in (("validation", fold.validation), ("test", fold.test)):
            own = model.represented(split.pack(np.arange(len(split))))
            cosines = torch.cosine_similarity(own[:, None], centres[None], dim=-1)
            (found,) = [p for *_, c, there, _, p in answers(plan, tmp_path / "run") if (c, there) == ("lva", part)]
            assert found.named.tolist() == cosines.argmax(1).tolist()
            logits = cosines * own.norm(dim=1, keepdim=True) / z.norm(dim=1).mean() / 0.1
            torch.testing.assert_close(torch.from_numpy(found.scores), logits.softmax(1), rtol=1e-3, atol=1e-4)
            if part == "validation":
                assert done["score"] == pytest.approx(metrics_of(found)[plan.metric])
