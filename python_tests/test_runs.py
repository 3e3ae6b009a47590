"""Runs that were made by their commands, listed, cleaned, verified and handed on."""

import json
import os
import shutil

import numpy as np
import pytest
import yaml
from runs import here, small_corpus, small_recipe
from safetensors.numpy import load_file, save_file

from memofast.errors import MemofastError
from memofast.locks import lock_folder
from memofast.runs.facts import facts_of, matching, ordered, runs_below


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pre-training and two fine-tunings of a small corpus."""
    place = tmp_path_factory.mktemp("runs")
    small_corpus(place)
    done = [here(place, "pretrain", small_recipe(place, "corpus"))]
    for rate in ("1e-3", "2e-3"):
        recipe = {"corpus": "corpus", "model": {"family": "lstm_fusion", "hidden_size": 8}, "baselines": False}
        train = {"epochs": 2, "seeds": [3, 4], "lr": float(rate), "threads": 1, "samples": 8}
        text = yaml.safe_dump(recipe | {"settings_chosen_on": "nothing", "train": train})
        (place / f"small{rate}.yaml").write_text(text)
        done.append(here(place, "finetune", f"small{rate}.yaml", "modalities.evaluate=[va]", "modalities.train=[va]"))
    assert all(one.returncode == 0 for one in done), [one.stderr for one in done]
    return place


@pytest.fixture
def place(made, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def test_what_runs_say_of_themselves(made):
    runs = runs_below(made / "runs")
    (first,) = matching(runs, ["kind=pretrain"])
    slower, faster = ordered(matching(runs, ["kind=finetune"]), "train.lr", False)
    assert (first.kind, first.corpus, first.state, first.family) == ("pretrain", "corpus", "finished", "memobert")
    assert first.metric == "loss" and first.test is None
    for one, rate in ((slower, 1e-3), (faster, 2e-3)):
        assert (one.kind, one.corpus, one.family, one.state) == ("finetune", "corpus", "lstm_fusion", "finished")
        done = [json.loads(path.read_text()) for path in one.folder.glob("fixed/seed-*/done.json")]
        assert one.validation == pytest.approx(np.mean([two["score"] for two in done])) and len(done) == 2
        (row,) = (r for r in json.loads((one.folder / "results.json").read_text())["rows"] if r["split"] == "test")
        assert one.test == row["selected on validation"]["runs"][done[0]["metric"]]["mean"]
        assert one.value("train.lr") == rate and one.value("train.nothing") is None


def test_filters_and_order(made):
    runs = runs_below(made / "runs")
    assert len(runs) == 3
    fine = matching(runs, ["kind=FINE*", "corpus=corpus"])
    assert [one.value("train.lr") for one in ordered(fine, "train.lr", True)] == [2e-3, 1e-3]
    assert [one.kind for one in matching(runs, ["train.lr=0.0010", "kind=finetune"])] == ["finetune"]
    assert matching(runs, ["corpus=other"]) == []
    assert ordered(runs, "test", True)[-1].kind == "pretrain"  # which has none
    for wrong in ("corpus", "=meld", "tain.lr=3"):
        with pytest.raises(MemofastError, match="--filter"):
            matching(runs, [wrong])
    with pytest.raises(MemofastError, match=r"--sort tran\.lr.*did you mean train\.lr"):
        ordered(runs, "tran.lr", False)


def test_the_table_and_json(made):
    done = here(made, "runs", "--sort", "kind")
    assert done.returncode == 0 and "lstm_fusion" in done.stdout and "finished" in done.stdout
    done = here(made, "runs", "--json", "--filter", "kind=pretrain")
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["kind"] == "pretrain" and line["bytes"] > 10_000
    done = here(made, "runs", "--folder", "nowhere")
    assert done.returncode == 2 and "nowhere: no such folder" in done.stderr
    for line, told in ((["runs"], "list the runs in it by --folder runs"), (["verify", "runs"], "by --folder runs")):
        done = here(made, "runs", *line)
        assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


def checkpoints(place):
    return sorted(path.name for path in place.glob("runs/small-*/checkpoints/*"))


def test_cleaning_keeps_the_best_and_says_so_first(place):
    (run,) = place.glob("runs/small-*")
    steps = checkpoints(place)
    best = json.loads((run / "checkpoints" / steps[-1] / "trainer.json").read_text())["best"]
    left = run / "checkpoints" / ".step-00000099.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(bytes(700))
    told = here(place, "runs", "clean", "--keep-best", "--dry-run").stdout
    assert "would remove" in told and ".step-00000099.partial (700 B)" in told
    assert len(checkpoints(place)) == len(steps) + 1
    here(place, "runs", "clean", "--dry-run")
    assert here(place, "runs", "clean").returncode == 0 and checkpoints(place) == steps
    done = here(place, "runs", "clean", "--keep-best")
    assert checkpoints(place) == [f"step-{best:08}"] and "not the best checkpoint" in done.stdout
    assert here(place, "runs", "clean", "--keep-best").stdout == "freed 0 B\n"


def test_runs_that_go_on_are_left(place):
    (run,) = place.glob("runs/small-*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["train"]["updates"] = 99
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    steps = checkpoints(place)
    assert facts_of(run).state == "update 12 of 99"
    here(place, "runs", "clean", "--keep-best")
    assert checkpoints(place) == steps
    (run / ".gone.deleted").mkdir()
    with lock_folder(run):
        done = here(place, "runs", "clean")
    assert "as it is" in done.stdout and "in use" in done.stdout and (run / ".gone.deleted").is_dir()


def test_damage_is_found(place):
    assert here(place, "runs", "verify").returncode == 0
    run = next(place.glob("runs/small1*"))
    weights = load_file(run / "model" / "model.safetensors")
    name = next(iter(weights))
    weights[name][...] = np.nan
    save_file(weights, run / "model" / "model.safetensors")
    answers = next(run.glob("fixed/seed-3/answers/*.npz"))
    answers.write_bytes(answers.read_bytes()[:-30])
    with (run / "fixed" / "seed-4" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')
    os.symlink("nowhere.safetensors", run / "frozen.safetensors")
    done = here(place, "runs", "verify", run)
    assert done.returncode == 2 and "4 files are damaged" in done.stderr
    for told in (f"{name} is not finite", answers.name, "metrics.jsonl", "a link to nowhere.safetensors"):
        assert told in done.stdout
    (run / "config.yaml").write_text("a: [")
    done = here(place, "runs", "--sort", "kind")
    assert done.returncode == 0 and "small1e-3" in done.stderr and "small1e-3" not in done.stdout
    done = here(place, "runs", "verify", "corpus")
    assert done.returncode == 2 and "corpus: no run" in done.stderr


def test_a_run_is_handed_on_as_files(place):
    run = next(place.glob("runs/small1*"))
    weights = run / "model" / "model.safetensors"
    kept = weights.read_bytes()
    weights.rename(place / "blob")
    weights.symlink_to(os.path.relpath(place / "blob", weights.parent))
    assert here(place, "runs", "export", run, "--out", "handed/on").returncode == 0
    copy = place / "handed" / "on"
    assert not (copy / "model" / "model.safetensors").is_symlink()
    assert (copy / "model" / "model.safetensors").read_bytes() == kept
    assert {path.relative_to(copy) for path in copy.rglob("*")} == {path.relative_to(run) for path in run.rglob("*")}
    assert here(place, "runs", "export", run, "--out", "handed/on").returncode == 2
    assert here(place, "runs", "export", run, "--out", run / "copy").returncode == 2
    assert here(place, "runs", "export", place, "--out", "other").returncode == 2
    (place / "blob").write_bytes(kept[:-4])
    done = here(place, "runs", "export", run, "--out", "other")
    assert done.returncode == 2 and "model.safetensors cannot be read" in done.stderr
    assert not (place / "other").exists() and not list(place.glob(".other*"))
