"""PyTorch's FlashAttention over sequences of any length, one per tweet."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Backend, Shape, segment_begins

# The number of sequences is rounded up to a multiple of it: each new number recompiles.
CAPACITY_STEP = 256


class Varlen(Backend):
    """`torch.nn.attention.varlen.varlen_attn`: rows are concatenated, and divided where a segment begins."""

    name = "varlen"

    def missing(self, shape: Shape) -> str:
        if shape.device != "cuda" or not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
            return "needs a GPU of compute capability 8.0 or newer"
        if shape.dtype not in (torch.bfloat16, torch.float16):
            return f"dtype must be bf16 or fp16, got {shape.dtype}"
        if shape.head_size % 8 or shape.head_size > 256:
            return f"head size must be a multiple of 8 and at most 256, got {shape.head_size}"
        try:
            options = _options()
        except ImportError:
            return "needs a torch with torch.nn.attention.varlen"
        if shape.windowed and "window_size" not in options:
            return "needs a torch whose varlen_attn has window_size, because some layers attend to a window"
        return ""

    def plan(self, segment_ids: Tensor, tweets: int) -> Tensor:
        """int32 [capacity]: where each sequence begins in the flattened rows, then their end, repeated.

        Padding of a row is a sequence of its own: gradients of tokens after the last sequence would be NaN. The list is
        filled with empty sequences, so that its length follows from what the host knows.
        """
        rows, length = segment_ids.shape
        capacity = -(-(tweets + rows + 1) // CAPACITY_STEP) * CAPACITY_STEP
        found = torch.nonzero_static(segment_begins(segment_ids).flatten(), size=capacity, fill_value=rows * length)
        return found.squeeze(1).to(torch.int32)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Tensor, scale: float, window: int | None
    ) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        rows, _, length, size = query.shape
        options: dict[str, Any] = {} if window is None else {"window_size": (window, window)}
        if "scale" in _options():
            options["scale"] = scale
        else:
            query = query * (scale * size**0.5)
        by_token = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
        attended: Callable[..., Any] = varlen_attn
        out: Tensor = attended(*by_token, plan, plan, length, length, **options)
        return out.view(rows, length, *out.shape[1:])


def _options() -> frozenset[str]:
    """Names of varlen_attn's parameters: those after the seventh differ between versions of torch."""
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)
