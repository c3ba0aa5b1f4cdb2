"""Every attention backend against tweets computed one by one, forward and backward.

Backends that need a GPU run where there is one. TRITON_INTERPRET=1 runs Triton's kernels on a CPU, where `triton` is
installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.model.attention import Backend, Shape, backend_for, backend_named, backend_names
from bert_tweets.model.attention.flex import Flex
from bert_tweets.model.attention.triton_rows import TritonRows
from bert_tweets.model.attention.varlen import Varlen
from tests.devices import each_device

HEADS, SIZE, LENGTH, ROWS = 2, 16, 128, 9
SCALE = 0.2  # not the default of any backend
HALVES = [torch.bfloat16, torch.float16]

each_backend = pytest.mark.parametrize("name", backend_names())
each_window = pytest.mark.parametrize("window", [None, 3], ids=["whole", "window"])


def usable(
    name: str, device: str, dtype: torch.dtype, window: int | None = None, length: int = LENGTH, size: int = SIZE
) -> Backend:
    """The backend; the test is skipped if it does not support the shape."""
    missing = backend_named(name).missing(Shape(device, dtype, size, length, window is not None))
    if missing:
        pytest.skip(f"{name} {missing}")
    if name == "flex":
        torch.compiler.reset()  # torch compiles for a limited number of shapes
    return backend_named(name)


def rows_of(lengths: list[list[int]], length: int = LENGTH) -> Tensor:
    """Segment ids of rows with tweets of these lengths, padding after and below them; int32 [rows, length].

    There are ROWS of them at least, so that what is compiled for a shape is compiled once.
    """
    segments, number = torch.zeros(max(len(lengths), ROWS), length, dtype=torch.int32), 0
    for row, tweets in enumerate(lengths):
        place = 0
        for of_tweet in tweets:
            number += 1
            segments[row, place : place + of_tweet] = number
            place += of_tweet
    return segments


def states_of(
    segments: Tensor, dtype: torch.dtype, device: str, seed: int = 0, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    """Query, key and value as slices of one tensor, as from a fused product, and the upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = segments.shape
    together = torch.randn(rows, length, 3, HEADS, size, generator=generator).to(device, dtype).requires_grad_()
    return together, torch.randn(rows, length, HEADS, size, generator=generator).to(device, dtype)


def split(together: Tensor) -> list[Tensor]:
    return [one.transpose(1, 2) for one in together.unbind(dim=2)]


def attended(backend: Backend, together: Tensor, segments: Tensor, window: int | None) -> Tensor:
    plan = backend.plan(segments.to(together.device), int(segments.max()))
    return backend.attend(*split(together), plan, SCALE, window)


def one_by_one(together: Tensor, segments: Tensor, window: int | None) -> Tensor:
    """The output, tweet by tweet in float32 on the CPU; 0 at padding."""
    of_row = 10_000 * torch.arange(len(segments))[:, None]  # padding of different rows is different
    numbers, lengths = torch.unique_consecutive((segments + of_row).flatten(), return_counts=True)
    tweets = together.float().cpu().flatten(0, 1).split(lengths.tolist())
    outs = []
    for number, tweet in zip(numbers.tolist(), tweets, strict=True):
        q, k, v = tweet.permute(1, 2, 0, 3)
        scores = q @ k.transpose(1, 2) * SCALE
        if window is not None:
            places = torch.arange(len(tweet))
            scores = scores.masked_fill((places[:, None] - places).abs() > window, float("-inf"))
        outs.append((scores.softmax(dim=-1) @ v).transpose(0, 1) * (number % 10_000 > 0))
    return torch.cat(outs).unflatten(0, segments.shape)


def both_ways(out: Tensor, together: Tensor, segments: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """The output at tweets, and the gradient at all places; float32 on the CPU."""
    real = (segments > 0)[:, :, None, None].to(out.device)
    weighed = (out.float() * above.to(out.device).float() * real).sum()
    return (out.float() * real).detach().cpu(), torch.autograd.grad(weighed, together)[0].float().cpu()


def tweets_in(length: int) -> st.SearchStrategy[list[list[int]]]:
    """The tweets of one to four rows: many short ones, or few long ones; rows may be empty."""

    def that_fit(tweets: list[int]) -> list[int]:
        return [tweet for tweet, end in zip(tweets, accumulate(tweets), strict=True) if end <= length]

    longest = st.sampled_from([1, max(1, length // 4), length])
    of_row = longest.flatmap(lambda most: st.lists(st.integers(1, most), max_size=12))
    return st.lists(of_row.map(that_fit), min_size=1, max_size=4)


def alike(name: str, device: str) -> Callable[[Tensor, Tensor], bool]:
    """Whether two gradients are bit-identical; approximately, for kernels of PyTorch that add in any order."""
    return torch.equal if device == "cpu" or name == "triton" else partial(torch.allclose, rtol=1e-2, atol=1e-3)


def agrees_with_one_by_one(
    backend: Backend, segments: Tensor, device: str, window: int | None = None, seed: int = 0
) -> None:
    together, above = states_of(segments, torch.float32, device, seed)
    expected = both_ways(one_by_one(together, segments, window), together, segments, above)
    found = both_ways(attended(backend, together, segments, window), together, segments, above)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


EDGES = [[LENGTH], [1] * LENGTH, [], [1], [LENGTH - 1], [63, 2, 63], [64, 64], [8, 8], [26, 31, 7, 40, 12]]


@each_device
@each_backend
@each_window
def test_a_tweet_attends_only_to_itself(device: str, name: str, window: int | None) -> None:
    backend = usable(name, device, torch.float32, window)

    @given(tweets_in(LENGTH), st.integers(0, 9))
    @example(EDGES, 0)
    @settings(max_examples=15)
    def holds(lengths: list[list[int]], seed: int) -> None:
        agrees_with_one_by_one(backend, rows_of(lengths), device, window, seed)

    holds()


@each_device
@each_backend
@pytest.mark.parametrize("length", [1, 7, 16, 64, 100, 256])
def test_rows_of_other_lengths(device: str, name: str, length: int) -> None:
    backend = usable(name, device, torch.float32, length=length)
    agrees_with_one_by_one(
        backend, rows_of([[length], [1] * length, [length // 3 + 1, length // 2], []], length), device
    )


@each_device
@each_backend
@each_window
@pytest.mark.parametrize("dtype", HALVES, ids=["bf16", "fp16"])
def test_16_bit_errors_are_at_most_twice_those_of_plain_attention(
    device: str, name: str, window: int | None, dtype: torch.dtype
) -> None:
    errs_little(usable(name, device, dtype, window), dtype, device, window)


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_rows_of_large_heads(device: str, size: int, dtype: torch.dtype) -> None:
    errs_little(usable("triton", device, dtype, size=size), dtype, device, None, size)


def errs_little(backend: Backend, dtype: torch.dtype, device: str, window: int | None, size: int = SIZE) -> None:
    segments = rows_of(EDGES)
    together, above = states_of(segments, dtype, device, size=size)
    truth = both_ways(one_by_one(together, segments, window), together, segments, above)
    errors = []
    for one in (backend, backend_named("sdpa")):
        out = attended(one, together, segments, window)
        assert out.dtype == dtype
        found = both_ways(out, together, segments, above)
        errors.append([float((mine - exact).norm()) for mine, exact in zip(found, truth, strict=True)])
    assert all(mine <= 2 * plain + 1e-4 for mine, plain in zip(*errors, strict=True)), errors


@each_device
@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=["fp32", "bf16", "fp16"])
def test_another_tweet_does_not_change_a_bit(device: str, name: str, dtype: torch.dtype) -> None:
    backend, segments = usable(name, device, dtype), rows_of([[10, 12, 60, 46], [20, 5]])
    changed, left = segments == 2, segments != 2
    together, above = states_of(segments, dtype, device)
    other = together.detach().clone()
    other[changed.to(device)] = 100.0
    outs, gradients = [], []
    for states in (together, other.requires_grad_()):
        out = attended(backend, states, segments, None)
        outs.append(out.detach().cpu())
        gradients.append(torch.autograd.grad(out, states, above)[0].cpu())
    real = segments > 0
    assert torch.equal(outs[0][left & real], outs[1][left & real])
    assert alike(name, device)(gradients[0][left & real], gradients[1][left & real])
    assert not torch.equal(outs[0][changed], outs[1][changed])


@each_device
@each_backend
@each_window
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=["fp32", "bf16", "fp16"])
def test_padding_is_finite_forward_and_backward(device: str, name: str, window: int | None, dtype: torch.dtype) -> None:
    """Whatever the upstream gradient at padding, and with large products."""
    backend, segments = usable(name, device, dtype, window), rows_of([[], [3], [LENGTH - 1], [100, 20]])
    together, above = states_of(segments, dtype, device)
    together = (together * 30).detach().requires_grad_()
    out = attended(backend, together, segments, window)
    assert torch.isfinite(out).all()
    assert torch.isfinite(torch.autograd.grad(out, together, above)[0]).all()


@each_device
@each_backend
def test_runs_are_bit_identical_and_any_strides_work(device: str, name: str) -> None:
    backend, segments = usable(name, device, torch.float32), rows_of(EDGES)
    together, above = states_of(segments, torch.float32, device)
    plan = backend.plan(segments.to(device), int(segments.max()))
    views = split(together)
    # A head's numbers are not contiguous; the gradient of a sum has strides of 0.
    copies = [one.transpose(2, 3).contiguous().transpose(2, 3) for one in views]
    constant = above[:1, :1, :1, :1].expand(above.shape)
    runs = []
    for three in (views, views, copies):
        out = backend.attend(*three, plan, SCALE, None)
        runs.append((out, *torch.autograd.grad(out, three, constant, retain_graph=True)))
    assert all(alike(name, device)(mine, theirs) for mine, theirs in zip(runs[0], runs[1], strict=True))
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(runs[0], runs[2], strict=True))


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_rows_accept_a_fused_tensor(device: str, dtype: torch.dtype) -> None:
    backend, segments = usable("triton", device, dtype, 3), rows_of(EDGES)
    assert isinstance(backend, TritonRows)
    together, above = states_of(segments, dtype, device)
    plan = backend.plan(segments.to(device), int(segments.max()))
    out = backend.attend_packed(together, plan, SCALE, 3)
    expected = attended(backend, together, segments, 3)
    assert torch.equal(out, expected)
    assert torch.equal(*(torch.autograd.grad(one, together, above)[0] for one in (out, expected)))


@each_device
def test_rows_are_operators_that_torch_can_compile(device: str) -> None:
    backend, segments = usable("triton", device, torch.float32), rows_of([[5, 6], [128]])
    assert isinstance(backend, TritonRows)
    together, _ = states_of(segments, torch.float32, device)
    plan = backend.plan(segments.to(device), 3)
    three = [one.detach().requires_grad_() for one in split(together)]
    torch.library.opcheck(torch.ops.bert_tweets.rows_attention.default, (*three, plan, SCALE, -1))
    torch.library.opcheck(torch.ops.bert_tweets.packed_rows_attention.default, (together, plan, SCALE, 3))

    def squares(states: Tensor) -> Tensor:
        apart = backend.attend(*split(states), plan, SCALE, None)
        return (apart * backend.attend_packed(states, plan, SCALE, None)).sum()

    compiled: Any = torch.compile(squares, fullgraph=True, dynamic=False, backend="aot_eager")
    mine, theirs = (torch.autograd.grad(way(together), together)[0] for way in (compiled, squares))
    assert torch.allclose(mine, theirs, atol=1e-5)


@given(tweets_in(12))
def test_varlen_divides_rows_where_segments_begin(lengths: list[list[int]]) -> None:
    segments = rows_of(lengths, 12)
    rows = len(segments)
    flat, tweets = segments.flatten().tolist(), int(segments.max())
    plan = Varlen().plan(segments, tweets)
    cuts = plan.tolist()
    assert plan.dtype == torch.int32 and len(cuts) == 256 > tweets + rows
    assert cuts[0] == 0 and cuts[-1] == len(flat) and cuts == sorted(cuts)
    for begin, end in pairwise(cuts):
        assert len(set(flat[begin:end])) == (begin < end) and begin // 12 == max(begin, end - 1) // 12
    of_tweets = [end - begin for begin, end in pairwise(cuts) if begin < end and flat[begin]]
    assert of_tweets == [length for row in lengths for length in row]


@pytest.mark.parametrize(("tweets", "rows", "capacity"), [(0, 1, 256), (200, 55, 256), (200, 56, 512), (600, 167, 768)])
def test_the_capacity_of_varlen_follows_from_what_the_host_knows(tweets: int, rows: int, capacity: int) -> None:
    assert Varlen().plan(torch.zeros(rows, 8, dtype=torch.int32), tweets).shape == (capacity,)


@each_window
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_mask_of_flex_is_right_on_a_cpu(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward only and not compiled: PyTorch does not support more on a CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    backend, segments = Flex(), rows_of(EDGES)
    monkeypatch.setattr(backend, "_function", lambda: flex_attention)
    together = states_of(segments, torch.float32, "cpu")[0].detach()
    real = (segments > 0)[:, :, None, None]
    mine = attended(backend, together, segments, window)
    assert torch.isfinite(mine).all()
    assert torch.allclose(mine * real, one_by_one(together, segments, window), atol=1e-5)


@pytest.mark.gpu
def test_the_fastest_on_a_large_gpu_is_ours() -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("a smaller GPU")
    for size in (64, 128):
        for dtype in (torch.float32, *HALVES):
            shape = Shape("cuda", dtype, size, LENGTH, True)
            assert backend_for("auto", shape).name == "triton", backend_named("triton").missing(shape)


def test_the_fastest_that_works_is_chosen_and_an_impossible_one_rejected() -> None:
    shape = Shape("cpu", torch.float32, SIZE, LENGTH)
    assert backend_for("auto", shape).name == "bucketed"
    assert backend_for("sdpa", shape).name == "sdpa"
    assert backend_for("auto", replace(shape, compiled=True)).name == "sdpa"
    with pytest.raises(
        UserError, match=r"attention=bucketed: .* model.compile=true would compile in every step; leave it out"
    ):
        backend_for("bucketed", replace(shape, compiled=True))
    with pytest.raises(UserError, match=r"model.attention=bucketed: only for the CPU; leave it out"):
        backend_for("bucketed", Shape("cuda", torch.bfloat16, SIZE, LENGTH))
    with pytest.raises(UserError, match=r"attention=triton: head size must be one of 16, 32, 64, 128, got 24"):
        backend_for("triton", Shape("cuda", torch.bfloat16, 24, LENGTH))
    if not torch.cuda.is_available():
        assert backend_for("auto", Shape("cuda", torch.bfloat16, SIZE, LENGTH)).name == "sdpa"
