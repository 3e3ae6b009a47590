"""Does this checkout compute what an older one did? `python bench/same_as.py OLD`, on a CPU: three minutes of one core.

OLD: folder of another checkout, made by `git worktree add OLD COMMIT`, in which the extension was built by
`MEMOFAST_CUDA=0 python setup.py build_ext --inplace`. Each side runs in processes, a cache and a home of its own, by
commands and by names of packages alone, as modules move. Equal to the bit must be draws, masks, orders, packed batches,
columns of stores, and logs and weights of pre-training in fp32 on OLD's demo corpus, in both mixings and with each
objective alone; fine-tuning of OLD's pre-trained model may differ by 1e-6 of an array's largest value. Where a line
says `differs` it names the first difference, and the exit code is 1.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parents[1]
PROBE = Path(__file__).with_name("same_as_probe.py")
GROUPS = {
    "draws": "Philox: keys, words, dropout",
    "masks": "masks of every policy",
    "orders": "orders of streams, both mixings",
    "batches": "packed batches",
    "passes": "passes by length",
    "stores": "columns of the demo's stores",
}
CLOCK = ("samples_per_s", "rows_per_s", "peak_memory_gib")
TOLERANCE = 1e-6  # of fine-tuning
FEW, DOZENS = 6, 24  # updates

MODEL = {
    "vocab_size": 124, "mask_token_id": 4, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 80, "max_position_embeddings": 64, "visual_positions": 64, "speech_positions": 64,
}  # fmt: skip
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.15}
TRAIN = {
    "samples": 13, "lr": 2e-3, "warmup": 4, "clip": 1.5, "precision": "fp32", "device": "cpu", "threads": 1, "seed": 77,
    "log_every": 1,
}  # fmt: skip
POLICIES = {
    "pieces": {"kind": "whole_word_mlm", "policy": "token", "share": 3},
    "emotion_words": {"kind": "whole_word_mlm", "policy": "emotion_word", "emotion_probability": 0.4},
    "emotional_wholes": {"kind": "whole_word_mlm", "policy": "whole_word_emotion", "at_least_one": True},
    "scattered_faces": {"kind": "span_visual_regression", "policy": "independent", "ratio": "3/20"},
    "a_span_of_faces": {"kind": "span_visual_regression", "policy": "single_span", "original": True, "share": 2},
    "feelings": {"kind": "span_visual_emotion", "policy": "mixed", "dice": True},
    "voice": {"kind": "span_speech_regression", "policy": "span", "length": 5, "ratio": "2/5"},
}
TUNING = [
    "model.init={init}", *(f"model.{name}={value}" for name, value in (MODEL | DROPOUT).items()),
    "modalities.train=[l,va,lva]", "modalities.select=[lva,a]", "modalities.evaluate=[l,a,va,lva]",
    "train.epochs=2", "train.share=0.1", "train.samples=13", "train.lr=2e-3", "train.warmup=0.2",
    "train.validations=1000", "train.patience=1000",  # one for each update, whose mean loss means the same in any log
    "train.seeds=[7]", "train.class_weights=balanced", "train.smoothing=0.1", "train.hide=0.3",
    "train.hide_columns=0.1", "train.precision=fp32", "train.device=cpu", "train.threads=1",
]  # fmt: skip

Arrays = dict[str, np.ndarray]


class Mistake(Exception):
    """What the user can put right, in one line."""


class Failed(Exception):
    """A command of one side ended with an error: its last line."""


@dataclass
class Outcome:
    """What a comparison found.

    first: the first difference, None for none. bits: whether all is equal to the bit. largest: relative difference.
    """

    compared: int
    first: str | None = None
    bits: bool = True
    largest: float = 0.0
    only_new: list[str] = field(default_factory=list)


@dataclass
class Side:
    """One checkout. name: old or new; folder: where its processes work, with their cache and home."""

    name: str
    checkout: Path
    folder: Path

    def python(self, place: str, *arguments: object, stdin: str | None = None) -> Path:
        """Run Python with this checkout's memofast in the folder `place`, which is returned. Raises: `Failed`."""
        folder = self.folder / place
        folder.mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MEMOFAST", "PYTHON"))}
        own = {
            "HOME": self.folder / "home",
            "XDG_CACHE_HOME": self.folder / "cache",
            "XDG_CONFIG_HOME": self.folder / "config",
        }
        one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        environment = kept | {name: str(path) for name, path in own.items()} | one | {"PYTHONPATH": str(self.checkout)}
        result = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=folder, env=environment, input=stdin, capture_output=True,
            text=True,
        )  # fmt: skip
        (folder / "stdout.txt").write_text(result.stdout)
        (folder / "stderr.txt").write_text(result.stderr)
        if result.returncode:
            said = (result.stderr or result.stdout).strip().splitlines() or ["nothing said"]
            raise Failed(f"{self.name} failed with exit code {result.returncode}: {said[-1]}")
        return folder

    def check(self) -> None:
        """Raises: `Mistake` where this is no checkout, or its extension is missing or of other sources."""
        package = self.checkout / "memofast"
        if not (package / "__init__.py").is_file() or not (self.checkout / "csrc").is_dir():
            raise Mistake(
                f"{self.checkout} is no checkout of memofast; make one with git worktree add {self.checkout} COMMIT"
            )
        build = f"run MEMOFAST_CUDA=0 python setup.py build_ext --inplace in {self.checkout}"
        if not any((package / f"_C{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
            raise Mistake(f"{package} has no built extension _C; {build}")
        try:
            folder = self.python(
                "check", "-c", "import memofast, memofast._C; print(memofast.__file__, memofast._C.__file__)"
            )
        except Failed as error:
            raise Mistake(f"{self.checkout} cannot be imported ({error}); {build}") from None
        for path in (folder / "stdout.txt").read_text().split():
            if not Path(path).is_relative_to(package):
                raise Mistake(f"Python imports {path}, not the one of {package}; {build}")


def differences(old: Arrays, new: Arrays, tolerance: float = 0.0, new_may_have_more: bool = False) -> Outcome:
    """Compare by name, in old's order. tolerance: relative to old's largest absolute value; 0: equal to the bit."""
    outcome, found = Outcome(len(old), only_new=[name for name in new if name not in old]), []
    for name, values in old.items():
        if name not in new:
            found.append(f"{name} is missing in new")
            continue
        if _equal(values, new[name]):
            continue
        outcome.bits = False
        relative = _relative(values, new[name])
        outcome.largest = max(outcome.largest, relative)
        if not relative <= tolerance:
            found.append(f"{name}{_where(values, new[name])}")
    if outcome.only_new and not new_may_have_more:
        found.append(f"{outcome.only_new[0]} is missing in old")
    if found:
        others = f" ({len(found)} of {len(old)} differ)" if len(old) > 1 else ""
        outcome.first, outcome.bits = found[0] + others, False
    return outcome


def _equal(old: np.ndarray, new: np.ndarray) -> bool:
    same_form = old.dtype == new.dtype and old.shape == new.shape
    return same_form and np.ascontiguousarray(old).tobytes() == np.ascontiguousarray(new).tobytes()


def _relative(old: np.ndarray, new: np.ndarray) -> float:
    """Largest difference over old's largest absolute value; infinite for what is no finite float or of another form."""
    if old.dtype != new.dtype or old.shape != new.shape or old.dtype.kind != "f":
        return float("inf")
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        return float("inf")
    apart, largest = np.abs(old.astype(np.float64) - new).max(), np.abs(old).max()
    return float(apart / largest) if largest else float("inf")


def _where(old: np.ndarray, new: np.ndarray) -> str:
    if old.shape == new.shape == ():
        return f": {old} in old, {new} in new"
    if old.shape != new.shape or (old.dtype != new.dtype and old.dtype.kind != "U"):
        return f": {old.dtype} {list(old.shape)} in old, {new.dtype} {list(new.shape)} in new"
    if old.dtype.kind == "f":
        apart = np.abs(old.astype(np.float64) - new)
        place = np.unravel_index(np.argmax(np.where(np.isnan(apart), np.inf, apart)), old.shape)
        return f"{_index(place)}, the farthest apart: {old[place]} in old, {new[place]} in new"
    place = tuple(np.argwhere(old != new)[0])
    return f"{_index(place)}: {old[place]} in old, {new[place]} in new"


def _index(place: Iterable[int]) -> str:
    return f" [{', '.join(str(int(i)) for i in place)}]"


def weights_of(run: Path) -> Arrays:
    """The newest checkpoint's tensors, or those of the model that fine-tuning kept."""
    newest = max((run / "checkpoints").glob("step-*")) if (run / "checkpoints").is_dir() else run / "model"
    return {name: tensor.numpy() for name, tensor in load_file(newest / "model.safetensors").items()}


def log_of(run: Path, by: tuple[str, ...] = ("step", "split", "corpus", "objective")) -> Arrays:
    """Every logged number by file, update, split, corpus, objective and name, but for the clock's and the machine's."""
    found: Arrays = {}
    for path in sorted(run.rglob("metrics.jsonl")):
        for entry in map(json.loads, path.read_text().splitlines()):
            keys = {name: entry.pop(name, None) for name in ("step", "split", "corpus", "objective")}
            place = f"{path.parent.relative_to(run)} " if path.parent != run else ""
            for name, value in entry.items():
                if name not in CLOCK:
                    named = f"{place}update {' '.join(str(keys[key]) for key in by)} {name}"
                    while named in found:
                        named += ", again"
                    found[named] = np.array(value)
    return found


def tuning_log_of(run: Path) -> Arrays:
    """`log_of` without the corpus, of which there is but one, and which was called `all` once."""
    return log_of(run, ("step", "split", "objective"))


def answers_of(run: Path) -> Arrays:
    found: Arrays = {}
    for path in sorted(run.rglob("answers/*.npz")):
        with np.load(path, allow_pickle=False) as data:
            found |= {f"{path.relative_to(run)} {name}": data[name] for name in sorted(data.files)}
    return found


def the_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


class Table:
    """Prints a line per comparison and remembers whether all were equal."""

    def __init__(self):
        self.differs = False
        print(f"{'what':<46}{'compared':<20}{'result'}", flush=True)

    def line(self, what: str, how: str, outcome: Outcome) -> None:
        if outcome.first:
            result = f"differs: {outcome.first}"
        elif outcome.bits:
            result = f"equal to the bit ({outcome.compared})"
        else:
            result = f"equal, not to the bit: {outcome.largest:.1e} apart ({outcome.compared})"
        if outcome.only_new:
            result += f"; only new has {', '.join(outcome.only_new[:3])}{', ...' if len(outcome.only_new) > 3 else ''}"
        self._print(what, how, result, bool(outcome.first))

    def compare(
        self, what: str, how: str, old: Arrays, new: Arrays, tolerance: float = 0.0, more: bool = False
    ) -> None:
        if not old:
            self._print(what, how, "differs: old has nothing to compare", True)
        else:
            self.line(what, how, differences(old, new, tolerance, more))

    def failed(self, what: str, error: Failed) -> None:
        self._print(what, "", f"differs: {error}", True)

    def _print(self, what: str, how: str, result: str, differs: bool) -> None:
        self.differs |= differs
        print(f"{what:<46}{how:<20}{result}", flush=True)


def objectives_of(side: Side) -> dict[str, dict]:
    demo = yaml.safe_load((side.checkout / "memofast" / "recipes" / "demo.yaml").read_text())
    return {name: options or {} for name, options in demo["objectives"].items()}


def both(sides: list[Side], table: Table, what: str, place: str, *arguments: object, **options) -> list[Path] | None:
    """The folders of one command's run on each side; None, with a line that says so, where it fails."""
    try:
        return [side.python(place, *arguments, **options) for side in sides]
    except Failed as error:
        table.failed(what, error)
        return None


def compare_probes(sides: list[Side], table: Table) -> Path | None:
    """Returns: old's demo corpus, which every run reads."""
    code = PROBE.read_text()
    corpus = sides[0].folder / "corpus"
    make = "from memofast.data.demo import open_corpus; print(open_corpus('demo').path)"
    try:
        made = sides[0].python("corpus_made", "-c", make)
        shutil.copytree((made / "stdout.txt").read_text().strip(), corpus)
    except Failed as error:
        table.failed("demo corpus", error)
        return None
    folders = both(sides, table, "probe", "probe", "-", "probe.npz", corpus, stdin=code)
    if folders:
        old, new = (dict(np.load(folder / "probe.npz", allow_pickle=False)) for folder in folders)
        for group, what in GROUPS.items():
            mine = [
                {n.removeprefix(f"{group}: "): x for n, x in x.items() if n.startswith(f"{group}: ")}
                for x in (old, new)
            ]
            table.compare(what, "to the bit", *mine, more=group in ("draws", "stores"))
    return corpus


def compare_prepare(sides: list[Side], table: Table, folder: Path, vocabulary: Path) -> None:
    """Sound and words of a small table."""
    folder.mkdir()
    random, rows = np.random.default_rng(5), ["id,file,text,label"]
    sentences = (
        "i feel happy about the movie .",
        "they cry and feel lonely , the phone again .",
        "it was a mad dog , wasn't it ?",
    )
    for number in range(7):
        time = np.arange(3200 * (4 + number)) / 16000
        sound = 8000 * np.sin(2 * np.pi * (150 + 40 * number) * time) + 500 * random.standard_normal(len(time))
        with wave.open(str(folder / f"c{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(sound.astype("<i2").tobytes())
        rows.append(f'c{number},c{number}.wav,"{sentences[number % 3]}",{("glad", "sad", "angry")[number % 3]}')
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    what, out = "preparation of sound and words", "prepared"
    arguments = [
        "--out",
        out,
        "--name",
        "same",
        "--vocab",
        vocabulary,
        "--speech",
        "logmel",
        "--workers",
        1,
        "--split",
        "test=0.3",
    ]
    folders = both(sides, table, what, "prepare", "-m", "memofast.prepare", folder / "table.csv", *arguments)
    if folders:
        table.compare(what, "to the bit", *(prepared(folder / out) for folder in folders), more=True)


def prepared(corpus: Path) -> Arrays:
    metas = {path.parent.name: json.loads(path.read_text()) for path in sorted(corpus.glob("*/meta.json"))}
    assert metas.keys() >= {"text", "speech"}, f"{corpus} lacks a store"
    splits = {f"split {path.stem}": np.array(path.read_text()) for path in sorted(corpus.glob("splits/*.txt"))}
    return {f"{name} digest": np.array(meta["digest"]) for name, meta in metas.items()} | splits


def pretrain(
    sides: list[Side], table: Table, folder: Path, what: str, corpus: Path, objectives: dict[str, dict], **train
) -> Path | None:
    """Returns: old's run; None where a side failed."""
    place = "pretrain_" + what.replace(" ", "_")
    updates = train["updates"]
    recipe = {
        "corpora": [{"path": str(corpus)}],
        "model": MODEL | DROPOUT,
        "objectives": objectives,
        "train": TRAIN | {"save_every": updates} | train,
        "validate": {"every": updates // 2, "samples": 41},
    }
    path = folder / f"{place}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    folders = both(sides, table, f"pre-training, {what}", place, "-m", "memofast.pretrain", path)
    if not folders:
        return None
    old, new = map(the_run, folders)
    table.compare(f"pre-training, {what}: log", "to the bit", log_of(old), log_of(new), more=True)
    table.compare(f"pre-training, {what}: weights", "to the bit", weights_of(old), weights_of(new))
    return old


def compare_pretraining(sides: list[Side], table: Table, folder: Path, corpus: Path) -> Path | None:
    """Returns: a run of old, to fine-tune from."""
    old, new = map(objectives_of, sides)
    common = {name: options for name, options in old.items() if name in new}
    for name in sorted(old.keys() - new.keys()):
        table.line(f"objective {name}", "", Outcome(0, first="new's demo has no such objective"))
    given = (sides, table, folder)
    pretrain(*given, "mixing update", corpus, common, mixing="update", updates=DOZENS, accumulate=2)
    start = pretrain(*given, "mixing sample", corpus, common, mixing="sample", updates=DOZENS)
    pretrain(*given, "other policies", corpus, POLICIES, mixing="sample", updates=DOZENS)
    for name in common:
        pretrain(*given, name, corpus, {name: common[name]}, mixing="update", updates=FEW)
    return start


def compare_fine_tuning(sides: list[Side], table: Table, corpus: Path, start: Path) -> None:
    arguments = [f"corpus={corpus}", *(argument.format(init=start) for argument in TUNING)]
    folders = both(sides, table, "fine-tuning", "finetune", "-m", "memofast.finetune", "finetune-demo", *arguments)
    if not folders:
        return
    old, new = map(the_run, folders)
    for what, read, more in (
        ("log", tuning_log_of, True),
        ("answers", answers_of, False),
        ("weights", weights_of, False),
    ):
        table.compare(f"fine-tuning: {what}", f"within {TOLERANCE:g}", read(old), read(new), TOLERANCE, more)


def run(old: Path, folder: Path) -> bool:
    """Print the table. Returns: whether something differs."""
    sides = [Side("old", old, folder / "old"), Side("new", HERE, folder / "new")]
    for side in sides:
        side.check()
    table = Table()
    corpus = compare_probes(sides, table)
    if corpus:
        compare_prepare(sides, table, folder / "media", corpus / "vocab.txt")
        if start := compare_pretraining(sides, table, folder, corpus):
            compare_fine_tuning(sides, table, corpus, start)
        else:
            table.failed("fine-tuning", Failed("there is no pre-trained model of old to start from"))
    return table.differs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD", help="folder of the older checkout, its extension built")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="an empty or new folder in which all runs stay, with what they said"
    )
    arguments = parser.parse_args()
    try:
        if arguments.keep is None:
            with TemporaryDirectory(prefix="same_as-") as folder:
                return int(run(arguments.old.resolve(), Path(folder)))
        if arguments.keep.exists() and any(arguments.keep.iterdir()):
            raise Mistake(f"--keep {arguments.keep} is not empty; name another folder")
        return int(run(arguments.old.resolve(), arguments.keep.resolve()))
    except Mistake as mistake:
        print(f"same_as.py: {mistake}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
