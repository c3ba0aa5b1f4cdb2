"""The loss without stored logits, and its gradients, equal those from the logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bert_tweets.model import loss as linear_cross_entropy
from bert_tweets.model.loss import IGNORED, summed_loss

WIDTH, VOCABULARY = 16, 57


def problem(positions: int, empty: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, decoder and labels; some places are empty."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, WIDTH, generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator)
    bias = torch.randn(VOCABULARY, generator=generator)
    labels = torch.randint(VOCABULARY, (positions,), generator=generator)
    labels[torch.randperm(positions, generator=generator)[:empty]] = IGNORED
    return *(tensor.requires_grad_() for tensor in (states, weight, bias)), labels


def plain(states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(states, weight, bias).float(), labels, reduction="sum", ignore_index=IGNORED)


def gradients(loss: Tensor, of: tuple[Tensor, ...], upstream: float) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss * upstream, of)


@given(st.integers(1, 70), st.integers(0, 70), st.integers(1, 80), st.integers(0, 9))
def test_it_equals_the_loss_from_the_logits(positions: int, empty: int, at_once: int, seed: int) -> None:
    *of, labels = problem(positions, min(empty, positions), seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(linear_cross_entropy.ROWS_AT_ONCE, "cpu", at_once)
        ours = summed_loss(*of, labels)
        found = gradients(ours, tuple(of), 0.37)
    expected = plain(*of, labels)
    assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(found, gradients(expected, tuple(of), 0.37), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_in_bf16_it_is_as_accurate_as_the_plain_loss() -> None:
    *of, labels = problem(64, 5, 0)
    truth = gradients(plain(*of, labels), tuple(of), 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = summed_loss(*of, labels), plain(*of, labels)
    for exact, mine, other in zip(
        truth, gradients(ours, tuple(of), 1.0), gradients(theirs, tuple(of), 1.0), strict=True
    ):
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() <= 2 * (other - exact).norm()


def test_large_logits_do_not_overflow_and_frozen_tensors_get_no_gradient() -> None:
    states, weight, bias, labels = problem(8, 0, 1)
    with torch.no_grad():
        weight *= 1e4
    loss = summed_loss(states, weight.detach(), bias.detach(), labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(states.grad).all() and weight.grad is None


def test_a_batch_of_empty_places_has_a_loss_and_gradient_of_zero() -> None:
    *of, labels = problem(4, 4, 2)
    loss = summed_loss(*of, labels)
    assert float(loss) == 0 and all(float(found.abs().max()) == 0 for found in gradients(loss, tuple(of), 1.0))


def test_without_a_gradient_nothing_is_kept() -> None:
    *of, labels = problem(9, 2, 3)
    with torch.no_grad():
        assert torch.allclose(summed_loss(*of, labels), plain(*of, labels), rtol=1e-5)
