"""Sizes of models that cannot be are told before anything is allocated."""

import pytest

from memofast.errors import MemofastError
from memofast.model import bounds
from memofast.model.memobert.sizes import configuration


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 64, "num_attention_heads": 12}, "hidden_size 64 is not a multiple of num_attention_heads 12"),
        ({"hidden_size": 24, "num_attention_heads": 4}, "makes heads 6 wide; choose a width that is a multiple of 8"),
        ({"hidden_size": 0, "num_attention_heads": 0}, "hidden_size 0 is not a multiple"),
        ({"vocab_size": 50, "mask_token_id": 50}, "mask_token_id 50 is no word, the vocabulary ends at 49"),
        ({"vocab_size": 50}, "mask_token_id 103 is no word"),
    ],
)
def test_sizes_that_do_not_go_together(sizes, message):
    with pytest.raises(MemofastError, match=message) as error:
        configuration(sizes)
    assert str(error.value).startswith("model") and "\n" not in str(error.value)


def test_a_model_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
    sizes = {
        "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 24, "vocab_size": 40,
        "max_position_embeddings": 8, "visual_width": 5, "visual_positions": 4, "speech_width": 0, "mask_token_id": 4,
    }  # fmt: skip
    parameters = 16 * (40 + 8 + 5 + 4) + 3 * (4 * 16 * 16 + 2 * 16 * 24)
    monkeypatch.setattr(bounds, "memory", lambda: 16 * parameters)
    assert configuration(sizes).hidden_size == 16
    monkeypatch.setattr(bounds, "memory", lambda: 16 * parameters - 1)
    with pytest.raises(MemofastError, match=f"model: {parameters:,} parameters take .* lower its sizes") as error:
        configuration(sizes)
    assert "\n" not in str(error.value)
