"""Which validation is the best so far, and how many came since."""

import json
import math

import pytest

from memofast.train.state import State

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
