"""Faces and speech taught by text, on utterances composed of a sentence, a spoken clip and faces of one emotion:
`python bench/distil_on_triples.py CORPUS MODEL --out FOLDER`.

CORPUS: what `bench/matched_triples.py --only-corpus` composes. MODEL: folder of a BERT checkpoint, which learns the
sentences and is the teacher. Students read faces, speech and both in one model from random weights, with the labels
alone or with what the teacher says of the sentence as well; the same settings for all, none tuned. Differences are
paired by seed and sample. Finished runs are kept, and the same command goes on.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from matched_triples import Answers, against_the_first, answers_of_cell
from rich.console import Console

from memofast.evaluate.section import print_section, section_markdown
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import metrics_of

STUDENT = {
    "hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 768,
    "initializer_range": 0.05, "speech_positions": 256,
}  # fmt: skip
CONDITIONS = ("v", "a", "va")
# TelME's students have the sum of both, each with weight 1
LOSSES = {
    "labels alone": (),
    "DIST of logits": ("dist",),
    "features": ("feature_distillation",),
    "DIST and features (TelME)": ("dist", "feature_distillation"),
    "soft cross-entropy": ("soft_cross_entropy",),
}


def teacher_of(corpus: Path, model: Path, folder: Path, seed: int) -> tuple[Path, Predictions]:
    """A run that learnt the sentences, and what it says of the test part."""
    overrides = ["modalities.train=[l]", "modalities.evaluate=[l]", f"model.init={model}", "model.head=emocls"]
    said = answers_of_cell(corpus, folder, [*overrides, "train.lr=1e-4", "train.epochs=4"], [seed])
    return folder, said["l"][seed]


def student_overrides(kinds: tuple[str, ...], teacher: Path, epochs: int) -> list[str]:
    losses = ", ".join(f"{kind}: {{kind: {kind}, teachers: [{{path: {teacher}, condition: l}}]}}" for kind in kinds)
    of_three = f"[{','.join(CONDITIONS)}]"
    return [
        *(f"model.{name}={value}" for name, value in STUDENT.items()), "model.head=emocls",
        f"modalities.train={of_three}", f"modalities.evaluate={of_three}", f"train.epochs={epochs}",
        *([f"losses={{{losses}}}"] if losses else []),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.md is written there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=4)
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    teachers = {
        seed: teacher_of(asked.corpus, asked.model, asked.out / f"teacher-{seed}", seed) for seed in asked.seeds
    }
    uas = [metrics_of(said)["ua"] for _, said in teachers.values()]
    console.print(f"teacher, sentences of test: UA {np.mean(uas):.3f} ± {np.std(uas, ddof=len(uas) > 1):.3f}")
    found: dict[str, Answers] = {}
    for name, kinds in LOSSES.items():
        begun = time.monotonic()
        for seed, (teacher, _) in teachers.items():
            folder = asked.out / f"{'-'.join(kinds) or 'labels'}-{seed}"
            said = answers_of_cell(asked.corpus, folder, student_overrides(kinds, teacher, asked.epochs), [seed])
            for condition, by_seed in said.items():
                found.setdefault(name, {}).setdefault(condition, {}).update(by_seed)
        console.print(f"{name}: {time.monotonic() - begun:.0f} s")
        (asked.out / "results.md").write_text(
            f"# Taught by text\n\n{section_markdown(against_the_first(found, CONDITIONS))}"
        )
    print_section(against_the_first(found, CONDITIONS), console)


if __name__ == "__main__":
    main()
