"""The compiled step: the same loss and gradients, in one graph, and no compilation for known shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bert_tweets.data.batches import MicroBatch
from bert_tweets.model import loss as linear_cross_entropy
from bert_tweets.model.attention import bucketed_cpu
from bert_tweets.model.loss import summed_loss
from bert_tweets.model.masked_lm import PackedMaskedLM
from tests.model.test_masked_lm import capacity
from tests.model.tiny import masking_of, packed, packed_model, tweets_of

LENGTHS = [20, 9, 14, 30, 5]


def batch_of(seed: int, places: int = 16) -> MicroBatch:
    return capacity(packed(tweets_of(LENGTHS, seed)), places)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_it_is_one_graph_and_new_tweets_compile_nothing(family: str, graphs: list[Any]) -> None:
    plain, compiled = PackedMaskedLM(packed_model(family)), PackedMaskedLM(packed_model(family), compiled=True)
    for seed in range(4):
        losses = [module(batch_of(seed), masking_of()) for module in (plain, compiled)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
    assert len(graphs) == 1
    for mine, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    compiled(batch_of(0, places=24), masking_of())
    compiled(batch_of(1, places=16), masking_of())
    assert len(graphs) == 2


def test_all_shapes_of_a_process_are_compiled(graphs: list[Any]) -> None:
    """By default torch stops after eight."""
    compiled = PackedMaskedLM(packed_model("bert"), compiled=True)
    for places in range(16, 26):
        compiled(batch_of(0, places), masking_of())
    assert len(graphs) == 10


def loss_of(rows_at_once: int) -> Callable[[Tensor], Tensor]:
    weight, bias = torch.randn(40, 16, requires_grad=True), torch.randn(40)
    labels = torch.randint(40, (12,))

    def loss(states: Tensor) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(linear_cross_entropy.ROWS_AT_ONCE, "cpu", rows_at_once)
            return summed_loss(torch.tanh(states.view(-1, 16)[:12]), weight, bias, labels)

    return loss


def attention_by_tweet(states: Tensor) -> Tensor:
    segments = torch.tensor([[1] * 5 + [2] * 3, [3] * 8], dtype=torch.int32)
    backend = bucketed_cpu.BucketedAttention()
    plan = torch.compiler.disable(backend.plan)(segments, 3)
    return backend.attend_packed(torch.tanh(states), plan, 0.3, None).square().sum()


FUNCTIONS: dict[type, list[Callable[[Tensor], Tensor]]] = {
    linear_cross_entropy._SummedLoss: [loss_of(100), loss_of(5)],
    bucketed_cpu._Attention: [attention_by_tweet],
}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("function", [use for uses in FUNCTIONS.values() for use in uses])
def test_each_autograd_function_has_its_gradient_when_compiled(
    function: Callable[[Tensor], Tensor], backend: str
) -> None:
    """torch 2.11 returned zeros for a function that returned a tensor it had modified in place."""
    torch._dynamo.reset()
    states = torch.randn(2, 8, 3, 2, 8, requires_grad=True)
    plain, compiled = function, torch.compile(function, backend=backend)
    expected, found = (torch.autograd.grad(way(states), states)[0] for way in (plain, compiled))
    assert expected.norm() > 0
    torch.testing.assert_close(found, expected)


def test_every_autograd_function_is_tested() -> None:
    ours = {one for one in torch.autograd.Function.__subclasses__() if one.__module__.startswith("bert_tweets.")}
    assert ours == set(FUNCTIONS)
