"""Attention of whole rows in one Triton kernel each way, for NVIDIA's GPUs.

A row of 128 tokens fits on the chip with all that is computed of it: memory is read and written once, and what is
masked costs no more than the products that the mask throws away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import log2
from typing import Any

import torch
from torch import Tensor

from .base import Backend, Shape

LONGEST_ROW, HEAD_SIZES, DTYPES = 256, (16, 32, 64, 128), (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Tile:
    """How a kernel is cut.

    Attributes:
        queries: taken at once.
        warps: of 32 threads, in a program.
        registers: a thread may have; None: as many as it wants.
    """

    queries: int
    warps: int
    registers: int | None = None

    def options(self) -> dict[str, Any]:
        """What Triton's launcher is told."""
        limits = {} if self.registers is None else {"maxnreg": self.registers}
        return {"QUERIES": self.queries, "num_warps": self.warps, "num_stages": 1, **limits}


def tiles(dtype: torch.dtype, head_size: int, block: int) -> tuple[Tile, Tile]:
    """The cuts of forward and backward.

    Chosen by what the compiler reports for compute capability 9.0, not by the clock: of rows of 128 tokens in bf16 at
    head size 64, four programs of the forward and two of the backward share a multiprocessor, so one computes while
    another waits for memory; no registers are spilled there, a few with a window. fp32 has no matrix units: it spills
    a little at 16 queries, and much from 32 on. `python -m benchmarks.attention tiles=true` has the clock's word.
    """
    if dtype == torch.float32:
        return Tile(16, 8), Tile(16, 8)
    small = block < 128
    limit = 128 if block == 128 and head_size <= 64 else None
    return Tile(min(64, block), 4), Tile(min(32, block), 4 if small else 8, limit)


class TritonRows(Backend):
    """One program for each head of a row; [length, length] weights never leave the chip."""

    name = "triton"

    def missing(self, shape: Shape) -> str:
        if shape.head_size not in HEAD_SIZES:
            return f"is made for heads of {', '.join(map(str, HEAD_SIZES))} numbers, not {shape.head_size}"
        if shape.row_length > LONGEST_ROW:
            return f"is made for rows of up to {LONGEST_ROW} tokens, not {shape.row_length}"
        if shape.dtype not in DTYPES:
            return f"is not made for {shape.dtype}"
        if find_spec("triton") is None:
            return "needs Triton, which comes with PyTorch for NVIDIA's GPUs"
        if os.environ.get("TRITON_INTERPRET") == "1":
            return "" if shape.dtype != torch.bfloat16 else "Triton's interpreter multiplies bf16 wrongly (3.6)"
        if shape.device != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
            return "needs an NVIDIA GPU"
        if torch.cuda.get_device_capability() < (8, 0):
            return "needs a GPU of compute capability 8.0 or newer"
        return _trouble(shape.dtype, shape.head_size, shape.row_length)

    def plan(self, segment_ids: Tensor, tweets: int) -> Tensor:
        """int32 [rows, row_length], side by side."""
        del tweets
        return segment_ids.to(torch.int32).contiguous()

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Tensor, scale: float, window: int | None
    ) -> Tensor:
        out: Tensor = rows_attention(query, key, value, plan, scale, _distance(window))[0]
        return out

    def attend_packed(self, packed: Tensor, plan: Tensor, scale: float, window: int | None) -> Tensor:
        """`attend` for the three as one product makes them: [rows, row_length, 3, heads, head_size].

        Their gradient comes as one tensor too. Handed over one by one, autograd copies the three into one.
        """
        out: Tensor = packed_rows_attention(packed, plan, scale, _distance(window))[0]
        return out


def _distance(window: int | None) -> int:
    return -1 if window is None else window


@cache
def _trouble(dtype: torch.dtype, head_size: int, row_length: int) -> str:
    """What keeps the kernels from running on this GPU, tried on one row; empty: nothing."""
    packed = torch.zeros(1, row_length, 3, 2, head_size, dtype=dtype, device="cuda")
    segments = torch.zeros(1, row_length, dtype=torch.int32, device="cuda")
    try:
        out, logsumexp = _forward(*_three(packed), segments, 1.0, -1)
        _backward(out, *_three(packed), segments, logsumexp, 1.0, -1)
    except Exception as error:  # too little shared memory, no C compiler, ...: Triton has no common class for them
        return f"Triton cannot make its kernels here ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return ""


def _three(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as views, [rows, heads, row_length, head_size] each."""
    query, key, value = packed.transpose(1, 3).unbind(dim=2)
    return query, key, value


def _side_by_side(states: Tensor) -> Tensor:
    """The same, a head's numbers side by side."""
    return states if states.stride(-1) == 1 else states.contiguous()


def _constants(query: Tensor, window: int) -> dict[str, Any]:
    length, size = query.shape[-2:]
    exact = query.dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    block = max(16, 1 << (length - 1).bit_length())
    return {"SIZE": size, "LENGTH": length, "BLOCK": block, "WINDOW": window, "PRECISION": "ieee" if exact else "tf32"}


def _forward(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    from . import triton_kernels

    rows, heads, length, size = query.shape
    query, key, value = (_side_by_side(states) for states in (query, key, value))
    out = query.new_empty(rows, length, heads, size)
    logsumexp = query.new_empty(rows, heads, length, dtype=torch.float32)
    constants = _constants(query, window)
    tile, _ = tiles(query.dtype, size, constants["BLOCK"])
    strides = (stride for states in (query, key, value) for stride in states.stride()[:3])
    with torch.cuda.device(query.device if query.is_cuda else -1):
        triton_kernels.forward[(rows * heads,)](
            query, key, value, segments, out, logsumexp, *strides, heads, scale * log2(torch.e),
            **constants, **tile.options(),
        )  # fmt: skip
    return out, logsumexp


def _backward(
    above: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Tensor,
    logsumexp: Tensor,
    scale: float,
    window: int,
) -> Tensor:
    from . import triton_kernels

    rows, heads, length, size = query.shape
    query, key, value, above = (_side_by_side(states) for states in (query, key, value, above.transpose(1, 2)))
    gradients = query.new_empty(rows, length, 3, heads, size)
    constants = _constants(query, window)
    _, tile = tiles(query.dtype, size, constants["BLOCK"])
    strides = (stride for states in (query, key, value, above) for stride in states.stride()[:3])
    with torch.cuda.device(query.device if query.is_cuda else -1):
        triton_kernels.backward[(rows * heads,)](
            query, key, value, segments, logsumexp, above, gradients, *strides, heads, scale, scale * log2(torch.e),
            **constants, **tile.options(),
        )  # fmt: skip
    return gradients


# Operators of torch, so that torch.compile takes them as they are. Schemas are written out: not every version of
# torch reads annotations that are strings.
_FORWARD = "(Tensor query, Tensor key, Tensor value, Tensor segments, float scale, int window) -> (Tensor, Tensor)"
_PACKED = "(Tensor packed, Tensor segments, float scale, int window) -> (Tensor, Tensor)"
_BACKWARD = (
    "(Tensor above, Tensor query, Tensor key, Tensor value, Tensor segments, Tensor logsumexp, float scale, int window)"
    " -> Tensor"
)


def _empty(query: Tensor) -> tuple[Tensor, Tensor]:
    rows, heads, length, size = query.shape
    return query.new_empty(rows, length, heads, size), query.new_empty(rows, heads, length, dtype=torch.float32)


def _packed_forward(packed: Tensor, segments: Tensor, scale: float, window: int) -> tuple[Tensor, Tensor]:
    return _forward(*_three(packed), segments, scale, window)


rows_attention: Any = torch.library.custom_op("bert_tweets::rows_attention", _forward, mutates_args=(), schema=_FORWARD)
packed_rows_attention: Any = torch.library.custom_op(
    "bert_tweets::packed_rows_attention", _packed_forward, mutates_args=(), schema=_PACKED
)
rows_attention_backward: Any = torch.library.custom_op(
    "bert_tweets::rows_attention_backward", _backward, mutates_args=(), schema=_BACKWARD
)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, above: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    packed = rows_attention_backward(above, *ctx.saved_tensors, ctx.scale, ctx.window)
    return *_three(packed), None, None, None


def _packed_gradients(ctx: Any, above: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    packed, segments, logsumexp = ctx.saved_tensors
    three = _three(packed)
    return rows_attention_backward(above, *three, segments, logsumexp, ctx.scale, ctx.window), None, None, None


rows_attention.register_fake(lambda query, *_: _empty(query))
packed_rows_attention.register_fake(lambda packed, *_: _empty(_three(packed)[0]))
rows_attention_backward.register_fake(
    lambda _, query, *__: query.new_empty(query.shape[0], query.shape[2], 3, query.shape[1], query.shape[3])
)
rows_attention.register_autograd(_gradients, setup_context=_keep)
packed_rows_attention.register_autograd(_packed_gradients, setup_context=_keep)
