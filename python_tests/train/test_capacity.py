"""How much room a training batch gets: what is usual, rather than what is possible."""

import numpy as np
import pytest
from runs import first_updates, small_corpus, small_recipe

from memofast.data import epoch
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("capacity"))


def plan_for(folder, corpus, **train):
    return make_plan(read(str(small_recipe(folder, corpus, train=train))))


@pytest.mark.parametrize("mixing", ["update", "sample"])
def test_usual_batches_fit_and_little_stays_empty(corpus, tmp_path, mixing):
    plan = plan_for(tmp_path, corpus, samples=24, mixing=mixing)
    lengths = plan.parts[0].train.lengths
    padded = 24 * lengths.max(0)
    room = np.array((plan.capacity.text, plan.capacity.visual, plan.capacity.speech))
    assert (room <= padded).all() and (room >= lengths.max(0)).all() and (room < padded).any()
    assert [update.micro_batches[0].batch.samples for update in first_updates(PreTraining(plan), 2)] == [24] * 2


def test_a_spare_row_keeps_the_rows_of_a_captured_step_round(corpus, tmp_path):
    capacity = plan_for(tmp_path, corpus, samples=32).capacity
    lengths = make_plan(read(str(small_recipe(tmp_path, corpus)))).parts[0].train.lengths
    for rows, spare, longest in ((capacity.text, 1, lengths[:, 0].max()), (capacity.visual, 0, lengths[:, 1].max())):
        assert (rows + spare) % 128 == 0 or rows == 32 * longest


def test_given_rows_are_taken(corpus, tmp_path):
    capacity = plan_for(tmp_path, corpus, samples=8, rows={"text": 77, "visual": 250}).capacity
    assert (capacity.text, capacity.visual) == (77, 250)


def test_a_batch_ends_early_rather_than_grow(corpus, tmp_path):
    plan = plan_for(tmp_path, corpus, samples=24, rows={"text": 60})
    batches = list(epoch(plan.parts[0].train, plan.capacity))
    assert sum(batch.samples for batch in batches) == len(plan.parts[0].train)
    assert max(int(batch.text_offsets[-1]) for batch in batches) <= 60 and batches[0].samples < 24
