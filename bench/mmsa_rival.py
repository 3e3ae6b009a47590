"""MMSA 2.2.1's own training loop on a synthetic pickle, an epoch at a time: what `test_sequence.py` compares with.

    pip install --no-deps MMSA==2.2.1 easydict

Its loop runs as published but for what no CPU can do or an epoch's time shall not have: `verbose`, which torch no
longer knows, is dropped from the plateau schedule; validation answers a constant, so that one epoch ends the run;
nothing is written; and the fault that ends multi-task models once their first epoch is trained is caught. Models on
BERT take a folder with two random layers; its MAG is given what it asks for of a transformers before 5.
Multi-task models have settings for SIMS alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

WIDTHS = {"mosi": {"text": 768, "audio": 5, "vision": 20}, "sims": {"text": 768, "audio": 33, "vision": 709}}
LENGTHS = {  # rows of text, audio and vision that samples are padded to
    ("mosi", True): (50, 50, 50), ("mosi", False): (50, 375, 500), ("sims", False): (39, 400, 55),
}  # fmt: skip
HELD_OUT = 16


def word_of(id: int) -> str:
    """The word of a word piece that is none of BERT's special ones."""
    return f"w{id}"


def write_pickle(path: Path, dataset: str, aligned: bool, samples: int, words: range, full: bool) -> None:
    """Random features of a data set's size. words: ids of word pieces that sentences are drawn from. full: every sample
    fills its arrays; else a tenth to all of them, as sentences are."""
    random = np.random.default_rng(7)
    longest = dict(zip(("text", "audio", "vision"), LENGTHS[dataset, aligned], strict=True))
    found = {}
    for part, count in (("train", samples), ("valid", HELD_OUT), ("test", HELD_OUT)):
        share = np.ones(count) if full else random.uniform(0.1, 0.6, count)  # MOSI's mean is a quarter
        lengths = {name: np.maximum(3, np.round(share * most)).astype(int) for name, most in longest.items()}
        rows = {}
        for name, most in longest.items():
            values = random.standard_normal((count, most, WIDTHS[dataset][name]), np.float32)
            rows[name] = values * (np.arange(most) < lengths[name][:, None])[..., None]
        bert = np.zeros((count, 3, longest["text"]), np.int64)
        for ids, length in zip(bert, lengths["text"], strict=True):
            ids[0, :length] = [101, *random.choice(words, length - 2), 102]
            ids[1, :length] = 1
        labels = random.uniform(-1, 1, count).astype(np.float32) * (3 if dataset == "mosi" else 1)
        spoken = [" ".join(word_of(id) for id in ids[0] if id > 102) for ids in bert]
        found[part] = {
            **rows, "text_bert": bert, "raw_text": np.array(spoken), "regression_labels": labels,
            "id": np.array([f"{part}{n}$_${n}" for n in range(count)]),
            "audio_lengths": lengths["audio"].tolist(), "vision_lengths": lengths["vision"].tolist(),
            **{f"regression_labels_{name}": labels for name in "TAV"},
        }  # fmt: skip
    path.write_bytes(pickle.dumps(found))


def arguments_of(kind: str, dataset: str, path: Path) -> dict:
    """MMSA's published settings of a model, on the features of this pickle."""
    from MMSA.config import get_config_regression

    args = get_config_regression(kind, dataset)
    args.update({
        "featurePath": str(path), "custom_feature": None, "feature_T": None, "feature_A": None, "feature_V": None,
        "train_mode": "regression", "device": torch.device("cpu"), "model_save_path": "unused",
    })  # fmt: skip
    return args


def epoch_of(kind: str, dataset: str, path: Path, bert: Path, batch: int) -> Callable[[], None]:
    """A call that trains MMSA's model of this kind for one epoch more."""
    with as_on_this_machine():
        from MMSA.data_loader import MMDataLoader
        from MMSA.models.AMIO import AMIO
        from MMSA.models.subNets.BertTextEncoder import BertTextEncoder
        from MMSA.trains.ATIO import ATIO

    args = arguments_of(kind, dataset, path)
    args.update({"batch_size": batch, "early_stop": 0, "pretrained": str(bert), "transformers": "bert", "cur_seed": 1})
    torch.manual_seed(1)
    loaders = MMDataLoader(args, 0)
    args["train_samples"] = len(loaders["train"].dataset)
    with (
        as_on_this_machine(),
        _mag_of_random_weights(bert),
        mock.patch.object(BertTextEncoder.__init__, "__defaults__", (False, "bert", str(bert))),
    ):  # of which TFR-Net gives none
        model = AMIO(args)
    trainer = ATIO().getTrain(args)
    trainer.do_test = lambda *_, **__: dict.fromkeys((args["KeyEval"], "Loss", "MAE"), 1.0)

    def epoch() -> None:
        with _unwritten(), contextlib.suppress(UnboundLocalError):
            trainer.do_train(model, loaders)

    return epoch


@contextlib.contextmanager
def as_on_this_machine() -> Iterator[None]:
    """Its loop without `verbose` and progress bars."""
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    begin = plateau.__init__

    def without_verbose(self, *arguments, verbose=None, **options):
        begin(self, *arguments, **options)

    with (
        mock.patch.object(plateau, "__init__", without_verbose),
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stderr(nothing),
    ):
        yield


@contextlib.contextmanager
def _mag_of_random_weights(bert: Path) -> Iterator[None]:
    """Its MAG with the sizes of a folder's BERT, which a transformers from 5 on can run."""
    from transformers import BertConfig

    module = importlib.import_module("MMSA.models.singleTask.BERT_MAG")
    whole = module.MAG_BertForSequenceClassification

    def begun(_, args, num_labels):
        return whole(BertConfig.from_pretrained(bert, num_labels=num_labels, attn_implementation="sdpa"), args)

    def additive(_, mask, *__):
        return (1 - mask[:, None, None]) * torch.finfo(mask.dtype).min

    for part in (whole, module.MAG_BertModel):  # for good, as they are called in every epoch
        part.init_weights, part.get_head_mask = lambda self: None, lambda *_: None
        part.get_extended_attention_mask = additive
    with mock.patch.object(whole, "from_pretrained", begun):
        yield


@contextlib.contextmanager
def _unwritten() -> Iterator[None]:
    with as_on_this_machine(), mock.patch("torch.save"), mock.patch("torch.load"):
        yield
