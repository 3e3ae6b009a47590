"""The padded form of an emotion model predicts as the packed model does."""

import pytest
import torch
from padded_samples import batch, model, padded_inputs

from memofast.model.memobert.padded import PaddedEmotionModel


@pytest.mark.parametrize("head", ["vqa", "emocls"])
def test_padded_is_packed(head):
    packed, own = batch([(5, 3, 7), (1, 0, 2), (9, 6, 0)]), model(head)
    with torch.no_grad():
        torch.testing.assert_close(PaddedEmotionModel(own)(*padded_inputs(packed)), own(packed), atol=1e-5, rtol=1e-4)
