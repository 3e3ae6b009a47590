import torch

from memofast import objectives
from memofast.objectives import LossSum
from memofast.train.tally import Sums, Tally, means

BUILT = objectives.build({"whole_word_mlm": {}, "span_visual_regression": {}})


def test_means_over_targets():
    tally = Tally([("a", "whole_word_mlm"), ("a", "span_visual_regression")], BUILT, torch.device("cpu"))
    for total, count, right in ((6.0, 3, 1), (4.0, 2, 2)):
        tally.add("a", {"whole_word_mlm": LossSum(torch.tensor(total), count, {"accuracy": torch.tensor(right)})})
    tally.add("a", {"span_visual_regression": LossSum(torch.tensor(0.0), 0)})
    assert tally.sums() == {("a", "whole_word_mlm"): {"loss": 10.0, "targets": 5.0, "accuracy": 3.0}}
    assert means(tally.sums()) == {("a", "whole_word_mlm"): {"loss": 2.0, "targets": 5, "accuracy": 0.6}}


def test_unweighted_accuracy_is_the_mean_recall_of_the_classes_there_are():
    built = objectives.build({"utterance_emotion": {"targets": "label"}}, None, {"label": ("a.b", "c", "d")})
    tally = Tally([("x", "utterance_emotion")], built, torch.device("cpu"))
    for right, there in (((1, 0, 0), (2, 3, 0)), ((2, 1, 0), (2, 1, 0))):
        found = {f"recall.{name}": torch.tensor(count) for name, count in zip(("a.b", "c", "d"), right, strict=True)}
        found |= {f"targets.{name}": torch.tensor(count) for name, count in zip(("a.b", "c", "d"), there, strict=True)}
        loss = LossSum(torch.tensor(1.0), sum(there), {"accuracy": torch.tensor(sum(right)), **found})
        tally.add("x", {"utterance_emotion": loss})
    (values,) = means(tally.sums()).values()
    assert values["recall.a.b"] == 3 / 4 and values["recall.c"] == 1 / 4 and "recall.d" not in values
    assert values["ua"] == 1 / 2 and values["accuracy"] == 4 / 8 and values["targets.c"] == 4


def test_sums_survive_a_checkpoint():
    sums = Sums()
    sums.add({("a", "x"): {"loss": 0.1, "targets": 2.0}})
    resumed = Sums(sums.state())
    for one in (sums, resumed):
        one.add({("a", "x"): {"loss": 0.7, "targets": 1.0}})
    assert sums.take() == resumed.take() and sums.take() == {}


def test_a_mean_weighs_each_target_alike_however_updates_share_them_out():
    sums = Sums()
    for loss, targets in ((3.0, 1.0), (10.0, 9.0), (5.0, 2.0)):  # means 3, 10/9 and 5/2
        sums.add({("a", "x"): {"loss": loss, "targets": targets}, ("b", "x"): {"loss": 1.0, "targets": 4.0}})
    sums.add({("c", "x"): {"loss": 3.0, "targets": 1.0}})
    taken = sums.take()
    assert taken.pop(("c", "x")) == {"loss": 3.0, "targets": 1}
    assert taken == {("a", "x"): {"loss": 1.5, "targets": 12}, ("b", "x"): {"loss": 0.25, "targets": 12}}
