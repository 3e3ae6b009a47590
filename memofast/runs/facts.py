"""What a run's folder says of it: of what kind it is, on what it learnt, how far it came, how good it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from memofast.errors import MemofastError, MemofastWarning, nearest
from memofast.files import files_below, read_json
from memofast.train.folder import CONFIG, TEXT_REPORT, TEXT_SETTINGS
from memofast.train.recipe_text import read_yaml

SWEEP = "sweep.yaml"
_OF_NAME = len("-20261129-205413")  # what `make_folder` puts behind a recipe's name


@dataclass(frozen=True)
class RunFacts:
    """One run.

    folder; kind: `pretrain`, `finetune`, `sweep` or `emotion-text`; recipe: its name; corpus: names of the corpora that
    it reads; family: of its model; state: `finished`, or how far it came; metric, validation, test: mean over finished
    folds and seeds of the metric that chose, test of all modalities together, None where there is none; bytes: on the
    disk; config: the resolved recipe.
    """

    folder: Path
    kind: str
    recipe: str
    corpus: str
    family: str
    state: str
    metric: str
    validation: float | None
    test: float | None
    bytes: int
    config: Mapping[str, Any]

    COLUMNS = ("run", "kind", "recipe", "corpus", "family", "state", "metric", "validation", "test", "bytes")

    def value(self, key: str) -> Any:
        """Of a column, or of an entry of the recipe by its dotted name; None where the recipe has none."""
        if key in self.COLUMNS:
            return self.folder.name if key == "run" else getattr(self, key)
        found: Any = self.config
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def plain(self) -> dict[str, Any]:
        return {"folder": str(self.folder)} | {key: self.value(key) for key in self.COLUMNS}


def runs_below(folder: Path) -> list[RunFacts]:
    """Every run in a folder of runs, by name; settings of a sweep belong to the sweep. One that is damaged is left out,
    with a note. Raises: `MemofastError` where there is no such folder."""
    found = []
    for one in run_folders(folder):
        try:
            found.append(facts_of(one))
        except MemofastError as error:
            warnings.warn(f"left out: {error}", MemofastWarning, stacklevel=2)
    return found


def run_folders(folder: Path) -> list[Path]:
    """Raises: `MemofastError` where there is no such folder."""
    if not folder.is_dir():
        raise MemofastError(f"{folder}: no such folder; give the one that holds runs, as runs")
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and is_run(one)]


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (CONFIG, SWEEP, TEXT_SETTINGS))


def facts_of(folder: Path) -> RunFacts:
    """Raises: `MemofastError` where the folder's recipe or what it says of its runs is damaged."""
    config, kind = _config(folder)
    if kind == "finetune":
        state, metric, validation, test = _fine_tuning(folder, config)
    elif kind == "pretrain":
        state, metric, validation, test = _pre_training(folder, config)
    else:
        done = (folder / ("results.json" if kind == "sweep" else TEXT_REPORT)).is_file()
        state, metric, validation, test = "finished" if done else "unfinished", "", None, None
    stem = folder.name[:-_OF_NAME] if folder.name[-_OF_NAME:].replace("-", "").isdecimal() else folder.name
    size = sum(its.st_size for _, its in files_below(folder))
    model = config.get("model") if isinstance(config.get("model"), dict) else {}
    family = str(model.get("family") or "memobert") if kind in ("finetune", "pretrain") else ""
    return RunFacts(folder, kind, stem, _corpora(config), family, state, metric, validation, test, size, config)


def matching(runs: list[RunFacts], filters: list[str]) -> list[RunFacts]:
    """Those whose values fit every filter `KEY=PATTERN`, see `RunFacts.value`; case does not matter, `*` stands for
    anything, and one of several corpora is enough.

    Raises: `MemofastError` for what is no such filter, and for a key that no run has.
    """
    for given in filters:
        key, equals, pattern = given.partition("=")
        if not equals or not key:
            raise MemofastError(f"--filter {given}: write KEY=VALUE, as corpus=meld or train.lr=0.0001")
        _check_key(runs, "--filter", key)
        runs = [run for run in runs if _fits(run.value(key), pattern.lower())]
    return runs


def ordered(runs: list[RunFacts], key: str, descending: bool) -> list[RunFacts]:
    """By a value, see `RunFacts.value`; runs that have none come last. Raises: `MemofastError` for a key that no run
    has."""
    _check_key(runs, "--sort", key)
    having = [run for run in runs if run.value(key) is not None]
    having.sort(key=lambda run: _rank(run.value(key)), reverse=descending)
    return having + [run for run in runs if run.value(key) is None]


def _check_key(runs: list[RunFacts], option: str, key: str) -> None:
    if key in RunFacts.COLUMNS or not runs or any(run.value(key) is not None for run in runs):
        return
    known = sorted({*RunFacts.COLUMNS} | {name for run in runs for name in _names(run.config)})
    raise MemofastError(
        f"{option} {key}: no run has such an entry{nearest(key, known)}; columns are {', '.join(RunFacts.COLUMNS)}, "
        "others are named as in config.yaml"
    )


def _names(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{before}{name}"
        if isinstance(value, dict):
            yield from _names(value, f"{before}{name}.")


def _fits(value: Any, pattern: str) -> bool:
    told = [str(value)] if not isinstance(value, list) else [str(one) for one in value]
    if isinstance(value, str):
        told += value.split(", ")
    return any(fnmatchcase(one.lower(), pattern) or _same_number(one, pattern) for one in told)


def _same_number(one: str, pattern: str) -> bool:
    try:
        return float(one) == float(pattern)
    except ValueError:
        return False


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value).lower()


def _config(folder: Path) -> tuple[dict[str, Any], str]:
    """The recipe of a run, and of what kind it is."""
    if (folder / SWEEP).is_file():
        path, kind = folder / SWEEP, "sweep"
    elif (folder / CONFIG).is_file():
        path, kind = folder / CONFIG, ""
    else:
        path, kind = folder / TEXT_SETTINGS, "emotion-text"
    try:
        found = read_json(path) if kind == "emotion-text" else read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise MemofastError(f"{path}: damaged; restore it, or take {folder} away")
    return found, kind or ("pretrain" if "corpora" in found else "finetune")


def _corpora(config: Mapping[str, Any]) -> str:
    given = [config.get("corpus"), (config.get("set") or {}).get("corpus") if "set" in config else None]
    several = config.get("corpora")
    given += [one.get("path") for one in several if isinstance(one, dict)] if isinstance(several, list) else []
    return ", ".join(Path(str(one)).name for one in given if one)


def _fine_tuning(folder: Path, config: Mapping[str, Any]) -> tuple[str, str, float | None, float | None]:
    done = [_read(path) for path in sorted(folder.glob("*/seed-*/done.json"))]
    finished = (folder / "results.json").is_file()
    state = "finished" if finished else f"{len(done)} runs done" if done else "nothing done"
    scores = [one["score"] for one in done if one.get("score") is not None]
    metric = str(done[0].get("metric") or "") if done else ""
    validation = sum(scores) / len(scores) if scores else None
    return state, metric, validation, _tested(folder, metric) if finished else None


def _tested(folder: Path, metric: str) -> float | None:
    """The metric on the test part of the row with the most modalities."""
    rows = [row for row in _read(folder / "results.json").get("rows", ()) if row.get("split") == "test"]
    if not rows:
        return None
    row = max(rows, key=lambda one: len(str(one.get("condition"))))
    told = row.get(f"selected on {row.get('selected_on')}", {})
    return told.get("runs", {}).get(metric, {}).get("mean")


def _pre_training(folder: Path, config: Mapping[str, Any]) -> tuple[str, str, float | None, None]:
    steps = sorted(path for path in folder.glob("checkpoints/step-*") if path.name[5:].isdecimal())
    updates = (config.get("train") or {}).get("updates")
    if not steps:
        return "nothing saved", "", None, None
    last, told = int(steps[-1].name[5:]), _read(steps[-1] / "trainer.json")
    best = told.get("best_value")
    state = "finished" if last == updates else f"update {last} of {updates}"
    return state, "loss" if best is not None else "", best, None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise MemofastError(f"{path}: damaged; memofast runs verify {path.parents[0]} says what else is")
    return found
