"""What the labels of a sample mean to a model, one or several, and the loss of its answers."""

import numpy as np
import torch
import torch.nn.functional as F

from memofast.data import write_corpus
from memofast.objectives.label_space import CorpusLabels, LabelSpace, known, label_losses
from memofast.store import TextWriter


def test_all_labels_of_equal_share_are_meant():
    classes = ("a", "b", "c", "d")
    target = CorpusLabels(LabelSpace("multi", classes), "emotions", torch.eye(4))
    shares = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3], [0.7, 0.3, 0, 0]])
    assert target.wanted({"emotions": shares}).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 0, 0]]


def test_of_several_labels_a_sample_without_any_is_unknown():
    """Whether it has none that is known, or only one that the map leaves out."""
    space = LabelSpace("multi", ("x", "y"))
    target = CorpusLabels(space, "label", torch.tensor([[0.0, 1], [0, 0], [1, 0]]))
    wanted = target.wanted({"label": torch.tensor([2, -1, 0, 1])})
    assert known("multi", wanted).tolist() == [True, False, True, False]
    assert wanted[[0, 2]].tolist() == [[1, 0], [0, 1]] and wanted[[1, 3]].isnan().all()
    outputs = torch.tensor([[1.0, -2.0]]).repeat(4, 1).requires_grad_()
    losses = label_losses("multi", outputs, wanted, smoothing=0.1)
    assert losses.tolist()[1::2] == [0, 0] and all(loss > 0 for loss in losses.tolist()[::2])
    losses.sum().backward()
    assert outputs.grad.isfinite().all() and not outputs.grad[1::2].any()


def test_a_label_of_half_the_largest_share_is_meant_and_of_less_is_not():
    target = CorpusLabels(LabelSpace("multi", ("a", "b", "c")), "emotions", torch.eye(3))
    shares = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.26, 0.24], [0.625, 0.3125, 0.0625], [0.0, 0.75, 0.25]])
    assert target.wanted({"emotions": shares}).tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [0, 1, 0]]


def test_a_soft_label_is_known_where_more_than_half_of_it_has_a_class():
    target = CorpusLabels(LabelSpace("single", ("x", "y")), "emotions", torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    shares = torch.tensor([[0.375, 0.125, 0.5], [0.375, 0.25, 0.375], [0.125, 0.5, 0.375]])
    wanted = target.wanted({"emotions": shares})
    torch.testing.assert_close(wanted, torch.tensor([[0, 0], [0.6, 0.4], [0.2, 0.8]]))
    assert target.truth({"emotions": shares}).tolist() == [-1, 0, 1]


def test_labels_that_a_map_joins_do_not_hide_the_others():
    matrix = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    target = CorpusLabels(LabelSpace("multi", ("x", "y")), "emotions", matrix)
    assert target.wanted({"emotions": torch.full((1, 4), 0.25)}).tolist() == [[1, 1]]


def test_a_sample_s_own_label_goes_before_its_pseudo_labels(tmp_path):
    with TextWriter(tmp_path / "text", classes=("a", "b"), emotions=("x", "y")) as text:
        text.put("one", [7], [0], label=1, emotions=np.array([0.9, 0.1], np.float32))
    corpus = write_corpus(tmp_path, "c", {"text": tmp_path / "text"}, {"train": ["one"]})
    batch = corpus.split("train").pack([0])
    single, several = LabelSpace.of_corpus(corpus), LabelSpace.of_corpus(corpus, "multi")
    assert single.classes == ("a", "b") and single.within(corpus).wanted(batch.targets).tolist() == [[0, 1]]
    assert several.classes == ("x", "y") and several.within(corpus).wanted(batch.targets).tolist() == [[1, 0]]


def test_soft_labels_are_unknown_where_half_has_no_class():
    target = CorpusLabels(LabelSpace("single", ("x", "y")), "emotions", torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    shares = torch.tensor([[0.6, 0.2, 0.2], [0.3, 0.2, 0.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(target.wanted({"emotions": shares}), torch.tensor([[0.75, 0.25], [0, 0], [0, 0]]))
    assert target.truth({"emotions": shares}).tolist() == [0, -1, -1]


def test_losses_of_several_labels_and_of_values_are_torch_s():
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = (outputs.roll(1, 0) > 0).float()
    losses = label_losses("multi", outputs, wanted, torch.tensor([1.0, 2.0, 0.5]))
    expected = F.binary_cross_entropy_with_logits(outputs, wanted, torch.tensor([1.0, 2.0, 0.5]), reduction="none")
    torch.testing.assert_close(losses, expected.mean(1))
    smoothed = F.binary_cross_entropy_with_logits(outputs, wanted * 0.8 + 0.1, reduction="none").mean(1)
    torch.testing.assert_close(label_losses("multi", outputs, wanted, smoothing=0.2), smoothed)
    values = torch.tensor([[1.0], [float("nan")], [-2.0]])
    outputs = torch.tensor([[0.5], [9.0], [-2.75]], requires_grad=True)
    losses = label_losses("regression", outputs, values)
    assert known("regression", values).tolist() == [True, False, True] and losses.tolist() == [0.5, 0.0, 0.75]
    losses.sum().backward()
    assert outputs.grad.tolist() == [[-1.0], [0.0], [-1.0]]
