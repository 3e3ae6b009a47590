"""Numbers that no change of the code may move: integers to the bit, floats to 1e-5, as other CPUs round differently.

Reached by commands and names of packages, as modules move; `bench/same_as.py` compares far more with another checkout.
"""

import contextlib
import hashlib
import itertools
import json

import numpy as np
import pytest
import torch
from runs import losses, small_corpus, small_recipe, the_run

from memofast import finetune, pretrain
from memofast.data import Capacity, Corpus, Loader, Stream
from memofast.ops import SpanPolicy, TokenPolicy, span_mask, token_mask
from memofast.store.text_copy import fields_of, writer_like

MODEL = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
LENGTHS = [7, 0, 1, 12, 5]
KEYS = torch.tensor([-3, 2**60 + 1, 5, -(2**61) + 9, 40])
RNG = torch.tensor([2**40 + 5, 17])
SELECTED = torch.tensor([True, True, False, True, True])
# target rows of LENGTHS, and what the model reads there
WORDS = {
    "whole_word": ([4, 5, 13, 17, 21, 22], [19, 17, 43, 4, 51, 52]),
    "token": ([2, 11, 13, 16, 21], [10, 41, 4, 4, 4]),
    "emotion_word": ([2, 10, 22], [4, 40, 23]),
    "whole_word_emotion": ([14, 15, 16, 17, 21, 22], [4, 4, 4, 4, 4, 4]),
}
ROWS = {
    "span": ([0, 1, 8, 9, 11, 12, 20, 21], [5, 6, -1, -1, -1, -1, -1, -1]),
    "independent": ([0, 2, 8, 9, 11, 18, 20, 21, 22, 24], [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1]),
    "single_span": ([2, 3, 11, 12, 13, 14, 23, 24], [-1, -1, -1, -1, -1, -1, -1, -1]),
    "mixed": (
        [0, 2, 3, 8, 9, 10, 11, 12, 14, 16, 18, 20, 21, 22, 24],
        [5, 3, 6, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1],
    ),
}
# masks of eighty updates
MANY = {
    "whole_word": "e7a78314354754bb",
    "token": "9d9d6397b1c2ddc5",
    "emotion_word": "7934b0d73e061fe5",
    "whole_word_emotion": "202b65e6e9113f23",
    "span": "09113a66c413fb0a",
    "independent": "8618b9f769bbd868",
    "single_span": "d20d980dcb096d74",
    "mixed": "57e2f50ffd894c04",
}
# of the micro-batches of three updates: stream and numbers of its clips
ORDERS = {
    "update": [
        ("two", [17, 27, 32]),
        ("two", [2, 22, 42]),
        ("two", [47, 12, 37, 7]),
        ("two", [27, 22, 12]),
        ("one", [12, 29, 0, 18, 27]),
        ("one", [33, 24, 6, 1]),
    ],
    "sample": [
        ("two", [17, 27, 32]),
        ("one", [12, 29, 0, 18, 27]),
        ("two", [2, 22, 42]),
        ("one", [33, 24, 6, 1]),
        ("one", [17, 8, 40]),
        ("one", [42, 23]),
    ],
}
DIGESTS = {
    "text": "106daa325b6655bb99422ff0ecd318e00a7044d3ca2d1a014a7c6f9f8d3ed427",
    "visual": "4c0801580aebca8efe578f7ac7aed749efdc83c3838682c3975d899b1b304a02",
    "speech": "7a887fe58196eb00fe7495e17944a78c5f41640e8ad0bdf3b8a8ecbc04e60967",
}
TEXT_OF_VERSION_2 = "a72f99e3896da50811351a1667c0e745f90286fc92f0ecf67a9bf4d82758519e"
# update, objective, targets, loss, gradient norm
PRETRAINING = {
    "update": [
        (1, "whole_word_mlm", 14, 4.7985601, 2.4976797),
        (2, "span_speech_regression", 73, 2.4327776, 3.9251797),
        (3, "whole_word_mlm", 15, 4.8417969, 2.4025102),
    ],
    "sample": [
        (1, "span_speech_regression", 15, 2.5504347, 2.0625522),
        (1, "span_visual_emotion", 12, 0.065592663, 2.0625522),
        (1, "span_visual_regression", 3, 2.5912991, 2.0625522),
        (1, "whole_word_mlm", 15, 4.8304751, 2.0625522),
        (2, "span_speech_regression", 9, 2.9872191, 2.0874245),
        (2, "span_visual_emotion", 10, 0.077917513, 2.0874245),
        (2, "span_visual_regression", 4, 2.7745795, 2.0874245),
        (2, "whole_word_mlm", 5, 4.7754805, 2.0874245),
        (3, "span_speech_regression", 6, 2.4951865, 1.7975467),
        (3, "span_visual_emotion", 10, 0.09360978, 1.7975467),
        (3, "span_visual_regression", 25, 2.5635809, 1.7975467),
        (3, "whole_word_mlm", 4, 4.8890111, 1.7975467),
    ],
}
FINE_TUNING = (21, 145, 2.1783835, 0.23809524)  # updates, targets, mean loss over these, UA on validation
TRUTH = [4, 5, 6, 4, 4, 1, 2, 6]
# class probabilities of the first and the sixth test clip
ANSWERS = {
    "l": [
        [0.17235053, 0.17196189, 0.14952776, 0.14696988, 0.059038021, 0.099480711, 0.14317374, 0.057497561],
        [0.17240453, 0.17216985, 0.14953439, 0.14690456, 0.05898121, 0.099491894, 0.14303365, 0.05747984],
    ],
    "va": [
        [0.17170323, 0.1683515, 0.14770123, 0.14838868, 0.059942175, 0.099651895, 0.14624885, 0.058012381],
        [0.17274614, 0.17422935, 0.15058862, 0.14609404, 0.058478825, 0.099407226, 0.14125462, 0.057201199],
    ],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("demo"))


def offsets():
    return torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)


def masked_words(kind, backend, rng=RNG):
    ids = torch.arange(30, 30 + sum(LENGTHS) + 2, dtype=torch.int32)
    sentence, short = [-1, 0, 1, 1, 2, 3, 4, 4, 4, 5, 6, -1], [-1, 0, 0, 1, -1]
    words = torch.tensor([-1, 0, 0, 1, 2, 2, -1, -1, *sentence, *short, -1, -1], dtype=torch.int32)
    emotion = torch.where(torch.arange(len(ids)) % 4 == 2, 3, -1).int()
    policy = TokenPolicy(kind, (1, 3), (3, 5), mask_id=4, random_low=5, random_high=24)
    options = {"site": 151, "emotion": emotion, "selected": SELECTED, "backend": backend}
    return token_mask(ids, words, offsets(), KEYS, rng, policy, **options)


def masked_rows(kind, backend, rng=RNG):
    policy = SpanPolicy(kind, (2, 5), 2, dice=kind in ("span", "mixed"))
    options = {"rows": sum(LENGTHS) + 2, "site": 3, "selected": SELECTED, "backend": backend}
    return span_mask(offsets(), KEYS, rng, policy, **options)


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_masked_words(kind, backend):
    masked = masked_words(kind, backend)
    assert (masked.indices.tolist(), masked.token_ids[masked.indices.long()].tolist()) == WORDS[kind]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_masked_rows(kind, backend):
    masked = masked_rows(kind, backend)
    assert (masked.indices.tolist(), masked.source[masked.indices.long()].tolist()) == ROWS[kind]


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_masks_of_many_updates(kind, backend):
    """One update has too few targets to notice a bound that moved."""
    digest = hashlib.blake2b(digest_size=8)
    for update in range(80):
        rng = torch.tensor([77, update])
        masked = masked_words(kind, backend, rng) if kind in WORDS else masked_rows(kind, backend, rng)
        digest.update(masked[0].numpy().astype("<i4").tobytes() + masked.indices.numpy().astype("<i4").tobytes())
    assert digest.hexdigest() == MANY[kind]


@pytest.mark.parametrize("mixing", ORDERS)
def test_order_of_streams(corpus, mixing):
    split = Corpus.open(corpus).split("train")
    streams = [Stream(split, 2.0, "one"), Stream(split, 1.0, "two", eligible=np.arange(len(split)) % 5 == 2)]
    capacity = Capacity(samples=5, text=60, visual=150, speech=140)
    loader = iter(Loader(streams, capacity=capacity, seed=2**33 + 7, micro_batches=2, mixing=mixing))
    found = [
        (m.objective, [int(id.removeprefix("train-")) for id in m.batch.ids])
        for update in itertools.islice(loader, 3)
        for m in update.micro_batches
    ]
    loader.close()
    assert found == ORDERS[mixing]


def test_digests_of_the_demo(corpus):
    stores = {name: json.loads((corpus / name / "meta.json").read_text())["digest"] for name in DIGESTS}
    assert stores == DIGESTS


def test_version_3_of_the_demo_added_columns_alone(corpus, tmp_path):
    text = Corpus.open(corpus).stores["text"]
    with writer_like(text, tmp_path, emotions=(), labeller=None, with_parts_of_speech=False) as writer:
        for id in text.ids:
            kept = fields_of(text, id) | {"emotions": None}
            writer.put(
                id, **{name: value for name, value in kept.items() if name not in ("part_of_speech", "polarity")}
            )
    assert json.loads((tmp_path / "meta.json").read_text())["digest"] == TEXT_OF_VERSION_2


@pytest.fixture(scope="module")
def run_of(corpus, tmp_path_factory):
    """The run of three updates in one mixing, made once."""
    made = {}

    def run(mixing):
        if mixing not in made:
            folder = tmp_path_factory.mktemp(mixing)
            train = {
                "mixing": mixing, "updates": 3, "log_every": 1, "samples": 7, "accumulate": 2, "precision": "fp32",
                "device": "cpu", "threads": 1, "clip": 1.0, "seed": 3,
            }  # fmt: skip
            model = {**MODEL, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
            recipe = small_recipe(folder, corpus, train=train, model=model, validate={"every": 3})
            with contextlib.chdir(folder):
                pretrain.main([str(recipe)])
            made[mixing] = the_run(folder)
        return made[mixing]

    return run


@pytest.mark.parametrize("mixing", PRETRAINING)
def test_pretraining(run_of, mixing):
    found = [
        (entry["step"], entry["objective"], entry["targets"], entry["loss"], entry["grad_norm"])
        for entry in losses(run_of(mixing))
        if entry["split"] == "train"
    ]
    assert [entry[:3] for entry in found] == [entry[:3] for entry in PRETRAINING[mixing]]
    for entry, wanted in zip(found, PRETRAINING[mixing], strict=True):
        assert entry[3:] == pytest.approx(wanted[3:], rel=1e-5)


def test_fine_tuning(run_of, corpus, tmp_path):
    options = [
        "train.epochs=1", "train.samples=7", "train.lr=1e-2", "train.validations=1", "train.class_weights=balanced",
        "train.hide=0.3", "train.hide_columns=0.2", "modalities.train=[l,va,lva]", "modalities.evaluate=[l,va]",
        "train.precision=fp32", "train.device=cpu", "train.threads=1", "baselines=false",
    ]  # fmt: skip
    with contextlib.chdir(tmp_path):
        finetune.main(["finetune", f"corpus={corpus}", f"model.init={run_of('sample')}", *options])
    (log,) = the_run(tmp_path).rglob("metrics.jsonl")
    training, validation = map(json.loads, log.read_text().splitlines())
    assert (training["step"], training["targets"]) == FINE_TUNING[:2]
    assert training["loss"] == pytest.approx(FINE_TUNING[2], rel=1e-5)
    assert validation["ua"] == pytest.approx(FINE_TUNING[3], rel=1e-5)
    for condition, wanted in ANSWERS.items():
        with np.load(log.parent / "answers" / f"test-{condition}.npz") as answers:
            assert answers["ids"].tolist() == [f"test-{number:05}" for number in range(8)]
            assert answers["truth"].tolist() == TRUTH
            np.testing.assert_allclose(answers["scores"][[0, 5]], wanted, rtol=1e-5)
