"""Our attention in a stock model, through the attention interface of `transformers`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .base import Backend, Plan

NAME = "bert_tweets_packed"


def register() -> str:
    """Register our attention with transformers; returns the name for `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    return NAME


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed: tuple[Backend, Plan] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within the segments of packed rows; called by transformers.

    Args:
        query, key, value: [rows, heads, length, head size].
        attention_mask: unused; transformers passes None to a registered function, even with a padding mask.
        sliding_window: one more than the longest distance that a token attends to (ModernBERT).
        packed: the backend and its plan, passed through the encoder's keyword arguments.

    Returns:
        [rows, length, heads, head size], and no weights.
    """
    # Otherwise the tweets of a row would silently attend to each other.
    assert packed is not None and attention_mask is None, "packed attention without its segments"
    assert dropout == 0.0, "attention dropout is off in packed attention"
    assert scaling is not None
    backend, plan = packed
    window = None if sliding_window is None else sliding_window - 1
    return backend.attend(query, key, value, plan, scaling, window), None
