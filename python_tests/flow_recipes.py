"""A small corpus of sound, and a recipe of a MemoBert-flow that hears it."""

import json
import shutil
from pathlib import Path

import yaml

from memofast.data.demo import vocabulary

FACE = {"network": "resnet3d"}
_MODEL = {
    "family": "memobert-flow", "vocab_size": len(vocabulary()), "mask_token_id": 4, "hidden_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "unimodal_heads": 1, "text_layers": 1, "visual_layers": 1,
    "speech_layers": 1, "intermediate_size": 24, "max_position_embeddings": 64, "visual_positions": 64,
    "speech_positions": 64, "sound": {"network": "waveform"},
}  # fmt: skip


def without_faces(corpus: Path, folder: Path) -> Path:
    """A copy of a corpus that has no store of faces."""
    shutil.copytree(corpus, folder)
    path = folder / "corpus.json"
    values = json.loads(path.read_text())
    del values["stores"]["visual"]
    path.write_text(json.dumps(values))
    return folder


def flow_recipe(
    folder: Path, corpus: Path, objectives=("whole_word_mlm", "speech_order"), features=None, **model
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    features = {"speech": "sound"} if features is None else features
    values = {
        "corpora": [{"path": str(corpus), "features": features}],
        "model": _MODEL | model,
        "objectives": {name: {} for name in objectives},
        "train": {
            "samples": 3, "mixing": "sample", "updates": 2, "lr": 1e-3, "log_every": 1, "save_every": 1,
            "precision": "fp32", "threads": 1,
        },
        "validate": {"every": 2},
    }  # fmt: skip
    path = folder / "flow.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
