"""masks: words, faces and speech of a batch masked at once, on a GPU in one launch and one more for the lists of all targets."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import faults, library
from memofast.ops import span_mask as spans
from memofast.ops import token_mask as words
from memofast.ops.philox import Purpose
from memofast.ops.span_mask import MaskedRows, SpanPolicy, span_mask
from memofast.ops.token_mask import MaskedTokens, TokenPolicy, token_mask


class WordsToMask(NamedTuple):
    """The arguments of `token_mask` that are a text's own."""

    token_ids: Tensor
    word_ids: Tensor
    offsets: Tensor
    policy: TokenPolicy
    site: int
    emotion: Tensor | None = None
    selected: Tensor | None = None
    capacity: int | None = None

    def alone(self, sample_keys: Tensor, rng: Tensor, purpose: Purpose, backend: str) -> MaskedTokens:
        token_ids, word_ids, offsets, policy, *_ = self
        options = {name: getattr(self, name) for name in ("site", "emotion", "selected", "capacity")}
        return token_mask(
            token_ids, word_ids, offsets, sample_keys, rng, policy, purpose=purpose, backend=backend, **options
        )

    def backend(self, sample_keys: Tensor, rng: Tensor, backend: str) -> str:
        token_ids, word_ids, offsets, policy, _, emotion, selected, _ = self
        return words.backend_for(token_ids, word_ids, offsets, sample_keys, rng, policy, emotion, selected, backend)

    def on_cuda(
        self, sample_keys: Tensor, rng: Tensor, purpose: Purpose, workspace: Tensor
    ) -> tuple[tuple, MaskedTokens]:
        token_ids, word_ids, offsets, policy, site, emotion, selected, capacity = self
        if capacity is None:
            capacity = policy.capacity(token_ids.numel(), sample_keys.numel())
        emotion, codes = emotion if policy.needs_emotion else None, words.codes_of(policy, purpose, site)
        mask, results = words.on_cuda(
            token_ids, word_ids, offsets, sample_keys, rng, emotion, selected, capacity, codes, workspace
        )
        return mask, MaskedTokens(*results)


class RowsToMask(NamedTuple):
    """The arguments of `span_mask` that are a modality's own."""

    offsets: Tensor
    rows: int
    policy: SpanPolicy
    site: int
    selected: Tensor | None = None
    capacity: int | None = None

    def alone(self, sample_keys: Tensor, rng: Tensor, purpose: Purpose, backend: str) -> MaskedRows:
        options = {name: getattr(self, name) for name in ("rows", "site", "selected", "capacity")}
        return span_mask(self.offsets, sample_keys, rng, self.policy, purpose=purpose, backend=backend, **options)

    def backend(self, sample_keys: Tensor, rng: Tensor, backend: str) -> str:
        return spans.backend_for(self.offsets, sample_keys, rng, self.selected, backend)

    def on_cuda(
        self, sample_keys: Tensor, rng: Tensor, purpose: Purpose, workspace: Tensor
    ) -> tuple[tuple, MaskedRows]:
        offsets, rows, policy, site, selected, capacity = self
        if capacity is None:
            capacity = policy.capacity(rows, sample_keys.numel())
        codes = spans.codes_of(policy, purpose, site)
        mask, results = spans.on_cuda(offsets, sample_keys, rng, selected, rows, capacity, codes, workspace)
        return mask, MaskedRows(*results)


def masks(
    wanted: Sequence[WordsToMask | RowsToMask],
    sample_keys: Tensor,
    rng: Tensor,
    *,
    purpose: Purpose = Purpose.MASK,
    backend: str = "auto",
) -> list[MaskedTokens | MaskedRows]:
    """What `token_mask` and `span_mask` give for each of `wanted`, bit for bit.

    Args: wanted: texts and feature rows of the same samples, as their masks' own arguments; sample_keys [B] int64; rng [2] int64.
    Returns: the masks in the order of `wanted`.
    Raises: as those two. Notes: backend cuda masks all in one launch; elsewhere, in debug mode and under torch.compile it is one after another.
    """
    at_once = sample_keys.is_cuda and library.calls_at_once()
    if not at_once or any(x.backend(sample_keys, rng, backend) != "cuda" for x in wanted):
        return [x.alone(sample_keys, rng, purpose, backend) for x in wanted]
    return _on_cuda(wanted, sample_keys, rng, purpose)


def _on_cuda(
    wanted: Sequence[WordsToMask | RowsToMask], sample_keys: Tensor, rng: Tensor, purpose: Purpose
) -> list[MaskedTokens | MaskedRows]:
    workspace = sample_keys.new_empty((len(wanted), sample_keys.numel()), dtype=torch.int32)
    prepared = [x.on_cuda(sample_keys, rng, purpose, own) for x, own in zip(wanted, workspace, strict=True)]
    status = _C.masks_on_cuda([mask for mask, _ in prepared], sample_keys, library.stream(sample_keys))
    if status:
        named = [(f"{i}.{name}", x) for i, one in enumerate(wanted) for name, x in one._asdict().items()]
        faults.check_status("masks", status, named=[(name, x) for name, x in named if isinstance(x, Tensor)])
    return [results for _, results in prepared]
