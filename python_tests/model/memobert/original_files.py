"""Checkpoints under the original's names: golden ones, and small ones made here."""

from pathlib import Path

import numpy as np
import torch
from packed_batches import small_config

from memofast.data.batch import PackedBatch
from memofast.model import MemoBertForPreTraining
from memofast.model.memobert import conversion
from memofast.model.memobert.configuration import padded_width


def golden_file(golden: Path, name: str, folder: Path) -> Path:
    """`weights_NAME.npz` as the original saves it, in fp16; of no name the model with every head."""
    arrays = np.load(golden / (f"weights_{name}.npz" if name else "weights.npz"))
    path = folder / "model_step_7.pt"
    torch.save({key: torch.from_numpy(arrays[key]) for key in arrays.files}, path)
    return path


def golden_batch(golden: Path, name: str) -> tuple[PackedBatch, dict[str, torch.Tensor]]:
    """The inputs of a golden case, and what it holds beside them."""
    arrays = {key: torch.from_numpy(array) for key, array in np.load(golden / f"{name}.npz").items()}
    offsets = {key: arrays.pop(key) for key in [*arrays] if key.endswith("_offsets")}
    none = torch.zeros_like(offsets["text_offsets"])
    offsets = {f"{m}_offsets": offsets.get(f"{m}_offsets", none) for m in ("text", "visual", "speech")}
    rows = {m: _padded(arrays.pop(m)) if m in arrays else None for m in ("visual", "speech")}
    tokens = arrays.pop("token_ids")
    batch = PackedBatch(
        token_ids=tokens, word_ids=torch.full_like(tokens, -1), offsets=sum(offsets.values()),
        sample_keys=torch.arange(len(none) - 1), targets={}, **offsets, **rows,
    )  # fmt: skip
    return batch, arrays


def _padded(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, padded_width(rows.shape[1]) - rows.shape[1]))


def small_original(**changes) -> dict[str, torch.Tensor]:
    """A state dict of the original of a small model, whose every number differs."""
    torch.manual_seed(3)
    model = MemoBertForPreTraining(small_config(**{"hidden_size": 64, "num_attention_heads": 1} | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return conversion.to_original(model)
