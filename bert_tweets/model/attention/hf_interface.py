"""How our attention gets into a stock model: by `transformers`' own attention interface."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .base import Backend, Plan

NAME = "bert_tweets_packed"


def register() -> str:
    """Makes our attention known to transformers; returns the `attn_implementation` that asks for it."""
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
        attention_mask: not used: transformers passes None to a registered function, a padding mask included.
        sliding_window: one more than the distance that a token sees (ModernBERT).
        packed: the backend and its plan, handed through the encoder's keyword arguments.

    Returns:
        [rows, length, heads, head size], and no weights.
    """
    # Without this the tweets of a row would see each other, and nothing would tell.
    assert packed is not None and attention_mask is None, "packed attention without its segments"
    assert dropout == 0.0, "attention dropout is off in packed attention"
    assert scaling is not None
    backend, plan = packed
    window = None if sliding_window is None else sliding_window - 1
    return backend.attend(query, key, value, plan, scaling, window), None
