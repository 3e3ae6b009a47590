"""MELD's sentences, fine-tuned by memofast and by a plain transformers loop, side by side: `python bench/meld_text.py
CORPUS MODEL --seeds 42 43 44`.

CORPUS: made by `memofast prepare MELD --corpus meld`, whose split `validation` is MELD dev. Both select the best of
their epochs by weighted F1 on a tenth of the training dialogues and are told on dev, which chooses nothing; they train
on the same sentences in batches of 32 with AdamW, lr 1e-4, a tenth of the updates to warm up and linear decay. The
plain loop pads each batch to its longest sentence and runs in fp32, as such loops do; memofast packs and runs in bf16
where the machine has it. Seconds of an epoch are those of training alone, without validation. `--context 8` adds
memofast with up to so many earlier utterances of the dialogue, the same seeds and settings.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from transformers import AutoTokenizer, BertForSequenceClassification, get_linear_schedule_with_warmup

from memofast.data import Split
from memofast.inference.split_predictions import truth_of
from memofast.metrics.class_scores import class_scores
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune

BATCH, RATE, WARMUP = 32, 1e-4, 0.1
LONGEST = 128


def ours(corpus: Path, model: Path, seed: int, epochs: int, folder: Path, context: int = 0) -> tuple[float, float]:
    """Weighted F1 on dev, and seconds of an epoch. context: earlier utterances that are read; 0: none."""
    plan = plan_of(corpus, model, seed, epochs, *([f"context.utterances={context}"] if context else []))
    fine_tune(plan, folder, Console(quiet=True))
    (dev,) = [found for *_, part, _, found in answers(plan, folder) if part == "test"]
    lines = map(json.loads, (folder / "fixed" / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines())
    trained = [(line["targets"], line["samples_per_s"]) for line in lines if line["split"] == "train"]
    seconds = sum(samples / rate for samples, rate in trained) / sum(samples for samples, _ in trained)
    return class_scores(dev.truth, dev.named, dev.classes)["weighted_f1"], seconds * len(plan.folds[0].train)


def plan_of(corpus: Path, model: Path, seed: int, epochs: int, *further: str):
    return make_fine_tuning_plan(
        read("finetune", [
            f"corpus={corpus}", f"model.init={model}", "model.head=emocls", "folds.validation=null",
            "folds.test=validation",
            "folds.by=dialogue",
            f"train.lr={RATE}", f"train.samples={BATCH}", f"train.epochs={epochs}", f"train.seeds=[{seed}]",
            f"train.warmup={WARMUP}",
            "train.metric=weighted_f1", "train.validations=1", "modalities.evaluate=[l]", "modalities.train=[l]",
            *further,
        ])
    )  # fmt: skip


def plain(corpus: Path, model: Path, seed: int, epochs: int) -> tuple[float, float]:
    """The same of a plain transformers loop over the same sentences."""
    torch.manual_seed(seed)
    plan = plan_of(corpus, model, seed, epochs)
    fold, classes = plan.folds[0], plan.target.classes
    tokenizer = AutoTokenizer.from_pretrained(model)
    net = BertForSequenceClassification.from_pretrained(model, num_labels=len(classes))
    train, parts = (
        labelled(fold.train, plan.target),
        (labelled(fold.validation, plan.target), labelled(fold.test, plan.target)),
    )
    updates = epochs * -(-len(train) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimiser, round(WARMUP * updates), updates)
    best, seconds = (-1.0, 0.0), []
    for _ in range(epochs):
        net.train()
        begun = time.monotonic()
        order = torch.randperm(len(train)).tolist()
        for first in range(0, len(order), BATCH):
            texts, labels = zip(*[train[i] for i in order[first : first + BATCH]], strict=True)
            encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            net(**encoded, labels=torch.tensor(labels)).loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        seconds.append(time.monotonic() - begun)
        validation, dev = (weighted_f1(net, tokenizer, part, classes) for part in parts)
        best = max(best, (validation, dev))
    return best[1], float(np.mean(seconds))


def labelled(split: Split, target) -> list[tuple[str, int]]:
    """Sentences and classes of a split."""
    store = split.corpus.stores["text"]
    sentences = [bytes(store.read(id)["utf8"]).decode() for id in split.ids]
    return list(zip(sentences, truth_of(split, target).tolist(), strict=True))


@torch.no_grad()
def weighted_f1(net, tokenizer, part: list[tuple[str, int]], classes: tuple[str, ...]) -> float:
    net.eval()
    named = []
    for first in range(0, len(part), 128):
        texts = [text for text, _ in part[first : first + 128]]
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        named.append(net(**encoded).logits.argmax(1).numpy())
    return class_scores(np.array([label for _, label in part]), np.concatenate(named), classes)["weighted_f1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path, help="folder of a BERT checkpoint with its vocabulary")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--context", type=int, default=0, help="earlier utterances; 0: no run with context")
    arguments = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {"memofast": [], "transformers": []}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows["memofast"].append(ours(arguments.corpus, arguments.model, seed, arguments.epochs, Path(folder)))
        rows["transformers"].append(plain(arguments.corpus, arguments.model, seed, arguments.epochs))
        if arguments.context:
            with tempfile.TemporaryDirectory() as folder:
                found = ours(arguments.corpus, arguments.model, seed, arguments.epochs, Path(folder), arguments.context)
            rows.setdefault(f"memofast, {arguments.context} earlier utterances", []).append(found)
        for name, found in rows.items():
            print(
                f"seed {seed}, {name}: weighted F1 {found[-1][0]:.4f} on dev, {found[-1][1]:.1f} s an epoch", flush=True
            )
    for name, found in rows.items():
        f1, seconds = np.array(found).T
        print(
            f"{name}: weighted F1 {f1.mean():.4f} (sd {f1.std(ddof=len(f1) > 1):.4f}), "
            f"{np.median(seconds):.1f} s an epoch"
        )
    ratios = [theirs[1] / mine[1] for mine, theirs in zip(rows["memofast"], rows["transformers"], strict=True)]
    print(f"an epoch {np.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
