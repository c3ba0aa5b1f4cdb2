"""Attention tweet by tweet, for the CPU: rows are taken apart into tweets of like length, and no others multiplied.

Of a packed row's products nine in ten lie between two tweets. Matrices of whole rows compute them and mask them; here a
tweet is padded to the next multiple of a few tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .protocol import Shape

# Tweets are padded to a multiple of it: less padding against more, smaller products.
WIDTH_STEP = 8


@dataclass(frozen=True)
class Bucket:
    """Tweets of like length.

    Attributes:
        places: int64 [tweets, width], where each token stands in the flattened rows; behind a tweet's end its first.
        within: bool [tweets, width], whether the tweet reaches so far.
    """

    places: Tensor
    within: Tensor

    def rows(self, heads: int) -> Tensor:
        """The places of [tweets, heads, width] among [tokens x heads]; int64, flat."""
        return (self.places[:, None, :] * heads + torch.arange(heads)[:, None]).flatten()


@dataclass(frozen=True)
class _Plan:
    """The buckets of a micro-batch; what depends on the number of heads is worked out once."""

    buckets: list[Bucket]
    by_heads: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def rows(self, heads: int) -> list[tuple[Tensor, Tensor]]:
        """Of each bucket where its tokens are read, and where they are written: padding to a row behind all others."""
        if heads not in self.by_heads:
            self.by_heads[heads] = [
                (rows, rows.where(b.within[:, None, :].expand(-1, heads, -1).flatten(), -1))
                for b in self.buckets
                for rows in (b.rows(heads),)
            ]
        return self.by_heads[heads]


class Tweets:
    """Products of each tweet with itself, in batches of tweets of like length; in fp32 whatever the input is."""

    name = "tweets"
    static = False

    def missing(self, shape: Shape) -> str:
        return "" if shape.device == "cpu" else "is made for the CPU"

    def plan(self, segment_ids: Tensor, tweets: int) -> _Plan:
        del tweets
        flat = segment_ids.flatten()
        begins = torch.ones_like(segment_ids, dtype=torch.bool)
        torch.ne(segment_ids[:, 1:], segment_ids[:, :-1], out=begins[:, 1:])
        starts = torch.nonzero(begins.flatten()).squeeze(1)
        lengths = torch.diff(starts, append=torch.tensor([len(flat)]))
        starts, lengths = (values[flat[starts] > 0] for values in (starts, lengths))
        widths = (lengths + WIDTH_STEP - 1) // WIDTH_STEP * WIDTH_STEP
        buckets = []
        for width in torch.unique(widths).tolist():
            which = widths == width
            offsets = torch.arange(width)
            within = offsets < lengths[which, None]
            buckets.append(Bucket(starts[which, None] + torch.where(within, offsets, 0), within))
        return _Plan(buckets)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: _Plan, scale: float, window: int | None
    ) -> Tensor:
        by_token = (states.transpose(1, 2) for states in (query, key, value))
        return _Attention.apply(*by_token, plan, scale, window)  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """Both directions over [rows, length, heads, head size]."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: _Plan, scale: float, window: int | None
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            out, weights = _forward(query, key, value, plan, scale, window)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        query, key, value, *weights = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            found = _backward(gradients[0], query, key, value, weights, ctx.plan, ctx.scale)
        return *found, None, None, None


def _forward(
    query: Tensor, key: Tensor, value: Tensor, plan: _Plan, scale: float, window: int | None
) -> tuple[Tensor, list[Tensor]]:
    """The output, and of each bucket the weights of the softmax, [tweets x heads, width, width]."""
    heads, size = query.shape[-2:]
    q, k, v = (states.reshape(-1, size) for states in (query, key, value))
    out = q.new_zeros(len(q) + 1, size)
    weights = []
    for bucket, (read, write) in zip(plan.buckets, plan.rows(heads), strict=True):
        width = bucket.places.shape[1]
        of_q, of_k, of_v = (_take(states, read, width) for states in (q, k, v))
        scores = torch.bmm(of_q, of_k.transpose(1, 2)).mul_(scale)
        weight = _softmax(scores.view(-1, heads, width, width), bucket.within, window).view_as(scores)
        weights.append(weight)
        out[write] = torch.bmm(weight, of_v).view(-1, size).to(out.dtype)
    return out[:-1].view(query.shape), weights


def _backward(
    of_out: Tensor, query: Tensor, key: Tensor, value: Tensor, weights: list[Tensor], plan: _Plan, scale: float
) -> list[Tensor]:
    heads, size = query.shape[-2:]
    q, k, v, upstream = (states.reshape(-1, size) for states in (query, key, value, of_out))
    found = [q.new_zeros(len(q) + 1, size) for _ in range(3)]
    for weight, (read, write) in zip(weights, plan.rows(heads), strict=True):
        of_q, of_k, of_v, above = (_take(states, read, weight.shape[1]) for states in (q, k, v, upstream))
        of_weight = torch.bmm(above, of_v.transpose(1, 2))
        mean = (of_weight * weight).sum(dim=-1, keepdim=True)
        of_scores = of_weight.sub_(mean).mul_(weight).mul_(scale)
        parts = (
            torch.bmm(of_scores, of_k),
            torch.bmm(of_scores.transpose(1, 2), of_q),
            torch.bmm(weight.transpose(1, 2), above),
        )
        for target, part in zip(found, parts, strict=True):
            target[write] = part.view(-1, size).to(target.dtype)
    return [target[:-1].view(query.shape) for target in found]


def _take(states: Tensor, rows: Tensor, width: int) -> Tensor:
    """float32 [tweets x heads, width, head size]."""
    return states.index_select(0, rows).view(-1, width, states.shape[1]).float()


def _softmax(scores: Tensor, within: Tensor, window: int | None) -> Tensor:
    """Over the keys of the tweet; [tweets, heads, width, width]. What asks from behind its end gets nothing."""
    seen = within[:, None, None, :]
    if window is not None:
        places = torch.arange(scores.shape[-1])
        seen = seen & ((places[:, None] - places).abs() <= window)
    if not seen.all():
        scores.masked_fill_(~seen, -1e30)
    weights = torch.softmax(scores, dim=-1)
    return weights.mul_(within[:, None, :, None])
