"""What a way of computing attention over packed rows has to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# What a backend has made of the segments of a micro-batch, ahead of all layers: its own affair.
Plan = Any


@dataclass(frozen=True)
class Shape:
    """What decides whether a backend can be used.

    Attributes:
        device: type of the device, cpu or cuda.
        dtype: of query, key and value.
        head_size: width of a head.
        row_length: tokens of a row.
        windowed: some layers see a window of neighbours alone (ModernBERT).
        compiled: torch.compile is to make the step's kernels.
    """

    device: str
    dtype: torch.dtype
    head_size: int
    row_length: int
    windowed: bool = False
    compiled: bool = False

    @classmethod
    def of(cls, config: Any, device: str, dtype: torch.dtype, row_length: int, compiled: bool = False) -> Shape:
        """The shape of a stock model's attention; `config` is the model's own."""
        head_size = config.hidden_size // config.num_attention_heads
        windowed = bool(getattr(config, "sliding_window", None))
        return cls(device, dtype, head_size, row_length, windowed, compiled)


def segment_begins(segment_ids: Tensor) -> Tensor:
    """Where a segment begins, padding too: bool, alike. A row's first place always does."""
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    torch.ne(segment_ids[:, 1:], segment_ids[:, :-1], out=begins[:, 1:])
    return begins


class Backend(Protocol):
    """One way of computing attention within the segments of packed rows, forward and backward.

    Attributes:
        name: as `model.attention` calls it.
    """

    name: str

    def missing(self, shape: Shape) -> str:
        """Why it cannot be used for such rows; empty when it can."""
        ...

    def plan(self, segment_ids: Tensor, tweets: int) -> Plan:
        """What all layers share, made once for each micro-batch, on its device and without waiting for it.

        Args:
            segment_ids: int32 [rows, row_length]: one number for each tweet of the micro-batch, a tweet's tokens side
                by side in one row; 0 at padding, which may stand between tweets' end and the row's, or fill a row.
            tweets: the highest segment number that may occur; known to the host.
        """
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
        """Softmax(scale · q kᵀ) v within segments; what stands at padding is finite, and so is its gradient.

        Args:
            query, key, value: [rows, heads, row_length, head_size], of any strides.
            plan: by `plan`.
            scale: of the products.
            window: a token sees those at most so far from it in the row; None: all of its segment.

        Returns:
            [rows, row_length, heads, head_size].
        """
        ...

    def attend_packed(self, packed: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
        """`attend` for the three as one product makes them: [rows, row_length, 3, heads, head_size]."""
        query, key, value = packed.transpose(1, 3).unbind(dim=2)
        return self.attend(query, key, value, plan, scale, window)
