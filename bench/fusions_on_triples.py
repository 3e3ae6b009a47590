"""Every fusion against concatenation, on utterances composed of a sentence, a spoken clip and faces of one emotion:
`python bench/fusions_on_triples.py CORPUS --out FOLDER`.

CORPUS: what `bench/matched_triples.py --only-corpus` composes. Each model learns from the mixture of seven conditions,
in which text, faces or speech are missing, of a share of the labels, and is tested under each of them. Vectors, sizes
and training are the same for all fusions, and nothing is tuned for one. Beside them a MemoBERT from random weights
reads the packed rows, and the simple baselines of `memofast baseline` learn from the same samples, anew for each
condition, which nothing else does.

Differences to concatenation are paired by seed and sample, with an interval over samples of which every draw takes the
same for all. Finished runs are kept, and the same command goes on. `--only` runs one model.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from matched_triples import CONDITIONS, SIZES, Answers, against_the_first, answers_of_cell
from rich.console import Console

from memofast.data.modality import MODALITIES
from memofast.evaluate.section import print_section, section_markdown
from memofast.evaluate.simple_baselines import simple_baselines
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read

RECIPE = Path(__file__).with_name("fused_triples.yaml")
_WIDTH = 64
_WIDE = {"width": _WIDTH}
_ATTENDING = {**_WIDE, "token_width": _WIDTH}
FUSIONS = {
    "concat": _WIDE,
    "mean": _WIDE,
    "adaptation_gate": {},
    "modality_shifting": {},
    "low_rank": _WIDE,
    "tensor, of vectors of 16": _WIDE,  # those of 64 have 17.6 million weights over their products
    "self_attention": _ATTENDING,
    "cross_attention": _ATTENDING,
    "experts": {**_WIDE, "active": 2},
    "experts, with copy, zero and constant": {
        **_WIDE, "active": 2, "experts": ["layers", "layers", "copy", "zero", "constant"],
    },
    "modality_experts": _WIDE,
    "fusion_experts": {**_WIDE, "experts": [{"kind": kind, **_WIDE} for kind in ("concat", "low_rank", "mean")]},
    "text_guided_experts": _ATTENDING,
    "disentangled": {**_WIDE, "private_width": _WIDTH, "shared_width": _WIDTH // 2},
}  # fmt: skip
PACKED = "MemoBERT, packed rows, from random weights"
SEVEN = f"[{','.join(CONDITIONS)}]"


def overrides_of(name: str, share: float, epochs: int) -> list[str]:
    """Of the recipe, for one model."""
    mixture = [f"modalities.train={SEVEN}", f"modalities.evaluate={SEVEN}"]
    mixture += [f"train.share={share}", f"train.epochs={epochs}"]
    if name == PACKED:
        return [*mixture, *(f"model.{size}={value}" for size, value in SIZES.items()), "model.head=emocls"]
    fusion = {"kind": name.partition(",")[0], **FUSIONS[name]}
    if fusion["kind"] == "tensor":
        mixture += [f"model.network.{modality}_width=16" for modality in MODALITIES]
    return [*mixture, "train.lr=1e-3", f"model.network.fusion={json.dumps(fusion)}"]


def baselines(corpus: Path, share: float, seeds: list[int]) -> dict[str, Answers]:
    """What simple models say, by name; with all labels the same for every seed."""
    plan = make_fine_tuning_plan(read(str(RECIPE), [f"corpus={corpus}", f"modalities.evaluate={SEVEN}"]))
    found: dict[str, Answers] = {}
    for name, run, _ in simple_baselines(plan.corpus, plan.folds, plan.target, CONDITIONS, seeds, share):
        of = found.setdefault(f"{name}, of each condition", {}).setdefault(run.condition, {})
        of |= dict.fromkeys(seeds if share == 1 else [run.seed], run.predictions)
    return found


def write(found: dict[str, Answers], folder: Path) -> None:
    text = section_markdown(against_the_first(found, CONDITIONS))
    (folder / "results.md").write_text(f"# Fusions on matched triples\n\n{text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.md is written there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--share", type=float, default=0.25, help="of the training part's labels")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", choices=[*FUSIONS, PACKED], nargs="+", help="with concat these alone")
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    found: dict[str, Answers] = {}
    for name in [*FUSIONS, PACKED]:
        if asked.only and name not in ("concat", *asked.only):
            continue
        begun, folder = time.monotonic(), asked.out / name.replace(",", "").replace(" ", "-")
        recipe = "finetune" if name == PACKED else str(RECIPE)
        overrides = overrides_of(name, asked.share, asked.epochs)
        found[name] = answers_of_cell(asked.corpus, folder, overrides, asked.seeds, recipe)
        console.print(f"{name}: {time.monotonic() - begun:.0f} s")
        write(found, asked.out)
    found |= baselines(asked.corpus, asked.share, asked.seeds)
    write(found, asked.out)
    print_section(against_the_first(found, CONDITIONS), console)


if __name__ == "__main__":
    main()
