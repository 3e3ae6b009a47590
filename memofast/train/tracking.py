"""Curves of a run for wandb, MLflow or trackio, beside TensorBoard's: where a recipe asks, and on this machine alone
unless it asks for more."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from memofast.errors import MemofastError
from memofast.sections import Section, leaves

_MOST_SETTINGS, _MOST_LETTERS = 100, 250  # that MLflow takes at a time, and of a value
_INSTALL = {"wandb": "wandb", "mlflow": "memofast[track]", "trackio": "trackio"}


class Track(Section):
    """to: which of them; project: under what name. online: send curves to its server, as its own environment names it
    (WANDB_API_KEY, MLFLOW_TRACKING_URI); else they are kept in the run's folder."""

    to: Literal["wandb", "mlflow", "trackio"]
    project: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")] = "memofast"
    online: bool = False

    @model_validator(mode="after")
    def _has_a_server(self) -> Track:
        if self.online and self.to == "trackio":
            raise ValueError("trackio keeps curves on this machine; leave online out")
        return self


class Tracker(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def library_of(track: Track) -> ModuleType:
    """Raises: `MemofastError` where it is not installed, or not configured."""
    try:
        library = importlib.import_module(track.to)
    except ImportError:
        raise MemofastError(
            f'train.track.to: {track.to} is not installed: pip install "{_INSTALL[track.to]}", or leave train.track out'
        ) from None
    if track.online and track.to == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise MemofastError("train.track.online: MLFLOW_TRACKING_URI names no server; set it, or leave online out")
    return library


def open_tracker(track: Track, folder: Path, recipe: Mapping[str, Any] | None) -> Tracker:
    """A tracker for the run in a folder, new or gone on with. recipe: its settings, kept beside the curves."""
    library = library_of(track)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves this machine unasked
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder, where MLflow 3 would rather have a database
    return {"wandb": _Wandb, "mlflow": _Mlflow, "trackio": _Trackio}[track.to](library, track, folder, recipe or {})


def name_of(folder: Path) -> str:
    """What a run is called: its folder's name, with those of fold and seed behind it."""
    parts = folder.resolve().parts
    begin = len(parts) - parts[::-1].index("runs") if "runs" in parts else len(parts) - 1
    return "-".join(parts[begin:])


class _Wandb:
    def __init__(self, library: ModuleType, track: Track, folder: Path, recipe: Mapping[str, Any]):
        mode = "online" if track.online else "offline"
        name, place = name_of(folder), str(folder.resolve())
        self._run = library.init(
            project=track.project, name=name, id=name, resume="allow", dir=place, mode=mode, config=dict(recipe)
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, library: ModuleType, track: Track, folder: Path, recipe: Mapping[str, Any]):
        where = os.environ["MLFLOW_TRACKING_URI"] if track.online else (folder / "mlruns").resolve().as_uri()
        self._client = library.MlflowClient(tracking_uri=where)
        found = self._client.get_experiment_by_name(track.project)
        experiment = found.experiment_id if found else self._client.create_experiment(track.project)
        self._run = self._client.create_run(experiment, run_name=name_of(folder)).info.run_id
        for name, value in [*leaves(dict(recipe))][:_MOST_SETTINGS]:
            self._client.log_param(self._run, name.replace("*", "."), str(value)[:_MOST_LETTERS])

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _Trackio:
    def __init__(self, library: ModuleType, track: Track, folder: Path, recipe: Mapping[str, Any]):
        self._library = library
        library.init(project=track.project, name=name_of(folder), config=dict(recipe), resume="allow")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        self._library.finish()
