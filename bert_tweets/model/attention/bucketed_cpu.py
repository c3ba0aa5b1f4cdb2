"""Attention tweet by tweet, for the CPU: rows are taken apart into tweets of like length, and no others multiplied.

Of a packed row's products nine in ten lie between two tweets. Matrices of whole rows compute them and mask them; here a
tweet is padded to the next multiple of a few tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Backend, Shape, segment_begins

# Tweets are padded to a multiple of it: less padding against more, smaller products.
WIDTH_STEP = 8


@dataclass(frozen=True)
class Bucket:
    """Tweets of like length.

    Attributes:
        read: int64 [tweets x width], where each token stands in the flattened rows; behind a tweet's end its first.
        write: int64, alike; behind a tweet's end one place behind all rows.
        within: bool [tweets, width], whether the tweet reaches so far.
        full: whether each of them does.
    """

    read: Tensor
    write: Tensor
    within: Tensor
    full: bool


class BucketedAttention(Backend):
    """Products of each tweet with itself, in batches of tweets of like length and in the precision of the input."""

    name = "bucketed"

    def missing(self, shape: Shape) -> str:
        if shape.device != "cpu":
            return "is made for the CPU"
        return (
            "its products have new shapes in each step, and model.compile=true would never end"
            if shape.compiled
            else ""
        )

    def plan(self, segment_ids: Tensor, tweets: int) -> list[Bucket]:
        del tweets
        flat = segment_ids.flatten()
        starts = torch.nonzero(segment_begins(segment_ids).flatten()).squeeze(1)
        lengths = torch.diff(starts, append=torch.tensor([len(flat)]))
        starts, lengths = (values[flat[starts] > 0] for values in (starts, lengths))
        widths = (lengths + WIDTH_STEP - 1) // WIDTH_STEP * WIDTH_STEP
        buckets = []
        for width in torch.unique(widths).tolist():
            which = widths == width
            offsets = torch.arange(width)
            within = offsets < lengths[which, None]
            read = starts[which, None] + torch.where(within, offsets, 0)
            write = read.where(within, len(flat))
            buckets.append(Bucket(read.flatten(), write.flatten(), within, bool(within.all())))
        return buckets

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: list[Bucket], scale: float, window: int | None
    ) -> Tensor:
        packed = torch.stack([states.transpose(1, 2) for states in (query, key, value)], dim=2)
        return self.attend_packed(packed, plan, scale, window)

    def attend_packed(self, packed: Tensor, plan: list[Bucket], scale: float, window: int | None) -> Tensor:
        return _Attention.apply(packed, plan, scale, window)  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """Both directions over [rows, length, 3, heads, head size]."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, plan: list[Bucket], scale: float, window: int | None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            out, weights = _forward(packed, plan, scale, window)
        ctx.save_for_backward(packed, *weights)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        packed, *weights = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            found = _backward(gradients[0], packed, weights, ctx.plan, ctx.scale)
        return found, None, None, None


def _forward(packed: Tensor, plan: list[Bucket], scale: float, window: int | None) -> tuple[Tensor, list[Tensor]]:
    """The output, and of each bucket the weights of the softmax, [tweets x heads, width, width]."""
    rows, length, _, heads, size = packed.shape
    out = packed.new_zeros(rows * length + 1, heads * size)
    weights = []
    for bucket in plan:
        query, key, value = _taken(packed, bucket, 3)
        scores = torch.bmm(query, key.transpose(1, 2)).float().mul_(scale).add_(_unseen(bucket, heads, window))
        weights.append(torch.softmax(scores, dim=-1).to(packed.dtype))
        _put(out, bucket, torch.bmm(weights[-1], value).unsqueeze(0), heads)
    return out[:-1].view(rows, length, heads, size), weights


def _backward(of_out: Tensor, packed: Tensor, weights: list[Tensor], plan: list[Bucket], scale: float) -> Tensor:
    heads = packed.shape[-2]
    found = packed.new_zeros(packed.shape[0] * packed.shape[1] + 1, packed[0, 0].numel())
    for bucket, weight in zip(plan, weights, strict=True):
        query, key, value = _taken(packed, bucket, 3)
        (above,) = _taken(of_out, bucket, 1)
        if not bucket.full:
            # What asks from behind a tweet's end gets nothing.
            above.view(len(bucket.within), heads, *above.shape[1:]).mul_(bucket.within[:, None, :, None])
        of_weight = torch.bmm(above, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype).mul_(scale)
        parts = query.new_empty(3, *query.shape)
        torch.bmm(of_scores, key, out=parts[0])
        torch.bmm(of_scores.transpose(1, 2), query, out=parts[1])
        torch.bmm(weight.transpose(1, 2), above, out=parts[2])
        _put(found, bucket, parts, heads)
    return found[:-1].view(packed.shape)


def _taken(states: Tensor, bucket: Bucket, several: int) -> Tensor:
    """[several, tweets x heads, width, head size] of [rows, length, (several,) heads, head size]; a copy."""
    heads, size = states.shape[-2:]
    tweets, width = bucket.within.shape
    lines = states.reshape(-1, several * heads * size).index_select(0, bucket.read)
    by_head = lines.view(tweets, width, several, heads, size).permute(2, 0, 3, 1, 4)
    return by_head.reshape(several, tweets * heads, width, size)


def _put(target: Tensor, bucket: Bucket, states: Tensor, heads: int) -> None:
    """Writes [several, tweets x heads, width, head size] to lines of [tokens + 1, several x heads x head size]."""
    several, _, width, size = states.shape
    by_token = states.view(several, -1, heads, width, size).permute(1, 3, 0, 2, 4)
    target.index_copy_(0, bucket.write, by_token.reshape(len(bucket.write), -1))


def _unseen(bucket: Bucket, heads: int, window: int | None) -> Tensor:
    """0 at what is seen, else -1e30; float32 that broadcasts to [tweets x heads, width, width]."""
    seen = bucket.within[:, None, None, :]
    if window is not None:
        places = torch.arange(seen.shape[-1])
        seen = seen & ((places[:, None] - places).abs() <= window)
    elif bucket.full:
        return torch.zeros(1)
    unseen = torch.zeros(seen.shape).masked_fill_(~seen, -1e30)
    return unseen.expand(-1, heads, -1, -1).flatten(0, 1)
