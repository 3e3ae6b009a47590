"""A small corpus of dialogues with words, whole pictures and sound of unequal lengths, some of them missing, and small
encoders of each."""

from pathlib import Path

import numpy as np
import yaml
from talks import CLASSES, PIECES, SPEAKERS, write_vocabulary
from tiny_models import save_bert, save_speech_model, save_video_model

from memofast.data import write_corpus
from memofast.data.folds import write_groups
from memofast.prepare.text.word_pieces import WordPieces
from memofast.store import FeatureWriter, TextWriter

SIDE, STRETCH = 16, 320
SPLITS = {"train": 8, "validation": 4, "test": 4}  # dialogues of three utterances


def write_seen_talks(folder: Path, vocabulary: Path | None = None, side: int = SIDE, channels: int = 3) -> Path:
    """Glad utterances are brighter, louder and `good`; every seventh lacks words, every fifth pictures, every fourth
    sound."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = WordPieces(vocabulary or write_vocabulary(folder))
    draws, names = np.random.default_rng(5), {}
    for split, count in SPLITS.items():
        names[split] = [f"{split}-{number}-{place}" for number in range(count) for place in range(3)]
    ids = [id for split in names.values() for id in split]
    special = {"cls_id": pieces.cls_id, "sep_id": pieces.sep_id, "fingerprint": pieces.fingerprint}
    raw = {"extractor": "raw", "fingerprint": f"raw-1-16000-{STRETCH}"}
    with (
        TextWriter(folder / "text", classes=CLASSES, **special) as text,
        FeatureWriter(folder / "visual", channels * side * side, dtype="uint8") as pictures,
        FeatureWriter(folder / "speech", STRETCH, dtype="int16", **raw) as sound,
    ):
        for number, id in enumerate(ids):
            glad = int(draws.integers(2))
            said = "" if number % 7 == 3 else " ".join(["good" if glad else "bad"] + ["so"] * int(draws.integers(1, 6)))
            found = pieces(said)
            text.put(id, found.ids, found.words, label=glad, utf8=said)
            if number % 5 != 2:
                shape = int(draws.integers(1, 9)), channels * side * side
                pictures.put(id, (draws.integers(0, 120, shape) + 100 * glad).astype(np.uint8))
            if number % 4 != 1:
                shape = int(draws.integers(1, 7)), STRETCH
                sound.put(id, (draws.normal(0, 800 + 5000 * glad, shape)).astype(np.int16))
    stores = {name: folder / name for name in ("text", "visual", "speech")}
    write_corpus(folder, "seen", stores, names)
    write_groups(folder, "dialogue", {id: id.rpartition("-")[0] for id in ids})
    write_groups(folder, "position", {id: id.rpartition("-")[2] for id in ids})
    write_groups(folder, "speaker", {id: SPEAKERS[number % 3] for number, id in enumerate(ids)})
    return folder


def small_encoders(folder: Path) -> dict[str, dict]:
    """Sections of a recipe's towers, by modality, each over a folder of its own."""
    save_bert(folder / "bert", PIECES)
    write_vocabulary(folder / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / "bert" / name).unlink(missing_ok=True)
    save_speech_model(folder / "data2vec", "data2vec")
    save_video_model(folder / "videomae", "videomae")
    return {
        "text": {"init": str(folder / "bert")},
        "visual": {"init": str(folder / "videomae")},
        "speech": {"init": str(folder / "data2vec")},
    }


def tower_recipe(file: Path, corpus: Path, towers: dict[str, dict], **sections) -> Path:
    """A recipe of a few updates; sections add to or replace its own."""
    values = {
        "corpus": str(corpus), "settings_chosen_on": "nothing", "baselines": False,
        "model": {"family": "towers", "width": 8} | towers,
        "context": {"utterances": 2, "tokens": 40} if "text" in towers else None,
        "train": {"epochs": 2, "samples": 4, "lr": 1e-3, "precision": "fp32", "device": "cpu", "patience": 99},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(values | sections))
    return file
