"""Parts of folds: few-shot shares, classes that must be there, what is always said; classes of unlike sizes."""

import json
from itertools import pairwise

import numpy as np
import pytest

from memofast.data import Corpus, write_corpus
from memofast.data.folds import write_folds, write_groups
from memofast.errors import MemofastError
from memofast.objectives.label_space import LabelSpace
from memofast.store import TextWriter
from memofast.train.fine_tuning_recipe import FineTuneRecipe, FoldChoice, read
from memofast.train.fold_parts import Fold, check_classes, make_folds, share_of_classes, trivial_answers

CLASSES = ("calm", "glad", "cross", "afraid")
SIZES = (40, 7, 3, 1)  # samples of each class, and 5 without a label
SAMPLES = sum(SIZES) + 5


@pytest.fixture
def corpus(tmp_path):
    labels = [number for number, size in enumerate(SIZES) for _ in range(size)] + [None] * 5
    with TextWriter(tmp_path / "text", classes=CLASSES) as text:
        for number, label in enumerate(labels):
            text.put(f"s{number:02}", [7], [0], label=label)
    ids = [f"s{number:02}" for number in range(SAMPLES)]
    return write_corpus(tmp_path, "uneven", {"text": tmp_path / "text"}, {"train": ids})


def drawn(corpus, share, seed):
    """Samples of each class that take part, and which."""
    taken = share_of_classes(corpus.split("train"), LabelSpace.of_corpus(corpus), share, seed)
    ends = np.cumsum((0, *SIZES, 5))
    return [int(taken[begin:end].sum()) for begin, end in pairwise(ends)], taken


@pytest.mark.parametrize(
    ("share", "counts"),
    [(0.001, [1, 1, 1, 1, 0]), (0.05, [2, 1, 1, 1, 0]), (0.3, [12, 2, 1, 1, 0]), (0.99, [40, 7, 3, 1, 0])],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_class_gives_its_share_and_at_least_one(corpus, share, counts, seed):
    assert drawn(corpus, share, seed)[0] == counts


def test_larger_shares_contain_smaller_ones_of_a_seed_and_seeds_differ(corpus):
    for seed in (1, 2):
        shares = [drawn(corpus, share, seed)[1] for share in (0.01, 0.1, 0.2, 0.3, 0.5, 0.8, 0.99)]
        for smaller, larger in pairwise(shares):
            assert not (smaller & ~larger).any()
    assert (drawn(corpus, 0.3, 1)[1] != drawn(corpus, 0.3, 2)[1]).any()
    assert share_of_classes(corpus.split("train"), LabelSpace.of_corpus(corpus), 1.0, 1) is None


def test_sets_of_labels_are_drawn_as_one_class(corpus):
    taken = share_of_classes(corpus.split("train"), LabelSpace.of_corpus(corpus, "multi"), 0.25, 1)
    assert taken.sum() == SAMPLES // 4


def fold_of(corpus, **parts):
    """Parts given as numbers of samples."""
    ids = corpus.split("train").ids
    write_folds(corpus.path, "made", [{part: [ids[number] for number in chosen] for part, chosen in parts.items()}])
    recipe = FineTuneRecipe(corpus=str(corpus.path), folds=FoldChoice(scheme="made"))
    return make_folds(recipe, Corpus.open(corpus.path))[0]


def test_a_class_without_a_training_sample_is_named(corpus):
    target = LabelSpace.of_corpus(corpus)
    whole = fold_of(corpus, train=[0, 40, 47, 50], validation=[1])
    check_classes(whole, target, None)
    check_classes(whole, target, np.array([True, True, True, True]))
    for missing, name in enumerate(CLASSES):
        eligible = np.arange(4) != missing
        with pytest.raises(MemofastError, match=f"class {name} has no training sample in fold made-01"):
            check_classes(whole, target, eligible)
    check_classes(fold_of(corpus, train=[0, 40, 47, 50], validation=[55, 1]), target, None)
    with pytest.raises(MemofastError, match="no sample of the validation part of fold made-01 has a label"):
        check_classes(fold_of(corpus, train=[0, 40, 47, 50], validation=[54, 55]), target, None)
    with pytest.raises(MemofastError, match="no sample of the test part of fold made-01 has a label"):
        check_classes(fold_of(corpus, train=[0, 40, 47, 50], validation=[1], test=[52, 55]), target, None)


def test_one_class_is_nothing_to_learn(corpus):
    fold = fold_of(corpus, train=[0, 40, 47, 50], validation=[1])
    for mapping, count in ((dict.fromkeys(CLASSES, "all"), 1), (dict.fromkeys(CLASSES), 0)):
        with pytest.raises(MemofastError, match=f"has {count} classes to learn; there must be two"):
            check_classes(fold, LabelSpace.of_corpus(corpus, "single", mapping), None)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"only": [2, 1, 2]}, "fold 2 is given twice"),
        ({"only": []}, "at least 1 item"),
        ({"count": 3}, "count is of folds by a group; name it"),
        ({"scheme": "made", "by": "speaker", "count": "all"}, "two ways to choose folds"),
        ({"scheme": "made", "test": "other"}, "test chooses a split, but folds have parts of their own"),
        ({"by": "speaker", "count": 4, "validation": None}, "validation chooses a split"),
    ],
)
def test_folds_are_chosen_in_one_way(folds, message):
    with pytest.raises(ValueError, match=message):
        FoldChoice(**folds)
    with pytest.raises(MemofastError, match=message):
        read("finetune-demo", [f"folds={json.dumps(folds)}"])


def test_what_is_always_said_is_the_commonest_of_training_not_of_testing(corpus):
    fold = fold_of(corpus, train=[0, 1, 40, 41, 42, 51, 52, 53, 54], validation=[2], test=[3, 4, 5, 6])
    assert trivial_answers([fold], LabelSpace.of_corpus(corpus)) == {"made-01": "glad"}


def test_labels_of_half_of_the_samples_and_the_mean_of_known_values_are_said(tmp_path):
    labels = [(1, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1)]  # of 4: 3, 2 and 1
    values = (4.0, None, 1.0, -0.5)
    with TextWriter(tmp_path / "text", emotions=("x", "y", "z"), value="from -3 to 5") as text:
        for number, (meant, value) in enumerate(zip(labels, values, strict=True)):
            text.put(f"s{number}", [7], [0], emotions=np.array(meant, np.float32) / sum(meant), value=value)
    corpus = write_corpus(tmp_path, "c", {"text": tmp_path / "text"}, {"train": [f"s{n}" for n in range(4)]})
    fold = Fold("one", corpus.split("train"), None, None, "nothing")
    assert trivial_answers([fold], LabelSpace.of_corpus(corpus, "multi")) == {"one": ["x", "y"]}
    assert trivial_answers([fold], LabelSpace.of_corpus(corpus, "regression")) == {"one": 1.5}


def test_what_validation_lacks_is_held_out_of_training_by_whole_groups(corpus):
    ids = corpus.split("train").ids
    write_groups(corpus.path, "film", {id: f"f{number % 5}" for number, id in enumerate(ids)})
    recipe = FineTuneRecipe(corpus=str(corpus.path), folds=FoldChoice(by="film", held_out=0.3))
    (fold,) = make_folds(recipe, Corpus.open(corpus.path))
    films = [{int(id[1:]) % 5 for id in part.ids} for part in (fold.train, fold.validation)]
    assert [len(part) for part in films] == [3, 2] and not films[0] & films[1]
    assert sorted(fold.train.ids + fold.validation.ids) == ids and fold.test is None
