"""The interface of attention backends for packed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# What a backend precomputes from the segments of a micro-batch for all layers; opaque to others.
Plan = Any


@dataclass(frozen=True)
class Shape:
    """The facts that decide which backends can be used.

    Attributes:
        device: type of the device, cpu or cuda.
        dtype: dtype of query, key and value.
        row_length: tokens per row.
        windowed: whether some layers attend only to a window of neighbours (ModernBERT).
        compiled: whether torch.compile makes the step's kernels.
    """

    device: str
    dtype: torch.dtype
    head_size: int
    row_length: int
    windowed: bool = False
    compiled: bool = False

    @classmethod
    def of(cls, config: Any, device: str, dtype: torch.dtype, row_length: int, compiled: bool = False) -> Shape:
        """The shape of a stock model's attention, from the model's own configuration."""
        head_size = config.hidden_size // config.num_attention_heads
        windowed = bool(getattr(config, "sliding_window", None))
        return cls(device, dtype, head_size, row_length, windowed, compiled)


def segment_begins(segment_ids: Tensor) -> Tensor:
    """Whether a segment (or padding) begins at a place: bool, same shape. One always begins at the start of a row."""
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    torch.ne(segment_ids[:, 1:], segment_ids[:, :-1], out=begins[:, 1:])
    return begins


class Backend(Protocol):
    """One way of computing attention within the segments of packed rows, forward and backward.

    `name` is a value of the setting `model.attention`.
    """

    name: str

    def missing(self, shape: Shape) -> str:
        """Why the backend cannot be used for such rows; "" if it can."""
        ...

    def plan(self, segment_ids: Tensor, tweets: int) -> Plan:
        """Precompute what all layers share, once per micro-batch, on its device and without waiting for it.

        Args:
            segment_ids: int32 [rows, row_length]: a number per tweet of the micro-batch, whose tokens are contiguous in
                one row; 0 at padding, at the end of a row or in a whole row.
            tweets: the highest segment number that may occur, known to the host.
        """
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
        """Softmax(scale · q kᵀ) v within segments: [rows, row_length, heads, head_size].

        The result at padding is finite, and so is its gradient.

        Args:
            query, key, value: [rows, heads, row_length, head_size], with any strides.
            plan: the result of `plan`.
            window: longest distance in tokens that a token attends to; None: its whole segment.
        """
        ...

    def attend_packed(self, packed: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
        """`attend` for query, key and value in one tensor: [rows, row_length, 3, heads, head_size]."""
        query, key, value = packed.transpose(1, 3).unbind(dim=2)
        return self.attend(query, key, value, plan, scale, window)
