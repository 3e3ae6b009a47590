"""A small emotion model and samples for its packed and its padded form."""

import numpy as np
import torch

from memofast.data.batch import PackedBatch
from memofast.inference.samples import Sample, pack_samples
from memofast.model import MemoBertConfig, MemoBertForEmotion

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
                {m: random.normal(size=(n, WIDTHS[m])).astype(np.float32)
                 for m, n in zip(modalities, rows, strict=True)},
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
