"""The emotion of the utterance: whose is asked, what is wanted, the loss, and the guess beside it."""

import math

import numpy as np
import pytest
import torch
from packed_batches import random_batch, small_config

from memofast import objectives
from memofast.data import Facts, write_corpus
from memofast.errors import MemofastError
from memofast.objectives import Statistics
from memofast.store import TextWriter
from memofast.train.plan import make_plan
from memofast.train.recipe import read

RNG = torch.tensor([5, 17])
NAMES = {"emotions": ("neutral", "happy", "sad"), "label": ("a", "b")}
EMOTIONS = [(0.5, 0.25, 0.25), (0.0, 0.0, 0.0), (0.1, 0.85, 0.05), (0.9, 0.1, 0.0), (0.3, 0.3, 0.4)]


def built(classes=NAMES, **options):
    return objectives.build({"utterance_emotion": options}, None, classes)["utterance_emotion"]


def batch_of(lengths=((5, 3, 4), (3, 2, 1), (4, 0, 0), (1, 2, 0), (6, 1, 2)), **targets):
    batch = random_batch(small_config(), list(lengths))
    batch.targets |= targets or {"emotions": torch.tensor(EMOTIONS)}
    return batch


def served(batch, **options):
    return objectives.views_for(batch, built(**options), RNG)[0].reads["utterance_emotion"].labels.tolist()


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ({}, [0, 2, 3, 4]),
        ({"at_least": 0.4}, [0, 2, 3, 4]),
        ({"at_least": 0.41, "targets": "hard"}, [0, 2, 3]),
        ({"at_least": 0.4, "neutral_at_least": 0.8}, [2, 3, 4]),
        ({"neutral_at_least": 0.95}, [2, 4]),
    ],
)
def test_who_is_sure_enough_is_served(options, samples):
    assert served(batch_of(), **options) == samples


def test_a_sample_without_label_or_rows_is_not_served():
    batch = batch_of([(5, 3, 4), (1, 0, 0), (2, 0, 0)], label=torch.tensor([-1, 1, 0]))
    assert served(batch, targets="label") == [2]
    with pytest.raises(MemofastError, match="objective utterance_emotion: the corpus has no emotions"):
        served(batch)
    assert not built().eligible(Facts.of_batch(batch)).any()


def test_where_it_reads_and_through_what():
    batch = batch_of()
    (view,) = objectives.views_for(batch, built(), RNG)
    assert view.reads["utterance_emotion"].rows.tolist() == [int(batch.offsets[sample]) for sample in (0, 2, 3, 4)]
    assert view.token_ids is None and not view.sources
    assert {name: head.outputs for name, head in built().heads.items()} == {"utterance_emotions": 3}
    assert {name: head.outputs for name, head in built(targets="label").heads.items()} == {"utterance_label": 2}


SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.5, -3.0], [1.0, 1.0, -2.0]])


def softmax(values):
    whole = sum(map(math.exp, values))
    return [math.exp(value) / whole for value in values]


def by_hand(wanted, temperature=1.0):
    pairs = [(p, q) for row, s in zip(wanted, SCORES.tolist(), strict=True)
             for p, q in zip(row, softmax([v / temperature for v in s]), strict=True)]  # fmt: skip
    return sum(p * math.log(p / q) for p, q in pairs if p)


def loss_of(wanted, **options):
    objective, batch = built(**options), batch_of([(3, 2, 0)] * 3, **wanted)
    (view,) = objectives.views_for(batch, objective, RNG)
    return objective.loss([SCORES], [view])


def test_the_losses_by_hand():
    emotions = [(0.5, 0.25, 0.25), (0.0, 0.4, 0.6), (0.2, 0.5, 0.3)]
    given = {"emotions": torch.tensor(emotions)}
    soft = loss_of(given)
    assert float(soft.total) == pytest.approx(by_hand(emotions) / 3, rel=1e-5) and soft.count == 3
    assert float(soft.metrics["accuracy"]) == 1  # of equal scores the first is named
    hard = loss_of(given, targets="hard")
    likeliest = [0, 2, 1]
    entropies = [-math.log(softmax(row)[named]) for row, named in zip(SCORES.tolist(), likeliest, strict=True)]
    assert float(hard.total) == pytest.approx(sum(entropies), rel=1e-5)
    logits = [(1.0, -2.0, 0.25), (3.0, 3.5, -1.0), (0.0, 0.5, 0.75)]
    given = {"emotions": torch.tensor([softmax(row) for row in logits])}
    for options, temperature in (({}, 2.0), ({"temperature": 0.7}, 0.7)):
        wanted = [softmax([value / temperature for value in row]) for row in logits]
        found = float(loss_of(given, targets="logits", **options).total)
        assert found == pytest.approx(by_hand(wanted, temperature) / 3, rel=1e-5)
    own = loss_of({"label": torch.tensor([2, 1, 0])}, targets="label", classes={"label": "abc"})
    assert float(own.total) == pytest.approx(-sum(math.log(softmax(SCORES[row].tolist())[2 - row]) for row in range(3)))
    assert float(own.metrics["accuracy"]) == 2
    told = [[float(own.metrics[f"{kind}.{name}"]) for name in "abc"] for kind in ("recall", "targets")]
    assert told == [[float(SCORES[2 - k].argmax() == k) for k in range(3)], [1, 1, 1]] and sum(told[0]) == 2


@pytest.mark.parametrize("options", [{}, {"targets": "hard"}, {"targets": "logits"}, {"at_least": 0.5}], ids=str)
def test_no_other_constant_beats_the_trivial_predictor_on_its_training_data(options):
    emotions = torch.tensor([(0.6, 0.3, 0.1), (0.1, 0.0, 0.9), (0.2, 0.5, 0.3), (0.4, 0.2, 0.4), (0, 0, 0)])
    batch, objective = batch_of([(3, 2, 0)] * 5, emotions=emotions), built(**options)
    views, statistics = objectives.views_for(batch, objective, RNG), Statistics(200, {})
    statistics.add(batch)
    best, count = objective.trivial(statistics, views), views[0].counts["utterance_emotion"]
    assert best.count == count == (3 if "at_least" in options else 4)
    for nudge in ((0.3, 0, 0), (0, -0.3, 0), (0, 0, 0.3), (0.2, 0, -0.2)):
        wanted = objective._wanted(statistics.target("emotions")[: count + 1 if "at_least" in options else 4])
        wanted = wanted[[0, 1, 2]] if "at_least" in options else wanted
        logs = wanted.sum(0).clamp(min=1e-6).log() * objective.temperature + torch.tensor(nudge)
        assert float(objective.loss([logs.expand(count, -1)], views).total) > float(best.total)
    even = objective.trivial(Statistics(200, {}), views)
    assert float(even.total) == pytest.approx(float(objective.loss([torch.zeros(count, 3)], views).total), rel=1e-5)


def emotional_corpus(folder, name, emotions, classes=NAMES["emotions"]):
    folder = folder / name
    with TextWriter(folder / "text", cls_id=2, sep_id=3, emotions=classes) as text:
        for number, own in enumerate(emotions):
            text.put(f"s{number}", [9] * (number % 3 + 1), [*range(number % 3 + 1)], emotions=own)
    splits = {"train": [f"s{number}" for number in range(4)], "validation": ["s4", "s5"]}
    return write_corpus(folder, name, {"text": folder / "text"}, splits)


KNOWN = [(0.5, 0.25, 0.25), None, (0.1, 0.85, 0.05), (0.2, 0.4, 0.4), (0.9, 0.1, 0.0), (0.3, 0.3, 0.4)]


def test_before_packing_and_after_and_read_once(tmp_path, monkeypatch):
    split = emotional_corpus(tmp_path, "felt", KNOWN).split("train")
    objective = built(at_least=0.4)  # which is not quite what it is in float32
    able = objective.eligible(split.facts)
    assert able.tolist() == [True, False, True, True]
    order = np.array([3, 0, 1])
    np.testing.assert_array_equal(objective.eligible(Facts.of_batch(split.pack(order))), able[order])
    monkeypatch.setattr(type(split), "pack", None)  # so that reading once more would fail
    assert objective.eligible(split.facts).tolist() == able.tolist()
    assert split.facts.classes_of("emotions").tolist() == [0, -1, 1, 1]


TINY = ["model.hidden_size=32", "model.num_attention_heads=1", "model.num_hidden_layers=1"]


def plan(corpora, options="{}"):
    entries = ", ".join(f"{{path: {corpus.path}}}" for corpus in corpora)
    asked = [f"corpora=[{entries}]", f"objectives={{utterance_emotion: {options}}}", *TINY]
    return make_plan(read("demo", asked))


def test_a_plan_takes_the_classes_of_its_corpora(tmp_path):
    one, two = emotional_corpus(tmp_path, "one", KNOWN), emotional_corpus(tmp_path, "two", KNOWN)
    assert plan([one, two]).config.every_head["utterance_emotions"].outputs == 3
    with pytest.raises(MemofastError, match=r"objectives\.utterance_emotion: no corpus has label; prepare one"):
        plan([one], "{targets: label}")
    other = emotional_corpus(tmp_path, "other", [own and own[::-1] for own in KNOWN], ("sad", "happy", "neutral"))
    with pytest.raises(MemofastError, match=r"emotions are of the classes neutral, happy, sad in .*one and sad, happy"):
        plan([one, other])
    with pytest.raises(MemofastError, match=r"no corpus can serve it, none has emotions and a largest one of 0\.99"):
        plan([one], "{at_least: 0.99}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 2}, "temperature has no effect with targets soft"),
        ({"targets": "label", "at_least": 0.4}, "at_least and neutral_at_least have no effect with targets label"),
        ({"targets": "both"}, "targets: "),
        ({"at_least": 1.5}, "at_least: input should be less than or equal to 1"),
        ({"neutral_at_least": 0.8, "classes": {"emotions": "ab"}}, "neutral_at_least: the corpora have no emotion"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(MemofastError, match=message) as error:
        built(**options)
    assert "\n" not in str(error.value)
