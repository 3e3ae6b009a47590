"""Objectives from a recipe's options, and the samples they can serve."""

import numpy as np
import pytest
from packed_batches import random_batch, small_config

from memofast import objectives, ops
from memofast.data import Facts
from memofast.errors import MemofastError

PUBLISHED = ("whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression")


def test_published_objectives_have_the_published_policies():
    built = objectives.build(dict.fromkeys(PUBLISHED))
    assert list(built) == list(PUBLISHED)
    assert built["whole_word_mlm"].policy == ops.TokenPolicy()
    assert built["span_visual_regression"].policy == ops.SpanPolicy("span", (1, 5), 3)
    assert built["span_visual_emotion"].policy == ops.SpanPolicy("span", (1, 5), 3)
    assert built["span_speech_regression"].policy == ops.SpanPolicy("span", (3, 20), 3)


@pytest.mark.parametrize("ratio", [0.5, "1/2", [1, 2], "0.5"])
def test_ratios_may_be_written_in_any_usual_way(ratio):
    built = objectives.build({"span_visual_regression": {"ratio": ratio, "length": 5}})
    assert built["span_visual_regression"].policy == ops.SpanPolicy("span", (1, 2), 5)


def test_policies_are_options_and_a_kind_may_be_used_twice():
    built = objectives.build(
        {
            "token": {"kind": "whole_word_mlm", "policy": "token", "probability": 0.3},
            "whole_word_mlm": {"at_least_one": True},
            "frames": {"kind": "span_visual_regression", "policy": "independent"},
            "mixed": {"kind": "span_speech_regression", "policy": "mixed"},
            "old": {"kind": "span_visual_emotion", "dice": True, "original": True},
        }
    )
    assert built["token"].policy == ops.TokenPolicy("token", (3, 10))
    assert built["whole_word_mlm"].policy.at_least_one
    assert built["frames"].policy == ops.SpanPolicy("independent", (3, 20))
    assert built["mixed"].policy.length == 6
    assert built["old"].policy.dice
    assert len({objective.site for objective in built.values()}) == len(built)


def test_random_pieces_follow_the_models_vocabulary():
    small = objectives.build({"whole_word_mlm": {}}, small_config())["whole_word_mlm"].policy
    assert (small.mask_id, small.random_low, small.random_high) == (103, 104, 200)
    large = objectives.build({"whole_word_mlm": {}}, small_config(vocab_size=30522))["whole_word_mlm"].policy
    assert large == ops.TokenPolicy()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"span_visual_regresion": {}},
            "unknown objective 'span_visual_regresion'; did you mean span_visual_regression",
        ),
        ({"whole_word_mlm": {"probabilty": 0.1}}, "did you mean probability"),
        ({"span_visual_emotion": {"policy": "spam"}}, "policy: input should be .*'single_span' or 'mixed', got 'spam'"),
        ({"span_visual_emotion": {"ratio": "often"}}, "is no ratio"),
        ({"span_visual_emotion": {"length": 0}}, "length: input should be greater than or equal to 1, got 0"),
        ({"whole_word_mlm": {"probability": 1.5}}, "probability: must be at least 0 and at most 1, got 1.5"),
        ({"whole_word_mlm": {"probability": 0}}, "probability 0 hides no word"),
        ({"visual_order": {"probability": "-1/3"}}, "probability: must be at least 0"),
        ({"visual_order": {"probability": [3, -4]}}, "probability: must be at least 0"),
        ({"visual_order": {"probability": [1, 0]}}, "is no ratio"),
        ({"visual_order": {"probability": [1.5, 2]}}, "is no ratio"),
        ({"speech_order": {"probability": 0.0004}}, "probability: must be a ratio of integers up to 1000, got 0.0004"),
        ({"matching": {"negatives": [1, 1001]}}, "negatives: must be a ratio of integers up to 1000"),
        ({"matching": {"negatives": "1e-999999999"}}, "negatives: must be above 0"),
        ({"span_visual_emotion": {"ratio": 0}}, "ratio 0 hides nothing"),
        ({"span_visual_emotion": {"policy": "independent", "length": 5}}, "length has no effect with policy independ"),
        ({"span_visual_emotion": {"policy": "single_span", "dice": True}}, "dice has no effect with policy single"),
        ({"span_visual_emotion": {"policy": "independent", "original": True}}, "original has no effect"),
        ({"span_speech_regression": {"policy": "mixed", "ratio": 0.5}}, "ratio has no effect with policy mixed"),
        ({"span_speech_regression": {"length": True}}, "length: is neither true nor false"),
        ({"whole_word_mlm": {"emotion_probability": 0.3}}, "emotion_probability has no effect"),
        ({"whole_word_mlm": {"policy": "whole_word_emotion", "random_low": 5}}, "random_low and random_high have no"),
        ({"view_contrast": {"temperature": float("nan")}}, "temperature: input should be a finite number"),
        ({"visual_order": {"slots": 10**9}}, "slots: input should be less than or equal to 16384"),
        ({"matching": {"kind": ["matching"]}}, "unknown objective"),
    ],
)
def test_mistakes_are_one_line_that_names_the_option(options, message):
    with pytest.raises(MemofastError, match=message) as error:
        objectives.build(options)
    assert next(iter(options)) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.b", "", "a b", "a/b", "keys", "train", "x" * 101])
def test_names_that_no_module_or_log_can_have_are_refused(name):
    with pytest.raises(MemofastError, match="cannot be the name of an objective") as error:
        objectives.build({name: {"kind": "view_contrast"}})
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("option", "value", "most"), [("mask_id", 200, 199), ("random_low", 250, 199), ("random_high", 201, 200)]
)
def test_words_beyond_the_vocabulary_are_refused(option, value, most):
    words = {"whole_word_mlm": {"random_low": 3, option: most - (option == "random_low")}}
    assert getattr(objectives.build(words, small_config())["whole_word_mlm"].policy, option)
    with pytest.raises(MemofastError, match=f"{option} {value} is beyond the vocabulary of 200 words"):
        objectives.build({"whole_word_mlm": {option: value}}, small_config())


def test_samples_an_objective_cannot_serve_are_not_eligible():
    built = objectives.build(
        {**dict.fromkeys(PUBLISHED), "emotion": {"kind": "whole_word_mlm", "policy": "whole_word_emotion"}}
    )
    lengths = np.array([(7, 5, 9), (1, 4, 4), (2, 0, 3), (3, 2, 0)], dtype=np.int32)
    expected = {
        "whole_word_mlm": [True, False, False, True],
        "span_visual_regression": [True, True, False, True],
        "span_visual_emotion": [True, True, False, True],
        "span_speech_regression": [True, True, True, False],
        "emotion": [True, False, False, True],
    }

    def of_corpus(*targets):
        return Facts(lengths, frozenset(targets), lambda: np.ones(4, bool))

    batch = random_batch(small_config(), [tuple(row) for row in lengths.tolist()], lexicon=True)
    for name, wanted in expected.items():
        assert built[name].eligible(of_corpus("soft_labels", "lexicon")).tolist() == wanted
        assert built[name].eligible(Facts.of_batch(batch)).tolist() == wanted
    table = objectives.eligible(Facts.of_batch(batch), built)
    assert table.dtype == bool and table.T.tolist() == list(expected.values())
    assert not built["span_visual_emotion"].eligible(of_corpus("lexicon")).any()
    assert not built["emotion"].eligible(of_corpus("soft_labels")).any()
    batch.targets["soft_labels"][6] = 0  # second sample: one face without a label
    assert built["span_visual_emotion"].eligible(Facts.of_batch(batch)).tolist() == [True, False, False, True]
    del batch.targets["soft_labels"]
    assert not built["span_visual_emotion"].eligible(Facts.of_batch(batch)).any()
