"""Is this checkout as fast as an older one? `python bench/against_older.py OLD --out FILE.md`, on two quiet cores.

OLD: as for `same_as.py`. Each side runs in a process of its own, that stays, on its own modules, its own `bench/` and
the same corpora, which OLD writes. Of every case both sides are called in turn, pair by pair, old first in one and new
first in the next, as often as fills a quarter of a second, after one call that is not timed. A ratio is the old time
over the new one of the same pair, above 1 where this checkout is faster; told is the median over the pairs with its
95 % interval (bootstrap). Exit code 1 where an interval lies wholly below 0.97.
"""

import argparse
import datetime
import gc
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import conftest
import numpy as np
import random_corpus
import test_ladder
import test_predict
import torch
from contests import RANGES
from transformers.utils import logging

import memofast
from memofast.data.demo import demo_corpus
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.train.plan import make_plan
from memofast.train.processes import Processes
from memofast.train.recipe import read

try:
    from memofast.train.pre_training import PreTraining
    from memofast.train.trainer import Trainer
except ImportError:  # up to fd5b8af
    from memofast.train.loop import Trainer

    PreTraining = None

HERE = Path(__file__).resolve().parents[1]
THREADS, LEAST_SECONDS, SLOWER = 2, 0.25, 0.97
SAMPLES, READY, TEXTS = 32, 8, 16  # READY: batches
# All above `Side` runs in the process of one side, on its modules.


def trainer_of(recipe: str, folder: Path, objectives: dict | None = None):
    """A trainer as `pretrain` makes it; it was given the plan, where it is given a task now."""
    corpus = folder / ("demo" if recipe == "demo" else "random")
    chosen = read(recipe, [f"corpora.0.path={corpus}", f"train.samples={SAMPLES}", "train.device=cpu"])
    torch.set_num_threads(chosen.train.threads or THREADS)
    plan = make_plan(chosen.model_copy(update={"objectives": objectives} if objectives else {}))
    return Trainer(PreTraining(plan) if PreTraining else plan, folder / "run", Processes())


def step(recipe: str, folder: Path) -> Callable[[], object]:
    """Forward, backward, clipping, AdamW and what is noted of them, on batches that lie ready."""
    trainer = trainer_of(recipe, folder)
    with closing(iter(trainer._loader())) as updates:
        ready = itertools.cycle(list(itertools.islice(updates, READY)))
    update = getattr(trainer, "update", None) or trainer._update  # as older ones call it
    return lambda: update(next(ready))


def packing(folder: Path) -> Callable[[], object]:
    updates = iter(trainer_of("memobert-mini", folder, {"span_visual_regression": None})._loader())
    return lambda: next(updates)


def one_by_one(folder: Path) -> Callable[[], object]:
    """The model and the texts of test_predict.py."""
    torch.manual_seed(0)
    config = MemoBertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, visual_width=0,
        speech_width=0, id2label=dict(enumerate(test_predict.CLASSES)),
    )  # fmt: skip
    MemoBertForEmotion(config).save_pretrained(folder / "model")
    (folder / "model" / "vocab.txt").write_text("\n".join(test_predict.WORDS))
    predictor, draw = memofast.load(folder / "model", device="cpu"), random.Random(0)
    texts = [" ".join(draw.choices(test_predict.WORDS[5:], k=draw.randint(3, 20))) for _ in range(TEXTS)]
    return lambda: [predictor.predict(text=text)[0] for text in texts]


def top_rung(folder: Path) -> Callable[[], object]:
    *_, top = test_ladder.Rungs(SAMPLES, "cpu", MemoBertConfig()).rungs.values()
    return top


CASES = {
    "pre-training step, recipe demo": partial(step, "demo"),
    "pre-training step, recipe memobert-mini": partial(step, "memobert-mini"),
    f"{TEXTS} texts predicted one by one": one_by_one,
    f"loader: packing {SAMPLES} samples, span masks": packing,
    f"top rung of the ladder, {SAMPLES} samples": top_rung,
}


def write_corpora(folder: Path) -> None:
    (fewest, most), *features = RANGES.values()  # of text with [CLS] and [SEP]
    samples = random_corpus.draw(512 + SAMPLES, (fewest - 2, most - 2), *features)
    (folder / "random").mkdir()
    random_corpus.write(folder / "random", samples, held_out=SAMPLES)
    demo_corpus(folder / "demo")


def seconds(run: Callable[[], object], calls: int) -> float:
    run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def serve(shared: Path) -> None:
    """Answer orders, one in a line: [case] makes it and times one call, [case, calls] times more of it."""
    logging.disable_progress_bar()  # of saving
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is printed is no answer
    for order, *calls in map(json.loads, iter(sys.stdin.readline, "")):
        answer: object = None
        if order == "corpora":
            write_corpora(shared)
        elif order == "machine":
            conftest.pytest_benchmark_update_machine_info(None, machine := {})
            answer = machine["memofast"]
        else:
            if not calls:
                run = None
                gc.collect()
                torch.set_num_threads(THREADS)
                own = TemporaryDirectory()
                for corpus in shared.iterdir():
                    (Path(own.name) / corpus.name).symlink_to(corpus)
                run = CASES[order](Path(own.name))
            answer = seconds(run, *calls or [1])
        print(json.dumps(answer), file=told, flush=True)


class Side:
    """The process of one checkout."""

    def __init__(self, checkout: Path, shared: Path):
        path = f"{checkout}{os.pathsep}{checkout / 'bench'}"
        line = [sys.executable, "-P", __file__, "--serve", str(shared)]  # -P: not this file's folder, but that side's
        environment, pipe = os.environ | {"PYTHONPATH": path}, subprocess.PIPE
        self._process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, cwd=checkout, env=environment)
        self.checkout = checkout

    def ask(self, *order: object):
        print(json.dumps(order), file=self._process.stdin, flush=True)
        if not (answer := self._process.stdout.readline()):
            raise SystemExit(f"{self.checkout}: {order[0]} failed there, see above")
        return json.loads(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compared(old: Side, new: Side, case: str, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of one call, by pair."""
    sides, times = (old, new), {old: [], new: []}
    calls = math.ceil(LEAST_SECONDS / min(side.ask(case) for side in sides))
    for pair in range(pairs):
        for side in sides if pair % 2 == 0 else sides[::-1]:
            times[side].append(side.ask(case, calls))
    return times[old], times[new]


def interval(ratios: np.ndarray) -> np.ndarray:
    """95 % bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    return np.percentile(np.median(drawn, axis=1), (2.5, 97.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=15)
    asked = parser.parse_args()
    begun = datetime.datetime.now(datetime.UTC)
    rows, slower = [], False
    with TemporaryDirectory() as folder:
        old, new = (Side(checkout.resolve(), Path(folder)) for checkout in (asked.old, HERE))
        old.ask("corpora")
        before, machine = old.ask("machine"), new.ask("machine")
        for case in CASES:
            ratios = np.divide(*(times := compared(old, new, case, asked.pairs)))
            low, high = interval(ratios)
            ms = [f"{np.median(own) * 1e3:.4g} ms" for own in times]
            told = "slower" if high < SLOWER else "faster" if low > 1 else "no slower" if low >= SLOWER else "undecided"
            rows.append(f"| {case} | {' | '.join(ms)} | {np.median(ratios):.3f} [{low:.3f}, {high:.3f}] | {told} |")
            slower |= told == "slower"
            print(rows[-1], flush=True)
        old.close()
        new.close()
    builds = ", ".join(f"{name} {m['commit']} (build {m['build']})" for name, m in (("old", before), ("new", machine)))
    asked.out.write_text(
        "# This checkout against an older one\n\n"
        f"`bench/against_older.py {asked.old.name} --out {asked.out.name} --pairs {asked.pairs}`, "
        f"{begun:%Y-%m-%d %H:%M} UTC: {builds}; {THREADS} threads. {machine['cpu']}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[1]:.1f}; kernels {machine['isa']}, Python {machine['python']}, torch {machine['torch']}.\n\n"
        "| Case | old | new | old / new, median [95 %] | new is |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    sys.exit(slower)


if __name__ == "__main__":
    serve(Path(sys.argv[2])) if sys.argv[1:2] == ["--serve"] else main()
