"""Precisions other than fp32: close to it, and with exact master weights."""

from __future__ import annotations

import pytest
import torch

from bert_tweets.config import OptimizerConfig
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.engine.precision import MasterWeights, allow_tf32
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.optimizer import choose_trainable, make_optimizer
from tests.engine.test_ddp import ALONE, engine_of, step_of
from tests.model.tiny import masking_of, packed_model


def with_masters(trainable: str = "all") -> DDPEngine:
    model = packed_model("bert")
    choose_trainable(model, trainable)
    module = PackedMaskedLM(model)
    masters = MasterWeights(module)
    optimizer = make_optimizer(masters.trained, OptimizerConfig(weight_decay=0.0))
    return DDPEngine(module, optimizer, ALONE, "bf16_weights", 0.0, masters)


@pytest.mark.parametrize("precision", ["bf16_weights", "fp16"])
def test_five_steps_equal_those_of_fp32_except_for_rounding(precision: str) -> None:
    exact, rough = engine_of("fp32"), with_masters() if precision == "bf16_weights" else engine_of("fp16")
    step, masking = step_of(2), masking_of()
    for _ in range(5):
        loss, norm = exact.train_step(step, masking, 1e-3)
        other, other_norm = rough.train_step(step, masking, 1e-3)
        assert float(other) == pytest.approx(float(loss), rel=2e-2)
        assert float(other_norm) == pytest.approx(float(norm), rel=5e-2)


def test_steps_too_small_for_bf16_add_up_in_the_master_weights() -> None:
    engine, step = with_masters(), step_of()
    before = engine.weights()
    assert before is not None and all(tensor.dtype == torch.float32 for tensor in before.values())
    for _ in range(3):
        engine.train_step(step, masking_of(), 1e-6)
    name = "bert.encoder.layer.0.output.dense.weight"
    after, weight = engine.weights()[name], dict(engine.module.model.named_parameters())[name]
    assert weight.dtype == torch.bfloat16 and torch.equal(weight, after.bfloat16())
    moved = (after - before[name]).abs()
    assert float(moved.max()) == pytest.approx(3e-6, rel=0.1)
    assert float((weight.float() != before[name].bfloat16().float()).float().mean()) < 0.05


def test_frozen_weights_do_not_change() -> None:
    exact = {name: weight.detach().clone() for name, weight in packed_model("bert").named_parameters()}
    engine = with_masters("embeddings")
    engine.train_step(step_of(), masking_of(), 1e-3)
    after = engine.weights()
    changed = {name for name, tensor in exact.items() if not torch.equal(after[name], tensor)}
    assert changed == {"bert.embeddings.word_embeddings.weight"}


def test_a_gradient_beyond_fp16_skips_the_step_and_lowers_the_scale() -> None:
    engine, step = engine_of("fp16"), step_of()
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, growth_interval=1)
    before = engine.weights()
    engine.train_step(step, masking_of(), 1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.weights().items())
    assert engine.scaler.get_scale() == 2.0**59
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    engine.train_step(step, masking_of(), 1e-3)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in engine.weights().items())


def test_tf32_is_used_only_on_request() -> None:
    allow_tf32("tf32")
    assert torch.get_float32_matmul_precision() == "high"
    allow_tf32("fp32")
    assert torch.get_float32_matmul_precision() == "highest"
