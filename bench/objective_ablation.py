"""What each further objective of pre-training adds to the published four: `python bench/objective_ablation.py triples
TRIPLES --out FOLDER`, then `... sequences GRID --out FOLDER`.

triples: one pre-training by the published four and one with each of emotion words, utterance emotions, contrast and the
seven cases, on the corpus that `bench/matched_triples.py --only-corpus` composes of a MELD with lexicon and `memofast
pseudo-label` labels; each is fine-tuned on all three modalities with 10 % and 100 % of the labels, and on the mixture
of seven conditions with 10 %. sequences: matching and order, which need clips whose rows and modalities belong
together: one pre-training a seed on the demo corpus, fine-tuned with 5 % and 10 % of the labels, and on GRID, judged
by what the published four reach beside them.

Differences are paired by seed; none is called one that is not twice its deviation over seeds. `--only` runs one
variant, so that several can run at once; finished parts are kept, and the command without it writes the tables.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from matched_triples import CONDITIONS, pre_train, run_cell
from rich.console import Console

from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.train import recipe as recipes
from memofast.train.plan import make_plan
from memofast.train.processes import Processes
from memofast.train.session import train

PUBLISHED = "published four"
TRIPLES = {
    PUBLISHED: (), "+ emotion words": ("emotion-words",), "+ utterance emotions": ("emotions",),
    "+ contrast": ("contrast",), "+ seven cases": ("seven-cases",),
}  # fmt: skip
SEQUENCES = {PUBLISHED: (), "+ matching": ("matching",), "+ order": ("order",)}
SHARES = (0.05, 0.1)  # of the demo's labels; with more of them it has little left to tell
SEVEN = f"[{','.join(CONDITIONS)}]"
MIXTURES = {
    "all three": ["modalities.train=[lva]"],
    "seven conditions": [f"modalities.train={SEVEN}", f"modalities.evaluate={SEVEN}"],
}
CELLS = ((0.1, "all three"), (1.0, "all three"), (0.1, "seven conditions"))  # share of the labels, trained on
# what the original's authors noted: of which variant, under which conditions, and whether it helped
FINDINGS = (
    ("emotion classification helps with two modalities", "+ utterance emotions", ("lv", "la"), 1),
    ("emotion classification hurts with three", "+ utterance emotions", ("lva",), -1),
    ("matching hurts", "+ matching", ("lva",), -1),
)
Scores = dict[tuple[str, str, str], list[float]]  # (variant, setting, condition) -> a score of each seed


def score_triples(corpus: Path, out: Path, seeds: list[int], updates: int, variants: Iterable[str]) -> Scores:
    """UA on test of every variant, share of the labels, mixture and condition."""
    found: Scores = {}
    for variant in variants:
        begun = pre_train(corpus, out / "pre-training" / file_name(variant), updates, TRIPLES[variant])
        for share, mixture in CELLS:
            setting = f"{share:.0%} of the labels, trained on {mixture}"
            wanted = [f"model.init={begun}", "model.head=emocls", f"train.share={share}", *MIXTURES[mixture]]
            folder = out / "fine-tuning" / file_name(variant) / file_name(setting)
            for condition, uas in run_cell(str(corpus), folder, wanted, seeds).items():
                found[variant, setting, condition] = uas
    return found


def score_sequences(grid: Path, out: Path, seeds: list[int], variants: Iterable[str]) -> tuple[Scores, Scores]:
    """UA on the demo's test part of every variant and condition, and losses on GRID's validation part in relation to
    the trivial predictors, by objective."""
    uas: Scores = {}
    ratios: Scores = {}
    for variant in variants:
        for seed in seeds:
            folder = out / "demo" / f"{file_name(variant)}-{seed}"
            pre_train_by(("demo", *SEQUENCES[variant]), folder / "pre-training", [f"train.seed={seed}"])
            for share in SHARES:
                wanted = [f"model.init={folder / 'pre-training'}", "model.head=emocls", f"train.share={share}"]
                wanted += MIXTURES["seven conditions"]
                cell = run_cell("demo", folder / f"fine-tuning-{share}", wanted, [seed])
                for condition, found in cell.items():
                    uas.setdefault((variant, f"demo, {share:.0%} of the labels", condition), []).extend(found)
            folder = out / "grid" / f"{file_name(variant)}-{seed}"
            small = [
                f"corpora.0.path={grid}",
                f"train.seed={seed}",
                "model.hidden_size=128",
                "model.num_hidden_layers=3",
            ]
            small += [
                "model.num_attention_heads=4",
                "model.intermediate_size=256",
                "train.updates=300",
                "train.threads=1",
            ]
            pre_train_by(("memobert-mini", *SEQUENCES[variant]), folder, small)
            for objective, ratio in ratios_of(folder).items():
                ratios.setdefault((variant, "GRID", objective), []).append(ratio)
    return uas, ratios


def pre_train_by(names: tuple[str, ...], folder: Path, overrides: list[str]) -> None:
    chosen = recipes.read(names, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    train(make_plan(chosen), folder, Processes.join(chosen.train))


def ratios_of(folder: Path) -> dict[str, float]:
    """Loss by the trivial predictor's of every objective at the last validation."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    held = [line for line in lines if line.get("split") == "validation" and "trivial" in line]
    return {line["objective"]: line["loss"] / line["trivial"] for line in held}  # later lines go over earlier ones


def file_name(name: str) -> str:
    return name.replace("+ ", "with-").replace("% of the labels, ", "-").replace(" ", "-")


def differences(found: Scores, variant: str, setting: str, condition: str) -> np.ndarray:
    """[seeds] of a variant less the published four, seed by seed."""
    return np.subtract(found[variant, setting, condition], found[PUBLISHED, setting, condition])


def is_claim(difference: np.ndarray) -> bool:
    return len(difference) > 1 and abs(difference.mean()) > 2 * difference.std(ddof=1)


def tables(found: Scores) -> list[Section]:
    """Of each setting the scores, and the paired differences to the published four."""
    sections = []
    for setting in dict.fromkeys(setting for _, setting, _ in found):
        columns = list(dict.fromkeys(column for _, other, column in found if other == setting))
        variants = list(dict.fromkeys(variant for variant, other, _ in found if other == setting))

        def told(numbers: np.ndarray, sign: str = "") -> str:
            return (
                f"{numbers.mean():{sign}.3f} ± {numbers.std(ddof=1):.3f}" if len(numbers) > 1 else f"{numbers[0]:.3f}"
            )

        def score(variant: str, column: str, setting: str = setting) -> str:
            numbers = found.get((variant, setting, column))
            return "-" if numbers is None else told(np.array(numbers))

        def difference(variant: str, column: str, setting: str = setting) -> str:
            if (variant, setting, column) not in found or (PUBLISHED, setting, column) not in found:
                return "-"
            numbers = differences(found, variant, setting, column)
            return f"**{told(numbers, '+')}**" if is_claim(numbers) else told(numbers, "+")

        rows = [(variant, *(score(variant, column) for column in columns)) for variant in variants]
        sections.append(Section(setting, ("", *columns), rows))
        rows = [(one, *(difference(one, column) for column in columns)) for one in variants if one != PUBLISHED]
        sections.append(Section(f"{setting}: less the {PUBLISHED}, seed by seed", ("", *columns), rows))
    return sections


def verdicts(found: Scores) -> Section:
    """What the differences say of the original's findings: consistent, inconsistent or undecided."""
    rows = []
    for finding, variant, conditions, sign in FINDINGS:
        for one, setting, condition in found:
            if one == variant and condition in conditions:
                difference = differences(found, variant, setting, condition)
                agrees = "consistent" if difference.mean() * sign > 0 else "inconsistent"
                verdict = agrees if is_claim(difference) else "undecided"
                rows.append((finding, setting, condition, f"{difference.mean():+.3f}", verdict))
    return Section("The original's findings", ("finding", "setting", "condition", "difference", "verdict"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("triples", "sequences"))
    parser.add_argument("corpus", type=Path, help="triples: the composed corpus; sequences: GRID")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; the tables are written there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--updates", type=int, default=1500, help="of pre-training on the triples")
    parser.add_argument("--only", choices=(*TRIPLES, *SEQUENCES), help="one variant, and no table")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known = TRIPLES if asked.part == "triples" else SEQUENCES
    if asked.only and asked.only not in known:
        parser.error(f"{asked.part} has no variant {asked.only!r}; it has {', '.join(known)}")
    variants = [asked.only] if asked.only else list(known)
    parts: tuple[Scores, ...]
    if asked.part == "triples":
        parts = (score_triples(asked.corpus, asked.out / "triples", asked.seeds, asked.updates, variants),)
    else:
        parts = score_sequences(asked.corpus, asked.out / "sequences", asked.seeds, variants)
    if asked.only:
        return
    sections = [section for found in parts for section in tables(found)] + [verdicts(parts[0])]
    for section in sections:
        print_section(section, Console(highlight=False, soft_wrap=True))
    written = "\n".join(section_markdown(section) for section in sections)
    (asked.out / f"{asked.part}.md").write_text(f"# Objectives on {asked.part}\n\n{written}")


if __name__ == "__main__":
    main()
