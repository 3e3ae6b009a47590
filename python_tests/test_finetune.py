"""`memofast finetune` as a program: the demo, going on with a run, looking before running, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import environment, finetune, here, losses, small_corpus, start, the_run, two_ranks, wait_for
from safetensors.torch import load_file

from memofast import cli
from memofast.data.demo import demo_corpus
from memofast.evaluate import baseline_report
from memofast.model.families import open_emotion_model

LITTLE = ["finetune-demo", "train.epochs=3", "train.seeds=[1,2]", "train.samples=8", "modalities.evaluate=[l,lva]"]


def answers_of(run):
    """By file what the runs of each fold and seed answered."""
    return {path.relative_to(run): dict(np.load(path)) for path in sorted(run.glob("*/*/answers/*.npz"))}


def same_results(one, other):
    """Logs, answers and the model, to the bit."""
    places = sorted(path.parent.relative_to(one) for path in one.glob("*/*/metrics.jsonl"))
    assert places == sorted(path.parent.relative_to(other) for path in other.glob("*/*/metrics.jsonl"))
    for place in places:
        assert losses(one / place) == losses(other / place)
        kept = [json.loads((run / place / "done.json").read_text()) | {"seconds": 0} for run in (one, other)]
        assert kept[0] == kept[1]
    mine, theirs = answers_of(one), answers_of(other)
    assert mine.keys() == theirs.keys() and mine
    for path, arrays in mine.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, theirs[path][name])
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("demo"))


MIXED = [
    "finetune-demo", "train.epochs=4", "train.seeds=[7]", "train.samples=7", "train.validations=3",
    "train.class_weights=balanced", "train.hide=0.3", "train.hide_columns=0.1", "modalities.train=[l,v,lva]",
    "modalities.evaluate=[l,v,lva]", "train.patience=100", "train.weight_decay=0.3",
    "train.groups={memobert.embeddings.*: {lr: 0.3, weight_decay: 0.1}}", "baselines=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """The run of `MIXED` that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    ended = finetune(folder, *MIXED, f"corpus={corpus}")
    assert ended.returncode == 0, ended.stderr
    return the_run(folder)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, -9, id="kill"),
        pytest.param(signal.SIGTERM, 143, id="term", marks=pytest.mark.campaign),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(corpus, whole, tmp_path, number, code):
    process = start(tmp_path, *MIXED, f"corpus={corpus}", program="finetune")
    wait_for(tmp_path, "runs/*/fixed/seed-7/checkpoints/step-*", process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    run = the_run(tmp_path)
    assert process.returncode == code, said
    assert not (run / "fixed/seed-7/done.json").exists()
    if number != signal.SIGKILL:
        newest = max((run / "fixed/seed-7/checkpoints").glob("step-*"))
        step = json.loads((newest / "trainer.json").read_text())["step"]
        assert f"stopped at update {step}, saved; continue with --resume runs/{run.name}" in said
    resumed = finetune(tmp_path, "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    same_results(run, whole)


# samples of an update, micro-batches of a rank, epochs, updates
RANKS = {"one step": (100, 1, 2, 2), "24 updates": (4, 1, 1, 24), "accumulated": (4, 2, 2, 24)}


@pytest.mark.slow
def test_two_ranks_equal_one_process(corpus, tmp_path):
    """Where a micro-batch shows words, faces or all there is, ranks step the parameters that some rank reached, and
    those alone: 1e-6 at the first update and after it (the second is of rate 1e-8), 1e-4 after 20."""
    common = [
        "finetune-demo", f"corpus={corpus}", "train.seeds=[3]", "train.validations=1000", "train.warmup=0",
        "modalities.train=[l,v,lva]", "train.weight_decay=0.5", "train.class_weights=balanced", "train.eps=1e-4",
        "train.lr=1e-3", "protocol=last", "modalities.evaluate=[lva]", "baselines=false",
    ]  # fmt: skip
    alone, together = {}, {}
    kept = (
        "losses={near: {kind: spcl, gather: ranks, pool: 9, support: 4, temperature: 0.3}}"  # one micro-batch of both
    )
    for ranks, samples, of in (("one", 8, alone), ("two", 4, together)):
        of[tmp_path / ranks / "gathered"] = [
            *common,
            kept,
            "modalities.train=[lva]",
            f"train.samples={samples}",
            "train.epochs=1",
        ]
    for name, (samples, per_rank, epochs, _) in RANKS.items():
        line = [*common, f"train.samples={samples}", f"train.epochs={epochs}"]
        alone[tmp_path / "one" / name] = [*line, f"train.accumulate={per_rank * 2}"]
        together[tmp_path / "two" / name] = [*line, f"train.accumulate={per_rank}"]
    for folder in (*alone, *together):
        folder.mkdir(parents=True)
    ended = two_ranks("finetune", together)
    assert ended.returncode == 0, ended.stderr
    for folder, line in alone.items():
        ended = finetune(folder, *line)
        assert ended.returncode == 0, ended.stderr
    for name, (*_, lines) in (RANKS | {"gathered": (16,)}).items():
        same_but_for_roundings(*(the_run(tmp_path / ranks / name) for ranks in ("one", "two")), lines)


def same_but_for_roundings(run, other, lines):
    """lines: of the log, as many as updates and losses."""
    ours, theirs = losses(run / "fixed/seed-3"), losses(other / "fixed/seed-3")
    assert len(ours) == len(theirs) == lines
    for a, b in zip(ours, theirs, strict=True):
        assert [a[k] for k in ("step", "targets")] == [b[k] for k in ("step", "targets")]
        close = 1e-6 if a["step"] == 1 else 1e-4
        assert b["loss"] == pytest.approx(a["loss"], rel=close)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=10 * close)
    one, two = (load_file(each / "model" / "model.safetensors") for each in (run, other))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        apart = float((two[name] - weight).norm() / weight.norm())
        assert apart <= (1e-6 if lines == 2 else 1e-4), (name, apart)


def test_demo_is_interrupted_resumed_and_reported(tmp_path, monkeypatch):
    corpus = small_corpus(tmp_path)
    command = [sys.executable, "-m", "memofast.finetune", *LITTLE, f"corpus={corpus}"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/fixed/seed-1/done.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    (run,) = Path(tmp_path, "runs").iterdir()
    assert not (run / "results.md").exists()
    first = (run / "fixed/seed-1/done.json").stat().st_mtime_ns
    ended = finetune(tmp_path, "--resume", str(run))
    assert ended.returncode == 0, ended.stderr
    assert (run / "fixed/seed-1/done.json").stat().st_mtime_ns == first
    assert (
        "majority predictor" in ended.stdout + ended.stderr and "selected on validation" in ended.stdout + ended.stderr
    )
    results = json.loads((run / "results.json").read_text())
    assert {row["condition"] for row in results["rows"]} == {"l", "lva"}
    assert "| lva |" in (run / "results.md").read_text()
    assert len(open_emotion_model(run).classes) == 8
    assert json.loads((run / "model/preparation.json").read_text())["modalities"] == ["text", "visual", "speech"]
    has_baselines(run, results, ended.stdout)
    with monkeypatch.context() as patched:
        patched.setattr(baseline_report, "simple_baselines", lambda *_: pytest.fail("computed twice"))
        again = finetune(tmp_path, "--resume", str(run))
        assert again.returncode == 0 and "run 1 of 2" not in again.stderr + again.stdout
        assert json.loads((run / "results.json").read_text()) == results
        shown = here(tmp_path, "evaluate", run, "--conditions", "l")
    assert shown.returncode == 0 and "l, linear SVM" in shown.stdout and "lva, linear SVM" not in shown.stdout
    evaluated = json.loads((run / "evaluation" / "results.json").read_text())
    assert evaluated["against_baselines"]["rows"] == results["against_baselines"]["rows"][:1]
    (run / "results.json").write_text(json.dumps(results | {"rows": results["rows"][1:]}))
    monkeypatch.setattr(baseline_report, "simple_baselines", lambda *_: iter(()))
    assert finetune(tmp_path, "--resume", str(run)).returncode == 0  # other rows: baselines are asked for again
    assert "baselines" not in json.loads((run / "results.json").read_text())


def has_baselines(run, results, told):
    """A row for each model and condition, the model's own first, and the difference to the best over the same samples
    and seeds."""
    assert results["baselines"].keys() == {"logistic regression", "linear SVM"}
    lines = [line.split("|")[1].strip() for line in (run / "results.md").read_text().splitlines() if line[:1] == "|"]
    at = lines.index("l, model")
    names = ("model", "logistic regression", "linear SVM")
    assert lines[at : at + 7] == [*(f"{c}, {name}" for c in ("l", "lva") for name in names), "majority predictor"]
    against = results["against_baselines"]
    assert (against["metric"], against["over"]) == ("ua", "samples")
    for row in against["rows"]:
        kept = {own["condition"]: own for own in results["rows"] if own["split"] == "test"}[row["condition"]]
        best = {own["condition"]: own for own in results["baselines"][row["best"]]["rows"]}[row["condition"]]
        scores = [own["selected on validation"]["pooled"]["ua"]["mean"] for own in (kept, best)]
        assert [row["model"], row["baseline"]] == pytest.approx(scores)
        warned = f"not above a simple baseline: condition {row['condition']}, UA"
        assert (warned in told) == (row["interval"][0] <= 0) == any(warned in line for line in results["warnings"])


def test_mistakes_take_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, message in {
        ("corpus=nowhere",): "no corpus at nowhere",
        ("finetune-dem",): "did you mean finetune-demo?",
        ("finetune",): "names no corpus; add corpus=FOLDER",
        ("finetune-demo", "train.lrr=1"): "did you mean train.lr?",
        ("finetune-demo", "model.init=nowhere"): "nowhere",
        ("finetune-demo", "folds.scheme=speaker"): "no fold 1 of 'speaker'; it has none",
        ("--resume", "nowhere"): "no run to resume",
        ("finetune-demo", "--resume", "x"): "leave out the other arguments",
    }.items():
        monkeypatch.setattr(sys, "argv", ["memofast", "finetune", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_dry_run_makes_nothing(tmp_path):
    ended = finetune(tmp_path, "finetune-demo", "--dry-run", "protocol=paper")
    assert ended.returncode == 0 and "selected on test" in ended.stdout + ended.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_without_anything_to_test_ends_with_its_model(tmp_path):
    corpus = demo_corpus(tmp_path / "corpus", {"train": 24, "validation": 8})
    ended = finetune(tmp_path, *LITTLE, f"corpus={corpus}", "protocol=last", "train.seeds=[1]", "train.epochs=1")
    assert ended.returncode == 0, ended.stderr
    run = the_run(tmp_path)
    assert "no table, as no fold has a part that is not trained on" in ended.stdout + ended.stderr
    assert (run / "model" / "config.json").is_file() and not (run / "results.md").exists()
