"""Checkpoints: written under a temporary name, synced, renamed; the last two and the best are kept, others renamed and
deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from memofast.errors import MemofastError
from memofast.files import refuse_pointer, sync_entry
from memofast.model.adapters.kept import WEIGHTS, adaptation_of, load_saved, save_adapted, saved_tensors
from memofast.model.feature_sets import FeatureSet, keep_feature_sets
from memofast.ops import faults
from memofast.prepare.text.word_pieces import copy_vocabulary
from memofast.train.optimiser_state import read_state, state_to_save
from memofast.train.state import read_trainer
from memofast.train.weights import FrozenWeights, weight_files

OBJECTIVES = "objectives.safetensors"
_KEPT = 2
_SLACK = 1.05


def checkpoint_bytes(learner: nn.Module) -> int:
    """What a checkpoint takes on the disk: weights, and both moments of AdamW of those that are trained."""
    kept = [tensor for tensors in saved_tensors(learner.model).values() for tensor in tensors.values()]
    kept += 2 * [parameter for parameter in learner.parameters() if parameter.requires_grad]
    return int(_SLACK * sum(tensor.numel() * tensor.element_size() for tensor in kept))


class Checkpoints:
    """The folder `checkpoints` of a run, with `step-00000500/{config.json, model.safetensors, objectives.safetensors
    where objectives have a state, optimizer.pt, trainer.json}`; of an adapted model with the files of `adapters.kept`
    in place of `model.safetensors`."""

    def __init__(
        self,
        folder: Path,
        go_on: str = "",
        vocabulary: Path | None = None,
        features: Mapping[str, FeatureSet] | None = None,
        frozen: FrozenWeights | None = None,
    ):
        """vocabulary: file or folder that goes into every checkpoint, see `copy_vocabulary`. features: what made the
        rows that are learnt from, by modality, see `keep_feature_sets`. frozen: keeps what does not learn; None: that
        beside the run."""
        self.vocabulary, self.features = vocabulary, features
        self.frozen = frozen or FrozenWeights(folder.parent.parent)
        self.folder, self.go_on = folder, go_on or f"continue with --resume {folder.parent}"

    def steps(self) -> list[int]:
        found = [entry for entry in self.folder.glob("step-*") if entry.name[5:].isdecimal() and entry.is_dir()]
        return sorted(int(entry.name[5:]) for entry in found if entry == self.path(int(entry.name[5:])))

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def save(self, step: int, learner: nn.Module, optimiser: torch.optim.Optimizer, trainer: dict[str, Any]) -> Path:
        """Write a checkpoint and remove those no longer wanted.

        Args: trainer: plain values for `trainer.json`, among them `best`, the step of the best checkpoint so far or
            None.
        Raises: `MemofastError` where the disk has no room or the run's folder was removed meanwhile; what the device
            says where it fails. Earlier checkpoints stay as they are.
        """
        final, temporary = self.path(step), self.folder / f".step-{step:08}.partial"
        if final.exists():
            return final
        try:
            with writing(f"checkpoint {final}", self.go_on):
                if not self.folder.parent.is_dir():
                    raise MemofastError(
                        f"{self.folder.parent} was removed while it was trained; nothing of it is kept, start it anew"
                    )
                self.folder.mkdir(exist_ok=True)
                self._check_room(checkpoint_bytes(learner))
                shutil.rmtree(temporary, ignore_errors=True)
                if adaptation_of(learner.model) is None:
                    self.frozen.save(learner.model, temporary)
                else:
                    save_adapted(learner.model, temporary)  # as it is trained, whatever type it will be kept in
                if self.vocabulary:
                    copy_vocabulary(self.vocabulary, temporary)
                keep_feature_sets(self.features or {}, temporary)
                if state := objectives_state(learner):
                    save_file(state, temporary / OBJECTIVES)
                with open(temporary / "optimizer.pt", "wb") as file:
                    torch.save(state_to_save(learner, optimiser), file)
                (temporary / "trainer.json").write_text(json.dumps(trainer, indent=1) + "\n")
                _sync(temporary)
                os.replace(temporary, final)
                sync_entry(self.folder)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._prune(trainer.get("best"))
        return final

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(0, f"needs {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free")

    def _prune(self, best: int | None) -> None:
        for step in self.steps()[:-_KEPT]:
            if step != best:
                remove_folder(self.path(step))

    def sweep(self, best: int | None) -> None:
        """Remove what killed processes left half-written, half-deleted or not yet deleted; best: step that is kept."""
        for entry in self.folder.glob(".step-*"):
            remove_folder(entry)
        self._prune(best)

    def load(
        self, step: int, learner: nn.Module, optimiser: torch.optim.Optimizer, whole: bool = False
    ) -> dict[str, Any]:
        """Bring model, objectives and optimiser to a checkpoint's state. Returns: its `trainer.json`.

        Options of the optimiser stay those that it has. Args: whole: see `optimiser_state.read_state`.
        Raises: `MemofastError`, before anything is loaded, where the checkpoint is of another architecture or other
            groups of parameters, or cannot be read, or lacks a part.
        """
        folder = self.path(step)
        weights: dict[str, dict[str, torch.Tensor]] = {}
        for name, own in saved_tensors(learner.model).items():
            files = weight_files(folder, self._remedy(folder)) if name == WEIGHTS else [folder / name]
            weights[name] = {}
            for file in files:
                with self._reading(file) as path:
                    weights[name] |= read_tensors(path)
            _check_architecture(folder, weights[name], own)
        with self._reading(folder / OBJECTIVES) as path:
            objectives = read_tensors(path) if path.is_file() else {}
        _check_architecture(folder, objectives, objectives_state(learner))
        with self._reading(folder / "trainer.json") as path:
            trainer = read_trainer(path, step)
        with self._reading(folder / "optimizer.pt") as path:
            state = read_state(path, learner, optimiser, step, whole)
        load_saved(learner.model, weights)
        if objectives:
            learner.objectives.load_state_dict(objectives)
        optimiser.load_state_dict(state)
        return trainer

    @contextmanager
    def _reading(self, path: Path) -> Iterator[Path]:
        """Context that reads one file of a checkpoint; what is wrong with it becomes a line that says what to do."""
        try:
            yield path
        except FileNotFoundError:
            raise MemofastError(f"{path} is missing; {self._remedy(path.parent)}") from None
        except (OSError, ValueError, SafetensorError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise MemofastError(f"{path} cannot be read ({reason}); {self._remedy(path.parent)}") from None

    def _remedy(self, folder: Path) -> str:
        earlier = [step for step in self.steps() if self.path(step) < folder]
        if not earlier:
            return "restore it, or start a new run, as no earlier checkpoint is left"
        return f"restore it, or remove {folder} to go on after update {earlier[-1]}"


@contextmanager
def writing(what: str, go_on: str) -> Iterator[None]:
    """Context in which a disk that refuses becomes a line that names what is written and says how to go on."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if faults.is_of_device(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise MemofastError(f"{what} cannot be written ({reason}); free space, then {go_on}") from None


def remove_folder(folder: Path) -> None:
    """Remove a folder, whole or not at all to whoever looks: it gets a hidden name first. Raises: `MemofastError` where
    that is not allowed."""
    hidden = folder if folder.name.startswith(".") else folder.with_name(f".{folder.name}.deleted")
    try:
        if hidden != folder:
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise MemofastError(f"{folder} cannot be removed ({error.strerror}); remove it and run again") from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises: as safetensors, and `ValueError` for a number that is not finite."""
    refuse_pointer(path)
    found = load_file(path)
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
    return found


def objectives_state(learner: nn.Module) -> dict[str, torch.Tensor]:
    """The state of the objectives' own modules, by name; empty where none has any."""
    return learner.objectives.state_dict()


def _check_architecture(folder: Path, weights: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> None:
    if wrong := sorted(weights.keys() ^ own.keys()):
        where = "the checkpoint" if wrong[0] in weights else "the recipe's model"
        raise MemofastError(
            f"checkpoint {folder} is of another architecture (only {where} has {wrong[0]}); resume with the run's own "
            "recipe"
        )
    for name, weight in weights.items():
        if weight.shape != own[name].shape:
            raise MemofastError(
                f"checkpoint {folder} is of another architecture ({name} is {list(weight.shape)}, the recipe's "
                f"{list(own[name].shape)}); "
                "resume with the run's own recipe"
            )
        if weight.dtype != own[name].dtype:
            raise MemofastError(
                f"checkpoint {folder}: {name} is {weight.dtype}, not {own[name].dtype} as it was trained; restore it"
            )


def _sync(folder: Path) -> None:
    for entry in folder.rglob("*"):
        sync_entry(entry)
    sync_entry(folder)


def remove_checkpoints(place: Path) -> None:
    """Those of a finished run, also where it was killed before they were gone."""
    for name in ("checkpoints", ".checkpoints.deleted"):
        if (place / name).is_dir():
            remove_folder(place / name)
