"""Every command and snippet of README, in its order, on small data in one folder."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
from readme_sources import make_sources

from memofast import cli
from memofast.data.demo import demo_corpus
from memofast.model.folder import model_folder
from memofast.prepare.faces.detection import Face
from memofast.prepare.run import extraction
from memofast.prepare.text.word_pieces import WordPieces
from memofast.train import sweep_processes

README = Path(__file__).resolve().parents[1] / "README.md"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not README.is_file(), reason="needs the source folder that these tests come from"),
]

# what a placeholder stands for: the run that the command before made, by the words it was started with
PLACEHOLDERS = {
    "FLOW_RUN": "pretrain memobert-flow-1",
    "RUN_OR_CHECKPOINT": "pretrain memobert-mini",
    "runs/finetune-TIME": "finetune corpus=corpora/meld ",
    "runs/crema-d-perceiver-TIME": "finetune crema-d-perceiver ",
    "MELD_RUN": "finetune corpus=corpora/meld ",
    "LORA_RUN": "finetune corpus=corpora/meld-text model.init=MINILM model.lora",
    "LEGACY_RUN": "pretrain memobert-mini corpora.0.path=corpora/movies",
    "OTHER_MELD_RUN": "finetune corpus=corpora/meld train.seeds=[7]",
    "IEMOCAP_RUN": "finetune corpus=corpora/iemocap ",
    "runs/RUN": "finetune corpus=corpora/meld ",
    "RUN": "finetune corpus=corpora/meld ",
    "CORPUS": "corpora/ravdess",
}
TINY = "model.hidden_size=32 model.num_hidden_layers=1 model.num_attention_heads=2 model.intermediate_size=64"
# what makes a command small, by how it begins
SMALLER = {
    "pretrain memobert-mini": f"{TINY} train.updates=2 train.warmup=1 train.samples=8 train.save_every=2 "
    "validate.every=2 train.longest.text=60",
    "pretrain memobert-joint": f"{TINY} train.updates=2 train.warmup=1 train.samples=4 train.accumulate=1 "
    "objectives.matching.share=0 validate.every=2",  # a validation part of one sample has no partner
    "pretrain memobert-mae": f"{TINY} train.updates=2 train.warmup=1 train.samples=4 train.accumulate=1 "
    "validate.every=2 "
    + " ".join(
        f"objectives.masked_autoencoder.decoder.{size}"
        for size in ("hidden_size=16", "num_attention_heads=2", "num_hidden_layers=1")
    ),
    "pretrain memobert-flow": f"{TINY} model.text_layers=1 model.visual_layers=1 model.speech_layers=1 "
    "model.unimodal_heads=2 train.updates=2 train.warmup=1 train.samples=4 train.accumulate=1 "
    "objectives.matching.share=0 validate.every=2",
    "pretrain demo-flow": "corpora.0.path=raw train.updates=2 train.warmup=1 train.samples=4 validate.every=2",
    "pretrain demo-joint": f"corpora.0.path=raw {TINY} train.updates=2 train.warmup=1 train.samples=4 validate.every=2 "
    "train.threads=1",  # two wait for one another, where other tests run beside
    "pretrain": f"{TINY} train.updates=2 train.warmup=1 train.samples=4 validate.every=2",
    # there are three actors
    "finetune finetune-lstm corpus=corpora/ravdess": "train.epochs=1 folds.only=[1] inner_folds=validation",
    "finetune meld-towers": "train.epochs=1 train.samples=7 train.accumulate=1 train.precision=fp32 model.width=8 "
    "baselines=false",
    "finetune crema-d-perceiver": "folds.only=[1] train.epochs=1 model.num_latents=8 model.d_latents=16 "
    "model.num_self_attends_per_block=1 model.num_self_attention_heads=2 model.output_num_channels=16 train.threads=1 "
    "baselines=false",
    "finetune corpus=corpora/ravdess": "train.epochs=1 train.samples=16 train.precision=fp32 folds.only=[1,3]",
    "finetune corpus=corpora/iemocap-legacy": "folds.only=[2] train.epochs=1 train.samples=8 train.precision=fp32 "
    "baselines=false",
    "finetune mosi-mfn": "train.epochs=1 model.network.memory=8 model.network.hidden.text=8",
    "finetune corpus": "train.epochs=1 train.samples=8 train.precision=fp32 baselines=false",
    "finetune": "finetune-demo train.epochs=1 model.hidden_size=32 baselines=false",
    "sweep mosi-lab-ablations": "train.epochs=1 train.seeds=[1] model.network.width=32 baselines=false",
    "sweep": "train.epochs=1 train.samples=16 train.precision=fp32 folds.only=[1]",
    "prepare": "--workers 1 --speaker most-seen",
    "denseface train": "--epochs 1 --batch 8 --threads 1",
    "emotion-text train": "--epochs 1 --samples 8 --validation 0.4",
    "pseudo-label": "--neutral 0.01 --other 0.01",
}
# runs that README speaks of and does not start
BEFORE = {
    "evaluate MELD_RUN IEMOCAP_RUN": ["finetune corpus=corpora/iemocap model.init=MINILM"],
    "evaluate MELD_RUN --compare": ["finetune corpus=corpora/meld train.seeds=[7] model.init=MINILM"],
}
NOT_RUN = {
    "python -m venv": "a fresh environment: test_package.py builds and installs",
    ". .venv/bin/activate": "a fresh environment: test_package.py builds and installs",
    "pip install": "needs a package index: test_package.py installs the built wheel",
    "memofast download": "needs the network: test_downloads.py has a server of its own",
    "python -m pytest": "these tests themselves",
    "pytest": "hours of measuring: test_speed_report.py reports small ones",
    "python bench/report.py": "hours of measuring: test_speed_report.py reports small ones",
    "python python_tests/campaign": "campaign/test_campaign.py runs it, for fewer",
    "memofast --install-completion": "writes into the shell's own files: test_cli.py",
    "memofast pretrain memobert-base + mine.toml": "twelve layers: train/test_recipe.py joins smaller ones",
    "torchrun": "several processes: test_pretrain.py and test_finetune.py start two",
    "memofast pretrain ... --dry-run": "an option of what ran above: test_pretrain.py",
}


def blocks() -> list[str]:
    """The indented blocks of README, without their indentation."""
    found = re.findall(r"(?<=\n\n)((?: {4}.*\n|\n(?= {4}))+)", README.read_text(encoding="utf-8"))
    return ["".join(line[4:] if line.strip() else line for line in block.splitlines(True)) for block in found]


def commands(block: str) -> list[str]:
    """The commands of a block, each on a line, without comments."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    parts = (part for line in lines for part in re.sub(r"\s{2,}#.*|^#.*", "", line).split("&&"))
    return [part.strip() for part in parts if part.strip()]


def is_python(block: str) -> bool:
    return block.startswith(("import ", "from "))


def spans() -> list[str]:
    """The commands that stand within sentences."""
    text = re.sub(r"(?m)^ {4}.*$", "", README.read_text(encoding="utf-8"))
    found = re.findall(r"`((?:memofast|python|pip|torchrun|pytest)\s[^`]+)`", text)
    return list(dict.fromkeys(found))


class Walk:
    """Runs commands in a folder, and knows which runs they made."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, {}

    def __call__(self, command: str) -> None:
        if any(command.startswith(known) for known in NOT_RUN):
            return
        words = shlex.split(command)
        words = words[1:] if words[0] == "memofast" else [words[2].removeprefix("memofast."), *words[3:]]
        assert command.startswith(("memofast ", "python -m memofast.")), f"the test does not know {command!r}"
        plain = " ".join(words)
        for name, others in BEFORE.items():
            for other in others if plain.startswith(name) else ():
                self(f"memofast {other}")
        smaller = next((options for name, options in SMALLER.items() if f"{plain} ".startswith(f"{name}")), "")
        if len(words) == 1 and words[0] not in ("pretrain", "finetune", "info"):
            smaller, words = "", [words[0], "--help"]
        done = runs.here(self.folder, *self.filled([*words, *smaller.split()]))
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        for run in (self.folder / "runs").glob("*"):
            if run not in self.made.values():
                self.made[plain] = run

    def filled(self, words: list[str]) -> list[str]:
        return [re.sub(r"[\w/-]*[A-Z]{2}[\w/-]*", lambda found: self.meant(found[0]), word) for word in words]

    def meant(self, name: str) -> str:
        if (begun := PLACEHOLDERS.get(name)) is None or begun.startswith("corpora/"):
            return begun or name
        return str(next(run for command, run in self.made.items() if f"{command} ".startswith(begun)))


class Bright:
    """A face in every picture."""

    name = "bright"

    def __call__(self, picture):
        crop = (np.arange(4096).reshape(64, 64) % 97 + picture.mean() / 4).astype(np.uint8)
        eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
        return [Face(crop, 0.75, np.array([0.0, 0.0, 40.0, 40.0]), eyes)]


def test_every_command_and_snippet_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", lambda *_: Bright())
    monkeypatch.setattr(sweep_processes, "run_local", runs.settings_here)
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path / "cache"))
    demo_corpus(tmp_path / "cache" / "demo-3", {"train": 64, "validation": 24, "test": 24})
    make_sources(tmp_path)
    walk = Walk(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks():
        if is_python(block):
            given = {"rows": np.ones((3, 80), np.float32), "sentences": ["we saw tears", "a wonderful river"]}
            exec(re.sub(r'"(runs/RUN)"', lambda found: repr(walk.meant(found[1])), block), given)
        else:
            for command in commands(block):
                walk(command)
    for command in spans():
        walk(command)
    words = WordPieces(tmp_path / "MINILM").fingerprint
    for run in (walk.meant("RUN_OR_CHECKPOINT"), walk.meant("RUN"), "runs/text"):
        assert WordPieces(model_folder(Path(run))).fingerprint == words


def test_a_command_that_the_test_does_not_know_fails_it(tmp_path):
    with pytest.raises(AssertionError, match="does not know 'rm -r runs'"):
        Walk(tmp_path)("rm -r runs")
    assert commands("a --b \\\n    c   # why\n\nd && e 'f  #g'\n") == ["a --b  c", "d", "e 'f"]
    assert {"prepare", "pretrain", "finetune", "sweep", "evaluate", "extract", "predict"} <= {
        command.split()[1] for block in blocks() if not is_python(block) for command in commands(block)
        if command.startswith("memofast ")
    }  # fmt: skip
    assert sys.modules["memofast.cli"] is cli
