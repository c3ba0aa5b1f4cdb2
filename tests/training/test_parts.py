"""Schedule, optimizer groups and FLOPs."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.config import OptimizerConfig, ScheduleConfig
from bert_tweets.engine.precision import COMPUTE_DTYPES
from bert_tweets.training.flops import flops_per_token, matrix_peak
from bert_tweets.training.lr_schedule import schedule_of
from bert_tweets.training.optimizer import choose_trainable, make_optimizer
from tests.model.tiny import stock_model


@given(
    name=st.sampled_from(["linear", "cosine", "constant", "wsd"]),
    total=st.integers(1, 5000),
    warmup=st.none() | st.integers(0, 6000),
    decay=st.none() | st.integers(1, 6000),
)
def test_the_rate_rises_to_its_peak_and_never_rises_again(
    name: str, total: int, warmup: int | None, decay: int | None
) -> None:
    schedule = schedule_of(ScheduleConfig(name, warmup, decay), 1e-4, total)
    rates = [schedule.learning_rate(step) for step in range(total)]
    assert all(0 < rate <= 1e-4 for rate in rates)
    top = schedule.warmup_steps
    assert all(a < b for a, b in itertools.pairwise(rates[:top]))
    assert all(a >= b for a, b in itertools.pairwise(rates[top:]))
    if top > 0:
        assert rates[top - 1] == pytest.approx(1e-4)


@given(st.data(), st.integers(1, 5000), st.integers(0, 5000), st.none() | st.integers(1, 6000))
def test_warmup_stable_decay_stays_at_its_peak_and_decays_only_at_the_end(
    data: st.DataObject, total: int, more: int, decay: int | None
) -> None:
    config = ScheduleConfig("wsd", data.draw(st.integers(0, total)), decay)
    schedule, longer = (schedule_of(config, 1e-4, steps) for steps in (total, total + more))
    share = round(total / 10) if decay is None else decay
    assert schedule.decay_steps == min(share, total - schedule.warmup_steps)
    decay_start = total - schedule.decay_steps
    rates = [schedule.learning_rate(step) for step in range(total)]
    assert set(rates[schedule.warmup_steps : decay_start + 1]) <= {1e-4}
    assert all(a > b for a, b in itertools.pairwise(rates[decay_start:]))
    # A longer run is the same until this one decays.
    assert rates[:decay_start] == [longer.learning_rate(step) for step in range(decay_start)]


def test_shapes_of_the_decay() -> None:
    linear, cosine, constant = (
        schedule_of(ScheduleConfig(name, None), 1.0, 100) for name in ("linear", "cosine", "constant")
    )
    assert linear.warmup_steps == 6
    assert linear.learning_rate(53) == pytest.approx(0.5) == cosine.learning_rate(53)
    assert linear.learning_rate(99) == pytest.approx(1 / 94)
    assert constant.learning_rate(99) == 1.0
    wsd = schedule_of(ScheduleConfig("wsd", None, 50), 1.0, 100)
    assert [wsd.learning_rate(step) for step in (5, 49, 50)] == [1.0, 1.0, 1.0]
    assert wsd.learning_rate(62) == pytest.approx(1 - (12 / 50) ** 0.5)
    assert wsd.learning_rate(99) == pytest.approx(1 - (49 / 50) ** 0.5)


def test_biases_and_layer_norms_have_no_weight_decay() -> None:
    model = stock_model("bert")
    groups = make_optimizer(model.parameters(), OptimizerConfig(weight_decay=0.1)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    free = {names[id(parameter)] for parameter in groups[1]["params"]}
    assert free == {name for name in names.values() if name.endswith("bias") or "LayerNorm" in name}
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_embeddings_can_be_trained_alone() -> None:
    model = stock_model("roberta")
    choose_trainable(model, "embeddings")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["roberta.embeddings.word_embeddings.weight"]
    assert len(make_optimizer(model.parameters(), OptimizerConfig()).param_groups) == 1


def test_bert_base_needs_535_million_flops_per_token() -> None:
    from transformers import BertConfig

    assert flops_per_token(BertConfig(), 0.15, 28) == pytest.approx(535e6, rel=0.01)


def test_the_peak_of_an_unknown_device_is_measured() -> None:
    assert 1e9 < matrix_peak(torch.device("cpu"), "fp32") < 1e14


@pytest.mark.parametrize("precision", ["bf16", "bf16_weights", "fp16"])
def test_the_16_bit_peak_of_a_known_gpu_is_that_of_its_datasheet(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """A product in fp32 is 15 times slower, which would make MFU 15 times too high."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert matrix_peak(torch.device("cuda"), precision) == 989e12


def test_the_peak_is_measured_in_the_precision_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied = []

    class Recorded(torch.Tensor):
        def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
            multiplied.append(self.dtype)
            return torch.ones(1, 1)

    monkeypatch.setattr(torch, "randn", lambda *size, device: torch.ones(2, 2).as_subclass(Recorded))
    for precision in COMPUTE_DTYPES:
        matrix_peak(torch.device("cpu"), precision)
    assert list(dict.fromkeys(multiplied)) == [torch.float32, torch.bfloat16, torch.float16]
