"""A small corpus of raw faces, and a recipe that trains a face network along."""

from pathlib import Path

import yaml
from runs import small_recipe

from memofast.data.demo import demo_corpus

NETWORK = "memobert.embeddings.visual.network."
GROUPS = {f"{NETWORK}*": {"lr": 20, "weight_decay": 5e-4, "warmup": 2, "clip": False}}
OBJECTIVES = {
    "whole_word_mlm": {"share": 1}, "matching": {"share": 1}, "span_visual_contrast": {"share": 1},
    "span_visual_emotion": {"share": 1}, "visual_order": {"share": 1},
}  # fmt: skip


def raw_corpus(folder: Path) -> Path:
    return demo_corpus(folder / "corpus", {"train": 24, "validation": 6, "test": 3}, raw=True)


def joint_recipe(folder, corpus, face=None, objectives=OBJECTIVES, **train):
    folder.mkdir(parents=True, exist_ok=True)
    train = {"samples": 4, "updates": 4, "save_every": 2, "log_every": 1, "precision": "fp32", "groups": GROUPS} | train
    path = small_recipe(folder, corpus, train=train, validate={"every": 4})
    values = yaml.safe_load(path.read_text())
    values["objectives"] = objectives
    values["model"] |= {"face": {"network": "denseface"} if face is None else face}
    path.write_text(yaml.safe_dump(values))
    return path
