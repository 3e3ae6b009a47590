"""Fusions for tests: small ones of every kind, and the originals' numbers under our names."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from memofast.model.draws import Draws
from memofast.model.fusion.fusion import Fusion
from memofast.model.fusion.kinds import Options, build
from memofast.sections import Section, checked

WIDTHS = {"text": 6, "visual": 8, "speech": 4}
EQUAL = dict.fromkeys(WIDTHS, 6)
NAMES = {"T": "text", "A": "speech", "V": "visual"}  # by the letters of the originals, in their order
SORTED = ("speech", "text", "visual")  # A, T, V
NOTHING = Draws(None, torch.arange(5))

KINDS = {
    "concat": {"width": 7, "depth": 2},
    "mean": {"width": 7},
    "adaptation_gate": {},
    "modality_shifting": {"heads": 2, "beta": 0.9},
    "low_rank": {"width": 7, "rank": 2},
    "tensor": {"width": 7},
    "self_attention": {"width": 7, "token_width": 8, "heads": 2},
    "cross_attention": {"width": 7, "token_width": 8, "heads": 2},
    "experts": {"width": 7, "experts": ["layers", "zero", "copy", "layers", "constant"], "active": 3},
    "modality_experts": {"width": 7},
    "fusion_experts": {"width": 7, "experts": [{"kind": "mean", "width": 3}, {"kind": "low_rank", "width": 5}]},
    "text_guided_experts": {"width": 7, "token_width": 8, "heads": 2, "experts": ["layers"] * 3},
    "disentangled": {"width": 8, "heads": 2, "private_width": 5, "shared_width": 3},
}
ORIGINALS = ("self_attention", "cross_attention", "modality_shifting", "disentangled")  # that mix a batch with compat


class _Recipe(Section):
    fusion: Options


def a_fusion(kind: str, widths: Mapping[str, int] = WIDTHS, **options) -> Fusion:
    """With random weights that are the same each time, in evaluation mode."""
    torch.manual_seed(4)
    section = checked({"fusion": {"kind": kind, **options}}, "test", _Recipe)
    return build(section.fusion, widths).eval()


def vectors_of(widths: Mapping[str, int] = WIDTHS, samples: int = 5, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(samples, width, generator=generator) for name, width in widths.items()}


def all_there(widths: Mapping[str, int] = WIDTHS, samples: int = 5) -> Tensor:
    return torch.ones(samples, len(widths), dtype=torch.bool)


def fused_by(fusion: Fusion, vectors: Mapping[str, Tensor], names: str | None = None) -> Tensor:
    """The fused vectors; names: letters of the modalities that are there, None: all."""
    present = all_there(vectors, len(next(iter(vectors.values()))))
    if names is not None:
        present &= torch.tensor([any(NAMES[letter] == name for letter in names) for name in vectors])
    return fusion(vectors, present, NOTHING).vector


def golden_file(real_data, name: str):
    return np.load(real_data.parent / "golden" / "companions" / f"{name}.npz")


def golden_of(file, case: str) -> dict[str, Tensor]:
    """The arrays of one case in float64, by the name after the case's."""
    found = {name.removeprefix(f"{case}/"): file[name] for name in file.files if name.startswith(f"{case}/")}
    return {name: torch.from_numpy(np.asarray(values)).double() for name, values in found.items()}


def inputs_of(file, name: str) -> dict[str, Tensor]:
    """In the originals' order, as leaves for gradients."""
    return {own: torch.from_numpy(file[f"{name}/{letter}"]).requires_grad_() for letter, own in NAMES.items()}


def state_of(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An original's state with modalities, attention and layers named as ours are; the rest keeps its name."""
    found = {}
    for name, values in parts.items():
        if not name.startswith("state/"):
            continue
        name = re.sub(r"(?<=\.)[TAV](?=\.|$)", lambda one: NAMES[one[0]], name.removeprefix("state/"))
        name = re.sub(r"(?<=\.)proj\.(\d+)", lambda one: f"layers.layers.{int(one[1]) // 3}", name)
        name = name.replace("multihead_attn.", "attention.").replace("norm.0.", "norm.")
        place, _, last = name.rpartition("in_proj_")
        if last in ("weight", "bias"):
            for part, own in zip(("query", "key", "value"), values.chunk(3), strict=True):
                found[f"{place}{part}.{last}"] = own
        else:
            name = re.sub(r"([qkv])_proj_weight", lambda one: f"{_PARTS[one[1]]}.weight", name)
            found[name.replace("out_proj.", "output.")] = values
    return found


_PARTS = {"q": "query", "k": "key", "v": "value"}
