"""The padded form of an emotion model and its exported program answer as the packed model does."""

import io

import numpy as np
import pytest
import torch

from memofast.data.batch import PackedBatch
from memofast.errors import MemofastError
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.model.padded import PaddedEmotionModel, export_emotion_model
from memofast.prediction.samples import Sample, pack_samples

WIDTHS = {"visual": 12, "speech": 5}


def model(head="vqa", **changes):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "visual_width": 12, "speech_width": 5, "initializer_range": 0.5, "num_labels": 4, "emotion_head": head,
        "max_position_embeddings": 32, "visual_positions": 16, "speech_positions": 16,
    }  # fmt: skip
    return MemoBertForEmotion(MemoBertConfig(**(sizes | changes))).eval()


def batch(lengths, modalities=("visual", "speech")) -> PackedBatch:
    random = np.random.default_rng(0)
    return pack_samples(
        [
            Sample(
                random.integers(0, 50, text).astype(np.int32), np.full(text, -1, np.int32),
                {m: random.normal(size=(n, WIDTHS[m])).astype(np.float32) for m, n in zip(modalities, rows, strict=True)},
            )
            for text, *rows in lengths
        ]
    )  # fmt: skip


def padded_inputs(packed, modalities=("visual", "speech")):
    padded = packed.to_padded()
    given = [padded.token_ids.long(), padded.text_lengths.long()]
    for modality in modalities:
        given += [getattr(padded, modality)[..., : WIDTHS[modality]], getattr(padded, f"{modality}_lengths").long()]
    return given


@pytest.mark.parametrize("head", ["vqa", "emocls"])
def test_padded_is_packed(head):
    packed, own = batch([(5, 3, 7), (1, 0, 2), (9, 6, 0)]), model(head)
    with torch.no_grad():
        torch.testing.assert_close(PaddedEmotionModel(own)(*padded_inputs(packed)), own(packed), atol=1e-5, rtol=1e-4)


def test_the_exported_program_is_packed_for_any_sizes():
    own = model()
    file = io.BytesIO()
    torch.export.save(export_emotion_model(own), file)
    file.seek(0)
    program = torch.export.load(file).module()
    for lengths in ([(5, 3, 7), (1, 0, 2), (9, 6, 0)], [(4, 2, 3)], [(2, 5, 9)] * 5):
        packed = batch(lengths)
        with torch.no_grad():
            torch.testing.assert_close(program(*padded_inputs(packed)), own(packed), atol=1e-5, rtol=1e-4)


def test_a_text_model_is_exported_without_features():
    own, packed = model(visual_width=0, speech_width=0), batch([(5,), (3,)], ())
    program = export_emotion_model(own).module()
    with torch.no_grad():
        torch.testing.assert_close(program(*padded_inputs(packed, ())), own(packed), atol=1e-5, rtol=1e-4)


def test_a_prompt_is_refused():
    with pytest.raises(MemofastError, match="answers by a prompt"):
        export_emotion_model(object())
