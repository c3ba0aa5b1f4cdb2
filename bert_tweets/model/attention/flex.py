"""PyTorch's FlexAttention: kernels that torch.compile generates for our mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Backend, Shape

# Tokens per block of the mask, as in PyTorch.
BLOCK = 128


class Flex(Backend):
    """`flex_attention` with the mask as a function of two positions.

    A row of one block has nothing to skip, so the block mask marks every block as partly masked, whatever the segments.
    The kernels read only tensors of a batch, so they are compiled once.
    """

    name = "flex"

    def __init__(self) -> None:
        self._compiled: Callable[..., Any] | None = None

    def missing(self, shape: Shape) -> str:
        if shape.device != "cuda" or not torch.cuda.is_available():
            return "needs a GPU: FlexAttention has no backward pass on a CPU"
        if shape.row_length % BLOCK:
            return f"row length must be a multiple of {BLOCK} tokens, got {shape.row_length}"
        if shape.head_size < 16:
            return f"head size must be at least 16, got {shape.head_size}"
        return ""

    def plan(self, segment_ids: Tensor, tweets: int) -> Tensor:
        """int32 [rows, row_length]."""
        return segment_ids

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Tensor, scale: float, window: int | None
    ) -> Tensor:
        seen: Tensor = self._function()(query, key, value, block_mask=_mask(plan, window), scale=scale)
        return seen.transpose(1, 2)

    def _function(self) -> Callable[..., Any]:
        """`flex_attention`, compiled unless the caller is: uncompiled, it writes all weights to memory."""
        from torch.nn.attention.flex_attention import flex_attention

        if torch.compiler.is_compiling():
            return flex_attention
        if self._compiled is None:
            self._compiled = torch.compile(flex_attention)
        return self._compiled


def _mask(segment_ids: Tensor, window: int | None) -> Any:
    """A BlockMask [rows, 1, length, length] in which every block is partly masked."""
    from torch.nn.attention.flex_attention import BlockMask

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = segment_ids[row, query] == segment_ids[row, key]
        return same if window is None else same & ((query - key).abs() <= window)

    rows, length = segment_ids.shape
    blocks = -(-length // BLOCK)
    numbers = torch.arange(blocks, dtype=torch.int32, device=segment_ids.device)
    partial = numbers.expand(rows, 1, blocks, blocks).contiguous()
    counts = torch.full((rows, 1, blocks), blocks, dtype=torch.int32, device=segment_ids.device)
    return BlockMask.from_kv_blocks(counts, partial, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))
