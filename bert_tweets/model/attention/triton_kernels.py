"""The Triton kernels of `TritonRows`; imported only where they run, because Triton comes with PyTorch for GPUs only.

One program is one head of one row. All of its keys and values are on the chip at once, so the softmax needs no running
maximum (unlike FlashAttention, Dao et al. 2022), and the backward pass needs no second pass and no atomic sums.
"""

# The code below is Triton's language, in the syntax of Python.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load(states, tokens, stride, SIZE: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """Load [tokens, SIZE] of one head of one row; zeros after the row's end."""
    places = states + tokens[:, None] * stride + tl.arange(0, SIZE)[None, :]
    if LENGTH == BLOCK:
        return tl.load(places)
    return tl.load(places, mask=tokens[:, None] < LENGTH, other=0.0)


@triton.jit
def _store(states, tokens, stride, values, SIZE: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """Store [tokens, SIZE] of one head of one row."""
    places = states + tokens[:, None] * stride + tl.arange(0, SIZE)[None, :]
    if LENGTH == BLOCK:
        tl.store(places, values.to(states.dtype.element_ty))
    else:
        tl.store(places, values.to(states.dtype.element_ty), mask=tokens[:, None] < LENGTH)


@triton.jit
def _load_row(values, tokens, nothing, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """Load [tokens] of one row."""
    if LENGTH == BLOCK:
        return tl.load(values + tokens)
    return tl.load(values + tokens, mask=tokens < LENGTH, other=nothing)


@triton.jit
def _seen(segments, queries, keys, WINDOW: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """bool [queries, keys]: which keys a query attends to. Places after the row's end are a segment of their own."""
    of_queries = _load_row(segments, queries, -1, LENGTH, BLOCK)
    of_keys = _load_row(segments, keys, -1, LENGTH, BLOCK)
    seen = of_queries[:, None] == of_keys[None, :]
    if WINDOW >= 0:
        apart = queries[:, None] - keys[None, :]
        seen = seen & (apart <= WINDOW) & (apart >= -WINDOW)
    return seen


@triton.jit
def forward(
    query,
    key,
    value,
    segments,
    out,
    logsumexp,
    query_row,
    query_head,
    query_token,
    key_row,
    key_head,
    key_token,
    value_row,
    value_head,
    value_token,
    heads,
    scale,
    SIZE: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
    QUERIES: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write `out` [rows, LENGTH, heads, SIZE] and `logsumexp` [rows, heads, LENGTH], float32, to base 2.

    Args:
        segments: int32 [rows, LENGTH].
        query_row, ...: strides; a head's numbers are contiguous.
        scale: scale of the products, times log2(e).
        BLOCK: LENGTH, rounded up to a power of two.
        QUERIES: queries per iteration.
        WINDOW: longest distance that a token attends to; -1: its whole segment.
    """
    row, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    keys = tl.arange(0, BLOCK)
    segments += row * LENGTH
    out += (row * LENGTH * heads + head) * SIZE
    logsumexp += (row * heads + head) * LENGTH
    query += row * query_row + head * query_head
    k = _load(key + row * key_row + head * key_head, keys, key_token, SIZE, LENGTH, BLOCK)
    v = _load(value + row * value_row + head * value_head, keys, value_token, SIZE, LENGTH, BLOCK)
    for first in tl.range(0, BLOCK, QUERIES):
        queries = first + tl.arange(0, QUERIES)
        q = _load(query, queries, query_token, SIZE, LENGTH, BLOCK)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(_seen(segments, queries, keys, WINDOW, LENGTH, BLOCK), scores, float("-inf"))
        highest = tl.max(scores, 1)  # finite: a token attends to itself
        weights = tl.exp2(scores - highest[:, None])
        total = tl.sum(weights, 1)
        mixed = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION) / total[:, None]
        _store(out, queries, heads * SIZE, mixed, SIZE, LENGTH, BLOCK)
        if LENGTH == BLOCK:
            tl.store(logsumexp + queries, highest + tl.log2(total))
        else:
            tl.store(logsumexp + queries, highest + tl.log2(total), mask=queries < LENGTH)


@triton.jit
def backward(
    query,
    key,
    value,
    segments,
    logsumexp,
    above,
    gradients,
    query_row,
    query_head,
    query_token,
    key_row,
    key_head,
    key_token,
    value_row,
    value_head,
    value_token,
    above_row,
    above_head,
    above_token,
    heads,
    scale,
    log2_scale,
    SIZE: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
    QUERIES: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write `gradients` [rows, LENGTH, 3, heads, SIZE] of query, key and value, from that of the output, `above`.

    Weights are [keys, queries] here, so that they are the left operand of two products without a transposition. The
    mean that the softmax's gradient subtracts is the sum of weights times their gradients (Dao et al. 2022, appendix
    B.4), which are all on the chip; it could also be computed from the output, which is neither kept nor read.
    """
    row, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    keys = tl.arange(0, BLOCK)
    segments += row * LENGTH
    logsumexp += (row * heads + head) * LENGTH
    gradients += (row * LENGTH * 3 * heads + head) * SIZE
    query += row * query_row + head * query_head
    above += row * above_row + head * above_head
    k = _load(key + row * key_row + head * key_head, keys, key_token, SIZE, LENGTH, BLOCK)
    v = _load(value + row * value_row + head * value_head, keys, value_token, SIZE, LENGTH, BLOCK)
    of_key = tl.zeros((BLOCK, SIZE), tl.float32)
    of_value = tl.zeros((BLOCK, SIZE), tl.float32)
    for first in tl.range(0, BLOCK, QUERIES):
        queries = first + tl.arange(0, QUERIES)
        q = _load(query, queries, query_token, SIZE, LENGTH, BLOCK)
        upstream = _load(above, queries, above_token, SIZE, LENGTH, BLOCK)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * log2_scale
        scores -= _load_row(logsumexp, queries, 0.0, LENGTH, BLOCK)[None, :]
        seen = _seen(segments, keys, queries, WINDOW, LENGTH, BLOCK)
        weights = tl.exp2(tl.where(seen, scores, float("-inf")))
        of_value = tl.dot(weights.to(v.dtype), upstream, of_value, input_precision=PRECISION)
        of_weights = tl.dot(v, tl.trans(upstream), input_precision=PRECISION)
        mean = tl.sum(weights * of_weights, 0)
        of_scores = (weights * (of_weights - mean[None, :])).to(k.dtype)
        of_query = tl.dot(tl.trans(of_scores), k, input_precision=PRECISION) * scale
        _store(gradients, queries, 3 * heads * SIZE, of_query, SIZE, LENGTH, BLOCK)
        of_key = tl.dot(of_scores, q, of_key, input_precision=PRECISION)
    _store(gradients + heads * SIZE, keys, 3 * heads * SIZE, of_key * scale, SIZE, LENGTH, BLOCK)
    _store(gradients + 2 * heads * SIZE, keys, 3 * heads * SIZE, of_value, SIZE, LENGTH, BLOCK)
