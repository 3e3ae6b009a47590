"""Fine-tuning as a user starts it: folds, seeds, conditions, protocols, what is kept, what is refused."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from mood_runs import poison
from rich.console import Console

import memofast
from memofast.data import Corpus, write_corpus
from memofast.data.folds import leave_groups_out, read_groups, write_folds, write_groups
from memofast.errors import MemofastError
from memofast.inference.preparation import Preparation, keep_preparation
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.metrics.predictions import Predictions
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.model.families import open_emotion_model
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.finished_runs import best_of
from memofast.train.fold_parts import share_of_classes
from memofast.train.folder import write_config
from memofast.train.origin import origin_of
from memofast.train.trainer import Trainer

CLASSES = ("calm", "glad")
SMALL = {
    "vocab_size": 110, "mask_token_id": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "head": "emocls", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """96 samples of four speakers; faces tell the class, speech mostly does, one word in four does; splits, groups and
    folds."""
    folder = tmp_path_factory.mktemp("fine_tuning") / "corpus"
    random, ids = np.random.default_rng(0), [f"s{number:02}" for number in range(96)]
    with (
        TextWriter(folder / "text", classes=CLASSES) as text,
        FeatureWriter(folder / "visual", 4) as faces,
        FeatureWriter(folder / "speech", 5) as speech,
    ):
        for number, id in enumerate(ids):
            label = number // 4 % 2
            text.put(id, [10 + label if number % 4 == 0 else 20], [0], label=label)
            faces.put(id, random.normal(2.0 * label - 1, 0.3, (1 + number % 3, 4)))
            speech.put(id, random.normal(label, 1.0, (2, 5)))
    stores = {name: folder / name for name in ("text", "visual", "speech")}
    splits = {"train": ids[:56], "validation": ids[56:72], "test": ids[72:]}
    write_corpus(folder, "moods", stores, splits)
    write_groups(folder, "speaker", {id: f"p{number % 4}" for number, id in enumerate(ids)})
    write_folds(folder, "speaker", leave_groups_out(read_groups(Corpus.open(folder), "speaker")), by="speaker")
    return folder


@pytest.fixture
def recipe(corpus, tmp_path):
    def make(*overrides, model=SMALL):
        values = {
            "corpus": str(corpus), "model": model,
            "train": {"epochs": 4, "samples": 8, "lr": 1e-2, "patience": 20, "precision": "fp32", "device": "cpu"},
        }  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return read(str(path), list(overrides))

    return make


def run(recipe, folder):
    plan = make_fine_tuning_plan(recipe)
    return plan, fine_tune(plan, folder, Console(quiet=True))


def test_every_fold_and_seed_and_condition_is_answered(recipe, tmp_path):
    plan, done = run(recipe("folds.scheme=speaker", "train.seeds=[1,2]", "train.epochs=2"), tmp_path / "run")
    assert [(one["fold"], one["seed"]) for one in done] == [(f"speaker-0{n}", s) for n in range(1, 5) for s in (1, 2)]
    found = list(answers(plan, tmp_path / "run"))
    assert len(found) == 8 * 2 * 7
    tested = [p.ids for fold, seed, condition, part, _, p in found if (seed, condition, part) == (1, "lva", "test")]
    assert sorted(id for ids in tested for id in ids) == sorted(Corpus.open(plan.corpus.path).stores["text"].ids)
    assert {one["selected_on"] for one in done} == {"validation"}
    best = max(done, key=lambda one: one["score"])
    model = open_emotion_model(tmp_path / "run")
    assert model.classes == CLASSES and best["score"] > 0.9
    assert not list((tmp_path / "run").glob("*/*/model")) and not list((tmp_path / "run").glob("*/*/checkpoints"))


def test_it_learns_from_what_it_is_shown(recipe, tmp_path):
    plan, _ = run(recipe(), tmp_path / "run")
    right = {
        condition: float((p.named == p.truth).mean())
        for _, _, condition, part, _, p in answers(plan, tmp_path / "run")
        if part == "test"
    }
    assert right["lva"] > 0.9 > right["l"]
    plan, _ = run(recipe("modalities.train=[l,v,a,lv,la,va,lva]", "modalities.evaluate=[v,l]"), tmp_path / "mixed")
    mixed = {c: p for _, _, c, part, _, p in answers(plan, tmp_path / "mixed") if part == "test"}
    assert set(mixed) == {"v", "l"} and (mixed["v"].named == mixed["v"].truth).mean() > 0.9


def test_an_interrupted_run_goes_on_to_the_same_answers(recipe, tmp_path, monkeypatch):
    chosen = recipe("folds.scheme=speaker", "folds.only=[2,3]", "train.epochs=2")
    plan, whole = run(chosen, tmp_path / "whole")
    updates = iter(range(9))

    def interrupted(self, update, real=Trainer.update):
        if next(updates, None) is None:
            raise KeyboardInterrupt
        return real(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(chosen, tmp_path / "cut")
    first = tmp_path / "cut" / "speaker-02" / "seed-42" / "done.json"
    stamp = first.stat().st_mtime_ns if first.is_file() else None
    again = fine_tune(plan, tmp_path / "cut", Console(quiet=True))
    assert stamp in (None, first.stat().st_mtime_ns)
    assert [one["score"] for one in again] == [one["score"] for one in whole]
    for one, other in zip(answers(plan, tmp_path / "cut"), answers(plan, tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one[-1].scores, other[-1].scores)


def test_the_paper_s_protocol_chooses_on_test_and_says_so(recipe, tmp_path):
    plan, (done,) = run(recipe("protocol=paper", "train.epochs=1"), tmp_path / "run")
    assert done["selected_on"] == "test" and done["train"] == 72
    assert "selected on test" in plan.describe()
    assert plan.folds[0].validation is plan.folds[0].test


def test_the_last_update_is_kept_where_nothing_chooses(recipe, tmp_path):
    plan, (done, other) = run(recipe("protocol=last", "train.epochs=2", "train.seeds=[1,2]"), tmp_path / "run")
    assert done["selected_on"] == "nothing" and done["score"] is None and done["best_update"] == done["updates"]
    assert done["train"] == 72 and "selected on nothing" in plan.describe()
    found = list(answers(plan, tmp_path / "run"))
    assert {part for _, _, _, part, _, _ in found} == {"test"} and {on for *_, on, _ in found} == {"nothing"}
    assert (tmp_path / "run" / "model" / "config.json").is_file() and other["seed"] == 2
    write_config(tmp_path / "run", plan.resolved())
    origin = origin_of(tmp_path / "run").describe()
    assert "seed 1; its checkpoint was selected on nothing: the last update" in origin


@pytest.mark.parametrize("protocol", ["clean", "last", "paper"])
def test_no_protocol_trains_on_what_it_tests(recipe, protocol):
    """Under two of them validation is trained on, so that it must not hold test samples either."""
    with pytest.raises(MemofastError, match="fold fixed leaks"):
        make_fine_tuning_plan(recipe(f"protocol={protocol}", "folds.validation=test"))


def test_a_validation_part_is_held_out_where_there_is_none(recipe):
    plan = make_fine_tuning_plan(recipe("folds.validation=null", "folds.by=speaker", "folds.held_out=0.2"))
    (fold,) = plan.folds
    group_of = read_groups(plan.corpus, "speaker")
    assert not {group_of[id] for id in fold.train.ids} & {group_of[id] for id in fold.validation.ids}
    assert sorted(fold.train.ids + fold.validation.ids) == sorted(plan.corpus.split("train").ids)
    assert len(make_fine_tuning_plan(recipe("folds.by=speaker", "folds.count=all")).folds) == 4


@pytest.fixture
def pre_trained(tmp_path):
    """A model as pre-training leaves it, with a vocabulary that holds the words of the classes."""
    torch.manual_seed(3)
    sizes = {name: value for name, value in SMALL.items() if name != "head"} | {"vocab_size": 9000}
    folder = tmp_path / "pre_trained"
    MemoBertForPreTraining(MemoBertConfig(**sizes, visual_width=4, speech_width=5)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("answers_among", ["classes", "vocabulary"])
def test_a_prompt_learns_and_is_opened_again(recipe, pre_trained, tmp_path, answers_among):
    chosen = recipe(
        "prompt.prefix=true", f"prompt.answers={answers_among}",
        "prompt.words={calm: 5475, glad: 3407}",
        "modalities.train=[lva,va]", "modalities.evaluate=[va,a]", "train.epochs=5", model={"init": str(pre_trained)},
    )  # fmt: skip
    plan, (done,) = run(chosen, tmp_path / "run")
    found = {c: p for _, _, c, part, _, p in answers(plan, tmp_path / "run") if part == "test"}
    assert (found["va"].named == found["va"].truth).mean() > 0.9 and done["score"] > 0.9
    assert found["a"].classes == (CLASSES if answers_among == "classes" else (*CLASSES, "another word"))
    model = open_emotion_model(tmp_path / "run")
    again = predict_split(model, plan.folds[0].test, plan.target, condition="va")
    np.testing.assert_allclose(again.scores, found["va"].scores, atol=1e-6)


def test_prompts_that_cannot_be_asked(recipe, pre_trained):
    for override, message in {
        "prompt.template=iamm": "did you mean iam",
        "prompt.words.calm=5475": "no word is known for class 'glad'; add prompt.words.glad",
    }.items():
        with pytest.raises(MemofastError, match=message):
            make_fine_tuning_plan(recipe(override, model={"init": str(pre_trained)}))
    with pytest.raises(MemofastError, match=r"starts from model\.init"):
        recipe("prompt.template=iam")


def test_what_a_killed_process_left_of_a_finished_run_goes_and_damage_is_named(recipe, tmp_path):
    plan, done = run(recipe("train.epochs=1", "modalities.evaluate=[lva]"), tmp_path / "run")
    place = tmp_path / "run" / "fixed" / "seed-42"
    for name in ("checkpoints/step-00000001", ".checkpoints.deleted"):
        (place / name).mkdir(parents=True)
    assert fine_tune(plan, tmp_path / "run", Console(quiet=True)) == done
    assert {path.name for path in place.iterdir()} == {"answers", "done.json", "metrics.jsonl", "tensorboard"}
    for contents in (
        "",
        "[]",
        json.dumps(done[0] | {"score": "good"}),
        json.dumps(done[0] | {"fold": "a" * 300}),
        json.dumps(done[0])[:-9],
    ):
        (place / "done.json").write_text(contents)
        with pytest.raises(MemofastError, match=r"done\.json.*; remove .*done\.json to repeat this run") as error:
            fine_tune(plan, tmp_path / "run", Console(quiet=True))
        assert "\n" not in str(error.value)


def test_few_shot_shares_are_nested_seeded_and_of_every_class(recipe):
    plan = make_fine_tuning_plan(recipe())
    train = plan.folds[0].train
    drawn = {share: share_of_classes(train, plan.target, share, 1) for share in (0.1, 0.4)}
    assert drawn[0.1].sum() == 6 and drawn[0.4].sum() == 22 and not (drawn[0.1] & ~drawn[0.4]).any()
    assert (share_of_classes(train, plan.target, 0.1, 2) != drawn[0.1]).any()
    labels = np.array([int(id[1:]) // 4 % 2 for id in train.ids])
    assert labels[drawn[0.1]].sum() == 3 and share_of_classes(train, plan.target, 1.0, 1) is None


def test_frozen_parts_keep_their_weights(recipe, tmp_path):
    before = make_fine_tuning_plan(recipe("model.freeze=all"))
    torch.manual_seed(42)
    fresh = start_model(before.recipe, before.target, before.folds[0].train).state_dict()
    run(recipe("model.freeze=all", "train.epochs=1"), tmp_path / "run")
    after = open_emotion_model(tmp_path / "run").state_dict()
    changed = {name for name in fresh if not torch.equal(fresh[name], after[name])}
    assert changed == {"emotion.classifier.weight", "emotion.classifier.bias"}
    run(recipe("model.freeze=1", "train.epochs=1"), tmp_path / "lower")
    lower = open_emotion_model(tmp_path / "lower").state_dict()
    changed = {name for name in fresh if not torch.equal(fresh[name], lower[name])}
    assert changed and not [n for n in changed if "layers.0." in n or "embeddings" in n]


def test_labels_can_be_merged_and_left_out(recipe, corpus):
    plan = make_fine_tuning_plan(recipe("target.map={calm: quiet, glad: loud}"))
    assert plan.target.classes == ("quiet", "loud")
    for override, message in {
        "target.map={calm: quiet}": "label 'glad' of corpus .* is not in the label map",
        "target.map={calm: quiet, glad: null}": "",
        "train.metric=uaa": "did you mean ua",
        "folds.scheme=film": "no fold 1 of 'film'",
        "folds.only=[7]": "fold 7",
        "folds.by=film": "no groups 'film'",
        "folds.test=train": "leaks: sample",
        "target.kind=regression": "has no values to learn",
        "model.vocab_size=50": "word piece 102, but the model's vocabulary ends at 49",
        "model.freeze=3": "3 layers cannot be frozen",
        "modalities.train=[vl]": "'vl' is no condition",
        "train.epoch=3": "did you mean train.epochs",
        "corpus=''": "names no corpus",
    }.items():
        if message:
            with pytest.raises(MemofastError, match=message):
                make_fine_tuning_plan(recipe(override))
    with pytest.raises(MemofastError, match="needs visual rows"):
        make_fine_tuning_plan(recipe("modalities.train=[v]", "model.visual_width=0"))


def test_a_class_without_training_samples_is_named(corpus, recipe):
    corpus = Corpus.open(corpus)
    calm = [id for id in corpus.split("train").ids if int(id[1:]) // 4 % 2 == 0]
    write_folds(corpus.path, "one-sided", [{"train": calm, "test": corpus.split("test").ids}])
    with pytest.raises(MemofastError, match="class glad has no training sample in fold one-sided-01"):
        make_fine_tuning_plan(recipe("folds.scheme=one-sided"))


def test_rows_of_another_width_are_refused(recipe, corpus, tmp_path):
    run(recipe("train.epochs=1"), tmp_path / "run")
    folder = tmp_path / "wider"
    ids = [f"s{n}" for n in range(12)]
    with TextWriter(folder / "text", classes=CLASSES) as text, FeatureWriter(folder / "visual", 6) as faces:
        for n, id in enumerate(ids):
            text.put(id, [7], [0], label=n % 2)
            faces.put(id, np.zeros((1, 6)))
    write_corpus(folder, "wider", {m: folder / m for m in ("text", "visual")}, {"train": ids})
    with pytest.raises(MemofastError, match=r"reads visual rows 4 wide, corpus .* has 6"):
        make_fine_tuning_plan(recipe(f"corpus={folder}", model={"init": str(tmp_path / "run" / "model")}))


def test_a_run_that_diverges_ends_with_the_samples_named(recipe, tmp_path):
    with pytest.raises(MemofastError, match=r"(loss|gradient) of emotion is not finite at update \d+, samples s\d+, "):
        run(recipe("train.lr=1e4", "train.weight_decay=1e4", "train.warmup=0"), tmp_path / "run")
    assert not list(tmp_path.glob("run/**/done.json")) and not (tmp_path / "run" / "model").exists()


def test_of_several_micro_batches_the_one_that_is_not_finite_is_named(recipe, corpus, pre_trained, tmp_path):
    """From a model that is there: a fresh one's projections would be fitted to what is not finite."""
    poisoned = shutil.copytree(corpus, tmp_path / "poisoned")
    poison(poisoned, "speech", "s13")
    options = [f"corpus={poisoned}", "train.accumulate=3", "train.samples=4"]
    with pytest.raises(MemofastError) as error:
        run(recipe(*options, model={"init": str(pre_trained)}), tmp_path / "run")
    line = str(error.value)
    assert line.startswith("loss of emotion is not finite at update ") and "\n" not in line
    named = re.findall(r"s\d\d", line[line.index("samples") :])
    assert "s13" in named and len(named) == 4 and "lower the learning rate" in line


def test_the_best_of_runs_of_which_some_have_no_score():
    def done(metric, *scores):
        return [{"metric": metric, "score": score, "seed": seed} for seed, score in enumerate(scores)]

    assert best_of(done("ua", 0.5, 0.75, 0.25))["seed"] == 1 and best_of(done("mae", 0.5, 0.75, 0.25))["seed"] == 2
    assert best_of(done("corr", None, -0.25, None, -0.5))["seed"] == 1
    assert best_of(done("corr", None, None))["seed"] == 0 == best_of(done("ua", 0.5, 0.5))["seed"]


def test_answers_are_kept_as_files(recipe, tmp_path):
    _, (done,) = run(recipe("train.epochs=1"), tmp_path / "run")
    place = tmp_path / "run" / "fixed" / "seed-42"
    assert json.loads((place / "done.json").read_text()) == done
    assert Predictions.load(place / "answers" / "test-v.npz").classes == CLASSES


def test_a_model_keeps_how_its_corpus_was_made(recipe, corpus, tmp_path):
    plan, _ = run(recipe("train.epochs=1", "modalities.train=[v,lv]"), tmp_path / "run")
    keep_preparation(plan.corpus, plan.train, tmp_path / "run/model", None)
    kept = Preparation.read(tmp_path / "run/model")
    assert kept.modalities == ("text", "visual") and kept.settings == {}
    assert kept.stores["visual"]["width"] == 4 and kept.stores["speech"]["dtype"] == "float16"
    predictor = memofast.load(tmp_path / "run")
    rows = Corpus.open(corpus).stores["visual"].read("s01")["rows"]
    found = predict_split(
        open_emotion_model(tmp_path / "run"),
        Corpus.open(corpus).split("train"),
        label_space_of(predictor.model),
        condition="v",
    )
    (prediction,) = predictor.predict(features={"visual": rows})
    np.testing.assert_allclose([*prediction.probabilities.values()], found.scores[found.ids.index("s01")], atol=1e-5)
    with pytest.raises(MemofastError, match="its corpus was not made of media"):
        predictor.predict(video=corpus / "corpus.json", text="x")
