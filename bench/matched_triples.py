"""Utterances composed of a sentence, a spoken clip and faces of one emotion: `python bench/matched_triples.py MELD
RAVDESS FACES DENSEFACE --out FOLDER`.

No public corpus here has text, face, voice and an emotion of one and the same utterance, so each is composed of a MELD
sentence, a RAVDESS clip and one to six FER2013 faces that carry the same label. No sentence, actor or face is in two
splits, and no face was seen when the DenseFace that makes the rows was trained. What the three tell of one another is
the label alone: pre-training can learn nothing else across modalities.

MELD, RAVDESS: made by `memofast prepare --corpus`; FACES: the npz DENSEFACE was trained on. `--limit` runs the first so
many cells of the grid. Finished cells are kept, and the same command goes on.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from memofast.data import Corpus, Split, write_corpus
from memofast.data.folds import read_groups
from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.metrics.paired_variants import against_first, difference_text
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import metrics_of
from memofast.prepare.faces.denseface import DenseFace, resize_faces
from memofast.prepare.faces.denseface_training import TrainingOptions
from memofast.prepare.faces.labelled_faces import read_faces, stratified_parts
from memofast.store import FeatureWriter
from memofast.store.text_copy import fields_of, writer_like
from memofast.train import recipe as recipes
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.plan import make_plan
from memofast.train.processes import Processes
from memofast.train.session import train

# our class: MELD's, RAVDESS's, FER2013's name of it
CLASSES = {
    "neutral": ("neutral", "neutral", "neutral"), "happy": ("joy", "happy", "happy"), "sad": ("sadness", "sad", "sad"),
    "angry": ("anger", "angry", "angry"), "fear": ("fear", "fearful", "fear"),
    "disgust": ("disgust", "disgust", "disgust"),
    "surprise": ("surprise", "surprised", "surprise"),
}  # fmt: skip
PER_CLASS = {"train": 300, "validation": 50, "test": 100}
ACTORS = {"train": 0.67, "validation": 0.17, "test": 0.16}
FACES = {"train": 0.6, "validation": 0.15, "test": 0.25}
MOST_FACES = 6
CONDITIONS = ("l", "v", "a", "lv", "la", "va", "lva")
SHARES = (0.1, 0.2, 0.4, 1.0)
SIZES = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256,
    "initializer_range": 0.08,
    "speech_positions": 256,
}  # fmt: skip


def compose(meld: Corpus, ravdess: Corpus, faces: Path, denseface: Path, out: Path) -> Corpus:
    """Write the corpus of triples."""
    random = np.random.default_rng(20211127)
    net = DenseFace(denseface)
    sentences, clips, pictures = sentences_of(meld), clips_of(ravdess), faces_of(faces, net)
    said, heard = meld.stores["text"], ravdess.stores["speech"]
    stores = {
        "text": writer_like(said, out / "text", classes=tuple(CLASSES), value=""),
        "visual": FeatureWriter(out / "visual", net.width, columns=("soft_labels",), classes=net.meta.classes),
        "speech": FeatureWriter(out / "speech", heard.width, normalisation=heard.meta["normalisation"]),
    }
    splits: dict[str, list[str]] = {name: [] for name in PER_CLASS}
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            texts = drawn(sentences[split, name], count, random)
            sounds = drawn(clips[split, name], count, random)
            for number in range(count):
                id = f"{split}-{name}-{number:03}"
                splits[split].append(id)
                told = fields_of(said, texts[number]) | {"label": list(CLASSES).index(name), "value": None}
                stores["text"].put(id, **told)
                stores["speech"].put(id, heard.read(sounds[number])["rows"])
                rows, soft = pictures[split, name]
                shown = random.choice(len(rows), random.integers(1, MOST_FACES + 1), shuffle=False)
                stores["visual"].put(id, rows[shown], soft_labels=soft[shown])
    for store in stores.values():
        store.finish()
        store.close()
    return write_corpus(out, "triples", {name: out / name for name in stores}, splits)


def drawn(pool: list, count: int, random: np.random.Generator) -> list:
    """`count` of a pool, none twice before all were drawn once."""
    rounds = [random.permutation(len(pool)) for _ in range(-(-count // len(pool)))]
    return [pool[place] for place in np.concatenate(rounds)[:count]]


def sentences_of(meld: Corpus) -> dict[tuple[str, str], list[str]]:
    """Ids by split and class; MELD dev is divided by dialogue into validation and test."""
    dialogue, found = read_groups(meld, "dialogue"), {}
    named = {theirs: ours for ours, (theirs, *_) in CLASSES.items()}
    for part in meld.splits:
        for id, label in labelled(meld.split(part)):
            halves = "train" if part == "train" else ("validation", "test", "test")[hash_of(dialogue[id]) % 3]
            found.setdefault((halves, named[label]), []).append(id)
    return found


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode(), "big") % 1_000_003


def labelled(split: Split) -> list[tuple[str, str]]:
    """Ids and labels."""
    store = split.corpus.stores["text"]
    labels = ((id, int(store.read(id)["label"][0])) for id in split.ids)
    return [(id, store.classes["label"][label]) for id, label in labels if label >= 0]


def clips_of(ravdess: Corpus) -> dict[tuple[str, str], list[str]]:
    """Ids by split and class, whole actors in one split; calm, which the other corpora lack, is left out."""
    actor, found = read_groups(ravdess, "speaker"), {}
    actors = sorted(set(actor.values()))
    ends = np.round(np.cumsum(list(ACTORS.values())) * len(actors)).astype(int)
    split_of = {
        one: name for name, begin, end in zip(ACTORS, [0, *ends[:-1]], ends, strict=True) for one in actors[begin:end]
    }
    named = {theirs: ours for ours, (_, theirs, _) in CLASSES.items()}
    for part in ravdess.splits:
        for id, label in labelled(ravdess.split(part)):
            if label in named:
                found.setdefault((split_of[actor[id]], named[label]), []).append(id)
    return found


def faces_of(faces: Path, net: DenseFace) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Rows and soft labels of each face by split and class, of those held out when DenseFace was trained."""
    data, options, found = read_faces(faces), TrainingOptions(), {}
    kept = stratified_parts(data.labels, options.validation, options.seed)[1]
    if (held := net.meta.validation["images"]) != len(kept):
        raise SystemExit(
            f"this DenseFace held out {held} faces in its training, {faces} gives {len(kept)}: not trained on it"
        )
    random = np.random.default_rng(5)
    for name, (*_, theirs) in CLASSES.items():
        members = random.permutation(kept[data.labels[kept] == data.classes.index(theirs)])
        ends = np.round(np.cumsum(list(FACES.values())) * len(members)).astype(int)
        for split, part in zip(FACES, np.split(members, ends[:-1]), strict=True):
            found[split, name] = net(resize_faces(data.images[part]))
    return found


def pre_train(corpus: Path, folder: Path, updates: int, fragments: Sequence[str] = ()) -> Path:
    """The model pre-trained on the unlabelled train part, from random weights, by the published objectives and what
    fragments make of them."""
    chosen = recipes.read(
        ("memobert-mini", *fragments),
        [f"corpora.0.path={corpus}", *(f"model.{name}={value}" for name, value in SIZES.items()),
         f"train.updates={updates}", "train.lr=1e-3", "train.samples=64", "train.save_every=500",
         "validate.every=500", "train.threads=1"],
    )  # fmt: skip
    processes = Processes.join(chosen.train)
    folder.mkdir(parents=True, exist_ok=True)
    train(make_plan(chosen), folder, processes)
    return folder


def cells(pre_trained: Path) -> dict[str, list[str]]:
    """What is fine-tuned: name of the cell -> overrides of the recipe."""
    scratch = [f"model.{name}={value}" for name, value in SIZES.items()]
    starts = {
        "scratch": [*scratch, "model.head=emocls"],
        "pre-trained": [f"model.init={pre_trained}", "model.head=emocls"],
    }
    found = {}
    for start, begun in starts.items():
        for share in SHARES:
            found[f"{start}, {share:.0%} of the labels"] = [*begun, f"train.share={share}", "modalities.train=[lva]"]
        for one in "lva":
            found[f"{start}, {one} alone"] = [*begun, f"modalities.train=[{one}]", f"modalities.evaluate=[{one}]"]
        seven = f"[{','.join(CONDITIONS)}]"
        found[f"{start}, seven conditions"] = [*begun, f"modalities.train={seven}", f"modalities.evaluate={seven}"]
    for share in SHARES:
        found[f"prompt, {share:.0%} of the labels"] = [
            f"model.init={pre_trained}", "prompt.template=iam", f"train.share={share}", "modalities.train=[lva]",
        ]  # fmt: skip
    return found


def run_cell(corpus: Path | str, folder: Path, overrides: list[str], seeds: list[int]) -> dict[str, list[float]]:
    """UA on test of every seed, by condition."""
    return {
        condition: [metrics_of(predictions)["ua"] for predictions in by_seed.values()]
        for condition, by_seed in answers_of_cell(corpus, folder, overrides, seeds).items()
    }


def answers_of_cell(
    corpus: Path | str, folder: Path, overrides: list[str], seeds: list[int], recipe: str = "finetune"
) -> "Answers":
    """Answers on test by condition and seed."""
    evaluate = [] if any(one.startswith("modalities.evaluate") for one in overrides) else ["modalities.evaluate=[lva]"]
    plan = make_fine_tuning_plan(
        read(recipe, [
            f"corpus={corpus}", f"train.seeds={seeds}", "train.epochs=20", "train.lr=5e-4", "train.samples=32",
            "train.validations=1",
            "train.patience=5", "train.precision=fp32", "train.threads=1", *evaluate, *overrides,
        ])
    )  # fmt: skip
    fine_tune(plan, folder, Console(quiet=True))
    found: dict[str, dict[int, Predictions]] = {}
    for _, seed, condition, part, _, predictions in answers(plan, folder):
        if part == "test":
            found.setdefault(condition, {})[seed] = predictions
    return found


Answers = dict[str, dict[int, Predictions]]  # condition, seed


def against_the_first(found: dict[str, Answers], conditions: Sequence[str]) -> Section:
    """UA on test of every model by condition, their mean, and by how much it differs from the first model's."""
    variants = {
        name: {seed: [said[condition][seed] for condition in conditions] for seed in said[conditions[0]]}
        for name, said in found.items()
    }
    against, rows, first = against_first(variants, "ua"), [], next(iter(found))
    for name, said in found.items():
        uas = [[metrics_of(one)["ua"] for one in said[condition].values()] for condition in conditions]
        cells = [f"{np.mean(of):.3f} ± {np.std(of, ddof=len(of) > 1):.3f}" for of in uas]
        rows.append((name, *cells, f"{against[name]['score']:.3f}", difference_text(against[name])))
    title = f"UA on test by condition, their mean, and its difference to {first} [95 % bootstrap interval over samples]"
    return Section(title, ("", *conditions, "mean", f"less {first}"), rows)


def tables(found: dict[tuple[str, str], list[float]]) -> list[Section]:
    """UA of each cell and condition as three tables."""

    def told(run: str, condition: str) -> str:
        ua = found.get((run, condition))
        return "-" if ua is None else f"{np.mean(ua):.3f} ± {np.std(ua, ddof=len(ua) > 1):.3f}"

    starts, shares = ("scratch", "pre-trained"), [f"{share:.0%}" for share in SHARES]
    return [
        Section(
            "All three modalities, by share of the labels", ("", *shares),
            [
                (start, *(told(f"{start}, {share} of the labels", "lva") for share in shares))
                for start in (*starts, "prompt")
            ],
        ),
        Section(
            "Trained and tested on one modality, all labels", ("", *"lva", "lva"),
            [
                (
                    start, *(told(f"{start}, {one} alone", one) for one in "lva"),
                    told(f"{start}, 100% of the labels", "lva"),
                )
                for start in starts
            ],
        ),
        Section(
            "One model trained on the mixture of seven conditions, all labels", ("", *CONDITIONS),
            [(start, *(told(f"{start}, seven conditions", condition) for condition in CONDITIONS)) for start in starts],
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("meld", "ravdess", "faces", "denseface"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.md is written there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--updates", type=int, default=1500, help="of pre-training")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only-corpus", action="store_true", help="compose the corpus and end")
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    corpus = asked.out / "corpus"
    if not (corpus / "corpus.json").is_file():
        compose(Corpus.open(asked.meld), Corpus.open(asked.ravdess), asked.faces, asked.denseface, corpus)
    if asked.only_corpus:
        return
    pre_trained = pre_train(corpus, asked.out / "pre-training", asked.updates)
    found: dict[tuple[str, str], list[float]] = {}
    for name, overrides in list(cells(pre_trained).items())[: asked.limit]:
        begun = time.monotonic()
        uas = run_cell(corpus, asked.out / "cells" / name.replace(" ", "-").replace("%", ""), overrides, asked.seeds)
        found |= {(name, condition): ua for condition, ua in uas.items()}
        told = "; ".join(f"{condition} {' '.join(f'{one:.3f}' for one in ua)}" for condition, ua in uas.items())
        console.print(f"{name}: UA of each seed {told} ({time.monotonic() - begun:.0f} s)")
        shown = [section_markdown(section) for section in tables(found)]
        (asked.out / "results.md").write_text(
            "# Matched triples: UA on test, mean ± deviation over seeds\n\n" + "\n".join(shown)
        )
    for section in tables(found):
        print_section(section, console)


if __name__ == "__main__":
    main()
