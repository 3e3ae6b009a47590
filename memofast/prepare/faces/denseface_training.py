"""Training of DenseFace on labelled faces, by a recipe that fits an hour or two of two cores or by the original's."""

import copy
import io
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from memofast.devices import precision_on
from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import SIDE, DenseNet, shrink
from memofast.prepare.faces.labelled_faces import FaceData, read_faces, stratified_parts
from memofast.prepare.faces.picture_schedule import augment, averaging_decay, fullness, side_at

_HALVE_EVERY = 40  # epochs
_RISE = 0.2  # share of a one-cycle training in which the rate rises
_SMOOTHING = 0.1  # of the labels
_PART = 32  # pictures of a one-cycle batch that share statistics and a thread
_SAVE_EVERY = 60.0  # seconds between states within an epoch


@dataclass(frozen=True)
class Recipe:
    """How DenseFace is trained: most epochs, learning rate, and whether the last epoch is kept rather than the best
    one."""

    epochs: int
    lr: float
    keeps_last: bool


RECIPES = {
    # SGD with Nesterov momentum whose rate rises and falls once, pictures that grow, smooth labels, averaged weights
    "one-cycle": Recipe(epochs=34, lr=0.1, keeps_last=True),
    # AIM3-RUC/MEmoBert, code/denseface: Adam, the rate halved every 40 epochs, the best epoch on validation faces
    "original": Recipe(epochs=200, lr=1e-3, keeps_last=False),
}


@dataclass(frozen=True)
class TrainingOptions:
    """epochs and lr of 0 are those of the recipe; patience, in epochs without a better one, ends the original's
    only."""

    recipe: str = "one-cycle"
    epochs: int = 0
    limit: int = 0
    batch: int = 64
    lr: float = 0.0
    dropout: float = 0.0
    patience: int = 8
    validation: float = 0.1
    seed: int = 0
    precision: str = "auto"


def scores(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, unweighted average recall and macro F1 of a confusion matrix [true, predicted]; classes without samples
    left out."""
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    there = true > 0
    recall = right[there] / true[there]
    f1 = 2 * right[there] / (true[there] + predicted[there])
    return {
        "accuracy": float(right.sum() / max(confusion.sum(), 1)),
        "recall": float(recall.mean()) if len(recall) else 0.0,
        "f1": float(f1.mean()) if len(f1) else 0.0,
    }


def print_confusion(classes: tuple[str, ...], validation: dict) -> None:
    """Print the confusion matrix of a validation report: rows are the true classes."""
    table = Table(title=f"validation, {validation['images']} images: rows true, columns predicted")
    table.add_column("")
    for name in classes:
        table.add_column(name, justify="right")
    for name, row in zip(classes, validation["confusion"], strict=True):
        table.add_row(name, *map(str, row))
    console = Console()
    console.print(table)
    console.print(
        f"accuracy {validation['accuracy']:.3f}, unweighted average recall {validation['recall']:.3f}, macro F1 "
        f"{validation['f1']:.3f}"
    )


def train_denseface(data: Path, out: Path, options: TrainingOptions, restart: bool = False) -> DenseFaceMeta:
    """Train on the npz file `data` and write the DenseFace file `out`, with its confusion on a validation part and the
    curve of training.

    While it runs, `out` with suffix `.training` holds the state from which an interrupted training goes on.
    Raises MemofastError on bad data or options.
    """
    if options.precision not in {"auto", "fp32", "bf16"}:
        raise MemofastError(f"--precision is auto, fp32 or bf16, not {options.precision!r}")
    if options.recipe not in RECIPES:
        raise MemofastError(f"--recipe is {' or '.join(RECIPES)}, not {options.recipe!r}")
    recipe = RECIPES[options.recipe]
    options = replace(options, epochs=options.epochs or recipe.epochs, lr=options.lr or recipe.lr)
    faces = read_faces(data, options.limit)
    run = _Training(faces, out, options)
    run.resume(restart)
    meta = run.run()
    print_confusion(faces.classes, meta.validation)
    print(f"wrote {out}, which sees faces as {meta.side} x {meta.side} pixels")
    return meta


class _Training:
    def __init__(self, faces: FaceData, out: Path, options: TrainingOptions):
        self.faces, self.out, self.options = faces, out, options
        self.recipe = RECIPES[options.recipe]
        one_cycle = options.recipe == "one-cycle"
        self.full = fullness(options.epochs / self.recipe.epochs) if one_cycle else 1.0
        self.state_path = out.with_name(out.name + ".training")
        self.train_part, self.held_out = stratified_parts(faces.labels, options.validation, options.seed)
        if len(self.train_part) < options.batch or len(self.held_out) == 0:
            raise MemofastError(
                f"{len(faces.labels)} images are too few for batches of {options.batch} and a validation part; "
                "give more images or a smaller --batch"
            )
        pixels = faces.images[self.train_part]
        self.mean, self.std = float(pixels.mean(dtype=np.float64)), max(float(pixels.std(dtype=np.float64)), 1e-3)
        torch.manual_seed(options.seed)
        self.net = DenseNet(len(faces.classes), options.dropout)
        parts = max(1, round(options.batch / _PART)) if one_cycle else 1
        self.others = [copy.deepcopy(self.net) for _ in range(parts - 1)]
        if options.recipe == "original":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.net.parameters(), lr=options.lr, fused=True)
            self.judged = self.net
        else:
            decay = averaging_decay(self.full, options.epochs * len(self.train_part) / options.batch)
            self.optimizer = torch.optim.SGD(
                self.net.parameters(), lr=options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
            )
            self.judged = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.bf16 = precision_on(options.precision, torch.device("cpu")) == "bf16"
        self.epoch, self.step, self.best, self.stale, self.curve = 0, 0, None, 0, []

    def resume(self, restart: bool) -> None:
        if restart:
            self.state_path.unlink(missing_ok=True)
        if not self.state_path.is_file():
            return
        try:
            state = torch.load(self.state_path, weights_only=True)
            if state["about"] != self._about():
                raise MemofastError(
                    f"{self.state_path} is the state of a training with other data or options; add --restart to begin "
                    "anew"
                )
            self.net.load_state_dict(state["net"])
            self.judged.load_state_dict(state["judged"])
            self.optimizer.load_state_dict(state["optimizer"])
        except MemofastError:
            raise
        except Exception as error:
            raise MemofastError(f"{self.state_path} cannot be read; add --restart to begin anew") from error
        for name in ("epoch", "step", "best", "stale", "curve"):
            setattr(self, name, state[name])
        print(f"resuming at epoch {self.epoch + 1}, step {self.step}")

    def _about(self) -> dict:
        options = asdict(self.options)
        if not self.recipe.keeps_last:
            options.pop("epochs")  # more may be asked for later; a cycle is planned as a whole
        return {
            **options,
            "fullness": self.full,
            "images": len(self.faces.labels),
            "classes": list(self.faces.classes),
            "mean": self.mean,
        }

    def _save(self) -> None:
        buffer = io.BytesIO()
        state = {"about": self._about(), "net": self.net.state_dict(), "judged": self.judged.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "curve": self.curve}
        state |= {"epoch": self.epoch, "step": self.step, "best": self.best, "stale": self.stale}
        torch.save(state, buffer)
        replace_file(self.state_path, buffer.getvalue(), parents=True)

    def run(self) -> DenseFaceMeta:
        while self.epoch < self.options.epochs and (self.recipe.keeps_last or self.stale < self.options.patience):
            loss, rate = self._train_epoch()
            validation = self._validate()
            self.epoch, self.step = self.epoch + 1, 0
            better = validation["recall"] > max((recall for _, _, recall in self.curve), default=-1.0)
            if better or self.recipe.keeps_last:
                weights = {name: tensor.clone() for name, tensor in self._network().state_dict().items()}
                self.best = {"epoch": self.epoch, "validation": validation, "weights": weights}
            self.stale = 0 if better else self.stale + 1
            print(
                f"epoch {self.epoch}: loss {loss:.3f}, validation accuracy {validation['accuracy']:.3f}, "
                f"recall {validation['recall']:.3f}{' (best)' if better else ''}, {rate:.0f} images/s"
            )
            self.curve.append([loss, validation["accuracy"], validation["recall"]])
            self._save()
        training = {**asdict(self.options), "images": len(self.train_part), "kept_epoch": self.best["epoch"]}
        training["curve"] = {"columns": ["loss", "validation accuracy", "validation recall"], "epochs": self.curve}
        meta = DenseFaceMeta(
            self.faces.classes,
            self.mean,
            self.std,
            training=training,
            validation=self.best["validation"],
            side=side_at(1.0, self.full) if self.options.recipe == "one-cycle" else SIDE,
        )
        save_denseface(self.out, self.best["weights"], meta)
        self.state_path.unlink(missing_ok=True)
        return meta

    def _network(self) -> DenseNet:
        """What is judged and kept: the average of the weights, or the weights."""
        return self.judged.module if isinstance(self.judged, AveragedModel) else self.judged

    def _batches(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng([self.options.seed, 2, self.epoch]).permutation(self.train_part)
        for first in range(0, len(order) - self.options.batch + 1, self.options.batch):
            yield order[first : first + self.options.batch]

    def _train_epoch(self) -> tuple[float, float]:
        """Mean loss and images per second of what was left of this epoch."""
        for net in (self.net, *self.others):
            net.train()
        batches = list(self._batches())
        losses, begun, saved = [], time.monotonic(), time.monotonic()
        with _progress() as progress, self._threads() as self.pool:
            bar = progress.add_task(
                f"epoch {self.epoch + 1}", total=len(batches), completed=self.step, rate="", loss=""
            )
            for chosen in batches[self.step :]:
                losses.append(self._train_step(chosen, (self.epoch + self.step / len(batches)) / self.options.epochs))
                self.step += 1
                rate = len(losses) * self.options.batch / (time.monotonic() - begun)
                progress.update(bar, advance=1, rate=f"{rate:.0f} images/s", loss=f"loss {np.mean(losses[-50:]):.3f}")
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._save()
                    saved = time.monotonic()
        seconds = max(time.monotonic() - begun, 1e-9)
        return (float(np.mean(losses)) if losses else math.nan), len(losses) * self.options.batch / seconds

    def _train_step(self, chosen: np.ndarray, done: float) -> float:
        """One update; done: share of the training behind it."""
        rng = np.random.default_rng([self.options.seed, 3, self.epoch, self.step])
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        pixels, smoothing = augment(self._pixels(chosen), rng, self.full), 0.0
        rate = 0.5 ** (self.epoch // _HALVE_EVERY)
        if self.options.recipe == "one-cycle":
            pixels, smoothing = shrink(pixels, side_at(done, self.full)), _SMOOTHING
            rate = min(done / _RISE, (1 - done) / (1 - _RISE)) + 1e-3
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * rate
        labels = torch.from_numpy(self.faces.labels[chosen])
        value = self._gradients(pixels, labels, smoothing)
        self.optimizer.step()
        if isinstance(self.judged, AveragedModel):
            self.judged.update_parameters(self.net)
        if not math.isfinite(value):
            raise MemofastError(f"the loss is {value} at epoch {self.epoch + 1}, step {self.step}; lower --lr")
        return value

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        """A thread for each part of a batch, as far as there are cores; each operator on its share of the cores.

        The network's operators are so small that two threads inside one are hardly faster than one: 117 pictures a
        second by operator, 203 by parts, of two cores. Dropout draws from one generator, so its parts take turns.
        """
        threads = torch.get_num_threads()
        workers = 1 if self.options.dropout else min(threads, 1 + len(self.others))
        torch.set_num_threads(threads // workers)
        try:
            with ThreadPoolExecutor(workers) as pool:
                yield pool
        finally:
            torch.set_num_threads(threads)

    def _gradients(self, pixels: Tensor, labels: Tensor, smoothing: float) -> float:
        """Give the network the gradients of a batch, part by part, and return its loss. The parts are the same whether
        they take turns or have a thread each, so that the weights are too; running statistics are those of the first
        part."""
        nets = (self.net, *self.others)
        own = list(self.net.parameters())
        with torch.no_grad():
            for net in self.others:
                torch._foreach_copy_(list(net.parameters()), own)

        def part(net: DenseNet, pixels: Tensor, labels: Tensor) -> Tensor:
            net.zero_grad(set_to_none=True)
            share = len(labels) / count
            loss = share * F.cross_entropy(self._logits(net, pixels), labels, label_smoothing=smoothing)
            loss.backward()
            return loss.detach()

        count = len(labels)
        losses = list(self.pool.map(part, nets, pixels.tensor_split(len(nets)), labels.tensor_split(len(nets))))
        for net in self.others:
            torch._foreach_add_([each.grad for each in own], [each.grad for each in net.parameters()])
        return float(sum(losses))

    def _pixels(self, chosen: np.ndarray) -> Tensor:
        return torch.from_numpy(self.faces.images[chosen])[:, None].float()

    def _logits(self, net: DenseNet, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return net((pixels - self.mean) / self.std)[1].float()

    @torch.no_grad()
    def _validate(self) -> dict:
        net = self._network().eval()
        classes = len(self.faces.classes)
        confusion = np.zeros((classes, classes), np.int64)
        steps = len(self.train_part) // self.options.batch
        last = (self.epoch + (steps - 1) / steps) / self.options.epochs  # at the side that it has just learned from
        for first in range(0, len(self.held_out), self.options.batch):
            chosen = self.held_out[first : first + self.options.batch]
            pixels = self._pixels(chosen)
            if self.options.recipe == "one-cycle":
                pixels = shrink(pixels, side_at(last, self.full))
            predicted = self._logits(net, pixels).argmax(1).numpy()
            np.add.at(confusion, (self.faces.labels[chosen], predicted), 1)
        return {"images": len(self.held_out), "confusion": confusion.tolist(), **scores(confusion)}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
