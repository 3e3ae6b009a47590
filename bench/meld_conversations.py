"""MELD's sentences in their dialogues: context, contrast and adapters, each paired with the utterance alone:
`python bench/meld_conversations.py CORPUS MODEL --out FOLDER`.

CORPUS, MODEL: as of `bench/meld_text.py`. Every full model begins with three epochs on utterances alone, with its
settings but for the mean of the words in place of the row of [CLS]; the epoch after them differs: alone again, with
earlier utterances of the dialogue, and with a loss of contrast beside. LoRA learns in as many epochs from MODEL. The
best of the epochs is chosen on a tenth of the training dialogues, and all is told on dev, which chooses nothing.
Differences are paired by seed and utterance, their intervals are over dialogues. Finished runs are kept, and the same
command goes on; `--only` does a part.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from meld_text import plan_of
from rich.console import Console

from memofast.data import Corpus
from memofast.data.folds import read_groups
from memofast.evaluate.baseline_report import baseline_results
from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.metrics.paired_variants import against_first, difference_text
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import metrics_of
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune

METRIC = "weighted_f1"
FIRST, AGAIN = 3, 1  # epochs
OWN = "context={utterances: 0, query: null, pool: words}"  # the mean of the own words, as MiniLM learnt sentences
CONTEXT = "context={utterances: 4, tokens: 80, query: null, pool: words}"
ALONE, AFTER, LORA = "utterance alone", "utterance alone, an epoch more", "utterance alone, LoRA"
# by what a full model learns after the first epochs
THEN = {
    AFTER: (OWN,),
    "with context": (CONTEXT,),
    "with context, SPCL": (CONTEXT, "losses={near: {kind: spcl, weight: 0.3, temperature: 0.1}}"),
    "with context, APCL": (CONTEXT, "losses={near: {kind: apcl, weight: 0.3}}"),
    "with context, supervised contrast": (CONTEXT, "losses={near: {kind: supervised_contrast, weight: 0.3}}"),
}
ADAPTERS = "model.lora={target_modules: all-linear, r: 8, lora_alpha: 16, lora_dropout: 0.1}"


def overrides_of(name: str, first: Path) -> tuple[int, list[str]]:
    """Epochs and overrides of a model. first: folder of the run that learnt utterances alone."""
    if name == ALONE:
        return FIRST, [OWN]
    if name == LORA:
        return FIRST + AGAIN, [OWN, ADAPTERS, "train.lr=1e-3"]
    return AGAIN, [f"model.init={first / 'model'}", "train.lr=5e-5", "train.validations=2", *THEN[name]]


def said_of(name: str, seed: int, corpus: Path, model: Path, folder: Path) -> Predictions:
    """What a model says of dev, trained unless it was."""
    epochs, overrides = overrides_of(name, folder / f"{ALONE}-{seed}".replace(" ", "-"))
    plan = plan_of(corpus, model, seed, epochs, "train.threads=1", *overrides)
    place = folder / f"{name}-{seed}".replace(",", "").replace(" ", "-")
    fine_tune(plan, place, Console(quiet=True))
    (said,) = [found for *_, part, _, found in answers(plan, place) if part == "test"]
    return said


def table(found: dict[str, dict[int, Predictions]], dialogues: dict[str, str]) -> Section:
    """Scores by seed, their mean, and the difference to the first, of the seeds that both have."""
    rows = []
    first, its = next(iter(found.items()))
    for name, by_seed in found.items():
        scores = {seed: metrics_of(said)[METRIC] for seed, said in by_seed.items()}
        pair = {one: {seed: [of[seed]] for seed in by_seed} for one, of in ((first, its), (name, by_seed))}
        against = against_first(pair, METRIC, dialogues)[name]
        mean = f"{np.mean(list(scores.values())):.4f} ± {np.std(list(scores.values()), ddof=len(scores) > 1):.4f}"
        rows.append((name, " ".join(f"{score:.4f}" for score in scores.values()), mean, difference_text(against)))
    headings = ("", "by seed", "mean ± deviation", f"less {first}")
    return Section("Weighted F1 on MELD dev, and differences [95 % bootstrap interval over dialogues]", headings, rows)


def baselines(corpus: Path) -> Section:
    overrides = [f"corpus={corpus}", "folds.validation=null", "folds.test=validation", "folds.by=dialogue"]
    results = baseline_results(read("finetune", [*overrides, "modalities.evaluate=[l]"]))
    rows = [
        (name, f"{row['selected on validation']['runs'][METRIC]['mean']:.4f}")
        for name, of in results["baselines"].items()
        for row in of["rows"]
        if row["split"] == "test"
    ]
    return Section("Simple baselines of the utterance alone", ("", "weighted F1"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.md is written there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--only", choices=[*THEN, LORA], nargs="+", help=f"with {ALONE}, these alone")
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    dialogues = read_groups(Corpus.open(asked.corpus), "dialogue")
    found: dict[str, dict[int, Predictions]] = {}
    for seed in asked.seeds:
        for name in (ALONE, *THEN, LORA):
            if asked.only and name not in (ALONE, *asked.only):
                continue
            begun = time.monotonic()
            said = said_of(name, seed, asked.corpus, asked.model, asked.out)
            found.setdefault(name, {})[seed] = said
            console.print(f"{name}, seed {seed}: {metrics_of(said)[METRIC]:.4f} ({time.monotonic() - begun:.0f} s)")
            (asked.out / "results.md").write_text(section_markdown(table(found, dialogues)))
    of_all = table(found, dialogues), baselines(asked.corpus)
    (asked.out / "results.md").write_text("\n".join(map(section_markdown, of_all)))
    for section in of_all:
        print_section(section, console)


if __name__ == "__main__":
    main()
