"""Attention tweet by tweet, for the CPU: tweets of similar length are gathered from the rows and multiplied in batches.

Nine in ten products of a packed row are between two tweets. Attention of whole rows computes and masks them; here each
tweet is padded only to the next multiple of a few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Backend, Shape, segment_begins

# Tweets are padded to a multiple of it: a compromise between padding and many small products.
WIDTH_STEP = 8


@dataclass(frozen=True)
class Bucket:
    """Tweets of similar length.

    Attributes:
        read: int64 [tweets x width], index of each token in the flattened rows; after a tweet's end that of its first.
        write: int64 [tweets x width], the same, but after a tweet's end the index one past all rows.
        within: bool [tweets, width], whether the place is inside the tweet.
        full: whether all places are.
    """

    read: Tensor
    write: Tensor
    within: Tensor
    full: bool


class BucketedAttention(Backend):
    """Products of each tweet with itself, in batches of tweets of similar length and in the precision of the input."""

    name = "bucketed"

    def missing(self, shape: Shape) -> str:
        if shape.device != "cpu":
            return "only for the CPU"
        reason = "its products have new shapes in each step, so model.compile=true would compile in every step"
        return reason if shape.compiled else ""

    def plan(self, segment_ids: Tensor, tweets: int) -> list[Bucket]:
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
    """Forward and backward over [rows, length, 3, heads, head size]."""

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
    """The output, and the weights of the softmax of each bucket, [tweets x heads, width, width]."""
    rows, length, _, heads, size = packed.shape
    out = packed.new_zeros(rows * length + 1, heads * size)
    weights = []
    for bucket in plan:
        query, key, value = _gather(packed, bucket, 3)
        scores = torch.bmm(query, key.transpose(1, 2)).float().mul_(scale).add_(_mask(bucket, heads, window))
        weights.append(torch.softmax(scores, dim=-1).to(packed.dtype))
        _scatter(out, bucket, torch.bmm(weights[-1], value).unsqueeze(0), heads)
    return out[:-1].view(rows, length, heads, size), weights


def _backward(of_out: Tensor, packed: Tensor, weights: list[Tensor], plan: list[Bucket], scale: float) -> Tensor:
    heads = packed.shape[-2]
    found = packed.new_zeros(packed.shape[0] * packed.shape[1] + 1, packed[0, 0].numel())
    for bucket, weight in zip(plan, weights, strict=True):
        query, key, value = _gather(packed, bucket, 3)
        (upstream,) = _gather(of_out, bucket, 1)
        if not bucket.full:
            # Queries after a tweet's end have no gradient.
            upstream.view(len(bucket.within), heads, *upstream.shape[1:]).mul_(bucket.within[:, None, :, None])
        of_weight = torch.bmm(upstream, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype).mul_(scale)
        parts = query.new_empty(3, *query.shape)
        torch.bmm(of_scores, key, out=parts[0])
        torch.bmm(of_scores.transpose(1, 2), query, out=parts[1])
        torch.bmm(weight.transpose(1, 2), upstream, out=parts[2])
        _scatter(found, bucket, parts, heads)
    return found[:-1].view(packed.shape)


def _gather(states: Tensor, bucket: Bucket, several: int) -> Tensor:
    """Copy [several, tweets x heads, width, head size] from [rows, length, (several,) heads, head size]."""
    heads, size = states.shape[-2:]
    tweets, width = bucket.within.shape
    lines = states.reshape(-1, several * heads * size).index_select(0, bucket.read)
    by_head = lines.view(tweets, width, several, heads, size).permute(2, 0, 3, 1, 4)
    return by_head.reshape(several, tweets * heads, width, size)


def _scatter(target: Tensor, bucket: Bucket, states: Tensor, heads: int) -> None:
    """Write [several, tweets x heads, width, head size] to lines of [tokens + 1, several x heads x head size]."""
    several, _, width, size = states.shape
    by_token = states.view(several, -1, heads, width, size).permute(1, 3, 0, 2, 4)
    target.index_copy_(0, bucket.write, by_token.reshape(len(bucket.write), -1))


def _mask(bucket: Bucket, heads: int, window: int | None) -> Tensor:
    """0 where attention is allowed, else -1e30; float32 that broadcasts to [tweets x heads, width, width]."""
    seen = bucket.within[:, None, None, :]
    if window is not None:
        places = torch.arange(seen.shape[-1])
        seen = seen & ((places[:, None] - places).abs() <= window)
    elif bucket.full:
        return torch.zeros(1)
    unseen = torch.zeros(seen.shape).masked_fill_(~seen, -1e30)
    return unseen.expand(-1, heads, -1, -1).flatten(0, 1)
