"""What `embed` reads: rows and tables of each modality, their order in the raw ops, and what is refused."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from memofast.ops import library, philox


class TextRows(NamedTuple):
    """Text rows and their tables: token_ids [sum T] int32; offsets [B+1] int32; word [vocab, C]; position [P, C];
    gamma, beta [C].

    positions [sum T] int32 or None: the row of `position` that each row uses (None: its place within its sample's
    text); added [sum T, C] or None: what further tables of a token (a part of speech, a polarity) add before the norm.
    """

    token_ids: Tensor
    offsets: Tensor
    word: Tensor
    position: Tensor
    gamma: Tensor
    beta: Tensor
    positions: Tensor | None = None
    added: Tensor | None = None


class FeatureRows(NamedTuple):
    """Rows of one feature modality and their tables.

    projected [rows, C]: projection with its bias, in the compute type; source [rows] int32 or None: the row of the same
    sample that each row reads, -1 for the mask vector (None: its own); offsets [B+1] int32; mask [C] or None: the mask
    vector, projected; position [P, C]; feature_gamma, feature_beta [C]: inner LayerNorm; gamma, beta [C]: outer
    LayerNorm; positions [rows] int32 or None: the row of `position` that each row uses, whatever it reads (None: its
    place within its sample's rows of this modality).
    """

    projected: Tensor
    source: Tensor | None
    offsets: Tensor
    mask: Tensor | None
    position: Tensor
    feature_gamma: Tensor
    feature_beta: Tensor
    gamma: Tensor
    beta: Tensor
    positions: Tensor | None = None


class Operands(NamedTuple):
    """The tensors of one call. The raw ops take them flat: text's fields, types, offsets, visual's, speech's, rng,
    sample_keys."""

    text: TextRows
    types: Tensor
    offsets: Tensor
    visual: FeatureRows | None
    speech: FeatureRows | None
    rng: Tensor | None
    sample_keys: Tensor | None

    def flat(self) -> tuple[Tensor | None, ...]:
        visual, speech = self.visual or _ABSENT, self.speech or _ABSENT
        return *self.text, self.types, self.offsets, *visual, *speech, self.rng, self.sample_keys

    @property
    def modalities(self) -> tuple[TextRows, FeatureRows | None, FeatureRows | None]:
        return self.text, self.visual, self.speech


_ABSENT = (None,) * 10
COUNT = 32  # tensors of one call, flat
TYPES, VISUAL, SPEECH = 8, 10, 20  # where types and the fields of each feature modality start in the flat order
ADDED, POSITIONS = 7, (6, 19, 29)  # what kernels of GPUs do not take
# Tensors that have gradients, and those of them that are read as fp32.
FLOATING = (2, 3, 4, 5, ADDED, TYPES, VISUAL, *range(13, 19), SPEECH, *range(23, 29))
TABLES = (3, 4, 5, ADDED, TYPES, *range(14, 19), *range(24, 29))
_POSITIONS = (3, 14, 24)
_VECTORS = 12


def sum_rows(tensors: tuple[Tensor | None, ...]) -> int:
    """Rows of the gradients that are summed over rows: position tables, types, vectors (text's gamma and beta, then of
    visual and of speech the mask and the gamma and beta of both norms)."""
    return sum(tensors[place].shape[0] for place in _POSITIONS if tensors[place] is not None) + 3 + _VECTORS


def sum_type(dtype: torch.dtype, tables: torch.dtype) -> torch.dtype:
    """The type in which gradients are summed over rows."""
    return torch.float64 if torch.float64 in (dtype, tables) else torch.float32


def gradients_of(
    tensors, word: Tensor, visual: Tensor, speech: Tensor, sums: Tensor, added: Tensor | None
) -> list[Tensor | None]:
    """The gradient of every operand, None where it has none, from what `embed_backward` returns."""
    sizes = [0 if tensors[place] is None else tensors[place].shape[0] for place in _POSITIONS]
    *tables, vectors = sums.split_with_sizes([*sizes, 3, _VECTORS])
    text_position, visual_position, speech_position, types = tables
    gamma, beta, *others = vectors.unbind()
    visual_mask, speech_mask = others[0], others[5]
    found = [None, None, word, text_position, gamma, beta, None, added, types, None]
    found += [visual, None, None, visual_mask, visual_position, *others[1:5], None]
    found += [speech, None, None, speech_mask, speech_position, *others[6:], None, None, None]
    return [
        None
        if gradient is None or like is None
        else gradient
        if gradient.dtype is like.dtype
        else gradient.to(like.dtype)
        for gradient, like in zip(found, tensors, strict=True)
    ]


def operands_of(flat: tuple) -> Operands:
    visual = None if flat[VISUAL] is None else FeatureRows(*flat[10:20])
    speech = None if flat[SPEECH] is None else FeatureRows(*flat[20:30])
    return Operands(TextRows(*flat[:8]), flat[8], flat[9], visual, speech, flat[30], flat[31])


def output_type(text: TextRows, visual: FeatureRows | None, speech: FeatureRows | None) -> torch.dtype:
    """The compute type where none is named: that of the projected rows, else of the word table."""
    own = visual or speech
    return own.projected.dtype if own and isinstance(own.projected, Tensor) else text.word.dtype


def total_rows(*modalities: TextRows | FeatureRows | None) -> int:
    return sum(own[0].shape[0] for own in modalities if own is not None)


def refuse_no_rows(text: object, types: object) -> None:
    """Raise a `ValueError` where there are no text rows or no types."""
    if not isinstance(text, TextRows):
        raise ValueError(f"embed: text must be TextRows, got {type(text).__name__}")
    library.require_tensor("embed", "types", types)
    library.require_tensor("embed", "text.word", text.word)


def check(operands: Operands, p: float, eps: float, site: int, dtype: torch.dtype, backend: str) -> None:
    """Raise a `ValueError` for the first wrong shape, type, device or stride; reads no element."""
    types, offsets = operands.types, operands.offsets
    library.require_tensor("embed", "types", types)
    device = types.device
    floats = library.row_types(types, backend == "reference")
    if dtype not in floats:
        raise ValueError(f"embed: dtype must be one of {', '.join(map(str, floats))}, got {dtype}")

    def expect(name: str, tensor: Tensor, shape: tuple, kinds: torch.dtype | tuple) -> None:
        library.check_tensor("embed", name, tensor, shape=shape, dtype=kinds, device=device)

    expect("types", types, (3, None), floats)
    expect("offsets", offsets, (None,), torch.int32)
    if not offsets.shape[0]:
        raise ValueError("embed: offsets must have shape [B + 1], got [0]")
    table, vector, bounds = (None, types.shape[1]), (types.shape[1],), (offsets.shape[0],)

    def is_usual(values: Tensor) -> bool:
        """A cheap test that most vectors pass, without a message to build."""
        if not isinstance(values, Tensor):
            return False
        known = values.shape == vector and values.dtype is types.dtype
        return known and values.device == device and values.is_contiguous()

    for name, own in zip(("text", "visual", "speech"), operands.modalities, strict=True):
        if own is None:
            continue
        content, index = ("word", "token_ids") if name == "text" else ("projected", "source")
        library.require_tensor("embed", f"{name}.{own._fields[0]}", own[0])
        rows = (own[0].shape[0] if own[0].dim() else None,)
        expect(f"{name}.{content}", getattr(own, content), table, floats)
        expect(f"{name}.offsets", own.offsets, bounds, torch.int32)
        if (read := getattr(own, index)) is not None:
            expect(f"{name}.{index}", read, rows, torch.int32)
        if own.positions is not None:
            expect(f"{name}.positions", own.positions, rows, torch.int32)
        expect(f"{name}.position", own.position, table, floats)
        fields = ("gamma", "beta") if name == "text" else ("mask", "feature_gamma", "feature_beta", "gamma", "beta")
        for field in fields:
            if (values := getattr(own, field)) is not None and not is_usual(values):
                expect(f"{name}.{field}", values, vector, floats)
    if (added := operands.text.added) is not None:
        expect("text.added", added, (operands.text.token_ids.shape[0], types.shape[1]), floats)
    library.check_number("embed", "eps", eps, 0.0)
    library.check_site("embed", site)
    library.refuse_tangents("embed", *(tensor for tensor in operands.flat() if tensor is not None))
    philox.drop_threshold(p)
    if p > 0:
        if operands.rng is None or operands.sample_keys is None:
            raise ValueError("embed: dropout (p > 0) needs rng and sample_keys")
        expect("rng", operands.rng, (2,), torch.int64)
        expect("sample_keys", operands.sample_keys, (offsets.shape[0] - 1,), torch.int64)


def takes_further(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether rows name their positions or have something added, which no kernel of a GPU does."""
    text, visual, speech = POSITIONS
    return not (tensors[ADDED] is tensors[text] is tensors[visual] is tensors[speech] is None)


def refuse_further(tensors: tuple[Tensor | None, ...], backend: str) -> None:
    """Raise a `ValueError` where a kernel of a GPU is named for what it does not do."""
    if backend in ("cuda", "triton") and takes_further(tensors):
        raise ValueError(
            f"embed: backend {backend!r} has no kernel for positions and added; name 'reference' or leave it to 'auto'"
        )


def refuse_bad_indices(operands: Operands, rows: int) -> None:
    """Raise a `ValueError` naming the offsets, ids, positions or source rows that lie outside. Waits for the device."""
    joint = torch.zeros_like(operands.offsets)
    for name, own in zip(("text", "visual", "speech"), operands.modalities, strict=True):
        if own is None:
            continue
        bounds = own.offsets.tolist()
        if bounds[0] != 0 or bounds[-1] > own[0].shape[0] or any(b < a for a, b in pairwise(bounds)):
            raise ValueError(f"embed: {name}.offsets must start at 0, never decrease and end within the rows given")
        longest, positions = max((b - a for a, b in pairwise(bounds)), default=0), own.position.shape[0]
        if own.positions is not None:
            _refuse_outside(f"{name}.positions", own.positions[: bounds[-1]], 0, positions)
        elif longest > positions:
            raise ValueError(f"embed: {name}.position has {positions} rows, but a sample has {longest} {name} rows")
        if name == "text":
            _refuse_outside("text.token_ids", own.token_ids[: bounds[-1]], 0, own.word.shape[0])
        elif own.source is not None:
            _refuse_foreign_sources(name, own, bounds[-1])
        joint = joint + own.offsets
    if not torch.equal(joint, operands.offsets):
        raise ValueError("embed: offsets must be the sum of the offsets of the modalities given")
    if rows < (end := int(joint[-1])):
        raise ValueError(f"embed: rows must be at least offsets[-1] = {end}, got {rows}")


def _refuse_outside(name: str, ids: Tensor, low: int, high: int) -> None:
    if ids.numel() and (int(ids.min()) < low or int(ids.max()) >= high):
        raise ValueError(f"embed: {name} must lie in [{low}, {high}), got {int(ids.min())} to {int(ids.max())}")


def _refuse_foreign_sources(name: str, own: FeatureRows, end: int) -> None:
    source = own.source[:end].to(torch.int64)
    _refuse_outside(f"{name}.source", source, 0 if own.mask is None else -1, max(end, 1))
    reading, _ = philox.rows_of(own.offsets, end)
    if bool(((source >= 0) & (reading[source.clamp(min=0)] != reading)).any()):
        raise ValueError(f"embed: {name}.source must name rows of the same sample")
