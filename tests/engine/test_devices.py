"""Engines on a GPU: DistributedDataParallel over NCCL, and the loss scale of fp16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from bert_tweets.config import OptimizerConfig
from bert_tweets.distributed.world import World
from bert_tweets.engine.ddp import DDPEngine, _replicate
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.optimizer import make_optimizer
from tests.devices import each_device
from tests.engine.test_ddp import step_of
from tests.model.tiny import masking_of, packed_model


def engine_on(device: str, precision: str = "fp32", scale: float = 2.0**16) -> DDPEngine:
    place = torch.device(device)
    module = PackedMaskedLM(packed_model("bert")).to(place)
    optimizer = make_optimizer(module.parameters(), OptimizerConfig(weight_decay=0.0))
    engine = DDPEngine(module, optimizer, World(0, 0, 1, 1, place), precision, 0.0)
    if precision == "fp16":
        engine.scaler = torch.amp.GradScaler(device, init_scale=scale)
    return engine


@pytest.fixture
def process_group(device: str) -> Iterator[None]:
    """A process group of one rank: gloo on the CPU, NCCL on a GPU."""
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _moves(name: str) -> bool:
    """False for the key's bias, whose gradient is rounding, from which Adam makes steps."""
    return not name.endswith("key.bias")


@pytest.mark.dist
@each_device
@pytest.mark.usefixtures("process_group")
def test_ddp_takes_the_same_steps_as_the_bare_module(device: str) -> None:
    bare, replicated = engine_on(device), engine_on(device)
    before = bare.weights()
    replicated.replica = _replicate(replicated.module, compress=False)
    masking = masking_of().to(torch.device(device))
    for parts in (1, 3, 2):
        outcomes = [engine.train_step(step_of(parts), masking, 1e-4) for engine in (bare, replicated)]
        for mine, theirs in zip(*outcomes, strict=True):
            torch.testing.assert_close(mine, theirs)
        assert float(outcomes[0][1]) > 0
    moved, other = (
        torch.cat([(weight - before[name]).flatten() for name, weight in engine.weights().items() if _moves(name)])
        for engine in (bare, replicated)
    )
    assert float((moved - other).norm() / moved.norm()) < 1e-2


@each_device
def test_an_fp16_overflow_skips_the_step_and_halves_the_scale_and_a_checkpoint_keeps_it(device: str) -> None:
    engine, masking = engine_on(device, "fp16", scale=2.0**60), masking_of().to(torch.device(device))
    before = engine.weights()
    _, norm = engine.train_step(step_of(), masking, 1e-3)
    assert not torch.isfinite(norm) and engine.scaler.get_scale() == 2.0**59
    assert all(torch.equal(weight, before[name]) for name, weight in engine.weights().items())

    steps = 0
    while not torch.isfinite(engine.train_step(step_of(), masking, 1e-3)[1]):
        steps += 1
        assert steps < 60
    assert engine.scaler.get_scale() == 2.0 ** (59 - steps)
    assert any(not torch.equal(weight, before[name]) for name, weight in engine.weights().items())

    resumed, state = engine_on(device, "fp16"), engine.state()
    resumed.module.load_state_dict(engine.module.state_dict())
    resumed.load(state)
    assert resumed.scaler.get_scale() == engine.scaler.get_scale()
    outcomes = [each.train_step(step_of(2), masking, 1e-3) for each in (engine, resumed)]
    for mine, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.dist
@pytest.mark.parametrize("device", ["cpu"])
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("first", ["validate", "train"])
def test_a_compiled_step_is_split_at_buckets_even_after_a_validation(
    first: str, graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise no gradient would be reduced during the backward pass, and a resumed run would use other graphs."""
    module = PackedMaskedLM(packed_model("bert"), compiled=True)
    optimizer = make_optimizer(module.parameters(), OptimizerConfig())
    engine = DDPEngine(module, optimizer, World(0, 0, 1, 1, torch.device("cpu")), "fp32", 1.0)
    engine.replica = _replicate(module, compress=False)
    monkeypatch.setattr(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 2**12)
    engine.replica.bucket_bytes_cap = 2**12
    step, masking = step_of(1), masking_of()
    calls = [lambda: engine.loss_sum(step.micro_batches[0], masking), lambda: engine.train_step(step, masking, 1e-4)]
    counts = []
    for call in calls if first == "validate" else reversed(calls):
        call()
        counts.append(len(graphs))
    assert counts[0] == counts[1] > 1
