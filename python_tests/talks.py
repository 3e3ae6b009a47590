"""A small corpus of dialogues in which what was said before tells the class of an utterance."""

from pathlib import Path

from memofast.data import write_corpus
from memofast.data.folds import write_groups
from memofast.prepare.text.word_pieces import WordPieces
from memofast.store import FeatureWriter, TextWriter

CLASSES = ("calm", "glad")
PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "speaker", "feels", ":", "1", "2", "3", "##0", "good", "bad", "well",
    "so", "##ft", "4",
]  # fmt: skip
MASK, SPEAKERS = PIECES.index("[MASK]"), ("Ann", "Bob", "Cid")
MODEL = {
    "vocab_size": len(PIECES), "mask_token_id": MASK, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "head": "emocls",
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3,
}  # fmt: skip


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder


def write_talks(
    folder: Path, talks: dict[str, list[tuple[str, str, int | None]]], splits=None, groups=True, rows=None
) -> Path:
    """Dialogues by name: speaker, words and label of each utterance, stored in another order than said. splits: of
    dialogues; None: all in train. rows: by modality and id; None: a face of all but the first."""
    pieces = WordPieces(write_vocabulary(folder))
    ids = {f"{name}-{9 - place}": (name, place) for name, said in talks.items() for place in range(len(said))}
    special = {"cls_id": pieces.cls_id, "sep_id": pieces.sep_id, "fingerprint": pieces.fingerprint}
    with TextWriter(folder / "text", classes=CLASSES, lexicon_classes=("warm",), **special) as text:
        for id, (name, place) in ids.items():
            _, words, label = talks[name][place]
            found = pieces(words)
            text.put(id, found.ids, found.words, lexicon=[0] * len(found.ids), label=label, utf8=words)
    rows = rows or {"visual": {id: [[1.0, 2.0, 3.0, 4.0]] for id in list(ids)[1:]}}
    for modality, own in rows.items():
        with FeatureWriter(folder / modality, len(next(iter(own.values()))[0])) as store:
            for id, values in own.items():
                store.put(id, values)
    home = {name: split for split, names in (splits or {"train": list(talks)}).items() for name in names}
    there = {split: [id for id, (name, _) in ids.items() if home[name] == split] for split in {*home.values()}}
    write_corpus(folder, "talks", {name: folder / name for name in ("text", *rows)}, there)
    if groups:
        write_groups(folder, "dialogue", {id: name for id, (name, _) in ids.items()})
        write_groups(folder, "position", {id: str(10 * place) for id, (_, place) in ids.items()})
        write_groups(folder, "speaker", {id: talks[name][place][0] for id, (name, place) in ids.items()})
    return folder


def two_talks() -> dict[str, list[tuple[str, str, int | None]]]:
    """Three utterances, the second without words, and one of a dialogue whose name begins alike."""
    return {
        "d1": [("Bob", "good so", 0), ("Ann", "", 1), ("Bob", "well", 0), ("Cid", "soft bad so", 1)],
        "d10": [("Ann", "bad", 1), ("Cid", "good well", None)],
    }


def telling_talks(folder: Path) -> Path:
    """60 dialogues of three utterances; the one before tells the class, the words themselves say nothing."""
    talks = {}
    for number in range(60):
        words = ["good" if number >> place & 1 else "bad" for place in range(3)]
        labels = [None, *(int(word == "good") for word in words[:2])]
        talks[f"t{number:02}"] = [(SPEAKERS[(number + p) % 3], words[p], labels[p]) for p in range(3)]
    names = list(talks)
    return write_talks(folder, talks, {"train": names[:36], "validation": names[36:48], "test": names[48:]})
