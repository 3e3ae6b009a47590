import pytest
import torch

from memofast.data.conditions import CONDITIONS, condition_of, keep


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_keeps_its_modalities_and_nothing_else(make_corpus, condition):
    batch = make_corpus().split("train").pack(range(20))
    batch.targets["lexicon"] = torch.arange(len(batch.token_ids), dtype=torch.int32)  # each row another
    kept = keep(batch, condition)
    parts = kept.to_padded()
    whole = batch.to_padded()
    for letter, modality in (("v", "visual"), ("a", "speech")):
        if letter in condition:
            assert torch.equal(getattr(kept, modality), getattr(batch, modality))
        else:
            assert getattr(kept, modality) is None and not getattr(parts, f"{modality}_lengths").any()
    if "l" in condition:
        assert torch.equal(kept.token_ids, batch.token_ids) and torch.equal(kept.word_ids, batch.word_ids)
        assert torch.equal(kept.targets["lexicon"], batch.targets["lexicon"])
    else:
        assert torch.equal(parts.token_ids, whole.token_ids[:, :1]) and (kept.word_ids == -1).all()
        assert torch.equal(kept.targets["lexicon"], batch.text_offsets[:-1])  # of [CLS]
    assert kept.targets.keys() == batch.targets.keys() - (set() if "v" in condition else {"soft_labels"})
    if "v" in condition:
        assert torch.equal(kept.targets["soft_labels"], batch.targets["soft_labels"])
    lengths = parts.text_lengths + parts.visual_lengths + parts.speech_lengths
    assert torch.equal(kept.offsets.diff(), lengths) and kept.rows == int(kept.offsets[-1])
    assert torch.equal(kept.targets["label"], batch.targets["label"])
    assert "soft_labels" in batch.targets and batch.visual is not None  # the batch given stays as it was


def test_what_a_batch_lacks_is_not_missed(make_corpus):
    batch = make_corpus(modalities=("speech",)).split("train").pack(range(20))
    del batch.targets["lexicon"]
    assert keep(batch, "a").targets.keys() == batch.targets.keys() == {"label"}


def test_names_of_conditions():
    assert condition_of(("text", "visual", "speech")) == "lva" and condition_of(("text", "speech")) == "la"
    with pytest.raises(ValueError, match="got 'al'"):
        keep(None, "al")
