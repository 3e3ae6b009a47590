"""The loop of inference: bounded batches that depend on lengths alone, samples named that have no finite result."""

import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.inference.loop import RowResults, run_over
from memofast.inference.samples import Sample, SampleList

LENGTHS = (3, 9, 2, 6, 5, 12, 2)


def sample(number: int, rows: int) -> Sample:
    ids = np.full(rows, 10 + number, np.int32)
    return Sample(ids, np.arange(rows, dtype=np.int32), {"visual": np.full((1 + number % 2, 8), number, np.float32)})


@pytest.fixture
def samples():
    numbered = [sample(number, rows) for number, rows in enumerate(LENGTHS)]
    return SampleList(numbered, [f"s{number}" for number in range(len(LENGTHS))])


def first_tokens(batch):
    return batch.token_ids[batch.text_offsets[:-1].long()]


def compute(batch):
    rows = RowResults(batch.token_ids[:, None] * 2, batch.text_offsets)
    return {"first": first_tokens(batch).double(), "rows": rows}


def test_every_sample_once_with_its_own_results(samples):
    seen = []
    for results in run_over(samples, compute, "cpu", "results", rows=12):
        assert len(results.indices) == results.batch.samples
        joint = samples.lengths[results.indices].sum()
        assert joint <= 12 or len(results.indices) == 1
        assert results.found["first"].dtype == np.float32
        np.testing.assert_array_equal(results.found["first"], 10 + results.indices)
        expected = np.repeat(2 * (10 + results.indices), [LENGTHS[index] for index in results.indices])
        np.testing.assert_array_equal(results.found["rows"][:, 0], expected)
        seen += results.indices.tolist()
    assert sorted(seen) == list(range(len(LENGTHS))) and seen != sorted(seen)


def test_nothing_is_kept_for_a_backward(samples):
    weight = torch.ones(1, requires_grad=True)

    def grows(batch):
        assert not torch.is_grad_enabled()
        return {"first": first_tokens(batch) * weight}

    assert len(list(run_over(samples, grows, "cpu", "results"))) == 1


def test_what_is_shown_is_what_is_packed(samples):
    def shown(batch):
        return type(batch)(**{**vars(batch), "token_ids": batch.token_ids + 1})

    for results in run_over(samples, compute, "cpu", "results", shown=shown):
        np.testing.assert_array_equal(results.found["first"], 11 + results.indices)
        np.testing.assert_array_equal(first_tokens(results.batch), 11 + results.indices)


def test_a_batch_that_is_skipped_leaves_the_others_as_they_are(samples):
    whole = [results.indices.tolist() for results in run_over(samples, compute, "cpu", "results", rows=12)]
    left = run_over(samples, compute, "cpu", "results", rows=12, skip=lambda indices: 4 in indices)
    assert [results.indices.tolist() for results in left] == [indices for indices in whole if 4 not in indices]


def test_samples_without_finite_results_are_named(samples):
    def spoilt(batch):
        first = first_tokens(batch).float()
        return {"first": torch.where(first == 13, torch.nan, torch.where(first == 10, torch.inf, first))}

    with pytest.raises(MemofastError) as refused:
        list(run_over(samples, spoilt, "cpu", "numbers", " of corpus x"))
    assert str(refused.value).startswith("numbers for s0, s3 of corpus x are not finite; ")


@pytest.mark.parametrize("end", ["first", "last"])
def test_rows_that_are_not_finite_name_their_sample(samples, end):
    """Beside rows of other samples."""

    def spoilt(batch):
        rows = batch.token_ids.float()[:, None].repeat(1, 2)
        at = batch.text_offsets[:-1].long() if end == "first" else batch.text_offsets[1:].long() - 1
        rows[at[first_tokens(batch) == 14], 1] = torch.nan
        return {"whole": first_tokens(batch).float(), "rows": RowResults(rows, batch.text_offsets)}

    with pytest.raises(MemofastError, match=r"^rows for s4 are not finite"):
        list(run_over(samples, spoilt, "cpu", "rows"))


def test_at_most_eight_are_named():
    many = SampleList([sample(0, 3) for _ in range(11)], [f"m{number}" for number in range(11)])
    with pytest.raises(MemofastError, match=r"for m0, m1, m2, m3, m4, m5, m6, m7 are"):
        list(run_over(many, lambda batch: {"x": torch.full((batch.samples,), torch.nan)}, "cpu", "numbers"))
