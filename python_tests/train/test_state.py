"""Which validation is the best so far, and how many came since."""

import json
import math
import re

import pytest

from memofast.train.state import State, changes, read_trainer

SCORES = {("c", "o"): {"loss": 2.0}, ("d", "p"): {"loss": 0.5}}


def considered(*values):
    """Whether each of these values, at updates 10, 20, ..., was the best so far; and what stands afterwards."""
    state, found = State(), []
    for number, value in enumerate(values, 1):
        state.step = 10 * number
        found.append(state.consider({key: {"loss": value} for key in SCORES}, value))
    return found, state


def test_the_lowest_value_is_the_best_and_the_first_of_equals():
    found, state = considered(3.0, 2.5, 2.5, 2.75, -1.0, 0.0, 5.0)
    assert found == [True, True, False, False, True, False, False]
    assert (state.best, state.best_value, state.stale) == (50, -1.0, 2)
    assert state.scores == {key: {"loss": -1.0} for key in SCORES}


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_what_is_no_number_is_never_better_than_a_number(nothing):
    found, state = considered(4.0, nothing, 3.0, nothing)
    assert found == [True, False, True, False] and (state.best, state.stale) == (30, 1)
    found, state = considered(nothing, nothing, 9.0, 10.0)
    assert found == [True, False, True, False] and (state.best, state.best_value) == (30, 9.0)
    _, state = considered(nothing, nothing, nothing)
    assert (state.best, state.stale) == (10, 2)  # the first is kept, and patience ends such a run


def test_it_survives_a_file():
    _, state = considered(math.nan, 3.0, 4.0)
    state.loader, state.sums, state.seconds = (
        {"seed": 1, "updates": 40, "streams": []},
        [["c", "o", {"loss": 0.1}]],
        0.5,
    )
    again = State.from_json(json.loads(json.dumps(state.to_json() | {"environment": {}})))
    assert again == state and again.scores == state.scores


PLACE = {"seed": 1, "updates": 40, "streams": [{"stream": "c", "samples": "ab", "epoch": 0, "next": 3}]}
SUMS = [["c", "o", {"loss": 0.5, "targets": 2}]]
SAVED = State(step=40, loader=PLACE, sums=SUMS, best=30, best_value=math.inf).to_json()
SAVED |= {"environment": {"torch": "2.9", "threads": 3}, "recipe": {"train": {"lr": 0.5}}}


def test_what_is_saved_is_read_again(tmp_path):
    path = tmp_path / "trainer.json"
    path.write_text(json.dumps(SAVED))
    assert read_trainer(path, 40) == SAVED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": math.nan}, "step: input should be a finite number"),
        ({"step": -1}, "step: input should be greater than or equal to 1"),
        ({"step": 41}, "it is of update 41"),
        ({"step": True}, "step: is neither true nor false"),
        ({"stale": 1e40}, "stale"),
        ({"loader": None}, "loader: must be a mapping"),
        ({"loader": {}}, "loader.seed: is missing"),
        ({"loader": {"seed": 1, "updates": 39, "streams": []}}, "it is of update"),
        ({"seconds": math.inf}, "seconds"),
        ({"sums": [["c", "o", {"loss": 1}]]}, "sums without targets"),
        ({"sums": 5}, "sums: must be a list"),
        ({"best_scores": [["c"]]}, "best_scores.0.1: is missing"),
        ({"best": -1}, "best"),
        ({"best_value": "x"}, "best_value"),
        ({"environment": 3}, "environment"),
        ({"recipe": [1]}, "recipe"),
        ({"more": 1}, "unknown key more"),
    ],
)
def test_a_damaged_state_is_said_to_be_so(tmp_path, change, message):
    path = tmp_path / "trainer.json"
    path.write_text(json.dumps(SAVED | change))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_trainer(path, 40)
    assert "\n" not in str(error.value)


def test_every_entry_that_changed_is_named():
    before = {
        "train": {"lr": 0.5, "betas": [0.9, 0.8], "log_every": 3, "groups": {}},
        "objectives": {"a": {"share": 2}},
    }
    now = {
        "train": {"lr": 0.25, "betas": [0.9, 0.7], "log_every": 4, "groups": {"x": {"lr": 2}}},
        "objectives": {"b": {}},
    }
    assert changes(before, before) == []
    assert changes(before, now) == [
        "train.lr was 0.5, is 0.25",
        "train.betas.1 was 0.8, is 0.7",
        "train.groups was {}, is not given",
        "objectives.a.share was 2, is not given",
        "train.groups.x.lr was not given, is 2",
        "objectives.b was not given, is {}",
    ]
