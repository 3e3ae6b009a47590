"""Curves for wandb, MLflow and trackio: what a stand-in of each is given, and what is refused before a run begins."""

import sys
from types import SimpleNamespace

import pytest
from runs import here, small_corpus

from memofast.errors import MemofastError
from memofast.sections import checked
from memofast.train.metrics_log import read_metrics
from memofast.train.tracking import Track, library_of

LITTLE = ["train.epochs=1", "train.samples=8", "train.threads=1", "baselines=false"]


class Recorder:
    """A stand-in for any of the three: what it was called with, in order."""

    def __init__(self):
        self.calls = []

    def note(self, name, result=None):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return result

        return call

    def of(self, name):
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


def wandb(recorder):
    run = SimpleNamespace(log=recorder.note("log"), finish=recorder.note("close"))
    return SimpleNamespace(init=recorder.note("init", run))


def trackio(recorder):
    return SimpleNamespace(init=recorder.note("init"), log=recorder.note("log"), finish=recorder.note("close"))


def mlflow(recorder):
    run = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    client = SimpleNamespace(
        get_experiment_by_name=recorder.note("get"), create_experiment=recorder.note("experiment", "7"),
        create_run=recorder.note("run", run), log_param=recorder.note("setting"), log_metric=recorder.note("log"),
        set_terminated=recorder.note("close"),
    )  # fmt: skip
    return SimpleNamespace(MlflowClient=recorder.note("init", client))


def logged(recorder, to):
    """Curves as (name, step, value)."""
    if to == "mlflow":
        return [(name, options["step"], value) for (_, name, value), options in recorder.of("log")]
    return [(n, options["step"], v) for (values,), options in recorder.of("log") for n, v in values.items()]


@pytest.mark.parametrize(("to", "stand_in"), [("wandb", wandb), ("mlflow", mlflow), ("trackio", trackio)])
def test_a_run_is_tracked_offline(tmp_path, monkeypatch, to, stand_in):
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, to, stand_in(recorder))
    corpus = small_corpus(tmp_path)
    done = here(tmp_path, "finetune", "finetune-demo", f"corpus={corpus}", f"train.track.to={to}", *LITTLE)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("runs/*/*/*/metrics.jsonl")
    wanted = [
        (f"{line['split']}/{line['corpus']}/{line['objective']}/{name}", line["step"], value)
        for line in read_metrics(path)
        for name, value in line.items()
        if isinstance(value, (int, float)) and name.partition(".")[0] not in ("step", "targets")
    ]
    assert logged(recorder, to) == wanted and len(wanted) > 3
    assert len(recorder.of("init")) == len(recorder.of("close")) == 1
    ((_, begun),) = recorder.of("init")
    if to == "wandb":
        assert begun["mode"] == "offline" and begun["dir"] == str(path.parent) and begun["project"] == "memofast"
        assert begun["name"] == "-".join(path.parts[-4:-1]) and begun["name"].endswith("-fixed-seed-42")
    if to == "mlflow":
        assert begun["tracking_uri"].startswith("file:///") and begun["tracking_uri"].endswith("mlruns")
        assert ("r1", "train.track.to", "mlflow") in [arguments for arguments, _ in recorder.of("setting")]


@pytest.mark.parametrize("line", [("finetune", "finetune-demo", "corpus=c"), ("pretrain", "demo")])
@pytest.mark.parametrize("further", [(), ("--dry-run",)])
def test_what_is_not_installed_is_told_before_a_run_begins(tmp_path, monkeypatch, line, further):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = here(tmp_path, *line, "train.track.to=wandb", *further)
    assert done.returncode == 2 and not done.stdout and not (tmp_path / "runs").exists()
    assert 'wandb is not installed: pip install "wandb", or leave train.track out' in " ".join(done.stderr.split())


def test_servers(monkeypatch):
    with pytest.raises(MemofastError, match="trackio keeps curves on this machine"):
        checked({"to": "trackio", "online": True}, "recipe", Track)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow(Recorder()))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(MemofastError, match="MLFLOW_TRACKING_URI names no server"):
        library_of(Track(to="mlflow", online=True))
