"""Whether a Perceiver learns what needs both pictures and sound: a generated corpus, of which a square moves to one
side or the other while it ticks, faster or slower; the same clips played backwards are of other classes.

    python bench/perceiver_shapes.py --out FOLDER

Fine-tunes from random weights on a mixture of clips that show both modalities, pictures alone and sound alone, or on
one of them alone, with the same settings, and fits a logistic regression to mean pixels and mean spectra. Prints the
test accuracy of each, by what is shown: one modality tells half of the class, so that it is right half of the time. The
settings were chosen on the validation split of another draw of the corpus (seed 0; this one is seed 1).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

sys.path.append(str(Path(__file__).resolve().parents[1] / "python_tests"))
from moving_shapes import shapes_corpus

from memofast.data import Corpus

RECIPE = {
    "settings_chosen_on": "the validation split of another draw of the corpus",
    "model": {
        "family": "perceiver", "num_latents": 24, "d_latents": 64, "d_model": 416, "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4, "output_num_channels": 64, "num_frames": 8, "hop": 4, "initializer_range": 0.1,
        "head_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    },
    "train": {
        "samples": 32, "lr": 1e-3, "warmup": 0.07, "clip": 1.0, "epochs": 10, "validations": 1, "patience": 100,
        "threads": 1, "precision": "fp32", "seeds": [1],
    },
    "baselines": False,
}  # fmt: skip


def mean_features(corpus: Corpus, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean picture, and spectrum of the whole sound, of each clip; its class."""
    part, found = corpus.split(split), []
    for id in part.ids:
        pictures = corpus.stores["visual"].read(id)["rows"].astype(np.float64).mean(0)
        sound = corpus.stores["speech"].read(id)["rows"].astype(np.float64).reshape(-1)
        spectrum = np.log1p(np.abs(np.fft.rfft(sound, 1024)))
        found.append(np.concatenate([pictures, spectrum]))
    return np.array(found), part.pack(np.arange(len(part))).targets["label"].numpy()


def baseline(corpus: Corpus) -> float:
    (x, y), (tx, ty) = (mean_features(corpus, split) for split in ("train", "test"))
    scaler = StandardScaler().fit(x)
    return float(LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(x), y).score(scaler.transform(tx), ty))


def trained(out: Path, condition: str, overrides: list[str]) -> dict[str, float]:
    """Test accuracy by condition shown."""
    recipe = out / f"{condition}.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "corpus": str(out / "shapes")}))
    before = {*out.glob("runs/*")}
    command = [sys.executable, "-m", "memofast.finetune", str(recipe), f"modalities.train=[{condition}]", *overrides]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    (run,) = {*out.glob("runs/*")} - before
    found = {}
    for path in sorted(run.glob("*/*/answers/test-*.npz")):
        answers = np.load(path)
        found[path.stem.removeprefix("test-")] = float((answers["scores"].argmax(1) == answers["truth"]).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1600)
    parser.add_argument("--train-on", nargs="+", default=["v,a,va", "v", "a"])
    parser.add_argument("overrides", nargs="*", help="of the recipe, as train.epochs=30")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    samples = {"train": asked.train, "validation": 200, "test": 400}
    corpus = shapes_corpus(asked.out / "shapes", samples, seed=1)
    print(f"mean pixels and spectra, logistic regression: {baseline(corpus):.3f}", flush=True)
    for condition in asked.train_on:
        print(f"trained on {condition}: {json.dumps(trained(asked.out, condition, asked.overrides))}", flush=True)


if __name__ == "__main__":
    main()
