"""Settings chosen inside the training part: what inner folds hold, that the outer part is never looked at, what wins,
what is told and kept."""

import json

import numpy as np
import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from memofast.data import write_corpus
from memofast.data.folds import read_groups, write_groups
from memofast.errors import MemofastError
from memofast.evaluate.how_chosen import how_chosen, lines_of_choice, section_of_search
from memofast.metrics.predictions import Predictions
from memofast.store import FeatureWriter, TextWriter
from memofast.train import nested_search
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read, said_of_changes
from memofast.train.fine_tuning_run import FoldRun
from memofast.train.fine_tuning_runs import fine_tune
from memofast.train.fold_parts import inner_folds
from memofast.train.nested_search import minutes_of
from memofast.train.trainer import Trainer

CLASSES = ("calm", "glad")
QUIET = Console(quiet=True)
SMALL = {
    "vocab_size": 110, "mask_token_id": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "head": "emocls", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def spoken(folder, spoilt=()):
    """75 samples of five speakers, whose faces tell the class; the labels of the spoilt speakers are turned round."""
    random, ids = np.random.default_rng(0), [f"s{number:02}" for number in range(75)]
    speaker = {id: f"p{number % 5}" for number, id in enumerate(ids)}
    with TextWriter(folder / "text", classes=CLASSES) as text, FeatureWriter(folder / "visual", 4) as faces:
        for number, id in enumerate(ids):
            label = number // 5 % 3 % 2
            text.put(id, [20], [0], label=1 - label if speaker[id] in spoilt else label)
            faces.put(id, random.normal(2 * label, 0.4, (1 + number % 3, 4)))
    write_corpus(folder, "moods", {name: folder / name for name in ("text", "visual")}, {"train": ids})
    write_groups(folder, "speaker", speaker)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return spoken(tmp_path_factory.mktemp("nested") / "corpus")


@pytest.fixture
def recipe(corpus, tmp_path):
    def make(*overrides, of=corpus):
        values = {
            "corpus": str(of), "model": SMALL, "folds": {"by": "speaker", "count": 5, "only": [2]},
            "settings_chosen_on": "nothing", "modalities": {"evaluate": ["v"]},
            "train": {
                "epochs": 6, "samples": 8, "lr": 1e-2, "precision": "fp32", "device": "cpu", "seeds": [3, 4],
                "validations": 1,
            },
            "search": {"train.lr": [1e-5, 2e-2]},
        }  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return read(str(path), list(overrides))

    return make


def chosen_of(run):
    (path,) = run.glob("*/search/chosen.json")
    values = json.loads(path.read_text())
    for tried in values["tried"]:
        for score in tried["scores"]:
            del score["seconds"]
    return values


@pytest.mark.parametrize("protocol", ["clean", "last"])
def test_inner_folds_are_of_whole_groups_of_the_training_part(recipe, protocol):
    plan = make_fine_tuning_plan(recipe(f"protocol={protocol}", "inner_folds=4"))
    (fold,) = plan.folds
    group_of = read_groups(plan.corpus, "speaker")
    inner = inner_folds(fold, plan.recipe, plan.target)
    assert [len(one.test) for one in inner] == [15] * 4 and [one.name for one in inner] == [
        f"inner-{n}" for n in range(1, 5)
    ]
    assert {group_of[id] for one in inner for id in one.test.ids}.isdisjoint(group_of[id] for id in fold.test.ids)
    for one in inner:
        parts = [one.train, one.test] + ([one.validation] if protocol == "clean" else [])
        speakers = [{group_of[id] for id in part.ids} for part in parts]
        assert sum(map(len, speakers)) == 4 == len(set.union(*speakers)) and sum(map(len, parts)) == 60
        assert one.selected_on == ("validation" if protocol == "clean" else "nothing")


def test_inner_folds_without_groups_have_their_share_of_each_class(recipe):
    only = recipe(
        "folds={by: null, count: null, only: null, test: null}", "inner_folds=4", "train.share=0.5", "train.seeds=[3]"
    )
    plan = make_fine_tuning_plan(only)
    inner = inner_folds(plan.folds[0], plan.recipe, plan.target)
    label = {id: int(plan.corpus.stores["text"].read(id)["label"][0]) for id in plan.corpus.stores["text"].ids}
    tested = [id for one in inner for id in one.test.ids]
    assert len(tested) == len(set(tested)) == 33 + len(plan.folds[0].validation)  # half of 45 and of 22 to train on
    for one in inner:
        glad = sum(label[id] for id in one.test.ids)
        assert abs(glad - sum(label[id] for id in tested) / 4) < 1 and abs(len(one.test) - len(tested) / 4) < 1


def test_the_validation_part_may_choose(recipe):
    plan = make_fine_tuning_plan(recipe("inner_folds=validation"))
    (inner,) = inner_folds(plan.folds[0], plan.recipe, plan.target)
    assert inner.test is None and inner.validation is plan.folds[0].validation


def test_the_outer_part_is_not_looked_at(recipe, corpus, tmp_path):
    """Labels of its speaker are spoilt: every choice, weight and answer stays, their scores alone do not."""
    plan = make_fine_tuning_plan(recipe("inner_folds=2"))
    done = fine_tune(plan, tmp_path / "one", QUIET)
    group_of = read_groups(plan.corpus, "speaker")
    (tested,) = {group_of[id] for id in plan.folds[0].test.ids}
    other = make_fine_tuning_plan(recipe("inner_folds=2", of=spoken(tmp_path / "spoilt", {tested})))
    fine_tune(other, tmp_path / "other", QUIET)
    assert chosen_of(tmp_path / "one") == chosen_of(tmp_path / "other")
    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "other")]
    assert weights[0].keys() == weights[1].keys() and all((weights[1][n] == w).all() for n, w in weights[0].items())
    for seed in (3, 4):
        said = [
            Predictions.load(tmp_path / r / "speaker-02" / f"seed-{seed}" / "answers/test-v.npz")
            for r in ("one", "other")
        ]
        assert (said[0].scores == said[1].scores).all() and (said[0].truth == 1 - said[1].truth).all()
        assert (said[0].named == said[0].truth).mean() > 0.9
    assert [one["settings"] for one in done] == [{"train.lr": 0.02}] * 2


def test_every_candidate_is_tried_once_and_the_winner_is_trained(recipe, tmp_path, monkeypatch):
    """Stopped in the middle and gone on with, it repeats nothing that was finished."""
    trained, whole = [], FoldRun.trained

    def counted(self, processes):
        trained.append(self.place.relative_to(tmp_path / "run").as_posix())
        if len(trained) == 5:
            raise KeyboardInterrupt
        return whole(self, processes)

    monkeypatch.setattr(FoldRun, "trained", counted)
    plan = make_fine_tuning_plan(recipe("search={model.hidden_size: [16, 32], train.lr: [2e-2]}", "inner_folds=3"))
    with pytest.raises(KeyboardInterrupt):
        fine_tune(plan, tmp_path / "run", QUIET)
    done = fine_tune(plan, tmp_path / "run", QUIET)
    inner = [f"speaker-02/search/{setting}/inner-{n}" for setting in ("001", "002") for n in (1, 2, 3)]
    assert trained == [*inner[:5], *inner[4:], "speaker-02/seed-3", "speaker-02/seed-4"]
    found = chosen_of(tmp_path / "run")
    winner = found["tried"][found["number"]]["settings"]
    assert [one["settings"] for one in done] == [winner] * 2
    assert json.loads((tmp_path / "run/model/config.json").read_text())["hidden_size"] == winner["model.hidden_size"]
    assert not list((tmp_path / "run").glob("**/checkpoints")) and not list(
        (tmp_path / "run").glob("*/search/*/*/model")
    )


def test_settings_that_diverge_lose_and_say_why(recipe, tmp_path):
    plan = make_fine_tuning_plan(recipe("search={train.lr: [1e3, 2e-2]}", "inner_folds=2", "train.seeds=[3]"))

    def update(self, update, whole=Trainer.update):
        if self.options.lr == 1e3:
            raise nested_search.Diverged("loss of emotion is not finite")
        return whole(self, update)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", update)
        fine_tune(plan, tmp_path / "run", QUIET)
        found = chosen_of(tmp_path / "run")
        assert found["number"] == 1
        lost = {"settings": {"train.lr": 1e3}, "score": None, "why": "loss of emotion is not finite"}
        assert found["tried"][0]["scores"] == [lost] * 2
        with pytest.raises(MemofastError, match=r"no setting has a score on every inner fold.*not finite"):
            fine_tune(make_fine_tuning_plan(recipe("search={train.lr: [1e3]}")), tmp_path / "other", QUIET)


def test_scores_of_other_settings_are_not_taken_over(recipe, tmp_path):
    place = tmp_path / "run" / "speaker-02" / "search" / "001" / "inner-1"
    place.mkdir(parents=True)
    kept = {"settings": {"train.lr": 1e-5}, "score": 0.9, "why": "", "seconds": 1.0}
    (place / "score.json").write_text(json.dumps(kept))
    with pytest.raises(MemofastError, match=r"is of train.lr=1e-05, not of train.lr=0.02; put search back"):
        fine_tune(make_fine_tuning_plan(recipe("search={train.lr: [2e-2, 1e-5]}")), tmp_path / "run", QUIET)
    assert not (place / "checkpoints").exists()


def test_inner_runs_learn_from_every_sample_of_the_share(recipe):
    plan = make_fine_tuning_plan(recipe("train.share=0.5", "train.seeds=[3]"))
    inner = inner_folds(plan.folds[0], plan.recipe, plan.target)[0]
    run = FoldRun(nested_search._alone(plan.candidates[0]), inner, 3, None, None)
    assert len(run.task().streams()[0].chosen) == len(inner.train)


def test_what_the_table_says(recipe, tmp_path):
    changed = said_of_changes(
        recipe("search={train.lr: [1e-5, 2e-2]}"), ["train.epochs=3", "train.seeds=[1]", "corpus=x"]
    )
    assert changed.settings_chosen_on == "nothing; changed for this run, by what is not said: train.epochs=3"
    plan = make_fine_tuning_plan(recipe("inner_folds=2"))
    fine_tune(plan, tmp_path / "run", QUIET)
    found = how_chosen(plan.recipe, tmp_path / "run", ["speaker-02"])
    assert lines_of_choice(found) == [
        "protocol: clean, nested",
        "settings: train.lr inside the training part of each fold, on 2 inner folds with seed 3; all others chosen "
        "elsewhere on: nothing",
        "update: the best by UA on validation data, looked at 1 times an epoch",
        "seeds: 3, 4; all are in the table",
    ]
    section = section_of_search(found["search"])
    assert section.title.startswith("chosen among 2 settings inside the training part of each fold: 4 runs")
    score = found["search"]["folds"]["speaker-02"]["score"]
    assert section.rows == [("speaker-02", "train.lr=0.02", f"{score:.3f}"), ("1 of 1", "train.lr=0.02", "")]
    plain = how_chosen(recipe("search={}", "protocol=paper", "settings_chosen_on=''"), tmp_path, [])
    assert (plain["protocol"], plain["settings"]) == ("paper", "chosen elsewhere on: not said")
    assert "ON TEST DATA" in plain["update"] and "search" not in plain


def test_minutes_are_told_of_all_runs(recipe, monkeypatch):
    """Of two settings, of which one computes twice as long: two inner folds of each, and two seeds of the longer."""
    monkeypatch.setattr(nested_search, "_seconds", lambda plan, fold: 60 * plan.recipe.train.lr * len(fold.train) / 15)
    plan = make_fine_tuning_plan(recipe("search={train.lr: [1, 2]}", "inner_folds=2"))
    inner = [len(one.train) / 15 for one in inner_folds(plan.folds[0], plan.recipe, plan.target)]
    assert minutes_of(plan) == pytest.approx((1 + 2) * 2 * inner[0] + 2 * 2 * len(plan.folds[0].train) / 15)


def test_a_run_is_timed_by_a_few_updates(recipe):
    plan = make_fine_tuning_plan(recipe("train.epochs=100"))
    assert 0.05 < nested_search._seconds(plan.candidates[0], plan.folds[0]) < 300


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["protocol=paper"], "protocol paper on test data; leave one out"),
        (["protocol=last", "inner_folds=validation"], "inner_folds validation needs such data"),
        (["train.share=0.5"], "takes one seed"),
        (["inner_folds=5"], "has 4 speakers to choose settings on"),
        (["search={train.epochs: [0]}"], r"search \(train.epochs=0\)"),
        (["search={model.hidden_size: [32, 8]}"], r"search \(model.hidden_size=8\): model: hidden_size 8"),
        (["search={modalities.features: [{}]}"], "memofast sweep"),
        (["search={train.lr: 3}"], "search.train.lr: must be a list"),
        (
            ["search={modalities.train: [[v], [l]]}"],
            r"search \(modalities.train=\['l'\]\): is chosen by l, the first by v",
        ),
    ],
)
def test_what_is_refused_before_anything_runs(recipe, overrides, message):
    with pytest.raises(MemofastError, match=message):
        make_fine_tuning_plan(recipe(*overrides))


def test_a_recipe_says_what_its_settings_were_chosen_on(recipe):
    with pytest.raises(MemofastError, match="settings_chosen_on="):
        said_of_changes(recipe("settings_chosen_on=''"), [])
    own = recipe("settings_chosen_on=MELD")
    assert said_of_changes(own, ["train.lr=1", "settings_chosen_on=MELD"]) is own
    assert said_of_changes(own, ["model.init=x", "model.text.init=y", "train.device=cpu"]) is own
