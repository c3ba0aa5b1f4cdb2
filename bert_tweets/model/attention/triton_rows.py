"""Attention of whole rows in one Triton kernel each for forward and backward, for NVIDIA GPUs.

A row of 128 tokens fits on the chip with all intermediate results: memory is read and written once, and masking costs
no more than the products that it discards.
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
class KernelConfig:
    """Launch of a kernel: queries per iteration, warps per program, most registers per thread (None: no limit)."""

    queries: int
    warps: int
    registers: int | None = None

    def meta(self) -> dict[str, Any]:
        """The keyword arguments of the launch."""
        limits = {} if self.registers is None else {"maxnreg": self.registers}
        return {"QUERIES": self.queries, "num_warps": self.warps, "num_stages": 1, **limits}


def kernel_configs(dtype: torch.dtype, head_size: int, block: int) -> tuple[KernelConfig, KernelConfig]:
    """The configurations of forward and backward.

    Chosen by the compiler's report for compute capability 9.0, not by timing: for rows of 128 tokens in bf16 at head
    size 64, four programs of the forward and two of the backward share a multiprocessor, so one computes while another
    waits for memory; no registers are spilled, and a few with a window. fp32 has no matrix units: it spills a little at
    16 queries, and much from 32 on. `python -m benchmarks.attention tiles=true` times them.
    """
    if dtype == torch.float32:
        return KernelConfig(16, 8), KernelConfig(16, 8)
    small = block < 128
    limit = 128 if block == 128 and head_size <= 64 else None
    return KernelConfig(min(64, block), 4), KernelConfig(min(32, block), 4 if small else 8, limit)


class TritonRows(Backend):
    """One program per head of a row; the [length, length] weights never leave the chip."""

    name = "triton"

    def missing(self, shape: Shape) -> str:
        if shape.head_size not in HEAD_SIZES:
            return f"head size must be one of {', '.join(map(str, HEAD_SIZES))}, got {shape.head_size}"
        if shape.row_length > LONGEST_ROW:
            return f"row length must be at most {LONGEST_ROW} tokens, got {shape.row_length}"
        if shape.dtype not in DTYPES:
            return f"dtype must be bf16, fp16 or fp32, got {shape.dtype}"
        if find_spec("triton") is None:
            return "needs Triton, which comes with PyTorch for NVIDIA GPUs"
        if os.environ.get("TRITON_INTERPRET") == "1":
            return "" if shape.dtype != torch.bfloat16 else "Triton's interpreter computes wrong products in bf16 (3.6)"
        if shape.device != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
            return "needs an NVIDIA GPU"
        if torch.cuda.get_device_capability() < (8, 0):
            return "needs a GPU of compute capability 8.0 or newer"
        return _failure(shape.dtype, shape.head_size, shape.row_length)

    def plan(self, segment_ids: Tensor, tweets: int) -> Tensor:
        """int32 [rows, row_length], contiguous."""
        return segment_ids.to(torch.int32).contiguous()

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Tensor, scale: float, window: int | None
    ) -> Tensor:
        out: Tensor = rows_attention(query, key, value, plan, scale, _distance(window))[0]
        return out

    def attend_packed(self, packed: Tensor, plan: Tensor, scale: float, window: int | None) -> Tensor:
        """`attend` for query, key and value in one tensor: [rows, row_length, 3, heads, head_size].

        Their gradient is one tensor too; for three tensors autograd would copy their gradients into one.
        """
        out: Tensor = packed_rows_attention(packed, plan, scale, _distance(window))[0]
        return out


def _distance(window: int | None) -> int:
    return -1 if window is None else window


@cache
def _failure(dtype: torch.dtype, head_size: int, row_length: int) -> str:
    """Why the kernels do not run on this GPU, tried on one row; "" if they do."""
    packed = torch.zeros(1, row_length, 3, 2, head_size, dtype=dtype, device="cuda")
    segments = torch.zeros(1, row_length, dtype=torch.int32, device="cuda")
    try:
        out, logsumexp = _forward(*_three(packed), segments, 1.0, -1)
        _backward(out, *_three(packed), segments, logsumexp, 1.0, -1)
    except Exception as error:  # too little shared memory, no C compiler, ...: Triton has no common class for them
        return f"Triton cannot compile its kernels here ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return ""


def _three(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as views, [rows, heads, row_length, head_size] each."""
    query, key, value = packed.transpose(1, 3).unbind(dim=2)
    return query, key, value


def _contiguous_heads(states: Tensor) -> Tensor:
    """The same tensor, with a head's numbers contiguous."""
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
    query, key, value = (_contiguous_heads(states) for states in (query, key, value))
    out = query.new_empty(rows, length, heads, size)
    logsumexp = query.new_empty(rows, heads, length, dtype=torch.float32)
    constants = _constants(query, window)
    config, _ = kernel_configs(query.dtype, size, constants["BLOCK"])
    strides = (stride for states in (query, key, value) for stride in states.stride()[:3])
    with torch.cuda.device(query.device if query.is_cuda else -1):
        triton_kernels.forward[(rows * heads,)](
            query, key, value, segments, out, logsumexp, *strides, heads, scale * log2(torch.e),
            **constants, **config.meta(),
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
    query, key, value, above = (_contiguous_heads(states) for states in (query, key, value, above.transpose(1, 2)))
    gradients = query.new_empty(rows, length, 3, heads, size)
    constants = _constants(query, window)
    _, config = kernel_configs(query.dtype, size, constants["BLOCK"])
    strides = (stride for states in (query, key, value, above) for stride in states.stride()[:3])
    with torch.cuda.device(query.device if query.is_cuda else -1):
        triton_kernels.backward[(rows * heads,)](
            query, key, value, segments, logsumexp, above, gradients, *strides, heads, scale, scale * log2(torch.e),
            **constants, **config.meta(),
        )  # fmt: skip
    return gradients


# Operators of torch, so that torch.compile does not look into them. Schemas are written out, because not every version
# of torch reads annotations that are strings.
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


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
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
rows_attention.register_autograd(_gradients, setup_context=_save)
packed_rows_attention.register_autograd(_packed_gradients, setup_context=_save)
