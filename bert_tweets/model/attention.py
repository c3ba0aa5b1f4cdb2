"""Attention over packed rows: a tweet attends to itself alone."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

NAME = "bert_tweets_packed"


def register() -> str:
    """Makes our attention known to transformers; returns the `attn_implementation` that asks for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    return NAME


def segment_mask(segment_ids: Tensor) -> Tensor:
    """Who may see whom: bool [rows, 1, length, length] from segment ids [rows, length].

    Padding (segment 0) sees padding, so that no row of the softmax is empty.
    """
    return segment_ids[:, None, :, None] == segment_ids[:, None, None, :]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention within the segments of packed rows; called by transformers.

    Args:
        query, key, value: [rows, heads, length, head size].
        attention_mask: not used: transformers passes None to a registered function, a padding mask included.
        packed_mask: bool [rows, 1, length, length], handed through the encoder's keyword arguments.

    Returns:
        [rows, length, heads, head size], and no weights.
    """
    # Without this the tweets of a row would see each other, and nothing would tell.
    assert packed_mask is not None and attention_mask is None, "packed attention without its segments"
    assert dropout == 0.0, "attention dropout is off in packed attention"
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=packed_mask, scale=scaling)
    return seen.transpose(1, 2).contiguous(), None
