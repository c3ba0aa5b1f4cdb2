"""Attention tweet by tweet, for the CPU: rows are taken apart into tweets of like length, and no others multiplied.

Of a packed row's products nine in ten lie between two tweets. Matrices of whole rows compute them and mask them; here a
tweet is padded to the next multiple of a few tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .protocol import Backend, Shape, segment_begins

# Tweets are padded to a multiple of it: less padding against more, smaller products.
WIDTH_STEP = 8

# Where heads of tokens are read, and where they are written: what lies behind a tweet's end at -1, behind all others.
Lines = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Bucket:
    """Tweets of like length.

    Attributes:
        places: int64 [tweets, width], where each token stands in the flattened rows; behind a tweet's end its first.
        within: bool [tweets, width], whether the tweet reaches so far.
    """

    places: Tensor
    within: Tensor

    def lines(self, heads: int, several: int, which: int) -> Lines:
        """Where [tweets, heads, width] stand among [tokens x several x heads], of one of the several."""
        read = self.places[:, None, :] * (several * heads) + which * heads + torch.arange(heads)[:, None]
        return read.flatten(), read.where(self.within[:, None, :], -1).flatten()


@dataclass(frozen=True)
class _Plan:
    """The buckets of a micro-batch; what depends on the number of heads is worked out once."""

    buckets: list[Bucket]
    by_heads: dict[int, list[tuple[list[Lines], Lines]]] = field(default_factory=dict)

    def lines(self, heads: int) -> list[tuple[list[Lines], Lines]]:
        """Of each bucket the lines of query, key and value, and of the output."""
        if heads not in self.by_heads:
            self.by_heads[heads] = [
                ([bucket.lines(heads, 3, which) for which in range(3)], bucket.lines(heads, 1, 0))
                for bucket in self.buckets
            ]
        return self.by_heads[heads]


class Tweets(Backend):
    """Products of each tweet with itself, in batches of tweets of like length; in fp32 whatever the input is."""

    name = "tweets"

    def missing(self, shape: Shape) -> str:
        return "" if shape.device == "cpu" else "is made for the CPU"

    def plan(self, segment_ids: Tensor, tweets: int) -> _Plan:
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
            buckets.append(Bucket(starts[which, None] + torch.where(within, offsets, 0), within))
        return _Plan(buckets)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: _Plan, scale: float, window: int | None
    ) -> Tensor:
        packed = torch.stack([states.transpose(1, 2) for states in (query, key, value)], dim=2)
        return self.attend_packed(packed, plan, scale, window)

    def attend_packed(self, packed: Tensor, plan: _Plan, scale: float, window: int | None) -> Tensor:
        return _Attention.apply(packed, plan, scale, window)  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """Both directions over [rows, length, 3, heads, head size]."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, plan: _Plan, scale: float, window: int | None) -> Tensor:
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


def _forward(packed: Tensor, plan: _Plan, scale: float, window: int | None) -> tuple[Tensor, list[Tensor]]:
    """The output, and of each bucket the weights of the softmax, [tweets x heads, width, width]."""
    rows, length, _, heads, size = packed.shape
    states = packed.reshape(-1, size)
    out = states.new_zeros(rows * length * heads + 1, size)
    weights = []
    for bucket, (three, (_, write)) in zip(plan.buckets, plan.lines(heads), strict=True):
        width = bucket.places.shape[1]
        query, key, value = (_take(states, read, width) for read, _ in three)
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale)
        weight = _softmax(scores.view(-1, heads, width, width), bucket.within, window).view_as(scores)
        weights.append(weight)
        out[write] = torch.bmm(weight, value).view(-1, size).to(out.dtype)
    return out[:-1].view(rows, length, heads, size), weights


def _backward(of_out: Tensor, packed: Tensor, weights: list[Tensor], plan: _Plan, scale: float) -> Tensor:
    heads, size = packed.shape[-2:]
    states, upstream = packed.reshape(-1, size), of_out.reshape(-1, size)
    found = states.new_zeros(len(states) + 1, size)
    for weight, (three, (of_upstream, _)) in zip(weights, plan.lines(heads), strict=True):
        width = weight.shape[1]
        query, key, value = (_take(states, read, width) for read, _ in three)
        above = _take(upstream, of_upstream, width)
        of_weight = torch.bmm(above, value.transpose(1, 2))
        mean = (of_weight * weight).sum(dim=-1, keepdim=True)
        of_scores = of_weight.sub_(mean).mul_(weight).mul_(scale)
        parts = (
            torch.bmm(of_scores, key),
            torch.bmm(of_scores.transpose(1, 2), query),
            torch.bmm(weight.transpose(1, 2), above),
        )
        for (_, write), part in zip(three, parts, strict=True):
            found[write] = part.view(-1, size).to(found.dtype)
    return found[:-1].view(packed.shape)


def _take(states: Tensor, lines: Tensor, width: int) -> Tensor:
    """float32 [tweets x heads, width, head size]."""
    return states.index_select(0, lines).view(-1, width, states.shape[1]).float()


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
