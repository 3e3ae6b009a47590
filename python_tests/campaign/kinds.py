"""What is damaged, and what reads it then: in process and as a command."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import children
import kept
import kills
import mutate
import numpy as np
from workshop import COMMANDS, make, model_of_films, prepare, tuned_by_features

Line = Callable[[Path, Path], Sequence[object]]  # of the inputs and of the folder with the damage


@dataclass(frozen=True)
class Kind:
    """base: folder of the inputs, which is copied. files: patterns of those that are damaged. lines: commands that read
    them. read: what reads them in process; None: one of the commands. weight: share of the mutations."""

    base: str
    files: tuple[str, ...]
    lines: tuple[Line, ...]
    read: Callable[[Path], object] | None = None
    weight: float = 1.0
    damage: Callable[[Path, random.Random], None] | None = None

    def spoil(self, folder: Path, draw: random.Random) -> str:
        """Damage one file below `folder`. Returns: its name there."""
        there = sorted(path for pattern in self.files for path in folder.glob(pattern) if path.is_file())
        if not there:
            raise AssertionError(f"no {', '.join(self.files)} in {folder}")
        path = draw.choice(there)
        if self.damage:
            self.damage(path, draw)
        else:
            path.write_bytes(mutate.mutated(path, draw))
        return str(path.relative_to(folder))


def make_inputs(folder: Path) -> dict[str, kills.Whole]:
    """Make all that `KINDS` copy, and that the commands read. Returns: undisturbed runs that came of it, by command.

    Leaves nothing open in this process.
    """
    folder.mkdir(parents=True)
    children.done(lambda: make(folder))
    assert not (prepared := children.command(prepare(folder, folder / "prepared"), folder)).code, prepared.error
    children.done(lambda: model_of_films(folder))
    children.done(lambda: _small_files(folder))
    kept.make_kept(folder)
    wholes = {}
    for name, base in (("pretrain", "run"), ("finetune", "tuned"), ("emotion-text train", "text_run")):
        wholes[name] = kills.Whole.of(COMMANDS[name], folder, folder / "runs_of" / base)
        (made,) = (folder / "runs_of" / base).glob("out" if base == "text_run" else "runs/*")
        made.rename(folder / base)
    return wholes


def _small_files(folder: Path) -> None:
    import json

    import yaml

    subtitles, tables, exported, recipes = (folder / name for name in ("subtitles", "tables", "exported", "recipes"))
    for made in (subtitles, tables, exported / "faces", recipes, folder / "word_files"):
        made.mkdir(parents=True)
    srt = (folder / "films" / "one.srt").read_text()
    (subtitles / "a.srt").write_text(srt)
    (subtitles / "a.vtt").write_text("WEBVTT\n\n" + srt.replace(",", "."))
    (subtitles / "a.sbv").write_text("0:00:01.000,0:00:02.000\nRed[br]now.\n\n0:00:02.100,0:00:03.000\nBlue.\n")
    (subtitles / "a.sub").write_text("{1}{1}25\n{25}{50}Red now.|Blue\n{60}{90}Reds.\n")
    (subtitles / "a.align").write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n")
    (subtitles / "a.ass").write_text(
        "[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Name, Text\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,Default,Ann,{\\i1}Red{\\i0} now.\n"
    )
    rows = [
        {
            "id": f"s{n}",
            "file": "one.mp4",
            "start": n / 2,
            "end": n + 1,
            "text": "red now",
            "label": "glad",
            "group": "g",
        }
        for n in range(4)
    ]
    (tables / "a.json").write_text(json.dumps(rows))
    (tables / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for suffix, between in ((".csv", ","), (".tsv", "\t")):
        lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
        (tables / f"a{suffix}").write_text("\n".join(between.join(line) for line in lines) + "\n")
    random = np.random.default_rng(0)
    for number in range(2):
        arrays = {
            "features": random.random((5, 8), np.float32),
            "confidence": np.full(5, 0.9),
            "frame_idxs": np.arange(5),
        }
        np.savez(exported / "faces" / f"film_{number}.npz", **arrays, soft_labels=random.dirichlet(np.ones(8), 5))
    captions = {f"film_{number}": {"txt": ["Red now"], "label": "glad"} for number in range(2)}
    (exported / "captions.json").write_text(json.dumps(captions))
    shutil.copy(folder / "films" / "vocab.txt", exported)
    for name in ("pretrain", "finetune"):
        _, *settings = COMMANDS[name].line(folder, folder)
        values = {"corpora": [{"path": None, "weight": 1.5}]} if name == "pretrain" else {}
        for entry in map(str, settings[1:] if name == "pretrain" else settings):
            path, value = entry.split("=", 1)
            at = values
            *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
            for part in above:
                at = at[part] if isinstance(at, list) else at.setdefault(part, {})
            at[last] = yaml.safe_load(value)
        if name == "pretrain":
            values["objectives"] = {"whole_word_mlm": {"share": 2}, "span_visual_regression": {}}
        (recipes / f"{name}.yaml").write_text(yaml.safe_dump(values))
    (folder / "word_files" / "lexicon.txt").write_text("red\tanger\t1\nblue\tsadness\t1\nnow\tjoy\t0\n")
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        shutil.copy(folder / "text" / "bert" / name, folder / "word_files")


def read_corpus(folder: Path) -> None:
    """All that a user does with a corpus of any of the bases: read each record, pack each split, ask for groups and
    folds."""
    from memofast.data import Corpus
    from memofast.data.folds import open_split, read_groups
    from memofast.data.summary import sentences, summarise
    from memofast.errors import MemofastError
    from memofast.store import FeatureStore, TextStore

    refused = None
    for path in sorted(folder.glob("*/meta.json")):
        try:
            store = (TextStore if path.parent.name == "text" else FeatureStore).open(path.parent)
            for id in store.ids:
                store.read(id)
        except MemofastError as error:  # the rest is read all the same
            refused = error
    corpus = Corpus.open(folder)
    for name in corpus.splits:
        split = corpus.split(name).reading(corpus.streams)
        split.pack(range(len(split)))
        assert len(split.facts.all_faces_labelled) == len(split)
        sentences(corpus, name, 3)
    summarise(corpus)
    for name in corpus.description.get("groups", {}):
        read_groups(corpus, name)
    for scheme in corpus.description.get("folds", {}):
        open_split(corpus, f"{scheme}-01/train").pack([0])
    if refused:
        raise refused


def _records(path: Path, draw: random.Random) -> None:
    mutate.records(path.parent, draw)


def _read_subtitles(folder: Path) -> None:
    from memofast.prepare.subtitles.sentences import SentenceRules, sentences_of
    from memofast.prepare.subtitles.timings import read_cues

    for path in folder.iterdir():
        timed = [cue for cue in read_cues(path) if cue.start is not None]
        sentences_of(timed, SentenceRules(0.1, 30.0))


def _read_tables(folder: Path) -> None:
    from memofast.prepare.sources.table import Columns, read_table

    for path in folder.iterdir():
        for row in read_table(path, Columns()).rows:
            str(row).encode("utf-8", "backslashreplace")


def _decode(folder: Path) -> None:
    from memofast.prepare.media.decoding import decode, length_of
    from memofast.prepare.media.excerpts import Span

    for path in folder.iterdir():
        if path.suffix in (".mp4", ".mkv"):
            length_of(path)
            for _ in decode(path, [Span(0.2, 1.0), Span(0.9)], see=lambda frame: frame.grey().mean()):
                pass


def _read_faces(folder: Path) -> None:
    from memofast.prepare.faces.labelled_faces import read_faces

    read_faces(folder / "faces.npz", limit=10)


def _read_denseface(folder: Path) -> None:
    from memofast.prepare.faces.denseface import DenseFace

    DenseFace(folder / "denseface.safetensors")


def _read_words(folder: Path) -> None:
    from memofast.prepare.text.word_pieces import WordPieces, read_lexicon

    read_lexicon(folder / "lexicon.txt")
    WordPieces(folder / "vocab.txt")("the house was red now")


def _read_model(folder: Path) -> None:
    from memofast.inference.predictor import Predictor
    from memofast.inference.preparation import Files

    Predictor(folder / "model", Files(folder.parent / "denseface.safetensors", None, None, None), "cpu")


def _inspected(_: Path, folder: Path) -> Sequence[object]:
    return ["inspect", folder]


def _pretrained(_: Path, folder: Path) -> Sequence[object]:
    return ["pretrain", "demo", f"corpora.0.path={folder}", "--dry-run"]


def _tuned(inputs: Path, folder: Path) -> Sequence[object]:
    name, _, *settings = COMMANDS["finetune"].line(inputs, folder)
    return [name, f"corpus={folder}", *settings, "--dry-run"]


def _resumed(inputs: Path, folder: Path) -> Sequence[object]:
    return ["pretrain", "--resume", folder]


def _runs(*words: object) -> Line:
    return lambda inputs, folder: ["runs", *words, "--folder", folder / "runs"]


_CACHES: tuple[Line, ...] = (
    lambda inputs, folder: ["cache", "stat", folder / "features"],
    lambda inputs, folder: ["cache", "verify", folder / "features"],
    lambda inputs, folder: ["cache", "verify", folder / "features", "--remove"],
    lambda inputs, folder: ["cache", "prune", folder / "features", "--to", 1500],
    lambda inputs, folder: COMMANDS["cache fill"].line(inputs, folder),
    lambda inputs, folder: tuned_by_features(inputs, folder),
)
_KEPT: tuple[Line, ...] = (
    _runs(), _runs("clean"), _runs("verify"),
    lambda inputs, folder: ["runs", "verify", folder / "runs" / "half"],
    lambda inputs, folder: ["runs", "export", folder / "runs" / "half", "--out", folder / "out"],
    lambda inputs, folder: ["evaluate", folder / "runs" / "half"],
    lambda inputs, folder: [
        "evaluate", folder / "runs" / "half", "--corpus", inputs / "moods", "--out", folder / "told"
    ],
    lambda inputs, folder: ["finetune", "--resume", folder / "runs" / "half"],
)  # fmt: skip
_SHARDS = "runs/*/model/model-*.safetensors"

KINDS = {
    "records": Kind("moods", ("*/data.mdb",), (_inspected, _tuned), read_corpus, 15, _records),
    "records of a stream": Kind("demo", ("*/data.mdb",), (_inspected, _pretrained), read_corpus, 5, _records),
    "pages": Kind("moods", ("*/data.mdb",), (_inspected, _tuned), read_corpus, 12),
    "store descriptions": Kind("moods", ("*/meta.json", "*/index.npz"), (_inspected, _tuned), read_corpus, 12),
    "corpus descriptions": Kind(
        "moods", ("corpus.json", "splits/*", "groups/*", "folds/*/01/*"), (_inspected, _tuned), read_corpus, 12
    ),
    "prepared corpora": Kind(
        "prepared", ("prepare.json", "progress.jsonl", "report.json", "corpus.json", "*/meta.json"),
        (
            lambda inputs, folder: prepare(inputs, folder),
            lambda inputs, folder: ["inspect", folder, "--html", folder / "page.html", "--samples", 1],
        ),
        weight=1,
    ),
    "runs": Kind("run", ("config.yaml", "metrics.jsonl"), (_resumed,), weight=1),
    "checkpoints": Kind("run", ("checkpoints/step-00000006/*",), (_resumed,), weight=2),
    "fine-tuned runs": Kind(
        "tuned", ("config.yaml", "*/*/done.json", "*/*/answers/*", "*/*/metrics.jsonl", "model/*"),
        (
            lambda inputs, folder: ["evaluate", folder],
            lambda inputs, folder: ["evaluate", folder, "--corpus", inputs / "moods", "--out", folder / "told"],
            lambda inputs, folder: ["finetune", "--resume", folder],
        ),
        weight=1,
    ),
    "text runs": Kind(
        "text_run", ("training.json", "report.json", "model/*"),
        (
            lambda inputs, folder: _text_again(inputs, folder),
            lambda inputs, folder: [
                "evaluate", folder / "model", "--corpus", folder / "corpus", "--split", "validation", "--out",
                folder / "told",
            ],
        ),
        weight=0.5,
    ),
    "models": Kind(
        "film_model", ("model/*",),
        (lambda inputs, folder: [
            "predict", inputs / "films" / "two.mp4", "--model", folder / "model", "--out", folder / "out", "--face",
            inputs / "denseface.safetensors",
        ],),
        _read_model, 3,
    ),
    "encoders": Kind(
        "mood_model", ("*",),
        (lambda inputs, folder: [
            "extract", folder, "--corpus", inputs / "moods", "--split", "test", "--out", folder / "x.npz"
        ],),
        weight=2,
    ),
    "faces": Kind(
        "", ("faces.npz",),
        (lambda inputs, folder: [
            "denseface", "train", folder / "faces.npz", "--out", folder / "d", "--epochs", 1, "--batch", 8
        ],),
        _read_faces, 3,
    ),
    "face networks": Kind(
        "", ("denseface.safetensors",),
        (lambda inputs, folder: ["denseface", "show", folder / "denseface.safetensors"],),
        _read_denseface, 1,
    ),
    "exported features": Kind(
        "exported", ("*.json", "*/*.npz", "vocab.txt"),
        (lambda inputs, folder: [
            "import-npz", "--captions", folder / "captions.json", "--visual", folder / "faces", "--vocab",
            folder / "vocab.txt", "--out", folder / "out",
        ],),
        weight=4,
    ),
    "subtitles": Kind(
        "subtitles", ("*",), (lambda inputs, folder: _prepared_beside(inputs, folder),), _read_subtitles, 15
    ),
    "tables": Kind(
        "tables", ("*",),
        (lambda inputs, folder: _prepared_from(inputs, folder, sorted(folder.glob("a.*"))[-1]),),
        _read_tables, 10,
    ),
    "media": Kind(
        "films", ("*.mp4", "*.mkv"), (lambda inputs, folder: _prepared_from(inputs, folder, folder),), _decode, 3
    ),
    "recipes": Kind(
        "recipes", ("*.yaml",),
        tuple(
            lambda inputs, folder, name=name: [name, folder / f"{name}.yaml", "--dry-run"]
            for name in ("pretrain", "finetune")
        ),
        weight=3,
    ),
    "word lists": Kind(
        "word_files", ("vocab.txt", "lexicon.txt"),
        (lambda inputs, folder: [
            *_prepared_from(inputs, folder, inputs / "films" / "two.mp4"), "--lexicon", folder / "lexicon.txt"
        ],),
        _read_words, 3,
    ),
    "pages of a cache": Kind("filled", ("features/data.mdb",), _CACHES, kept.read_cache, 5),
    "vectors of a cache": Kind("filled", ("features/data.mdb",), _CACHES, kept.read_cache, 2, kept.values),
    "frozen weights": Kind(
        "kept", ("runs/weights/*", "runs/*/model/*.index.json", _SHARDS), _KEPT, kept.read_kept_model, 1
    ),
    "links to weights": Kind("kept", (_SHARDS,), _KEPT, kept.read_kept_model, 1, kept.links),
}  # fmt: skip


def _text_again(inputs: Path, folder: Path) -> Sequence[object]:
    line = list(COMMANDS["emotion-text train"].line(inputs, folder))
    line[line.index("--out") + 1] = folder
    return line


def _prepared_from(inputs: Path, folder: Path, source: Path) -> Sequence[object]:
    vocabulary = folder / "vocab.txt" if (folder / "vocab.txt").exists() else inputs / "films" / "vocab.txt"
    return ["prepare", source, "--out", folder / "out", "--vocab", vocabulary, "--voice", "energy", "--face", "none",
            "--workers", 1, "--media-root", inputs / "films"]  # fmt: skip


def _prepared_beside(inputs: Path, folder: Path) -> Sequence[object]:
    """A film whose subtitles are the damaged file."""
    shutil.copy(inputs / "films" / "two.mp4", folder / "a.mp4")
    return _prepared_from(inputs, folder, folder)[:-2]
