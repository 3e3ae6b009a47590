"""Runs of every kind of objective that is registered: two ranks equal one process, and an interrupted and resumed run
an uninterrupted one to the bit."""

import shutil

import pytest
import torch
import yaml
from every_objective import EVERY, KINDS, corpus_of_every_objective
from joint_faces import joint_recipe, raw_corpus
from runs import final_weights, first_updates, losses, pretrain, small_recipe, the_run, two_ranks, without_curves
from safetensors.torch import load_file

from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read

UPDATES = 6
TRAIN = {"samples": 20, "updates": UPDATES, "save_every": UPDATES // 2, "log_every": 1, "precision": "fp32"}
GATHER = {"view_contrast": {"gather": "ranks"}, "whole_word_mlm": {"share": 2}}


@pytest.fixture(scope="module", autouse=True)
def _without_curves():
    with without_curves():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_of_every_objective(tmp_path_factory.mktemp("every"))


def recipe_of(folder, corpus, objectives, **train):
    """A recipe of these objectives alone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = small_recipe(folder, corpus, train=TRAIN | train, validate={"every": train.get("updates", UPDATES)})
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"objectives": objectives}))
    return path


def run_of(folder, *line):
    folder.mkdir(parents=True, exist_ok=True)
    result = pretrain(folder, *line)
    assert result.returncode == 0, result.stderr
    return the_run(folder)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run of all of them, of two micro-batches an update."""
    folder = tmp_path_factory.mktemp("whole")
    return run_of(folder, recipe_of(folder, corpus, EVERY), "train.accumulate=2")


def check_resumes(whole, folder):
    """Taken up at its middle, a run logs the same and ends with the same weights."""
    run = shutil.copytree(whole, folder / "run")
    shutil.rmtree(max((run / "checkpoints").glob("step-*")))
    half = int(max((run / "checkpoints").glob("step-*")).name[5:])
    resumed = pretrain(folder, "--resume", run)
    assert resumed.returncode == 0 and "warning" not in resumed.stderr, resumed.stderr
    later = {entry["objective"] for entry in losses(run) if entry["split"] == "train" and entry["step"] > half}
    assert later == set(KINDS)
    assert losses(run) == losses(whole)
    newest = [max((one / "checkpoints").glob("step-*")) for one in (whole, run)]
    for name in ("model.safetensors", "objectives.safetensors"):
        one, other = (load_file(folder / name) for folder in newest)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def test_a_resumed_run_of_every_objective_equals_an_uninterrupted_one(whole, tmp_path):
    validated = {entry["objective"] for entry in losses(whole) if entry["split"] == "validation"}
    assert validated == set(KINDS)
    check_resumes(whole, tmp_path)


@pytest.mark.campaign
def test_so_does_one_of_an_objective_an_update(corpus, tmp_path):
    """So long that each kind is drawn in either half, about 15 seconds of a core."""
    options = {"mixing": "update", "samples": 12, "updates": 240, "save_every": 120}
    check_resumes(run_of(tmp_path, recipe_of(tmp_path, corpus, EVERY, **options)), tmp_path)


def check_same(ours, theirs, split=None):
    """The same masks, as targets agree exactly, and the same losses and gradients, 1e-6 at update 1 and 1e-4 later."""
    ours, theirs = ([entry for entry in logged if split in (None, entry["split"])] for logged in (ours, theirs))
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert [a[k] for k in ("step", "split", "objective", "targets")] == [
            b[k] for k in ("step", "split", "objective", "targets")
        ]
        for name in ("loss", "grad_norm") if a["split"] == "train" else ("loss",):
            near = 1e-6 if (a["step"], name) == (1, "loss") else 1e-4
            assert b[name] == pytest.approx(a[name], rel=near, abs=1e-6), (a["step"], a["objective"], name)


@pytest.mark.slow
def test_two_ranks_equal_one_process(corpus, whole, tmp_path):
    """With mixings of the published four, with all kinds, with a face network, and where contrast gathers its rows over
    the ranks, one process has twice as large micro-batches in place of twice as many."""
    folders = {name: tmp_path / "two" / name for name in ("sample", "update", "every", "joint", "gather")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    options = {"updates": 20, "save_every": 20, "samples": 8}
    published = small_recipe(tmp_path, corpus, train=TRAIN | options, validate={"every": 20})
    room = "train.rows={text: 4000, visual: 4000, speech: 4000}"  # so that samples alone end a micro-batch
    gather = [recipe_of(tmp_path / "gather", corpus, GATHER, updates=6), room]
    lines = {mixing: [published, f"train.mixing={mixing}"] for mixing in ("sample", "update")}
    lines |= {"every": [recipe_of(tmp_path / "every", corpus, EVERY)], "gather": [*gather, "train.samples=4"]}
    lines["joint"] = [joint_recipe(tmp_path / "joint", raw_corpus(tmp_path))]
    together = two_ranks("pretrain", {folders[name]: line for name, line in lines.items()})
    assert together.returncode == 0, together.stderr
    assert "view_contrast: gathers rows of 2 ranks, in validation those of a batch alone" in together.stderr
    two = {name: losses(the_run(folder)) for name, folder in folders.items()}
    for name in ("sample", "update", "joint"):
        check_same(losses(run_of(tmp_path / "one" / name, *lines[name], "train.accumulate=2")), two[name])
    check_same(losses(whole), two["every"])

    alone = pretrain(tmp_path / "gather", *gather, "train.samples=8")
    assert alone.returncode == 0 and "gather: ranks changes nothing with one process" in alone.stderr, alone.stderr
    check_same(losses(the_run(tmp_path / "gather")), two["gather"], "train")
    ours, theirs = (final_weights(the_run(folder)) for folder in (tmp_path / "gather", folders["gather"]))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)
    report = (the_run(folders["gather"]) / "report.md").read_text()
    assert "view_contrast: its loss compares the samples of the micro-batches of all ranks" in report
    task = PreTraining(make_plan(read([str(gather[0])], [room, "train.samples=4", "train.accumulate=2"])))
    served = [[part.views[0].counts["view_contrast"] for part in one.micro_batches] for one in first_updates(task, 6)]
    assert any(0 in counts and any(counts) for counts in served), "no rank was without samples while another had some"
    assert any(all(counts) and len(set(counts)) == 2 for counts in served)


@pytest.mark.parametrize("mixing", ["sample", "update"])
def test_all_micro_batches_of_an_update_are_of_the_same_objectives_that_gather(corpus, tmp_path, mixing):
    """Or ranks would wait for one another for ever; also where one corpus does not serve them."""
    path = recipe_of(tmp_path, corpus, GATHER | {"tuple_contrast": {"gather": "ranks"}}, mixing=mixing)
    other = shutil.copytree(corpus, tmp_path / "other")
    description = other / "corpus.json"
    description.write_text(description.read_text().replace('"name": "demo"', '"name": "other"'))
    overrides = [f"corpora.1.path={other}", "corpora.1.objectives=[whole_word_mlm]", "train.accumulate=4"]
    task = PreTraining(make_plan(read([str(path)], overrides)))
    updates = first_updates(task, 8)
    assert {part.corpus for update in updates for part in update.micro_batches} == {"demo", "other"}
    for update in updates:
        readers = [part.views[0].readers for part in update.micro_batches]
        assert all(names == readers[0] for names in readers) and (mixing == "update" or len(readers[0]) == 3)
