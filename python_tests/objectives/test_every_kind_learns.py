"""That every kind of objective learns on the demo corpus: its loss on held-out samples is at most .95 of its trivial
predictor's, with two seeds.

Objectives whose samples are disjoint share a run of the recipe `demo`; those that need other sizes have their own, and
so has a kind that stands in no run yet. `MEMOFAST_CAMPAIGN=1 pytest python_tests/objectives/test_every_kind_learns.py
-rP` prints the ratios.
"""

import json
from typing import Any, NamedTuple

import pytest
from runs import here, losses, the_run

from memofast.data.demo import demo_corpus
from memofast.objectives import KINDS

WANTED = 0.95
SEEDS = (7, 8)
DECODER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
NAMED = {"template": "i feel [MASK] .", "words": {"neutral": "calm", "fear": "afraid", "contempt": "smug"}}
# what a kind needs to be told of the demo
NEEDED = {
    "lare": {"sentence_classes": 8}, "label_prompt": NAMED, "sentence_prompt": {**NAMED, "negatives": "1/2"},
}  # fmt: skip
SMALL = ("model.hidden_size=64", "model.num_hidden_layers=1", "model.intermediate_size=64", "train.lr=3e-3")
# matching asks for products of words' and faces' emotions: weights begin large enough for them, and decay fast enough
# that 1,600 clips are not learned by heart first
PRODUCTS = (
    *SMALL, "model.initializer_range=0.15", "model.hidden_dropout_prob=0", "train.samples=64", "train.weight_decay=1",
)  # fmt: skip


class Learned(NamedTuple):
    """Objectives by name with their options, trained together for so many updates."""

    objectives: dict[str, dict[str, Any]]
    updates: int
    options: tuple[str, ...] = ()


def of(kind: str, **variants: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The kind itself and further ones of it by name."""
    needed = NEEDED.get(kind, {})
    return {kind: needed} | {f"{kind}-{name}": {"kind": kind, **needed, **one} for name, one in variants.items()}


RUNS = {
    "words": Learned(
        of(
            "whole_word_mlm", token={"policy": "token", "probability": 0.3}, emotion_word={"policy": "emotion_word"},
            classes={"policy": "whole_word_emotion", "emotion_rate": 1, "emotion_classes": 7},
        )
        | of("lare", original={"original": True}, emotions={"sentence": "emotions"}),
        300,
    ),
    "rows": Learned(
        of("span_visual_regression", mixed={"policy": "mixed"}, cosine={"loss": "cosine"}, l1={"loss": "l1"})
        | of("span_speech_regression", independent={"policy": "independent"}, single={"policy": "single_span"})
        | of("span_visual_emotion", independent={"policy": "independent"})
        | of("emotional_visual_regression") | of("emotional_visual_emotion"),
        300,
    ),
    "pooled": Learned(
        of(
            "utterance_emotion", hard={"targets": "hard"}, logits={"targets": "logits"}, label={"targets": "label"},
            sure={"at_least": 0.4, "neutral_at_least": 0.8},
        )
        | of("label_prompt", faces={"shows": ["visual"]}, after={"position": "after", "restricted": True}),
        500,
    ),
    "visual_order": Learned(of("visual_order"), 400, SMALL),
    "speech_order": Learned(of("speech_order"), 500, SMALL),
    "original order": Learned(
        {f"{kind}-original": {"kind": kind, "original": True} for kind in ("visual_order", "speech_order")}, 400, SMALL,
    ),
    "matching": Learned(of("matching"), 500, PRODUCTS),
    "masked_autoencoder": Learned({"masked_autoencoder": {"decoder": DECODER}}, 300),
    "view_contrast": Learned(of("view_contrast"), 30),
    "tuple_contrast": Learned(of("tuple_contrast"), 60),
}  # fmt: skip
_KINDS_THERE = {options.get("kind", name) for run in RUNS.values() for name, options in run.objectives.items()}
SIZES = {"sentence_prompt": PRODUCTS}
RUNS |= {kind: Learned(of(kind), 500, SIZES.get(kind, ())) for kind in KINDS if kind not in _KINDS_THERE}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return demo_corpus(tmp_path_factory.mktemp("demo") / "corpus")


@pytest.fixture(scope="module")
def raw_corpus(tmp_path_factory):
    return demo_corpus(tmp_path_factory.mktemp("raw") / "corpus", raw=True)


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("run", RUNS)
def test_it_beats_its_trivial_predictor(corpus, tmp_path, run, seed):
    objectives, updates, options = RUNS[run]
    ended = here(
        tmp_path, "pretrain", "demo", f"corpora.0.path={corpus}", *options, f"train.seed={seed}",
        f"objectives={json.dumps(objectives)}", f"train.updates={updates}", f"train.save_every={updates}",
        f"validate.every={updates}", "train.device=cpu",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert check_ratios(the_run(tmp_path), seed) == objectives.keys()


def check_ratios(run, seed):
    """Objectives that were validated, all of which came below their trivial predictors."""
    told = [entry for entry in losses(run) if entry["split"] == "validation"]
    ratios = {entry["objective"]: entry["loss"] / entry["trivial"] for entry in told}  # later ones go over earlier ones
    for name, ratio in ratios.items():
        print(f"{name} | {told[-1]['step']} updates | seed {seed} | {ratio:.3f}")
    assert all(ratio <= WANTED for ratio in ratios.values()), ratios
    return ratios.keys()


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("recipe", ["demo-joint"])
def test_so_does_a_recipe_of_raw_rows(raw_corpus, tmp_path, recipe, seed):
    ended = here(tmp_path, "pretrain", recipe, f"corpora.0.path={raw_corpus}", f"train.seed={seed}", "train.device=cpu")
    assert ended.returncode == 0, ended.stderr
    assert len(check_ratios(the_run(tmp_path), seed)) > 1
