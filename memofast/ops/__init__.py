"""The operators. Each has a reference beside its public function, which every backend agrees with."""

from memofast.ops.attention import attention, cross_attention
from memofast.ops.attention_reference import attention_reference, cross_attention_reference
from memofast.ops.bias_gelu import bias_gelu, bias_gelu_reference
from memofast.ops.dropout_add_norm import dropout_add_norm, dropout_add_norm_reference
from memofast.ops.embed import FeatureRows, TextRows, embed, embed_reference
from memofast.ops.separable_attention import Gathered, separable_attention, separable_attention_reference
from memofast.ops.span_mask import MaskedRows, SpanPolicy, span_mask, span_mask_reference
from memofast.ops.token_mask import MaskedTokens, TokenPolicy, token_mask, token_mask_reference

__all__ = [
    "FeatureRows",
    "Gathered",
    "MaskedRows",
    "MaskedTokens",
    "SpanPolicy",
    "TextRows",
    "TokenPolicy",
    "attention",
    "attention_reference",
    "bias_gelu",
    "bias_gelu_reference",
    "cross_attention",
    "cross_attention_reference",
    "dropout_add_norm",
    "dropout_add_norm_reference",
    "embed",
    "embed_reference",
    "separable_attention",
    "separable_attention_reference",
    "span_mask",
    "span_mask_reference",
    "token_mask",
    "token_mask_reference",
]
