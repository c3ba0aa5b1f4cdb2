"""The DDP engine: one all-reduce a step, clipping, bf16 beside fp32, and the norm that it reports."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from bert_tweets.config import OptimizerConfig
from bert_tweets.data.batches import Step
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.engine.world import World
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.optimizer import make_optimizer
from tests.model.tiny import masking_of, packed, packed_model, tweets_of

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


def test_bf16_is_fp32_but_for_rounding() -> None:
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


@pytest.mark.dist
def test_gradients_travel_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With four micro-batches the buckets are reduced in the last backward pass alone."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        engine = engine_of()
        replica = DistributedDataParallel(engine.module, gradient_as_bucket_view=True)
        reduced: list[int] = []

        # Without annotations: DDP reads those of a hook, and here they would be text.
        def count(state, bucket):  # type: ignore[no-untyped-def]
            reduced.append(bucket.index())
            future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        replica.register_comm_hook(None, count)
        monkeypatch.setattr(engine, "replica", replica)
        engine.train_step(step_of(4), masking_of(), 1e-4)
        assert reduced and len(reduced) == len(set(reduced))
    finally:
        dist.destroy_process_group()


def test_the_kept_weights_are_a_copy() -> None:
    engine = engine_of()
    before = engine.state_dict()
    first = {name: tensor.clone() for name, tensor in before.items()}
    engine.train_step(step_of(), masking_of(), 1e-2)
    assert all(torch.equal(before[name], first[name]) for name in first)
    assert any(not torch.equal(before[name], tensor) for name, tensor in engine.state_dict().items())
