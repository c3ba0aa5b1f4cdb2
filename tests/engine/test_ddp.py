"""The DDP engine: one all-reduce per step, clipping, bf16 compared with fp32, and the reported norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bert_tweets.config import OptimizerConfig
from bert_tweets.data.batches import Step
from bert_tweets.distributed.world import World
from bert_tweets.engine.ddp import DDPEngine, _replicate
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.optimizer import make_optimizer
from tests.model.tiny import SIZES, masking_of, packed, packed_model, tweets_of

ALONE = World(0, 0, 1, 1, torch.device("cpu"))


def engine_of(precision: str = "fp32", max_grad_norm: float = 0.0) -> DDPEngine:
    module = PackedMaskedLM(packed_model("bert"))
    optimizer = make_optimizer(module.parameters(), OptimizerConfig(weight_decay=0.0))
    return DDPEngine(module, optimizer, ALONE, precision, max_grad_norm)


def step_of(parts: int = 1) -> Step:
    batches = []
    masked = 0
    for part in range(parts):
        batch = packed(tweets_of([12, 20, 7, 30, 9], seed=part))
        count = int(masking_of().select(batch).sum())
        masked += count
        batches.append(dataclasses.replace(batch, masked_capacity=max(1, count)))
    return Step(0, batches, masked, 78 * parts, 5 * parts, 96 * parts)


def test_the_reported_norm_is_that_of_the_mean_loss_before_clipping() -> None:
    free, clipped = engine_of(), engine_of(max_grad_norm=0.01)
    seen: list[float] = []

    def keep(*_: Any) -> None:
        gradients = [p.grad.flatten() for p in clipped.parameters if p.grad is not None]
        seen.append(float(torch.cat(gradients).norm()))

    clipped.optimizer.register_step_pre_hook(keep)
    step, masking = step_of(2), masking_of()
    loss, norm = free.train_step(step, masking, 1e-4)
    loss_clipped, norm_clipped = clipped.train_step(step, masking, 1e-4)
    assert torch.equal(norm, norm_clipped) and torch.equal(loss, loss_clipped)
    assert float(norm) > 0.01 and seen == [pytest.approx(0.01, rel=1e-3)]
    # The loss is the mean over all masked tokens, not the mean of the micro-batches' means.
    module = PackedMaskedLM(packed_model("bert"))
    with torch.no_grad():
        expected = sum(module(batch, masking) for batch in step.micro_batches) / step.masked_tokens
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_bf16_equals_fp32_except_for_rounding() -> None:
    exact, rough = engine_of("fp32"), engine_of("bf16")
    step, masking = step_of(), masking_of()
    for _ in range(5):
        loss, norm = exact.train_step(step, masking, 1e-3)
        other, other_norm = rough.train_step(step, masking, 1e-3)
        assert float(other) == pytest.approx(float(loss), rel=2e-2)
        assert float(other_norm) == pytest.approx(float(norm), rel=5e-2)
    assert all(parameter.dtype == torch.float32 for parameter in rough.module.parameters())
    assert float(exact.loss_sum(step.micro_batches[0], masking)) != float(
        rough.loss_sum(step.micro_batches[0], masking)
    )


@pytest.fixture
def replicated(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DDPEngine, list[str]]]:
    """An engine with DDP over one rank and more than one bucket, and the events in it, in order."""
    import torch.distributed as dist

    monkeypatch.setitem(SIZES, "hidden_size", 256)
    monkeypatch.setitem(SIZES, "intermediate_size", 512)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        engine, seen = engine_of(), []
        engine.replica = _replicate(engine.module, compress=False)

        # Without annotations: DDP checks those of a hook, and here they would be strings.
        def count(state, bucket):  # type: ignore[no-untyped-def]
            seen.append(f"bucket {bucket.index()}")
            future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        engine.replica.register_comm_hook(None, count)
        for parameter in engine.parameters:
            parameter.register_post_accumulate_grad_hook(lambda _: seen.append("gradient"))
        yield engine, seen
    finally:
        dist.destroy_process_group()


@pytest.mark.dist
def test_gradients_are_reduced_once_per_step_in_buckets_during_the_backward_pass(
    replicated: tuple[DDPEngine, list[str]],
) -> None:
    engine, seen = replicated
    engine.train_step(step_of(4), masking_of(), 1e-4)
    seen.clear()
    engine.train_step(step_of(4), masking_of(), 1e-4)
    buckets = [event for event in seen if event != "gradient"]
    assert len(buckets) > 1 and len(buckets) == len(set(buckets))
    # With four micro-batches the buckets are reduced in the last backward pass, the first of them before its end.
    first = seen.index(buckets[0])
    assert seen[:first].count("gradient") > 3 * len(engine.parameters)
    assert "gradient" in seen[first:]


@pytest.mark.dist
def test_the_graph_is_static_unless_compiled(replicated: tuple[DDPEngine, list[str]]) -> None:
    engine, _ = replicated
    assert engine.replica.static_graph
    compiled = PackedMaskedLM(packed_model("bert"), compiled=True)
    assert not _replicate(compiled, compress=False).static_graph


def test_the_returned_weights_are_a_copy() -> None:
    engine = engine_of()
    before = engine.weights()
    first = {name: tensor.clone() for name, tensor in before.items()}
    engine.train_step(step_of(), masking_of(), 1e-2)
    assert all(torch.equal(before[name], first[name]) for name in first)
    assert any(not torch.equal(before[name], tensor) for name, tensor in engine.weights().items())
