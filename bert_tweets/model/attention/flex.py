"""PyTorch's FlexAttention: kernels that torch.compile makes for our mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Backend, Shape

# Tokens of a block of the mask; PyTorch's own choice.
BLOCK = 128


class Flex(Backend):
    """`flex_attention` with the mask as a function of two positions.

    A row of one block has nothing in it to skip, so the mask of blocks says that each is looked into, and is made
    without looking at the segments. What the kernels read of a batch are tensors alone: they are made once.
    """

    name = "flex"

    def __init__(self) -> None:
        self._compiled: Callable[..., Any] | None = None

    def missing(self, shape: Shape) -> str:
        if shape.device != "cuda" or not torch.cuda.is_available():
            return "needs a GPU: FlexAttention has no way back on a CPU"
        if shape.row_length % BLOCK:
            return f"is made for rows of a multiple of {BLOCK} tokens, not {shape.row_length}"
        if shape.head_size < 16:
            return f"is made for heads of 16 numbers or more, not {shape.head_size}"
        return ""

    def plan(self, segment_ids: Tensor, tweets: int) -> Tensor:
        """int32 [rows, row_length]."""
        del tweets
        return segment_ids

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Tensor, scale: float, window: int | None
    ) -> Tensor:
        seen: Tensor = self._function()(query, key, value, block_mask=_mask(plan, window), scale=scale)
        return seen.transpose(1, 2)

    def _function(self) -> Callable[..., Any]:
        """Compiled here where the caller is not: as it stands, it writes all weights to memory."""
        from torch.nn.attention.flex_attention import flex_attention

        if torch.compiler.is_compiling():
            return flex_attention
        if self._compiled is None:
            self._compiled = torch.compile(flex_attention)
        return self._compiled


def _mask(segment_ids: Tensor, window: int | None) -> Any:
    """A BlockMask [rows, 1, length, length] in which no block is skipped, and none is taken as a whole."""
    from torch.nn.attention.flex_attention import BlockMask

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        same = segment_ids[row, query] == segment_ids[row, key]
        return same if window is None else same & ((query - key).abs() <= window)

    rows, length = segment_ids.shape
    blocks = -(-length // BLOCK)
    numbers = torch.arange(blocks, dtype=torch.int32, device=segment_ids.device)
    looked_into = numbers.expand(rows, 1, blocks, blocks).contiguous()
    counts = torch.full((rows, 1, blocks), blocks, dtype=torch.int32, device=segment_ids.device)
    return BlockMask.from_kv_blocks(counts, looked_into, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))
