"""What several labels of a sample mean to a model."""

import torch

from memofast.objectives.target import CorpusTarget, Target


def test_all_labels_of_equal_share_are_meant():
    classes = ("a", "b", "c", "d")
    target = CorpusTarget(Target("multi", classes), torch.eye(4))
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
    target = CorpusTarget(Target("multi", ("x", "y")), matrix)
    assert target.wanted({"emotions": torch.full((1, 4), 0.25)}).tolist() == [[1, 1]]
