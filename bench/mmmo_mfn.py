"""MFN and others of ours on MMMO's sound and faces beside MMSA's MFN, paired by seed and clip:

    python bench/mmmo_mfn.py mmmo.pkl CORPUS [NAME=RECIPE OPTION ...] ...

mmmo.pkl and CORPUS: see `mmmo.py`; MMSA: see `mmsa_rival.py`. Both sides read columns standardised by the training
part, train with the published settings for MOSI, but in batches of 16, and keep the epoch with the best validation
correlation; MMSA's is run by its own `AMIO` and `getTrain(args).do_train`, its text a column of zeros. Without names:
our MFN, and the laboratory's model with and without LayerNorm and with a Transformer.
"""

from __future__ import annotations

import pickle
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmsa_rival import arguments_of, as_on_this_machine
from rich.console import Console

from memofast.data import Corpus
from memofast.metrics.paired_variants import against_first, difference_text
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import metrics_of
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune

SEEDS = (1, 2, 3, 4, 5)
BATCH = 16  # of 220 training samples; MOSI's 128 would be two updates an epoch
TOLD = ("mae", "corr", "non0_acc2")
OURS = {
    "MFN": "mosi-mfn",
    "laboratory": "mosi-lab",
    "laboratory without LayerNorm": "mosi-lab model.network.layer_norm=false",
    "laboratory with a Transformer": "mosi-lab model.network.encoder=transformer",
}
Runs = dict[int, list[Predictions]]  # of a seed: what it says of test


def ours(recipe: str, corpus: Path) -> Runs:
    name, *options = shlex.split(recipe)
    fixed = [
        f"corpus={corpus}", "train.metric=corr", f"train.seeds={list(SEEDS)}", "modalities.train=[va]",
        "modalities.evaluate=[va]", "train.precision=fp32", "train.threads=1",
        f"train.samples={BATCH}",
    ]  # fmt: skip
    plan = make_fine_tuning_plan(read(name, [*fixed, *options]))
    with tempfile.TemporaryDirectory() as folder:
        fine_tune(plan, Path(folder), Console(quiet=True))
        return {seed: [said] for _, seed, _, part, _, said in answers(plan, Path(folder)) if part == "test"}


def theirs(path: Path, ids: tuple[str, ...], folder: Path) -> Runs:
    """ids: of the test part in our corpus, whose order the pickle has."""
    contents = pickle.loads(path.read_bytes())
    statistics = {}
    for store in ("audio", "vision"):
        rows = contents["train"][store]
        own = rows[(rows != 0).any(2)]
        statistics[store] = own.mean(0), np.where(own.std(0) > 1e-4, own.std(0), 1)
    for name, part in contents.items():
        for store, (mean, std) in statistics.items():
            there = (part[store] != 0).any(2, keepdims=True)
            part[store] = np.where(there, (part[store] - mean) / std, 0).astype(np.float32)
        count, steps, _ = part["audio"].shape
        part |= {"text": np.zeros((count, steps, 1), np.float32), "raw_text": [""] * count}
        part |= {"id": list(ids) if name == "test" else [f"{name}{n}" for n in range(count)]}
    given = folder / "standardised.pkl"
    given.write_bytes(pickle.dumps(contents))
    return {seed: [_their_run(given, seed, folder)] for seed in SEEDS}


def _their_run(path: Path, seed: int, folder: Path) -> Predictions:
    with as_on_this_machine():
        from MMSA.data_loader import MMDataLoader
        from MMSA.models.AMIO import AMIO
        from MMSA.trains.ATIO import ATIO

        torch.manual_seed(seed)
        args = arguments_of("mfn", "mosi", path)
        args.update(
            {"KeyEval": "Corr", "cur_seed": seed, "batch_size": BATCH, "model_save_path": str(folder / "best.pt")}
        )
        args["need_normalized"] = False  # it would average over time
        loaders = MMDataLoader(args, 0)
        model, trainer = AMIO(args), ATIO().getTrain(args)
        trainer.do_train(model, loaders)
        model.load_state_dict(torch.load(args["model_save_path"], weights_only=True))
        found = trainer.do_test(model, loaders["test"], "TEST", return_sample_results=True)
    labels = np.array(found["Labels"], np.float32).ravel()
    return Predictions("regression", tuple(found["Ids"]), labels, np.array(found["SResults"], np.float32))


def main(path: Path, corpus: Path, asked: dict[str, str]) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        variants: dict[str, Runs] = {
            "MMSA's MFN": theirs(path, tuple(Corpus.open(corpus).split("test").ids), Path(folder))
        }
    for name, recipe in asked.items():
        variants[name] = ours(recipe, corpus)
    compared: dict[str, dict[str, Any]] = {metric: against_first(variants, metric) for metric in TOLD}
    print("| model | " + " | ".join(f"{metric} | less MMSA's MFN [95 %]" for metric in TOLD) + " |")
    print("| --- |" + " --- |" * 2 * len(TOLD))
    for name, runs in variants.items():
        told = []
        for metric in TOLD:
            scores = [metrics_of(run[0])[metric] for run in runs.values()]
            told += [f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}", difference_text(compared[metric][name])]
        print(f"| {name} | " + " | ".join(told) + " |", flush=True)


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[3:]) or OURS
    main(Path(sys.argv[1]), Path(sys.argv[2]), given)
