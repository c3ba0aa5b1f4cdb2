"""Every backend of attention against tweets computed one by one, in both directions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bert_tweets.errors import UserError
from bert_tweets.model.attention import Backend, Shape, backend_for, backend_named, names

HEADS, SIZE, LENGTH = 3, 16, 32
SCALE = SIZE**-0.5


def usable(dtype: torch.dtype, windowed: bool = False) -> list[Backend]:
    """The backends that work on the CPU."""
    shape = Shape("cpu", dtype, SIZE, LENGTH, windowed)
    return [backend_named(name) for name in names() if not backend_named(name).missing(shape)]


def rows_of(lengths: list[list[int]]) -> Tensor:
    """Segment ids of rows that hold tweets of these lengths; int32 [rows, LENGTH]."""
    segments, number = torch.zeros(len(lengths), LENGTH, dtype=torch.int32), 0
    for row, tweets in enumerate(lengths):
        place = 0
        for length in tweets:
            number += 1
            segments[row, place : place + length] = number
            place += length
    return segments


def states_of(rows: int, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """Query, key, value and what the output is weighed with; slices of one tensor, as a fused projection gives them."""
    generator = torch.Generator().manual_seed(seed)
    together = torch.randn(rows, LENGTH, 3, HEADS, SIZE, generator=generator).to(dtype).requires_grad_()
    target = torch.randn(rows, LENGTH, HEADS, SIZE, generator=generator)
    return [together, target]


def split(together: Tensor) -> list[Tensor]:
    return [one.transpose(1, 2) for one in together.unbind(dim=2)]


def one_by_one(together: Tensor, segments: Tensor, window: int | None) -> Tensor:
    """The output, tweet by tweet in float32; 0 at padding."""
    out = torch.zeros(*together.shape[:2], HEADS, SIZE)
    query, key, value = together.float().unbind(dim=2)
    for number in range(1, int(segments.max()) + 1):
        row, places = torch.nonzero(segments == number, as_tuple=True)
        q, k, v = (x[row, places].transpose(0, 1) for x in (query, key, value))
        scores = q @ k.transpose(1, 2) * SCALE
        if window is not None:
            scores = scores.masked_fill((places[:, None] - places).abs() > window, float("-inf"))
        out = out.index_put((row, places), (scores.softmax(dim=-1) @ v).transpose(0, 1))
    return out


def both_ways(out: Tensor, together: Tensor, segments: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The output at tweets, and the gradient at all places."""
    real = (segments > 0)[:, :, None, None]
    return out.float() * real, torch.autograd.grad((out.float() * target * real).sum(), together)[0].float()


ROWS = st.lists(
    st.lists(st.integers(1, LENGTH), max_size=LENGTH).filter(lambda tweets: sum(tweets) <= LENGTH),
    min_size=1,
    max_size=4,
)
EDGES = [[LENGTH], [1] * LENGTH, [], [1], [LENGTH - 1], [7, 9, 16], [8, 8]]


@pytest.mark.parametrize("window", [None, 3])
@given(ROWS, st.integers(0, 9))
@settings(max_examples=40)
def test_a_tweet_attends_to_itself_alone(window: int | None, lengths: list[list[int]], seed: int) -> None:
    for rows in (lengths, EDGES) if seed == 0 else (lengths,):
        segments = rows_of(rows)
        together, target = states_of(len(rows), torch.float32, seed)
        tweets = bool((segments > 0).any())
        expected = both_ways(one_by_one(together, segments, window), together, segments, target) if tweets else None
        for backend in usable(torch.float32, window is not None):
            plan = backend.plan(segments, int(segments.max()))
            out = backend.attend(*split(together), plan, SCALE, window)
            assert torch.isfinite(out).all()
            if expected is None:
                continue
            for mine, theirs in zip(both_ways(out, together, segments, target), expected, strict=True):
                assert torch.isfinite(mine).all()
                assert torch.allclose(mine, theirs, atol=1e-5), backend.name


def test_bf16_is_no_worse_than_twice_the_plain_one() -> None:
    segments = rows_of(EDGES)
    together, target = states_of(len(EDGES), torch.bfloat16, 0)
    truth = both_ways(one_by_one(together, segments, None), together, segments, target)
    errors = {}
    for backend in usable(torch.bfloat16):
        out = backend.attend(*split(together), backend.plan(segments, int(segments.max())), SCALE, None)
        assert out.dtype == torch.bfloat16
        found = both_ways(out, together, segments, target)
        errors[backend.name] = [float((mine - exact).norm()) for mine, exact in zip(found, truth, strict=True)]
    for name, error in errors.items():
        assert all(mine <= 2 * plain for mine, plain in zip(error, errors["masked"], strict=True)), (name, errors)


@pytest.mark.parametrize("name", [backend.name for backend in usable(torch.float32)])
def test_another_tweet_changes_nothing_to_the_last_bit(name: str) -> None:
    backend, segments = backend_named(name), rows_of([[10, 12, 6], [20, 5]])
    together, _ = states_of(2, torch.float32, 0)
    plan = backend.plan(segments, 5)
    before = backend.attend(*split(together), plan, SCALE, None).detach()
    changed = together.detach().clone()
    changed[segments == 2] = 1e3
    after = backend.attend(*split(changed), plan, SCALE, None)
    others = (segments > 0) & (segments != 2)
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[segments == 2], after[segments == 2])


def test_the_fastest_that_works_is_taken_and_a_wrong_one_refused() -> None:
    shape = Shape("cpu", torch.float32, SIZE, LENGTH)
    assert backend_for("auto", shape).name == "tweets"
    assert backend_for("masked", shape).name == "masked"
    with pytest.raises(UserError, match=r"model.attention=tweets: is made for the CPU; leave it out"):
        backend_for("tweets", Shape("cuda", torch.bfloat16, SIZE, LENGTH))
