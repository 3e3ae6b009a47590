"""Small inputs, and the commands that are killed, crowded and starved on them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]
CLASSES = ("calm", "glad", "sad")
SUBTITLES = """1
00:00:00,100 --> 00:00:01,200
Red now.

2
00:00:01,300 --> 00:00:02,400
Blue reds.
"""
_TINY = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
_SIZES = [f"model.{name}={value}" for name, value in _TINY.items()]


class Bright:
    """A finder that sees a patterned face in every picture: no detector finds one in what these tests draw."""

    name = "bright"

    def __call__(self, picture):
        from memofast.prepare.faces.detection import Face

        crop = (np.arange(4096).reshape(64, 64) % 97 + picture.mean() / 4).astype(np.uint8)
        eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
        return [Face(crop, 0.75, np.array([0.0, 0.0, 40.0, 40.0]), eyes)]


def make(folder: Path) -> None:
    """What the commands read, but for what other commands make of it."""
    films(folder / "films")
    text(folder / "text")
    corpora(folder)
    faces(folder)
    towers(folder)


def films(folder: Path) -> None:
    from media import write_clip

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    for place, seconds in (("one", 2.6), ("two", 1.3)):
        write_clip(folder / f"{place}.mp4", seconds, rate=5, size=(48, 48))
        (folder / f"{place}.srt").write_text(SUBTITLES)
    write_clip(folder / "heard.mkv", 1.1, picture=False)


def text(folder: Path) -> None:
    """A BERT, tables of labelled sentences, a model of them, and a corpus that it can label."""
    import torch
    from text_emotion import GIVEN_AWAY, sentences, write_bert, write_table

    from memofast.data import write_corpus
    from memofast.model import MemoBertForEmotion
    from memofast.prepare.text.word_pieces import WordPieces
    from memofast.store import TextWriter

    folder.mkdir()
    bert = write_bert(folder / "bert")
    write_table(folder / "train.csv", sentences(42, 1))
    write_table(folder / "dev.csv", sentences(14, 2))
    torch.manual_seed(1)
    labeller = MemoBertForEmotion.start(bert, tuple(GIVEN_AWAY), visual_width=0, speech_width=0)
    labeller.save_pretrained(folder / "labeller")
    shutil.copyfile(bert / "vocab.txt", folder / "labeller" / "vocab.txt")
    pieces, ids = WordPieces(bert), [f"s{number:02}" for number in range(21)]
    about = {"cls_id": 2, "sep_id": 3, "extractor": pieces.name, "fingerprint": pieces.fingerprint}
    with TextWriter(folder / "corpus" / "text", classes=("a", "b"), **about) as writer:
        for number, (sentence, _) in enumerate(sentences(20, 3)):
            tokens = pieces(" ".join(sentence.split()[: 1 + number % 9]))
            writer.put(ids[number], tokens.ids, tokens.words, utf8=sentence, label=number % 2)
        writer.put(ids[20], [], [])
    write_corpus(
        folder / "corpus",
        "sentences",
        {"text": folder / "corpus" / "text"},
        {"train": ids[:15], "test": ids[15:]},
        {"rules": [{"rule": "first"}]},
    )


def corpora(folder: Path) -> None:
    """A demo corpus, one of moods with groups and folds, and a model of moods."""
    from mood_runs import mood_corpus, mood_model

    from memofast.data import Corpus
    from memofast.data.demo import demo_corpus
    from memofast.data.folds import leave_groups_out, write_folds, write_groups

    demo_corpus(folder / "demo", {"train": 12, "validation": 5, "test": 3})
    moods = mood_corpus(folder / "moods")
    ids = Corpus.open(moods).stores["text"].ids
    group_of = {id: f"group {number % 3}" for number, id in enumerate(ids)}
    write_groups(moods, "speaker", group_of)
    write_folds(moods, "speaker", leave_groups_out(group_of), "speaker")
    mood_model(folder / "mood_model")
    mood_model(folder / "mood_half", hidden_size=128, intermediate_size=512)  # of which more than a MiB can be frozen


def towers(folder: Path) -> None:
    """Dialogues of words, pictures and sound, small encoders of each, and a recipe in which two of them are fixed."""
    from seen_talks import small_encoders, tower_recipe, write_seen_talks

    encoders = small_encoders(folder / "encoders")
    for name in ("visual", "speech"):
        encoders[name]["train"] = "frozen"
    train = {"epochs": 2, "samples": 8, "seeds": [1, 2], "precision": "fp32", "device": "cpu", "threads": 1}
    tower_recipe(folder / "towers.yaml", write_seen_talks(folder / "seen"), encoders, train=train)


def faces(folder: Path) -> None:
    """Labelled faces, and a DenseFace of random weights."""
    import torch

    from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
    from memofast.model.face_networks.densenet import DenseNet

    random, labels = np.random.default_rng(0), np.arange(21) % 2
    images = (random.integers(0, 60, (21, 48, 48)) + 120 * labels[:, None, None]).astype(np.uint8)
    np.savez(folder / "faces.npz", images=images, labels=labels, classes=np.array(["dark", "light"]))
    torch.manual_seed(0)
    meta = DenseFaceMeta(CLASSES, 120.0, 60.0)
    save_denseface(folder / "denseface.safetensors", DenseNet(len(CLASSES)).state_dict(), meta)


def model_of_films(folder: Path) -> None:
    """A model of random weights that says how the corpus `prepared` was prepared."""
    import torch

    from memofast.data import Corpus
    from memofast.inference.preparation import keep_preparation
    from memofast.model import MemoBertConfig, MemoBertForEmotion

    corpus = Corpus.open(folder / "prepared")
    torch.manual_seed(3)
    widths = {f"{modality}_width": corpus.width(modality) for modality in ("visual", "speech")}
    sizes = {"vocab_size": len(WORDS), "mask_token_id": 4, "id2label": dict(enumerate(CLASSES))}
    MemoBertForEmotion(MemoBertConfig(**_TINY | sizes | widths)).save_pretrained(folder / "film_model" / "model")
    keep_preparation(corpus, ("lva",), folder / "film_model" / "model", None)
    shutil.copyfile(folder / "films" / "vocab.txt", folder / "film_model" / "model" / "vocab.txt")


def prepare(inputs: Path, out: Path, workers: int = 1) -> list[object]:
    films = inputs / "films"
    face = f"denseface={inputs / 'denseface.safetensors'}" if workers == 1 else "none"  # `Bright` is of this process
    return [
        "prepare", films, "--out", out, "--vocab", films / "vocab.txt", "--voice", "energy", "--face", face,
        "--speaker", "most-seen", "--workers", workers, "--split", "validation=0.4", "--name", "films",
    ]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command and how it goes on after an interruption.

    line: in an empty folder. again: the line that goes on there; None: the same one. before: what lies in the folder
    already. weight: share of the kills that it gets. alone: whether a second one in the folder is refused, or has a
    folder of its own.
    """

    line: Callable[[Path, Path], Sequence[object]]
    again: Callable[[Path, Path], Sequence[object]] | None = None
    before: Callable[[Path, Path], None] = lambda inputs, folder: None
    workers: int = 1
    weight: float = 1.0
    alone: bool = True

    def goes_on(self, inputs: Path, folder: Path) -> Sequence[object]:
        return (self.again or self.line)(inputs, folder)


def _pretrain(inputs: Path, _: Path) -> list[object]:
    return [
        "pretrain", "demo", f"corpora.0.path={inputs / 'demo'}", *_SIZES, "train.samples=4", "train.updates=6",
        "train.save_every=1", "train.log_every=2", "train.warmup=1", "validate.every=3", "validate.samples=4",
        "train.lr=1e-3",
    ]  # fmt: skip


def _finetune(inputs: Path, _: Path) -> list[object]:
    return [
        "finetune", f"corpus={inputs / 'moods'}", *_SIZES, "model.vocab_size=110", "model.mask_token_id=4",
        "model.head=emocls", "train.epochs=2", "train.samples=8", "train.validations=1", "train.seeds=[1,2]",
        "train.precision=fp32", "train.threads=1", "train.lr=1e-2", "modalities.train=[lva]",
    ]  # fmt: skip


def _resume(fresh: Callable[[Path, Path], list[object]]) -> Callable[[Path, Path], Sequence[object]]:
    def again(inputs: Path, folder: Path) -> Sequence[object]:
        line, runs = fresh(inputs, folder), sorted((folder / "runs").glob("*/config.yaml"))
        return [line[0], "--resume", runs[-1].parent] if runs else line

    return again


def _labelled(inputs: Path, folder: Path) -> list[object]:
    return ["pseudo-label", folder / "corpus", "--model", inputs / "text" / "labeller", "--rows", 24, "--most", 2]


def _copied(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / "text" / "corpus", folder / "corpus")


def _extract(kind: str) -> Callable[[Path, Path], Sequence[object]]:
    def line(inputs: Path, folder: Path) -> Sequence[object]:
        model, corpus = inputs / "mood_model", inputs / "moods"
        return ["extract", model, "--corpus", corpus, "--split", "train", "--out", folder / f"x.{kind}"]

    return line


def _predict(inputs: Path, folder: Path) -> list[object]:
    model, face = inputs / "film_model" / "model", inputs / "denseface.safetensors"
    return ["predict", inputs / "films", "--model", model, "--out", folder / "out", "--face", face, "--html"]


def _denseface(inputs: Path, folder: Path) -> list[object]:
    return ["denseface", "train", inputs / "faces.npz", "--out", folder / "d.safetensors", "--epochs", 2, "--batch", 8,
            "--precision", "fp32", "--threads", 1]  # fmt: skip


def _emotion_text(inputs: Path, folder: Path) -> list[object]:
    text = inputs / "text"
    return ["emotion-text", "train", f"table={text / 'train.csv'}", "--evaluated", f"table={text / 'dev.csv'}",
            "--init", text / "bert", "--out", folder / "out", "--epochs", 2, "--validations", 1,
            "--precision", "fp32"]  # fmt: skip


def _fill(inputs: Path, folder: Path) -> list[object]:
    return ["cache", "fill", inputs / "towers.yaml", f"model.cache.path={folder / 'features'}"]


def tuned_by_features(inputs: Path, folder: Path) -> list[object]:
    """Two towers read a cache, or fill it."""
    return ["finetune", inputs / "towers.yaml", f"model.cache.path={folder / 'features'}"]


def tuned_by_half(inputs: Path, _: Path, keeping: str = "hard") -> list[object]:
    """Frozen weights of more than the MiB from which they are kept apart, the same of every seed."""
    return [
        "finetune", f"corpus={inputs / 'moods'}", f"model.init={inputs / 'mood_half'}", "model.freeze=1",
        "model.head=emocls", "train.epochs=2", "train.samples=8", "train.validations=1", "train.seeds=[1,2]",
        "train.precision=fp32", "train.threads=1", "train.lr=1e-2", "modalities.train=[lva]",
        f"train.frozen_weights={keeping}",
    ]  # fmt: skip


def _filled(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / "filled" / "features", folder / "features", ignore=shutil.ignore_patterns("lock.mdb"))


def _prune(_: Path, folder: Path) -> list[object]:
    return ["cache", "prune", folder / "features", "--to", 2000]


COMMANDS = {
    "prepare": Command(lambda inputs, folder: prepare(inputs, folder / "out"), weight=2),
    "prepare with 2 workers": Command(lambda inputs, folder: prepare(inputs, folder / "out", 2), workers=2),
    "pretrain": Command(_pretrain, _resume(_pretrain), weight=3),
    "finetune": Command(_finetune, _resume(_finetune), weight=2),
    "pseudo-label": Command(_labelled, before=_copied, weight=2),
    "predict": Command(_predict),
    "extract npz": Command(_extract("npz")),
    "extract pkl": Command(_extract("pkl")),
    "denseface train": Command(_denseface),
    "emotion-text train": Command(_emotion_text),
    "cache fill": Command(_fill, weight=2, alone=False),
    "cache prune": Command(_prune, before=_filled, alone=False),
    "finetune with a cache": Command(tuned_by_features, _resume(tuned_by_features)),
    "finetune with frozen weights": Command(tuned_by_half, _resume(tuned_by_half)),
}
