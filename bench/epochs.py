"""A fine-tuning's trainer, an epoch of training at a time: what benches compare."""

from itertools import islice
from pathlib import Path

from memofast.train.fine_tuning_plan import FineTuningPlan
from memofast.train.fine_tuning_run import FoldRun
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer


class Epochs:
    """Of the first fold of a plan, whose epochs must be more than are run. folder: of the run."""

    def __init__(self, plan: FineTuningPlan, folder: Path):
        folder.mkdir(exist_ok=True)
        task = FoldRun(plan, plan.folds[0], 1, folder, folder).task()
        self.trainer, self.updates = Trainer(task, folder / "run", Processes()), task.per_epoch
        self.drawn = iter(self.trainer.loader)

    def run(self) -> None:
        """What `Trainer.run` does for an epoch, without a log, validation and a checkpoint."""
        for update in islice(self.drawn, self.updates):
            self.trainer.update(update)
            self.trainer.state.step = update.step

    def close(self) -> None:
        self.drawn.close()
