"""Columns of feature rows that an update sets to 0; hidden rows are tested where a model learns with them, in
test_fine_tuning.py."""

from dataclasses import replace

import pytest
import torch
from packed_batches import random_batch, small_config

from memofast.train.augmentation import Augmentation

SAMPLES = [(2, 3, 4)] * 60 + [(1, 0, 2), (3, 8, 0)]


def rng(step: int) -> torch.Tensor:
    return torch.tensor([7, step])


def columns_kept(rows: torch.Tensor, offsets: torch.Tensor, width: int) -> torch.Tensor:
    """[samples with rows, width] bool; every row of a sample must show the same columns."""
    kept = []
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if end > begin:
            there = rows[begin:end, :width] != 0
            assert (there == there[0]).all()
            kept.append(there[0])
    return torch.stack(kept)


@pytest.mark.parametrize("modality", ["visual", "speech"])
def test_a_share_of_columns_is_zero_in_all_rows_of_a_sample(modality):
    config = small_config()
    batch, width = random_batch(config, SAMPLES), config.feature_width(modality)
    shown = Augmentation(0.0, 0.3)(batch, rng(1))
    rows, given = getattr(shown.batch, modality), getattr(batch, modality)
    kept = columns_kept(rows, getattr(batch, f"{modality}_offsets"), width)
    assert 0.25 < 1 - kept.float().mean() < 0.35 and len(kept.unique(dim=0)) == len(kept)
    assert torch.equal(rows[rows != 0], given[rows != 0]) and not shown.sources
    assert torch.equal(getattr(Augmentation(0.0, 0.3)(batch, rng(1)).batch, modality), rows)
    assert not torch.equal(getattr(Augmentation(0.0, 0.3)(batch, rng(2)).batch, modality), rows)


def test_what_a_sample_loses_does_not_depend_on_its_batch():
    batch, alone = (random_batch(small_config(), lengths) for lengths in (SAMPLES, SAMPLES[:1]))
    alone = replace(alone, sample_keys=batch.sample_keys[:1])
    whole, part = (Augmentation(0.0, 0.5)(one, rng(3)).batch for one in (batch, alone))
    assert torch.equal(whole.speech[:4] == 0, part.speech == 0)


def test_samples_with_fewer_rows_than_a_span_keep_theirs():
    lengths = [(2, rows, 9 - rows) for rows in (4, 5, 4, 5)] * 20
    batch = random_batch(small_config(), lengths)
    sources = Augmentation(0.9, 0.0)(batch, rng(1)).sources
    for modality in ("visual", "speech"):
        source, rows = sources[modality], getattr(batch, f"{modality}_offsets").diff().tolist()
        hidden = [bool((part == -1).any()) for part in source.split(rows)]
        assert hidden == [count == 5 for count in rows]


def test_faces_and_speech_of_as_many_rows_lose_others():
    sources = Augmentation(0.5, 0.0)(random_batch(small_config(), [(2, 20, 20)] * 10), rng(1)).sources
    assert not torch.equal(sources["visual"], sources["speech"])


def test_nothing_is_hidden_where_nothing_is_asked():
    batch = random_batch(small_config())
    shown = Augmentation(0.0, 0.0)(batch, rng(1))
    assert shown.batch is batch and not shown.sources
