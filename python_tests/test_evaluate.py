"""`memofast evaluate`: kept predictions, a model on any corpus, the matrix, comparisons, mistakes; every number says
what chose its checkpoint."""

import json
import re
import shutil
from pathlib import Path

import mood_runs
import numpy as np
import pytest
from mood_runs import felt_corpus, mood_corpus, mood_model, mood_run, poison

from memofast.data import Corpus
from memofast.data.folds import leave_groups_out, write_folds, write_groups
from memofast.metrics.predictions import Predictions

program = mood_runs.program
TEMPERS = ("quiet", "happy", "odd")
MAP = ("--map", "quiet=calm", "--map", "happy=glad", "--map", "odd=null")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two corpora of other labels; runs: `clean` of two seeds and `paper` on the first, `other` on the second."""
    folder = tmp_path_factory.mktemp("evaluate")
    moods = mood_corpus(folder / "moods")
    tempers = mood_corpus(folder / "tempers", "tempers", TEMPERS, seed=3)
    mood_run(folder / "clean", moods, "train.seeds=[2,1]")
    mood_run(folder / "paper", moods, "protocol=paper", "train.epochs=3")
    mood_run(folder / "other", tempers)
    return folder


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def rows(found: dict) -> dict:
    return {(row["split"], row["condition"]): row for row in found["rows"]}


def test_a_run_s_kept_predictions_give_its_table_again(program, made, tmp_path):
    said = program("evaluate", made / "clean", "--out", tmp_path / "out")
    assert "every checkpoint was selected on validation data of moods" in said and "majority predictor" in said
    found = results(tmp_path / "out")
    assert {row["seeds"][0] for row in found["rows"]} == {1} and len(found["rows"]) == 14
    row = rows(found)["test", "lva"]
    predictions = [Predictions.load(path) for path in made.glob("clean/fixed/*/answers/test-lva.npz")]
    kept = [float((one.named == one.truth).mean()) for one in predictions]
    assert row["selected on validation"]["runs"]["wa"]["mean"] == pytest.approx(np.mean(kept))
    calibration = {(row["split"], row["condition"]): row for row in found["calibration"]}["test", "lva"]
    assert calibration["selected on validation"]["answers"] == 24 and calibration["runs"] == 2
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"results.json", "results.md", "reliability-test-lva.png", "reliability-validation-lva.png"}
    assert "| condition | answers | ECE |" in (tmp_path / "out" / "results.md").read_text()
    program("evaluate", made / "clean" / "model", "--conditions", "v")
    assert {row["condition"] for row in results(made / "clean" / "evaluation")["rows"]} == {"v"}


def test_nothing_is_computed_anew_for_kept_predictions(program, made, tmp_path):
    """Without corpus and model only the majority predictor is another, and that is said."""
    run = shutil.copytree(made / "paper", tmp_path / "moved")
    shutil.rmtree(run / "model")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(made / "moods"), str(tmp_path / "gone" / "moods")))
    said = program("evaluate", run)
    assert "selected on test data of moods, protocol paper" in said and "lva (selected on test)" in said
    assert "the corpus is no longer there" in said


def test_a_model_on_its_own_test_part_predicts_as_fine_tuning_did(program, made, tmp_path):
    said = program("evaluate", made / "clean", "--corpus", made / "moods", "--out", tmp_path / "out")
    assert "tested on moods" in said and "split test, 12 samples" in said
    assert "its checkpoint was selected on validation data of moods" in said and "too good" not in said
    found = results(tmp_path / "out")
    assert [row["condition"] for row in found["rows"]] == ["l", "v", "a", "lv", "la", "va", "lva"]
    done = [json.loads(path.read_text()) for path in made.glob("clean/fixed/*/done.json")]
    order = {2: 0, 1: 1}
    best = max(sorted(done, key=lambda one: order[one["seed"]]), key=lambda one: one["score"])
    assert found["rows"][0]["seeds"] == [best["seed"]]
    for condition in ("l", "lva"):
        kept = Predictions.load(made / "clean" / "fixed" / f"seed-{best['seed']}" / "answers" / f"test-{condition}.npz")
        again = Predictions.load(tmp_path / "out" / "answers" / f"test-{condition}.npz")
        assert again.ids == kept.ids
        np.testing.assert_allclose(again.scores, kept.scores, atol=1e-5)


def test_what_chose_the_checkpoint_stands_beside_every_number(program, made, tmp_path):
    said = program("evaluate", made / "paper", "--corpus", made / "moods", "--out", tmp_path / "own")
    assert "12 of these 12 samples chose its checkpoint; its numbers are too good" in said
    assert "lva (selected on test)" in said and "selected on test data of moods" in said
    assert all("selected on test" in row for row in results(tmp_path / "own")["rows"])
    assert "lva (selected on test)" in (tmp_path / "own" / "results.md").read_text()
    said = program(
        "evaluate", made / "clean", "--corpus", made / "moods", "--split", "train", "--out", tmp_path / "train"
    )
    assert "24 of these 24 samples were in its training part" in said
    said = program("evaluate", made / "paper", "--corpus", made / "tempers", *MAP, "--out", tmp_path / "foreign")
    assert "selected on test data of moods" in said and "protocol paper" in said
    assert all("selected on another corpus" in row for row in results(tmp_path / "foreign")["rows"])
    alone = shutil.copytree(made / "clean" / "model", tmp_path / "alone")
    said = program("evaluate", alone, "--corpus", made / "moods")
    assert "what it learnt from and what chose its checkpoint is not known" in said
    assert all("selected on unknown data" in row for row in results(alone / "evaluation" / "moods-test")["rows"])


def test_labels_are_mapped_as_written(program, made, tmp_path):
    said = program(
        "evaluate", made / "clean", "--corpus", made / "tempers", *MAP, "--conditions", "lva,l", "--out", tmp_path
    )
    assert "quiet is calm; happy is glad; odd is left out" in said and "4 of them without a class of the model" in said
    row = results(tmp_path)["rows"][-1]
    assert row["samples"] == 8 and row["supports"] == {"calm": 4, "glad": 4} and len(results(tmp_path)["rows"]) == 2
    assert row["selected on another corpus"]["runs"]["ua"]["mean"] > 0.8  # its faces tell the same


def test_a_model_that_says_one_thing_raises_the_alarm(program, made, tmp_path):
    model = mood_model(tmp_path / "model")
    from memofast.model.families import open_emotion_model

    opened = open_emotion_model(model)
    opened.emotion.classifier.bias.data += opened.emotion.classifier.bias.new_tensor([0.0, 1e4])
    opened.save_pretrained(model)
    said = program("evaluate", model, "--corpus", made / "moods", "--conditions", "lva")
    assert "the model has collapsed, it says 'glad' of every sample" in said


def test_a_part_of_a_fold_is_named(program, made, tmp_path):
    corpus = shutil.copytree(made / "moods", tmp_path / "moods")
    ids = Corpus.open(corpus).stores["text"].ids
    write_groups(corpus, "speaker", {id: f"p{n % 3}" for n, id in enumerate(ids)})
    write_folds(corpus, "speaker", leave_groups_out({id: f"p{n % 3}" for n, id in enumerate(ids)}), by="speaker")
    said = program(
        "evaluate", made / "clean", "--corpus", corpus, "--split", "speaker-02/test", "--out", tmp_path / "out"
    )
    assert "split speaker-02/test, 16 samples" in said and "were in its training part" in said
    assert (tmp_path / "out" / "answers" / "speaker-02-test-lva.npz").is_file()


def test_the_matrix_of_models_and_corpora(program, made, tmp_path):
    maps = tmp_path / "maps.yaml"
    maps.write_text(
        "moods: {tempers: {calm: quiet, glad: happy}}\ntempers: {moods: {quiet: calm, happy: glad, odd: null}}\n"
    )
    corpora = ("--corpus", made / "moods", "--corpus", made / "tempers")
    said = program("evaluate", made / "paper", made / "other", *corpora, "--maps", maps, "--out", tmp_path / "out")
    assert "tempers on moods: quiet is calm, happy is glad, odd is left out" in said
    (matrix,) = results(tmp_path / "out")["matrices"]
    cells = {(cell["trained_on"], cell["tested_on"]): cell for cell in matrix["cells"]}
    assert cells["moods", "moods"]["selected_on"] == "test" and "selected on test" in said
    assert cells["moods", "tempers"]["selected_on"] == "another corpus"
    assert cells["moods", "tempers"]["left_out"]["samples"] == {"odd": 4}
    assert cells["tempers", "moods"]["samples"] == 12 and matrix["condition"] == "lva"
    own = program(
        "evaluate", made / "other", "--corpus", made / "tempers", "--conditions", "lva", "--out", tmp_path / "own"
    )
    value = rows(results(tmp_path / "own"))["tempers, test", "lva"]["selected on validation"]["runs"]["ua"]["mean"]
    assert cells["tempers", "tempers"]["selected on validation"]["value"] == pytest.approx(value) and own
    assert len(list((tmp_path / "out" / "answers").iterdir())) == 4
    again = program("evaluate", made / "paper", made / "clean", "--corpus", made / "moods", "--conditions", "v,lva")
    assert "moods (paper)" in again and "moods (clean)" in again and len(list(Path("runs").glob("across-*"))) == 1


def test_two_runs_on_the_same_samples(program, made, tmp_path):
    mood_run(tmp_path / "again", made / "moods", "train.seeds=[1]", "train.epochs=1")
    said = program("evaluate", made / "clean", "--compare", tmp_path / "again", "--out", tmp_path / "kept")
    (found,) = results(tmp_path / "kept")["comparisons"]
    assert found["title"] == "test, condition lva, seed 1" and found["samples"] == 12 and "McNemar" in said
    said = program(
        "evaluate", made / "clean", "--corpus", made / "moods", "--compare", made / "paper", "--conditions", "a",
        "--out", tmp_path / "new"
    )  # fmt: skip
    (found,) = results(tmp_path / "new")["comparisons"]
    assert found["names"] == ["clean", "paper (selected on test)"] and found["selected_on"] == ["validation", "test"]
    first = Predictions.load(tmp_path / "new" / "answers" / "clean-a.npz")
    assert found["metrics"]["wa"]["first"] == pytest.approx(float((first.named == first.truth).mean()))
    assert "12 of these 12 samples chose its checkpoint" in said


def test_two_runs_by_speaker_are_compared_over_speakers(program, tmp_path):
    """Where the folds of both keep the same groups whole; else over samples."""
    moods = mood_corpus(tmp_path / "moods")
    tested = Corpus.open(moods).split("test").ids
    for name in ("speaker", "film"):
        write_groups(moods, name, {id: f"{name}{number % 5}" for number, id in enumerate(tested)})
    for name, by in (("one", "speaker"), ("other", "speaker"), ("third", "film")):
        mood_run(tmp_path / name, moods, "train.epochs=1", "modalities.evaluate=[v]", f"folds.by={by}")
    said = program("evaluate", tmp_path / "one", "--compare", tmp_path / "other")
    assert "other against one, 12 samples, paired bootstrap over 5 groups (speaker)" in said
    (found,) = results(tmp_path / "one" / "evaluation" / "against-other")["comparisons"]
    assert (found["by"], found["groups"]) == ("speaker", 5)
    said = program("evaluate", tmp_path / "one", "--compare", tmp_path / "third")
    assert "12 samples, paired bootstrap over samples" in said


@pytest.fixture(scope="module")
def odd_corpora(tmp_path_factory):
    """Corpora that something is wrong with."""
    folder = tmp_path_factory.mktemp("odd")
    mood_corpus(folder / "mute", "mute", modalities=("visual",))
    mood_corpus(folder / "wide", "wide", width=6)
    mood_corpus(folder / "unknown", "unknown", labels=lambda number: None if number >= 36 else number % 2)
    mood_corpus(folder / "more", "more", ("calm", "glad", "cross"))
    mood_corpus(folder / "bare", "bare", (), labels=lambda number: None)
    poison(mood_corpus(folder / "nan", "nan"), "speech", "nan40")
    return folder


def test_mistakes_take_one_line_and_leave_nothing(program, made, odd_corpora, tmp_path):
    moods, tempers, run = ("--corpus", made / "moods"), ("--corpus", made / "tempers"), made / "clean"
    (tmp_path / "maps.yaml").write_text("moods: {tempers: {calm: silent}}\n")
    (tmp_path / "list.yaml").write_text("[1, 2]\n")
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        ((tmp_path / "nowhere",), "no run or model at"),
        ((run, "--corpus", "nowhere"), "no corpus at nowhere"),
        ((run, *moods, "--split", "tset"), "has no split 'tset'"),
        ((run, *moods, "--split", "speaker-01/test"), "no fold 1 of 'speaker'"),
        ((run, *moods, "--conditions", "vl"), "'vl' is no condition"),
        ((run, "--corpus", odd_corpora / "mute", "--conditions", "lva"), "condition lva needs speech rows"),
        ((run, *tempers), "say what they mean with --map LABEL=CLASS"),
        ((run, "--corpus", odd_corpora / "more"), "label 'cross' of corpus"),
        ((run, *tempers, "--map", "quiet=calm"), "label 'happy' of corpus"),
        ((run, *tempers, *MAP, "--map", "sad=calm"), "--map names label 'sad'"),
        ((run, *tempers, "--map", "quiet=still"), "--map names class 'still'"),
        ((run, *tempers, "--map", "quiet"), "is not LABEL=CLASS or LABEL=null"),
        ((run, "--corpus", odd_corpora / "wide"), "reads visual rows 4 wide"),
        ((run, "--corpus", odd_corpora / "unknown"), "evaluate a split that has labels"),
        ((run, "--corpus", odd_corpora / "bare"), "has no labels"),
        ((run, "--corpus", odd_corpora / "nan"), "predictions for nan40 of corpus"),
        ((run, "--map", "quiet=calm"), "add --corpus FOLDER"),
        ((run, made / "other"), "add --corpus FOLDER"),
        ((run, made / "other", *moods, "--compare", run), "--compare is for one model on one corpus"),
        ((run, made / "other", *moods, *tempers), "write what each class is with --maps FILE"),
        ((run, *tempers, "--maps", tmp_path / "maps.yaml"), "the label map names 'silent'"),
        ((run, *tempers, "--maps", tmp_path / "list.yaml"), "is no file of label maps"),
        ((run, *tempers, "--maps", tmp_path / "none.yaml"), "cannot be read"),
        ((run, *moods, "--maps", tmp_path / "maps.yaml", "--metric", "uaa"), "there is no metric 'uaa'"),
        ((run, "--compare", made / "other"), "seeds 2, 1, "),
        ((made / "paper", "--compare", made / "other"), "predictions of other classes cannot be compared"),
        ((run, "--compare", run, "--split", "dev"), "kept no predictions on 'dev'"),
        ((run, *moods, "--device", "tpu"), "--device is auto, cpu or cuda, not 'tpu'"),
    ):  # fmt: skip
        error = program.fails("evaluate", *arguments, "--out", tmp_path / "out")
        assert message in error, error
        assert sorted(tmp_path.rglob("*")) == before
    program("evaluate", run, "--corpus", odd_corpora / "nan", "--conditions", "lv", "--out", tmp_path / "out")
    error = program.fails("evaluate", run, *moods, "--out", tmp_path / "maps.yaml")
    assert "cannot be made (File exists)" in error


def test_unfinished_runs_and_other_models(program, made, tmp_path):
    run = shutil.copytree(made / "paper", tmp_path / "cut")
    (run / "fixed" / "seed-42" / "done.json").unlink()
    assert "no fold of run" in program.fails("evaluate", run)
    other = shutil.copytree(made / "clean", tmp_path / "other")
    named = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub(r"seeds:.*(\n *- .*)*", "seeds: [2, 3]", named))
    assert "holds seed 1, which its config.yaml does not name" in program.fails("evaluate", other)
    (run / "config.yaml").write_text("corpora: []\n")
    assert "is no run of memofast finetune" in program.fails("evaluate", run, "--corpus", made / "moods")
    alone = mood_model(tmp_path / "alone")
    assert "is a model without a run, which kept no predictions" in program.fails("evaluate", alone)
    small = mood_model(tmp_path / "small", vocab_size=15)
    assert "vocabulary ends at 14" in program.fails("evaluate", small, "--corpus", made / "moods")


@pytest.fixture(scope="module")
def felt(tmp_path_factory):
    """A corpus of several labels and values, a run on each."""
    folder = tmp_path_factory.mktemp("felt")
    corpus = felt_corpus(folder / "felt")
    for kind in ("multi", "regression"):
        mood_run(folder / kind, corpus, f"target.kind={kind}", "train.epochs=20", "train.seeds=[1,2]")
    return folder


@pytest.mark.parametrize(("kind", "metric", "least"), [("multi", "macro_f1", 0.75), ("regression", "corr", 0.9)])
def test_several_labels_and_values_through_the_command(program, felt, tmp_path, kind, metric, least):
    said = program("evaluate", felt / kind, "--out", tmp_path / "kept")
    assert "selected on validation" in said
    program("evaluate", felt / kind, "--corpus", felt / "felt", "--out", tmp_path / "anew")
    kept, anew = (rows(results(tmp_path / name)) for name in ("kept", "anew"))
    assert anew["felt, test", "lv"]["selected on validation"]["runs"][metric]["mean"] > least
    (best,) = [path for path in (felt / kind / "fixed").iterdir() if path.name == f"seed-{seed_of(felt / kind)}"]
    again = Predictions.load(tmp_path / "anew" / "answers" / "test-lv.npz")
    before = Predictions.load(best / "answers" / "test-lv.npz")
    np.testing.assert_allclose(again.scores, before.scores, atol=1e-5)
    np.testing.assert_array_equal(again.truth, before.truth)
    assert ("test", "l") in kept and kept["test", "lv"]["seeds"] == [1, 2]
    said = program("evaluate", felt / kind, "--corpus", felt / "felt", "--compare", felt / kind)
    assert "lv" in said


def test_the_last_update_is_evaluated_too(program, made, tmp_path):
    run = mood_run(tmp_path / "last", made / "moods", "protocol=last", "train.epochs=2")
    assert "every checkpoint was selected on nothing: the last update on moods" in program("evaluate", run)
    said = program("evaluate", run, "--corpus", made / "moods", "--out", tmp_path / "test")
    assert "too good" not in said and rows(results(tmp_path / "test"))["moods, test", "lva"]["selected_on"] == "nothing"
    said = program("evaluate", run, "--corpus", made / "moods", "--split", "validation", "--out", tmp_path / "seen")
    assert "12 of these 12 samples were in its training part" in said


def seed_of(run: Path) -> int:
    """Of the run whose model was kept."""
    done = [json.loads(path.read_text()) for path in run.glob("fixed/*/done.json")]
    kept = (min if done[0]["metric"] == "mae" else max)(
        sorted(done, key=lambda one: one["seed"]), key=lambda one: one["score"]
    )
    return kept["seed"]


def test_other_kinds_do_not_mix(program, felt, made):
    assert "has no values" in program.fails("evaluate", felt / "regression", "--corpus", made / "moods")
