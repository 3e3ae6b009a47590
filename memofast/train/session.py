"""One run from its folder to its report."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging

from memofast.cpu import limit_compiled_products
from memofast.devices import device_of_rank
from memofast.errors import MemofastError
from memofast.train import device_faults
from memofast.train import trivial_table as table
from memofast.train.folder import CONFIG, resolved, write_recipe
from memofast.train.plan import Plan
from memofast.train.pre_training import PreTraining
from memofast.train.processes import Processes
from memofast.train.report import cells, coupled, feature_lines, title, write_report
from memofast.train.trainer import Trainer


def train(plan: Plan, folder: Path, processes: Processes) -> None:
    """Train, fresh or from the newest checkpoint in the folder; print the final table and write the report, also after
    a stop.

    Raises: `MemofastError` for a mistake in the recipe or data, for a device that fails, and where memory runs out.
    """
    limit_compiled_products()
    if plan.recipe.train.threads:
        torch.set_num_threads(plan.recipe.train.threads)
    logging.disable_progress_bar()  # of saving, which is quick
    device = device_of_rank(plan.recipe.train.device, processes.local_rank)
    console = Console(stderr=True, quiet=not processes.first, highlight=False, soft_wrap=True)
    with device_faults.explained(folder, device):
        trainer = Trainer(PreTraining(plan), folder, processes, recipe=resolved(plan).plain())
        _check_scores(plan, trainer)
        if trainer.finished and (trainer.state.best is None or trainer.state.step > plan.recipe.train.updates):
            console.print(
                f"{folder}: nothing is left to do, it is at update {trainer.state.step} and train.updates is "
                f"{plan.recipe.train.updates}; raise train.updates to go on"
            )
            return
        if processes.first and not (folder / CONFIG).exists():
            write_recipe(folder, plan)
        trainer.begin()
    if processes.first and not trainer.finished:
        write_recipe(folder, plan)  # once all fits it: a run whose recipe does not could never go on
    parameters = sum(parameter.numel() for parameter in trainer.learner.parameters())
    begin = f"goes on after update {trainer.state.step}" if trainer.state.step else "begins"
    console.print(f"{folder} {begin}: {parameters:,} parameters, {trainer.precision} on {trainer.device.type}")
    for line in (*feature_lines(plan), *plan.said):
        console.print(line)
    for name, of in coupled(plan.objectives).items():
        console.print(f"{name} compares the samples of {of} with one another: its loss depends on train.samples")
        if plan.objectives[name].gathers:
            console.print(f"{name}: {_gathering(processes.world, trainer)}")
    try:
        with device_faults.explained(folder, device, trainer.state):
            trainer.run()
    except BaseException:
        try:
            _report(folder, plan, trainer)
        except MemofastError as error:
            console.print(f"warning: {error}")
        raise
    _report(folder, plan, trainer)
    if processes.first:
        table.show(cells(plan, trainer.state), title(plan, trainer.state))
        print(f"report: {folder / 'report.md'}")
        if trainer.state.best is not None:
            print(f"best checkpoint: {trainer.checkpoints.path(trainer.state.best)}")


def _gathering(world: int, trainer: Trainer) -> str:
    if world == 1:
        return "gather: ranks changes nothing with one process"
    on_gpu = trainer.options.graphs and trainer.device.type == "cuda"
    plain = "; steps are not replayed from CUDA graphs, which hold no rows of other ranks" if on_gpu else ""
    return f"gathers rows of {world} ranks, in validation those of a batch alone{plain}"


def _check_scores(plan: Plan, trainer: Trainer) -> None:
    """Raises: `MemofastError` where the best validation so far is not one of this run."""
    for (_, objective), values in trainer.state.scores.items():
        if objective not in plan.objectives or not {"loss", "targets"} <= values.keys():
            path = trainer.checkpoints.path(trainer.state.step)
            raise MemofastError(
                f"{path / 'trainer.json'} has no scores of {', '.join(plan.objectives)}, but of {objective}; restore "
                "it, or resume with the objectives of this run"
            )


def _report(folder: Path, plan: Plan, trainer: Trainer) -> None:
    if trainer.processes.first:
        write_report(folder, plan, trainer.state, trainer.environment)
