"""Trained towers opened from their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from memofast.errors import MemofastError
from memofast.model.adapters.base import Base
from memofast.model.adapters.kept import TRAINED, holds_adapters, merge_adapters, read_saved, saved_file
from memofast.model.adapters.lora import read_section
from memofast.model.folder import in_one_line, read_checked
from memofast.model.towers.adapting import adapt
from memofast.model.towers.configuration import TowersConfig, TowersFile
from memofast.model.towers.emotion import TowersForEmotion
from memofast.model.towers.encoders import load_encoder, read_encoder
from memofast.model.weights import open_whole, stored_in


def open_towers(folder: Path) -> TowersForEmotion:
    """A trained model in evaluation mode from its folder; adapters are merged with the encoders that they adapt.

    Raises: as `open_whole`, and where an encoder that is adapted is missing or has changed.
    """
    if not holds_adapters(folder):
        return open_whole(folder, TowersForEmotion, TowersFile)
    read_checked(folder, {TowersConfig.model_type: TowersFile})
    config = in_one_line(
        folder, lambda: TowersConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    )
    names = [name for name, entry in config.towers.items() if entry and entry["train"] == "lora"]
    bases = {name: Base.read(folder / name).found(folder / name) for name in names}
    _check_sizes(folder, config, names)
    with torch.random.fork_rng(devices=[]):  # whose numbers are no one's here
        encoders = {name: load_encoder(base, read_encoder(name, base)) for name, base in bases.items()}
        model = in_one_line(folder, lambda: TowersForEmotion(config, encoders))
        adapt(model, {name: read_section(folder / name) for name in names}, bases)
    read_saved(model, folder)
    merge_adapters(model)
    for name in names:
        model.towers[name].entry["train"] = "full"  # as it now is, for who saves it as a whole
    return model.eval()


def _check_sizes(folder: Path, config: TowersConfig, adapted: Sequence[str]) -> None:
    """Raises: `MemofastError`, before memory is taken for it, where a model is trained as a whole in what the folder
    does not hold. adapted: modalities whose encoders lie elsewhere."""
    with torch.device("meta"):
        model = in_one_line(folder, lambda: TowersForEmotion(config))
    elsewhere = tuple(f"towers.{name}.encoder." for name in adapted)
    there = {name: one.shape for name, one in stored_in(saved_file(folder, TRAINED)).items()}
    for name, tensor in model.state_dict().items():
        if not name.startswith(elsewhere) and there.get(name) != tuple(tensor.shape):
            raise MemofastError(f"{folder}: does not hold {name} as {list(tensor.shape)}; restore its config.json")
