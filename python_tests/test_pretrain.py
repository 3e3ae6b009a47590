"""The program as a user runs it: a whole run, kill and resume, signals, several processes, every mistake in one
line."""

import json
import math
import os
import resource
import shutil
import signal

import pytest
import torch
import yaml
from runs import (
    final_weights,
    losses,
    pretrain,
    small_corpus,
    small_recipe,
    start,
    the_run,
    wait_for,
)
from safetensors.torch import load_file

from memofast.errors import MemofastError
from memofast.model import MemoBertModel
from memofast.pretrain import main
from memofast.train import fine_tuning_recipe as finetune_recipe
from memofast.train import recipe as recipes
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.metrics_log import read_metrics


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def finished(corpus, tmp_path_factory):
    """The folder of a process that ran the small recipe to its end, and its output."""
    folder = tmp_path_factory.mktemp("whole")
    result = pretrain(folder, small_recipe(folder, corpus))
    assert result.returncode == 0, result.stderr
    return folder, result


def wait_for_checkpoint(folder, process):
    wait_for(folder, "runs/*/checkpoints/step-*", process)


def test_run_folder(finished):
    folder, result = finished
    run = the_run(folder)
    assert run.name.startswith("small-")
    assert {f.name for f in run.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "report.md",
    }
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["visual_width"] == 342 and config["train"]["seed"] == 1234
    entry = read_metrics(run / "metrics.jsonl")[0]
    wanted = {"step", "split", "corpus", "objective", "loss", "targets", "samples_per_s", "rows_per_s", "lr"}
    assert wanted <= entry.keys()
    assert 0.1 < entry["peak_memory_gib"] < 20 and "GiB" in result.stderr
    splits = {e["split"] for e in read_metrics(run / "metrics.jsonl")}
    assert splits == {"train", "validation"}
    report = (run / "report.md").read_text()
    assert "chosen on split `validation`" in report and "No test data" in report and "curves.png" in report
    for predictor in ("unigram", "mean feature", "mean label"):
        assert predictor in report and predictor in result.stdout
    steps = sorted(f.name for f in (run / "checkpoints").iterdir())
    assert steps[-2:] == ["step-00000008", "step-00000012"]


def test_training_twice_is_bitwise_equal(finished, corpus, tmp_path):
    assert pretrain(tmp_path, small_recipe(tmp_path, corpus)).returncode == 0
    assert losses(the_run(tmp_path)) == losses(the_run(finished[0]))


def stop(process, folder, number, code):
    """Send the signal once there is a checkpoint; SIGINT and SIGTERM save, and say where."""
    wait_for_checkpoint(folder, process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == code, said
    run = the_run(folder)
    if number != signal.SIGKILL:
        saved = json.loads((max((run / "checkpoints").glob("step-*")) / "trainer.json").read_text())
        assert f"stopped at update {saved['step']}, saved; continue with --resume {run.relative_to(folder)}" in said
    return run


@pytest.mark.parametrize(
    ("mixing", "number", "code"),
    [  # the quick part of the campaign kills too, in fewer seconds
        pytest.param("sample", signal.SIGKILL, -9, marks=pytest.mark.campaign),
        ("update", signal.SIGTERM, 143),
    ],
)
def test_stopped_and_resumed_equals_an_uninterrupted_run(corpus, tmp_path, mixing, number, code):
    train = {"mixing": mixing, "updates": 60, "save_every": 5, "log_every": 3}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    recipe = small_recipe(tmp_path, corpus, train=train)
    assert pretrain(whole, recipe).returncode == 0
    run = stop(start(broken, recipe), broken, number, code)
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] < 60
    resumed = pretrain(broken, "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(run) == losses(the_run(whole))
    for name, weight in final_weights(the_run(whole)).items():
        assert torch.equal(weight, final_weights(run)[name]), name


def test_what_objectives_learn_and_groups_are_resumed_to_the_bit(corpus, tmp_path):
    """Stopped by Ctrl-C in a run of two views, partners and shuffled rows, whose temperature is learned at a rate of
    its own."""
    train = {
        "updates": 40, "save_every": 5, "log_every": 3, "mixing": "sample", "weight_decay": 0.2,
        "groups": {"memobert.embeddings.*": {"lr": 0.3, "weight_decay": 0.0}, "objectives.*": {"lr": 5.0}},
    }  # fmt: skip
    values = yaml.safe_load(small_recipe(tmp_path, corpus, train=train, validate={"every": 10}).read_text())
    values["objectives"] = {
        "view_contrast": {}, "matching": {}, "speech_order": {"shows": ["speech"]}, "whole_word_mlm": {},
    }  # fmt: skip
    recipe = tmp_path / "further.yaml"
    recipe.write_text(yaml.safe_dump(values))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert pretrain(whole, recipe).returncode == 0
    run = stop(start(broken, recipe), broken, signal.SIGINT, 130)
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] < 40
    resumed = pretrain(broken, "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(run) == losses(the_run(whole))
    newest = [max((one / "checkpoints").glob("step-*")) for one in (the_run(whole), run)]
    for name in ("model.safetensors", "objectives.safetensors"):
        one, other = (load_file(folder / name) for folder in newest)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    (learned,) = load_file(newest[0] / "objectives.safetensors").values()
    assert abs(float(learned) - math.log(1 / 0.05)) > 1e-3
    assert "view_contrast: its loss compares" in (run / "report.md").read_text()


@pytest.mark.slow
def test_a_compiled_run_logs_the_same(corpus, tmp_path):
    """In fp32, in which compiled and plain operations round alike to some digits; two updates, as compiling takes
    nearly all the time."""
    logged = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        folder.mkdir()
        options = {"compile": compiled, "precision": "fp32", "updates": 2, "log_every": 1}
        recipe = small_recipe(folder, corpus, train=options, validate={"every": 100})
        values = yaml.safe_load(recipe.read_text())
        recipe.write_text(yaml.safe_dump(values | {"objectives": {"span_visual_regression": {}}}))
        result = pretrain(folder, recipe, "train.mixing=update")
        assert result.returncode == 0, result.stderr
        logged.append(losses(the_run(folder)))
    plain, compiled = logged
    assert len(plain) == len(compiled) > 1
    for a, b in zip(plain, compiled, strict=True):
        for name in a.keys() | b.keys():
            assert b[name] == (pytest.approx(a[name], rel=1e-4) if isinstance(a[name], float) else a[name]), name


def test_dry_run(corpus, tmp_path):
    result = pretrain(tmp_path, small_recipe(tmp_path, corpus), "--dry-run")
    assert result.returncode == 0, result.stderr
    for part in ("48 training", "visual [", "parameters", "MB for weights", "lr: 0.001"):
        assert part in result.stdout
    assert not (tmp_path / "runs").exists()


def one_line(result):
    """A user's mistake: exit code 2, one line, no traceback."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("memofast pretrain: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    return lines[0]


def test_exit_code_and_line(corpus, tmp_path):
    assert "did you mean train.lr?" in one_line(pretrain(tmp_path, small_recipe(tmp_path, corpus), "train.lrr=1"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["corpora.0.path=nowhere"], "no corpus at nowhere"),
        (["validate.split=dev"], "no split 'dev'"),
        (["train.longest.text=1"], "no samples"),
        (["model.init=nowhere"], "no checkpoint at nowhere"),
        (["model.visual_width=8"], "model.visual_width is 8, but the corpora have 342"),
        (["model.vocab_size=20"], "set model.vocab_size"),
        (["corpora.1.path=demo", "corpora.1.objectives=[span_visual_emotion]"], "both named 'demo'"),
    ],
)
def test_mistakes(corpus, tmp_path, monkeypatch, overrides, message):
    monkeypatch.chdir(tmp_path)
    if "demo" in message:
        overrides = [override.replace("path=demo", f"path={corpus}") for override in overrides]
    with pytest.raises(MemofastError) as error:
        main([str(small_recipe(tmp_path, corpus)), *overrides])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_resume_mistakes(finished, tmp_path):
    run = the_run(finished[0])
    with pytest.raises(MemofastError, match="no run to resume"):
        main([], resume=tmp_path)
    with pytest.raises(MemofastError, match="leave out demo"):
        main(["demo"], resume=run)


@pytest.mark.parametrize("change", ["model.hidden_size=64", "train.groups={'heads.*': {lr: 0.5}}"])
def test_a_refused_resume_leaves_the_run_as_it_was(finished, tmp_path, change):
    run = shutil.copytree(the_run(finished[0]), tmp_path / "run")
    before = (run / "config.yaml").read_bytes()
    result = pretrain(tmp_path, "--resume", run, change)
    assert result.returncode == 2 and "resume with the run's own" in one_line(result)
    assert (run / "config.yaml").read_bytes() == before


@pytest.fixture
def stopped(finished, tmp_path):
    """A run that has its last checkpoint no more, as if it had been killed after update 8 of 12."""
    run = shutil.copytree(the_run(finished[0]), tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    return run


def test_a_resume_with_another_seed_leaves_a_run_that_goes_on(finished, stopped):
    before = (stopped / "config.yaml").read_bytes()
    assert "has seed 1234, the run 5" in one_line(pretrain(stopped, "--resume", stopped, "train.seed=5"))
    assert (stopped / "config.yaml").read_bytes() == before
    (stopped / ".report.md.4194999.partial").write_text("left by a killed process")
    (stopped / "checkpoints" / ".step-00000004.deleted").mkdir()
    metrics = stopped / "metrics.jsonl"
    lines = metrics.read_bytes().split(b"\n")
    metrics.write_bytes(b"\n".join([*lines[:4], b"\xff\xfe", *lines[4:]]))
    resumed = pretrain(stopped, "--resume", stopped)
    assert resumed.returncode == 0 and f"{metrics}: line 5 is damaged" in resumed.stderr
    assert not list(stopped.rglob(".*")) and read_metrics(metrics)[-1]["step"] == 12
    wanted = final_weights(the_run(finished[0]))
    assert all(torch.equal(weight, wanted[name]) for name, weight in final_weights(stopped).items())


def test_a_resume_names_every_entry_that_changed(stopped):
    config = stopped / "config.yaml"
    config.write_text(config.read_text().replace("clip: 5.0", "clip: 4.0"))  # by hand
    changed = ["train.samples=4", "train.betas=[0.8,0.98]", "objectives.whole_word_mlm.share=3", "train.log_every=5"]
    resumed = pretrain(stopped, "--resume", stopped, *changed)
    (line,) = [line for line in resumed.stderr.splitlines() if "bit for bit" in line]
    for said in (
        "train.samples was 8, is 4", "train.betas.0 was 0.9, is 0.8", "train.clip was 5.0, is 4.0",
        "objectives.whole_word_mlm.share was 2, is 3",
    ):  # fmt: skip
        assert said in line
    assert "log_every" not in line and "train.lr" not in line and "betas.1" not in line
    again = json.loads((stopped / "checkpoints" / "step-00000012" / "trainer.json").read_text())
    assert again["recipe"]["train"]["clip"] == 4.0


def test_a_resume_with_nothing_left_to_do_is_one_line(finished, stopped):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    for updates in (4, 8):
        ended = pretrain(stopped, "--resume", stopped, f"train.updates={updates}")
        assert ended.returncode == 0 and len(ended.stderr.splitlines()) == 1
        assert f"nothing is left to do, it is at update 8 and train.updates is {updates}" in ended.stderr
    assert before == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}


def test_a_full_disk_while_the_report_is_written_loses_nothing(finished, tmp_path):
    run = shutil.copytree(the_run(finished[0]), tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        ended = pretrain(tmp_path, "--resume", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "curves.png cannot be written" in one_line(ended)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_resume_of_another_architecture(finished, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(the_run(finished[0]), run)
    with pytest.raises(MemofastError, match="another architecture"):
        main(["model.intermediate_size=128", "train.updates=20"], resume=run)


def test_objective_no_corpus_can_serve(corpus, tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    description = json.loads((corpus / "corpus.json").read_text())
    description["stores"] = {"text": str(corpus / "text")}
    description.pop("streams", None)
    for entry in description["splits"].values():
        entry["file"] = str(corpus / entry["file"])
    (words / "corpus.json").write_text(json.dumps(description))
    with pytest.raises(MemofastError, match=r"objectives\.span_.*: no corpus can serve it, none has .* rows"):
        main([str(small_recipe(tmp_path, words))])


def test_start_from_a_checkpoint(finished, corpus, tmp_path):
    checkpoint = max((the_run(finished[0]) / "checkpoints").glob("step-*"))
    recipe = small_recipe(tmp_path, corpus, train={"updates": 2})
    assert pretrain(tmp_path, recipe, f"model.init={checkpoint}").returncode == 0
    line = one_line(pretrain(tmp_path, recipe, f"model.init={checkpoint}", "model.hidden_size=64"))
    assert "has hidden_size 32, the recipe 64" in line


def test_a_run_is_a_start_by_its_best_checkpoint(finished, corpus, tmp_path):
    """Of pre-training and of fine-tuning, which in this way takes the vocabulary, widths and weights of the run."""
    run = shutil.copytree(the_run(finished[0]), tmp_path / "run")
    steps = sorted((run / "checkpoints").glob("step-*"))
    for best in (steps[0], steps[-1]):
        trainer = json.loads((steps[-1] / "trainer.json").read_text())
        trainer["best"] = int(best.name[5:])
        (steps[-1] / "trainer.json").write_text(json.dumps(trainer))
        for read in (recipes.read, finetune_recipe.read):
            assert read("demo" if read is recipes.read else "finetune-demo", [f"model.init={run}"]).model.init == str(
                best
            )
    with pytest.raises(MemofastError, match="has hidden_size 32, the recipe 64"):
        make_fine_tuning_plan(finetune_recipe.read("finetune-demo", [f"corpus={corpus}", f"model.init={run}"]))
    plan = make_fine_tuning_plan(finetune_recipe.read("finetune", [f"corpus={corpus}", f"model.init={run}"]))
    model = start_model(plan.recipe, plan.target, plan.folds[0].train)
    wanted = MemoBertModel.from_pretrained(steps[-1]).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.memobert.state_dict().items())


def test_scores_of_another_run_are_one_line(finished, tmp_path):
    run = shutil.copytree(the_run(finished[0]), tmp_path / "run")
    path = max((run / "checkpoints").glob("step-*")) / "trainer.json"
    kept = json.loads(path.read_text())
    for change in ("objective", "loss"):
        saved = json.loads(json.dumps(kept))
        if change == "objective":
            saved["best_scores"][0][1] = "whole_word_mlmm"
        else:
            del saved["best_scores"][0][2]["loss"]
        path.write_text(json.dumps(saved))
        assert f"{path.name} has no scores of" in one_line(pretrain(tmp_path, "--resume", run))


def test_full_disk(corpus, tmp_path):
    """The limit stands in for a full disk: a clear line, and no half-written checkpoint under a final name."""
    recipe = small_recipe(tmp_path, corpus, model={"hidden_size": 64, "intermediate_size": 256})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        result = pretrain(tmp_path, recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written" in one_line(result)
    assert not list(tmp_path.glob("runs/*/checkpoints/*"))


def test_not_finite_loss_names_objective_update_and_samples(corpus, tmp_path):
    recipe = small_recipe(tmp_path, corpus, train={"lr": 1e4, "weight_decay": 1e4, "warmup": 0, "schedule": "constant"})
    line = one_line(pretrain(tmp_path, recipe))
    assert "is not finite at update" in line and "samples train-" in line
    assert any(name in line for name in ("whole_word_mlm", "span_"))


def test_demo_corpus_goes_to_the_cache(tmp_path):
    result = pretrain(tmp_path, "--dry-run", MEMOFAST_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert [f.name for f in (tmp_path / "cache").iterdir()] == ["demo-3"]
    assert os.listdir(tmp_path) == ["cache"]
