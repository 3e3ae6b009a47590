"""Checkpoints: written under a temporary name, synced, renamed; the last two and the best are kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from memofast.errors import MemofastError
from memofast.files import refuse_bomb, refuse_pointer
from memofast.ops import faults
from memofast.prepare.text.word_pieces import copy_vocabulary

OBJECTIVES = "objectives.safetensors"
_KEPT = 2
_SLACK = 1.05


def checkpoint_bytes(model: nn.Module) -> int:
    """What a checkpoint takes on the disk: weights and both moments of AdamW."""
    return int(_SLACK * 3 * sum(p.numel() * p.element_size() for p in model.parameters()))


class Checkpoints:
    """The folder `checkpoints` of a run, with `step-00000500/{config.json, model.safetensors, objectives.safetensors
    where objectives have a state, optimizer.pt, trainer.json}`."""

    def __init__(self, folder: Path, go_on: str = "", vocabulary: Path | None = None):
        """vocabulary: file or folder that goes into every checkpoint, see `copy_vocabulary`."""
        self.vocabulary = vocabulary
        self.folder, self.go_on = folder, go_on or f"continue with --resume {folder.parent}"

    def steps(self) -> list[int]:
        return sorted(int(entry.name[5:]) for entry in self.folder.glob("step-*") if entry.name[5:].isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def save(self, step: int, learner: nn.Module, optimiser: torch.optim.Optimizer, trainer: dict[str, Any]) -> Path:
        """Write a checkpoint and remove those no longer wanted.

        Args: trainer: plain values for `trainer.json`, among them `best`, the step of the best checkpoint so far or
            None.
        Raises: `MemofastError` where the disk has no room; what the device says where it fails. Earlier checkpoints
            stay as they are.
        """
        final, temporary = self.path(step), self.folder / f".step-{step:08}.partial"
        if final.exists():
            return final
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_room(checkpoint_bytes(learner))
            shutil.rmtree(temporary, ignore_errors=True)
            learner.model.save_pretrained(temporary)
            if self.vocabulary:
                copy_vocabulary(self.vocabulary, temporary)
            if state := objectives_state(learner):
                save_file(state, temporary / OBJECTIVES)
            with open(temporary / "optimizer.pt", "wb") as file:
                torch.save(optimiser.state_dict(), file)
            (temporary / "trainer.json").write_text(json.dumps(trainer, indent=1) + "\n")
            _sync(temporary)
            os.replace(temporary, final)
            _sync_entry(self.folder)
        except (OSError, SafetensorError, RuntimeError, MemofastError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if faults.is_of_device(error):
                raise
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise MemofastError(
                f"checkpoint {final} cannot be written ({reason}); free space, then {self.go_on}"
            ) from None
        self._prune(trainer.get("best"))
        return final

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(0, f"needs {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free")

    def _prune(self, best: int | None) -> None:
        for step in self.steps()[:-_KEPT]:
            if step != best:
                shutil.rmtree(self.path(step))

    def load(self, step: int, learner: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Bring model, objectives and optimiser to a checkpoint's state. Returns: its `trainer.json`.

        Options of the optimiser stay those that it has. Raises: `MemofastError` where the checkpoint is of another
        architecture or other groups of parameters, or cannot be read.
        """
        folder = self.path(step)
        for name in ("model.safetensors", OBJECTIVES, "optimizer.pt"):
            refuse_pointer(folder / name)
        refuse_bomb(folder / "optimizer.pt")
        try:
            weights = load_file(folder / "model.safetensors")
            objectives = load_file(folder / OBJECTIVES) if (folder / OBJECTIVES).is_file() else {}
            state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
            trainer = json.loads((folder / "trainer.json").read_text())
        except (OSError, ValueError, SafetensorError, RuntimeError) as error:
            raise MemofastError(
                f"checkpoint {folder} cannot be read ({str(error).splitlines()[0]}); remove it to go on from the one "
                "before"
            ) from None
        _check_architecture(folder, weights, learner.model.state_dict())
        _check_architecture(folder, objectives, objectives_state(learner))
        _take_options(folder, state["param_groups"], optimiser.param_groups)
        learner.model.load_state_dict(weights)
        if objectives:
            learner.objectives.load_state_dict(objectives)
        optimiser.load_state_dict(state)
        return trainer


def _take_options(folder: Path, saved: list[dict], own: list[dict]) -> None:
    """Let saved groups of parameters have the options of the run that goes on.

    Raises: `MemofastError` where they are other groups.
    """
    kept, asked = ([(of.get("name", ""), len(of["params"])) for of in groups] for groups in (saved, own))
    if kept != asked:
        raise MemofastError(
            f"checkpoint {folder} was trained in other groups of parameters ({kept}, now {asked}); "
            "resume with the run's own train.groups and objectives"
        )
    for before, now in zip(saved, own, strict=True):
        before.update({name: value for name, value in now.items() if name != "params"})


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


def _sync(folder: Path) -> None:
    for entry in folder.iterdir():
        _sync_entry(entry)
    _sync_entry(folder)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
