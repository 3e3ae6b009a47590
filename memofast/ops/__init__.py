"""The operators. Each has a reference beside its public function, which every backend agrees with."""

from memofast.ops.attention import attention, attention_reference
from memofast.ops.span_mask import MaskedRows, SpanPolicy, span_mask, span_mask_reference
from memofast.ops.token_mask import MaskedTokens, TokenPolicy, token_mask, token_mask_reference

__all__ = [
    "MaskedRows",
    "MaskedTokens",
    "SpanPolicy",
    "TokenPolicy",
    "attention",
    "attention_reference",
    "span_mask",
    "span_mask_reference",
    "token_mask",
    "token_mask_reference",
]
