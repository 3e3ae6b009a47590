"""What the labels of a sample mean to a model, one or several, and the loss of its answers."""

import numpy as np
import torch
import torch.nn.functional as F

from memofast.data import write_corpus
from memofast.objectives.target import CorpusTarget, Target, target_loss
from memofast.store import TextWriter


def test_all_labels_of_equal_share_are_meant():
    classes = ("a", "b", "c", "d")
    target = CorpusTarget(Target("multi", classes), "emotions", torch.eye(4))
    shares = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3], [0, 0, 0, 0], [0.7, 0.3, 0, 0]])
    assert target.wanted({"emotions": shares}).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 1],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]


def test_labels_that_a_map_joins_do_not_hide_the_others():
    matrix = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    target = CorpusTarget(Target("multi", ("x", "y")), "emotions", matrix)
    assert target.wanted({"emotions": torch.full((1, 4), 0.25)}).tolist() == [[1, 1]]


def test_a_sample_s_own_label_goes_before_its_pseudo_labels(tmp_path):
    with TextWriter(tmp_path / "text", classes=("a", "b"), emotions=("x", "y")) as text:
        text.put("one", [7], [0], label=1, emotions=np.array([0.9, 0.1], np.float32))
    corpus = write_corpus(tmp_path, "c", {"text": tmp_path / "text"}, {"train": ["one"]})
    batch = corpus.split("train").pack([0])
    single, several = Target.of_corpus(corpus), Target.of_corpus(corpus, "multi")
    assert single.classes == ("a", "b") and single.within(corpus).wanted(batch.targets).tolist() == [[0, 1]]
    assert several.classes == ("x", "y") and several.within(corpus).wanted(batch.targets).tolist() == [[1, 0]]


def test_soft_labels_are_unknown_where_half_has_no_class():
    target = CorpusTarget(Target("single", ("x", "y")), "emotions", torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    shares = torch.tensor([[0.6, 0.2, 0.2], [0.3, 0.2, 0.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(target.wanted({"emotions": shares}), torch.tensor([[0.75, 0.25], [0, 0], [0, 0]]))
    assert target.truth({"emotions": shares}).tolist() == [0, -1, -1]


def test_losses_of_several_labels_and_of_values_are_torch_s():
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = (outputs.roll(1, 0) > 0).float()
    loss = target_loss("multi", outputs, wanted, torch.tensor([1.0, 2.0, 0.5]))
    expected = F.binary_cross_entropy_with_logits(outputs, wanted, torch.tensor([1.0, 2.0, 0.5]), reduction="none")
    torch.testing.assert_close(loss.total, expected.mean(1).sum())
    values = torch.tensor([[1.0], [float("nan")], [-2.0]])
    loss = target_loss("regression", torch.tensor([[0.5], [9.0], [-2.5]]), values)
    assert loss.count == 2 and float(loss.total) == 1.0
