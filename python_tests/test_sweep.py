"""`memofast sweep`: a grid of fine-tunings, killed and resumed, its best setting by validation alone, failures,
refusals."""

import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from rich.console import Console
from runs import command, environment, here, settings_here, small_corpus, start, the_run, wait_for

from memofast.evaluate.sweep_results import CHOSEN, seen_by_choice, sweep_results
from memofast.metrics.predictions import Predictions
from memofast.train import sweep_processes
from memofast.train.search_grid import winner_of
from memofast.train.sweep_file import read_sweep
from memofast.train.sweep_processes import LOG
from memofast.train.sweep_runs import exit_code, why

GRID = {
    "recipe": "finetune-demo",
    "set": {
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64},
        "modalities.train": ["lva"], "modalities.evaluate": ["lva"],
        "train": {"epochs": 20, "samples": 8, "seeds": [1, 2]},
    },
    "search": {"train.lr": [1e-4, 1e-2]},
}  # fmt: skip


def nothing(folders, resources=None):
    assert not folders, "nothing is left to run"
    yield from ()


def sweep(folder, *arguments, engine=settings_here, **changes):
    """A sweep of `GRID`, changed; changes of `set` and `search` are added to it."""
    for name, value in changes.items():
        changes[name] = GRID[name] | value if name == "set" else value
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID | changes))
    file = () if "--resume" in arguments else ("grid.yaml",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_processes, "run_local", engine)
        return here(folder, "sweep", *file, *arguments)


def results_of_sweep(run):
    """Without what depends on the clock."""
    results = json.loads((run / "results.json").read_text())
    for row in results["settings"]:
        row.pop("seconds", None)
    return results


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A sweep that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    done = sweep(folder, f"corpus={corpus}")
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(run=the_run(folder), said=done.stdout)


def test_settings_are_complete_runs_and_the_table_is_of_their_validation(whole):
    results = results_of_sweep(whole.run)
    assert [row["options"] for row in results["settings"]] == [{"train.lr": 1e-4}, {"train.lr": 1e-2}]
    for row, rate in zip(results["settings"], (1e-4, 1e-2), strict=True):
        place = whole.run / "settings" / row["name"]
        done = [json.loads((place / f"fixed/seed-{seed}/done.json").read_text()) for seed in (1, 2)]
        assert row["scores"] == [one["score"] for one in done] and {one["selected_on"] for one in done} == {
            "validation"
        }
        assert row["score"] == pytest.approx(np.mean(row["scores"]))
        assert row["sd"] == pytest.approx(np.std(row["scores"], ddof=1))
        assert yaml.safe_load((place / "config.yaml").read_text())["train"]["lr"] == rate
        assert (place / "model/model.safetensors").is_file() and (place / "results.md").is_file()
    first, second = results["settings"]
    assert second["score"] > first["score"] + 0.2, "the rates should differ clearly"
    assert first["difference"] is None
    assert second["difference"] == pytest.approx(second["score"] - first["score"])  # of answers, not of done.json
    assert second["interval"][0] < second["difference"] < second["interval"][1]
    assert results["winner"] == "02" and results["first"] == "01"


def test_test_numbers_are_of_the_winner_and_say_how_it_was_chosen(whole):
    results, markdown = results_of_sweep(whole.run), (whole.run / "results.md").read_text()
    own = json.loads((whole.run / "settings/02/results.json").read_text())
    assert results["test"]["rows"] == [row for row in own["rows"] if row["split"] == "test"]
    assert markdown.count("confusion of lva") == 1
    for text in (markdown, whole.said):
        assert "checkpoints and settings are selected on validation, by UA of lva" in text
        assert "best mean validation UA of 2 finished settings, on validation data of the same folds: its test" in text
        assert f"numbers are of a chosen setting (selected on validation; {CHOSEN})" in text
    assert whole.said.splitlines()[-1].startswith("best on validation: train.lr=0.01, UA ")
    assert whole.said.splitlines()[-1].endswith(f"its run is runs/{whole.run.name}/settings/02")


def test_going_on_with_a_finished_sweep_runs_nothing(whole, tmp_path):
    run = shutil.copytree(whole.run, tmp_path / "again")
    before = results_of_sweep(run)
    (run / "results.json").unlink()
    done = sweep(tmp_path, "--resume", run, engine=nothing)
    assert done.returncode == 0 and "resuming: 2 of 2 settings are finished" in done.stdout, done.stderr
    assert results_of_sweep(run) == before


def test_the_winner_is_named_by_validation_though_test_says_otherwise(whole, tmp_path):
    run = shutil.copytree(whole.run, tmp_path / "spoilt")
    for seed in (1, 2):  # the loser answers every test question, the winner none
        for name, shift in (("01", 0), ("02", 1)):
            path = run / f"settings/{name}/fixed/seed-{seed}/answers/test-lva.npz"
            kept = Predictions.load(path)
            right = np.eye(len(kept.classes), dtype=np.float32)[(kept.truth + shift) % len(kept.classes)]
            replace(kept, scores=right).save(path)
    opened = read_sweep(run / "sweep.yaml")
    found = sweep_results(opened, run, {}, Console(quiet=True))
    assert found["winner"] == "02"
    (row,) = found["test"]["rows"]
    assert row["selected on validation"]["runs"]["wa"]["mean"] == 0
    for seed in (1, 2):
        path = run / f"settings/01/fixed/seed-{seed}/done.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"score": 1.0}))
    found = sweep_results(opened, run, {}, Console(quiet=True))
    (row,) = found["test"]["rows"]
    assert found["winner"] == "01" and row["selected on validation"]["runs"]["wa"]["mean"] == 1


@pytest.mark.parametrize(
    ("scores", "metric", "winner"),
    [
        ({"a": [0.5, 0.6], "b": [0.4, 0.9], "c": [0.6, 0.6]}, "ua", "b"),
        ({"a": [0.5], "b": [0.6], "c": [0.6]}, "wa", "b"),
        ({"a": [1.5], "b": [0.6], "c": [0.6]}, "mae", "b"),
        ({"a": [0.9, None], "b": [0.1, 0.2]}, "corr", "b"),
        ({"a": [None]}, "corr", None),
        ({}, "ua", None),
    ],
)
def test_the_best_mean_wins_and_the_first_of_equal_ones(scores, metric, winner):
    assert winner_of(scores, metric) == winner


def test_tested_samples_that_chose_in_another_fold_are_counted():
    def fold(validation, test):
        return SimpleNamespace(validation=SimpleNamespace(ids=validation), test=test and SimpleNamespace(ids=test))

    assert seen_by_choice([fold("abc", "de"), fold("dx", "fgh"), fold("g", None)]) == (2, 5)
    assert seen_by_choice([fold("abc", "de")]) == (0, 2)


def wait_until(happened, seconds=60):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def interrupted(folders, resources):
    """Starts the first setting, as `run_local`, and is gone once it has a checkpoint, as after kill -9."""
    child = sweep_processes.start(folders[0], resources.threads)
    yield folders[0], None
    wait_until(lambda: child.poll() is not None or any(folders[0].glob("fixed/seed-1/checkpoints/step-*")))
    child.stdin.close()
    assert child.wait(timeout=60) == 143, (folders[0] / LOG).read_text()
    raise KeyboardInterrupt


def test_an_interrupted_sweep_loses_nothing(whole, corpus, tmp_path):
    """What ran has saved; going on comes to the same results."""
    done = sweep(tmp_path, f"corpus={corpus}", engine=interrupted)
    run = the_run(tmp_path)
    told = f"what runs is saved; continue with memofast sweep --resume runs/{run.name}"
    assert done.returncode == 130 and told in done.stderr
    assert "stopped at update" in (run / "settings/01" / LOG).read_text()
    assert not (run / "settings/01/results.md").exists() and not (run / "results.md").exists()
    done = sweep(tmp_path, "--resume", run)
    assert done.returncode == 0 and "resuming" not in done.stdout, done.stderr
    assert results_of_sweep(run) == results_of_sweep(whole.run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sweep_ends_its_children_which_save(corpus, tmp_path, number):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    process = start(tmp_path, "grid.yaml", f"corpus={corpus}", program="sweep")
    wait_for(tmp_path, "runs/*/settings/01/fixed/seed-1/checkpoints/step-*", process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    run = the_run(tmp_path)
    log = run / "settings/01" / LOG
    assert process.returncode == (-9 if number == signal.SIGKILL else 143), said
    if number == signal.SIGTERM:
        assert f"what runs is saved; continue with memofast sweep --resume runs/{run.name}" in said
        assert "stopped at update" in log.read_text()  # it was waited for
    wait_until(lambda: "saved; continue with" in log.read_text())
    wait_until(lambda: not (run / "settings/01/.memofast.lock").exists())


def test_a_setting_that_fails_is_told_and_the_others_go_on(corpus, tmp_path):
    wild = {"train.lr": [1e4, 1e-2], "train.samples": [16, 8]}
    few = {"train": GRID["set"]["train"] | {"epochs": 3, "seeds": [5]}}
    few["train"].pop("samples")
    done = sweep(tmp_path, f"corpus={corpus}", set=few, search=wild)
    results = results_of_sweep(the_run(tmp_path))
    assert done.returncode == 2
    assert [row["name"] for row in results["settings"] if "failed" in row] == ["01", "02"]
    assert "not finite at update" in results["settings"][0]["failed"]
    assert results["first"] == "03" and results["settings"][3]["difference"] is not None
    assert results["winner"] in ("03", "04")
    told = done.stderr.splitlines()[-1]
    assert told.startswith("memofast sweep: 2 of 4 settings failed (01, 02); memofast sweep --resume runs/sweep-")
    markdown = (the_run(tmp_path) / "results.md").read_text()
    assert "less setting 03 [95 %]" in markdown and "- warning: setting 01 failed: " in markdown
    assert "of 2 finished settings" in markdown


def test_why_a_setting_failed(tmp_path):
    (tmp_path / LOG).write_text("memofast finetune: before\nnote\nmemofast finetune: memory is full\nlater\n\n")
    assert why(tmp_path, 2) == "memory is full"
    assert why(tmp_path, -9).startswith("ended by SIGKILL, as the system does where memory is full; see ")
    (tmp_path / LOG).write_text("Traceback\nboom\n\n")
    assert why(tmp_path, 1) == f"boom; see {tmp_path / LOG}"
    assert why(tmp_path / "none", 3).startswith("exit code 3")
    assert [exit_code({"a": ("", code)}) for code in (1, 2, -9)] == [1, 2, 2]
    assert exit_code({}) == 0 and exit_code({"a": ("", 2), "b": ("", 1)}) == 1


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        ({"set": {"protocol": "paper"}}, [], "protocol paper chooses on test data, so that nothing may name a winner"),
        ({"set": {"protocol": "last"}}, [], "protocol last has no validation data, so that nothing may name a winner"),
        ({"search": {"train.lr": [1e-3, -1]}}, [], "search (train.lr=-1): train.lr: input should be greater than 0"),
        ({"search": {"train.lrr": [1]}}, [], "unknown key train.lrr; did you mean train.lr?"),
        ({"search": {"train.lr": 1e-3}}, [], "search.train.lr: must be a list of values, got 0.001"),
        ({"search": {}}, [], "search names no option"),
        ({"search": {"train.seeds": [[1], [2]]}}, [], "train.seeds is not searched"),
        ({"search": {"train.epochs": [1, 2]}}, [], "set: train.epochs is fixed, but search tries values of it"),
        ({"search": {"train.lr.x": [1]}}, [], "lr is a value and has no entries"),
        ({"search": {"model.num_attention_heads": [4, 3]}}, [], "setting model.num_attention_heads=3: model: "),
        ({"variants": [{}, {"train.lr": 1}]}, [], "variants and search both say what is tried; leave one out"),
        ({"search": {}, "variants": [{}, {"train.lrr": 1}]}, [], "unknown key train.lrr; did you mean train.lr?"),
        ({"search": {}, "variants": [{}, {"modalities.select": ["l", "v"]}]}, [], "is chosen by l, v, the first by"),
        ({"set": {"corpsu": "x"}}, [], "unknown key corpsu; did you mean corpus?"),
        ({"set": {"modalities.evaluate": ["l"]}}, [], "modalities.evaluate lacks lva, which chooses"),
        ({"serch": {}}, [], "unknown key serch; did you mean search?"),
        ({"set": {"settings_chosen_on": ""}}, [], "the recipe does not say on what data its settings were chosen"),
        ({"set": {"search": {"train.lr": [1e-3, 1e-2]}}}, [], "set.search chooses inside every training part"),
        ({}, ["train.lr=1"], "'train.lr=1': train.lr is fixed, but search tries values of it; leave one out"),
        ({}, ["corpus=nowhere"], "no corpus at nowhere"),
        ({}, ["--engine", "moon"], "--engine is local or ray, not 'moon'"),
        ({}, ["--resume", "runs/none"], "runs/none: no sweep to resume (sweep.yaml is missing)"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_written(corpus, tmp_path, changes, arguments, told):
    given = () if "--resume" in arguments else (f"corpus={corpus}",)
    done = sweep(tmp_path, *given, *arguments, **changes)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and told in line and line.startswith("memofast sweep: "), line
    assert not (tmp_path / "runs").exists()


def test_what_chooses_must_be_the_same_for_every_setting(corpus, tmp_path):
    options = {name: value for name, value in GRID["set"].items() if name != "modalities.train"}
    grid = {**GRID, "set": options, "search": {"modalities": {"train": [["l"], ["lva"]]}}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    done = here(tmp_path, "sweep", "grid.yaml", f"corpus={corpus}", "modalities.evaluate=[l,lva]")
    assert done.returncode == 2 and "is chosen by lva, the first by l; fix modalities.select" in done.stderr
    done = here(tmp_path, "sweep", "grid.yaml", f"corpus={corpus}", "modalities.select=[lva]", "--dry-run")
    assert done.returncode == 0, done.stderr


def test_a_recipe_says_what_chose_its_settings(whole, corpus):
    """What the shipped recipe says, what the sweep's file changes of how it learns, and the sweep, once."""
    files = {whole.run / "sweep.yaml": [], whole.run.parents[1] / "grid.yaml": [f"corpus={corpus}"]}
    said = {read_sweep(*given).settings[0].recipe.settings_chosen_on for given in files.items()}
    own = yaml.safe_load((whole.run / "settings/02/config.yaml").read_text())["settings_chosen_on"]
    assert own.startswith("the demo corpus; changed for this run, by what is not said: ")
    assert own.endswith("; train.lr by a sweep of 2 settings, on validation data of this corpus")
    assert "model.hidden_size=32" in own and "train.epochs=20" in own and "seeds" not in own
    assert said == {own}
    assert f"- settings: chosen elsewhere on: {own}\n" in (whole.run / "results.md").read_text()


def test_a_dry_run_lists_settings_and_writes_nothing(corpus, tmp_path):
    grid = 'recipe = "finetune-demo"\n[set.train]\nseeds = [1, 2, 3]\n[search.train]\nlr = [1e-3, 1e-2]\n'
    (tmp_path / "grid.toml").write_text(grid)
    done = here(tmp_path, "sweep", "grid.toml", f"corpus={corpus}", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("setting 01 (train.lr=0.001)\nsetting 02 (train.lr=0.01)\n")
    assert "2 settings x 3 folds and seeds: 6 runs" in done.stdout and not (tmp_path / "runs").exists()


def test_a_changed_recipe_of_a_setting_is_refused(whole, tmp_path):
    run = shutil.copytree(whole.run, tmp_path / "changed")
    config = run / "settings/02/config.yaml"
    config.write_text(config.read_text().replace("epochs: 20", "epochs: 21"))
    done = sweep(tmp_path, "--resume", run, engine=nothing)
    assert done.returncode == 2
    assert "settings/02/config.yaml is not the recipe of setting 02 (train.lr=0.01); remove" in done.stderr


def test_variants_are_compared_with_the_first_each_by_what_it_reads(corpus, tmp_path):
    """In folds, seeds and samples alike; the sweep that is kept opens as the same variants."""
    faces = {"modalities": {"train": ["v"], "select": ["v"], "evaluate": ["v"]}}
    few = {"train": GRID["set"]["train"] | {"epochs": 2, "seeds": [5]}}
    variants = [{}, {"train": {"lr": 1e-2, "clip": 2}}, faces]
    done = sweep(tmp_path, f"corpus={corpus}", set=few, search={}, variants=variants)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    results = results_of_sweep(run)
    assert [row["options"] for row in results["settings"]] == [
        {}, {"train.lr": 1e-2, "train.clip": 2}, {f"modalities.{name}": ["v"] for name in faces["modalities"]},
    ]  # fmt: skip
    kept = yaml.safe_load((run / "settings/03/config.yaml").read_text())
    assert kept["modalities"]["select"] == ["v"] and kept["train"]["clip"] == 1
    third = Predictions.load(run / "settings/03/fixed/seed-5/answers/validation-v.npz")
    right = (third.scores.argmax(1) == third.truth)[third.truth >= 0]
    ua = np.mean(
        [right[third.truth[third.truth >= 0] == one].mean() for one in np.unique(third.truth[third.truth >= 0])]
    )
    assert results["settings"][2]["score"] == pytest.approx(ua)
    assert results["settings"][2]["difference"] == pytest.approx(ua - results["settings"][0]["score"])
    assert "by UA of lva, or what modalities.select of a setting names" in done.stdout
    again = read_sweep(run / "sweep.yaml")
    assert [one.recipe for one in again.settings] == [one.recipe for one in read_sweep(run / "sweep.yaml").settings]
    done = sweep(tmp_path, "--resume", run, engine=nothing)
    assert done.returncode == 0 and results_of_sweep(run) == results, done.stderr


@pytest.mark.slow
def test_ray_comes_to_the_same(whole, corpus, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    line = command("grid.yaml", f"corpus={corpus}", "--engine", "ray", "--workers", 2, program="sweep")
    done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert results_of_sweep(the_run(tmp_path)) == results_of_sweep(whole.run)
