"""An epoch of training of the models over rows of text, sound and faces, beside MMSA's own loop.

    MEMOFAST_BENCH_CLOCK=process python -m pytest bench/test_sequence.py

Rules: synthetic features of MOSI's widths, for multi-task models SIMS's, published settings, batches of 16, fp32, one
thread on one core for both sides, validation excluded. `full`: every sample fills its arrays, so that nothing is won by
leaving padding out; `real`: lengths between a tenth and 60 % of them, as sentences have; `compat`: as `full`, and
our network reads what the original reads, padding and all. `mmsa_rival.py` says what of
MMSA's loop had to be changed. At least 2 is aimed at for MFN, Graph-MFN, TFN and MulT, 1 for the others.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import mmsa_rival
import pytest
import torch
from epochs import Epochs
from transformers import BertConfig, BertModel, BertTokenizer

from memofast.prepare.sources.feature_corpus import import_feature_pickle
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.recipe_file import shipped

pytest.importorskip("MMSA", reason="MMSA is not installed; see bench/mmsa_rival.py")

BATCH, ROUNDS = 16, 5
SAMPLES = {"mult": 16, "tfr_net": 16, "mmim": 128, "self_mm": 128, "misa": 128, "mag": 128}  # of an epoch, else 160
TWICE = ("mfn", "graph_mfn", "tfn", "mult")
SIMS = ("mtfn", "mlmf", "mlf_dnn")
ON_BERT = ("mag", "misa", "self_mm", "mmim", "tfr_net")
ALIGNED = ("mag", "mfn", "ef_lstm", "graph_mfn", "mfm")
KINDS = [
    name.partition("-")[2]
    for name in shipped(fine_tuning=True)
    if name.startswith(("mosi-", "sims-")) and name != "mosi-lab"
]


@pytest.fixture(autouse=True)
def one_core():
    """The loader's thread too."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """Two random layers and a vocabulary without letters of its own."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [mmsa_rival.word_of(id) for id in range(len(words), 3000)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(3)
    BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=2)).save_pretrained(folder)
    return folder


def epochs(kind: str, pickle: Path, folder: Path, bert: Path, compat: bool) -> Epochs:
    """Of the recipe on the pickle as it is imported."""
    import_feature_pickle(pickle, folder / "corpus", "synthetic", bert, "")
    recipe = f"{'sims' if kind in SIMS else 'mosi'}-{kind}"
    options = [
        "train.samples=16",
        "train.accumulate=1",
        "train.threads=1",
        "train.precision=fp32",
        "train.device=cpu",
    ]
    options += [f"model.init={bert}"] * (kind in ON_BERT)
    options += ["model.network.compat=true", "model.standardise=none"] * compat
    plan = make_fine_tuning_plan(read(recipe, [f"corpus={folder / 'corpus'}", *options, "train.epochs=1000"]))
    return Epochs(plan, folder)


@pytest.mark.parametrize("lengths", ["full", "real", "compat"])
@pytest.mark.parametrize("kind", KINDS)
def test_epoch(side_by_side, benchmark, tmp_path, bert, kind, lengths):
    dataset, aligned = "sims" if kind in SIMS else "mosi", kind in ALIGNED
    pickle = tmp_path / "features.pkl"
    samples = SAMPLES.get(kind, 160)
    mmsa_rival.write_pickle(pickle, dataset, aligned, samples, range(104, 3000), lengths != "real")
    ours = epochs(kind, pickle, tmp_path, bert, lengths == "compat")
    theirs = mmsa_rival.epoch_of("bert_mag" if kind == "mag" else kind, dataset, pickle, bert, BATCH)
    with closing(ours):
        side_by_side(
            ours.run, {"MMSA": theirs}, rounds=ROUNDS, target={"MMSA": 2 if kind in TWICE else 1}, samples=samples,
            batch=BATCH, dataset=dataset, aligned=aligned,
        )  # fmt: skip
