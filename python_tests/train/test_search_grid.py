"""The grid of a search: order of its combinations, what it may not change, what a recipe becomes."""

import pytest

from memofast.errors import MemofastError
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.search_grid import settings_of, told, variants_of, winner_of, with_settings


def test_every_combination_the_last_option_first():
    found = settings_of({"train.lr": [1e-3, 1e-4], "model.hidden_size": [8, 16, 24]})
    assert [tuple(one.values()) for one in found] == [
        (1e-3, 8), (1e-3, 16), (1e-3, 24), (1e-4, 8), (1e-4, 16), (1e-4, 24),
    ]  # fmt: skip
    assert told(found[1]) == "train.lr=0.001, model.hidden_size=16"


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"folds.count": [3]}, "folds.count is not searched"),
        ({"train.seeds": [[1], [2]]}, "train.seeds is not searched"),
        ({"modalities.evaluate": [["v"]]}, "modalities.evaluate is not searched"),
        ({"protocol": ["last"]}, "protocol is not searched"),
        ({"train.lr": []}, "train.lr has no values"),
        ({"train.lr": [1, 2, 1]}, "train.lr has a value twice"),
        ({"train.lr": [*range(40)], "train.clip": [*range(26)]}, "1,040 combinations"),
    ],
)
def test_what_is_not_searched(search, message):
    with pytest.raises(MemofastError, match=message):
        settings_of(search)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([{}], "the first is the recipe as it is"),
        ([{"train.lr": 1}, {"train.lr": 2}], "the first is the recipe as it is"),
        ([{"train.lr": 1}, {}], "the first is the recipe as it is"),
        ([{}, {"train.lr": 1}, {}], "each further one changes something"),
        ([{}, {"train.seeds": [1]}], "train.seeds decides what is measured"),
        ([{}, {"folds.count": 3}], "folds.count decides what is measured"),
        ([{}, {"train.metric": "corr"}], "train.metric decides what is measured"),
    ],
)
def test_variants_change_how_it_is_learnt_alone(variants, message):
    with pytest.raises(MemofastError, match=message):
        variants_of(variants)


def test_variants_may_read_other_modalities():
    variants = [{}, {"modalities.select": ["v"], "train.lr": 1}, {"model.hidden_size": 8}]
    assert variants_of(iter(variants)) == variants and told({}) == "as set"


def test_the_best_mean_wins_and_the_first_of_equals():
    some = {"a": [0.9, None], "b": [0.25, 0.5], "c": [0.5, 0.25], "d": [0.5, 0.125], "e": []}
    assert winner_of(some, "ua") == "b" and winner_of(some, "mae") == "d"
    assert winner_of({"a": [0.9, None]}, "ua") is None


def test_a_recipe_with_settings():
    recipe = FineTuneRecipe(corpus="there", train={"lr": 3e-5, "epochs": 7})
    found = with_settings(recipe, {"train.lr": 2e-3, "modalities.train": ["v"], "modalities.features.speech": "glove"})
    assert (found.train.lr, found.train.epochs, found.modalities.train) == (2e-3, 7, ["v"])
    assert found.modalities.features == {"speech": "glove"} and recipe.train.lr == 3e-5
    with pytest.raises(MemofastError, match=r"search \(train.lrs=1\).*did you mean train.lr"):
        with_settings(recipe, {"train.lrs": 1})
    with pytest.raises(MemofastError, match=r"train\.epochs"):
        with_settings(recipe, {"train.epochs": 0})
