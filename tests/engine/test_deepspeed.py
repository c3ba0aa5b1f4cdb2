"""DeepSpeed's configuration: our settings, a user's JSON merged into them, and all of its mistakes in one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_tweets.common.errors import UserError
from bert_tweets.config import TrainConfig, parser
from bert_tweets.engine import deepspeed_user_config
from bert_tweets.engine.deepspeed_config import deepspeed_settings, import_deepspeed, zero_stage

CPU = torch.device("cpu")
WORDS = ("data.path=shards", "model.name=bert", "output=run", "engine.name=deepspeed")


def settings(*words: str) -> dict[str, Any]:
    return deepspeed_settings(parser.load(TrainConfig, [*WORDS, *words]), CPU)


def mistakes(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        settings(*words)
    return str(caught.value).split("\n       ")


@pytest.fixture
def json_file(tmp_path: Path) -> Any:
    """Write a user's file, from text or as JSON; returns the setting that names it."""

    def write(content: Any) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "mine.json").write_text(text, encoding="utf-8")
        return f"engine.deepspeed_config={tmp_path}/mine.json"

    return write


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0])
def test_clipping_is_always_set(norm: float) -> None:
    assert settings(f"optimizer.max_grad_norm={norm}")["gradient_clipping"] == norm


def test_our_settings_become_those_of_deepspeed() -> None:
    made = settings("engine.zero_stage=3", "engine.offload_optimizer=true", "engine.offload_parameters=true")
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    assert made["zero_optimization"] == zero
    assert made["gradient_accumulation_steps"] == made["train_micro_batch_size_per_gpu"] == 1
    assert settings()["zero_optimization"] == {"stage": 1}
    assert settings("engine.compress_gradients=true")["communication_data_type"] == "bf16"
    assert "optimizer" not in made  # an optimizer of DeepSpeed would have to be compiled


@pytest.mark.parametrize(
    ("precision", "stage", "section", "expected"),
    [
        # Autocast over fp32 weights, with gradients communicated in fp32.
        ("bf16", 0, "torch_autocast", {"enabled": True, "dtype": "bf16", "lower_precision_safe_modules": []}),
        ("bf16", 3, "torch_autocast", {"enabled": True, "dtype": "bf16", "lower_precision_safe_modules": []}),
        ("fp16", 0, "torch_autocast", {"enabled": True, "dtype": "fp16", "lower_precision_safe_modules": []}),
        ("fp16", 2, "fp16", {"enabled": True, "initial_scale_power": 12}),
        ("bf16_weights", 2, "bf16", {"enabled": True}),
        ("fp32", 2, None, None),
        ("tf32", 2, None, None),
    ],
)
def test_precision_is_by_autocast_wherever_deepspeed_does_it_correctly(
    precision: str, stage: int, section: str | None, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_deepspeed(CPU)
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
    made = settings(f"precision={precision}", f"engine.zero_stage={stage}")
    found = {name: made[name] for name in ("torch_autocast", "fp16", "bf16") if name in made}
    assert found == ({section: expected} if section else {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engine.zero_stage=0", "engine.offload_optimizer=true"], "needs engine.zero_stage=1, 2 or 3"),
        (["engine.zero_stage=2", "engine.offload_parameters=true"], "needs engine.zero_stage=3"),
        (["engine.zero_stage=3", "model.compile=true"], "leave it at auto"),
        (["engine.zero_stage=0", "precision=bf16_weights"], "use 1, or engine.name=ddp"),
        (["engine.zero_stage=1", "precision=fp16"], "use bf16"),
        (["engine.deepspeed_config=/no/such.json"], "/no/such.json: No such file"),
    ],
)
def test_impossible_settings_are_one_line(words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_deepspeed(CPU)
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: False)
    (line,) = mistakes(*words)
    assert said in line


def test_deepspeed_settings_without_deepspeed_are_a_mistake() -> None:
    words = ["engine.zero_stage=2", "engine.offload_optimizer=true", "engine.deepspeed_config=x.json"]
    with pytest.raises(UserError) as caught:
        parser.load(TrainConfig, [*WORDS[:3], *words])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all("set engine.name=deepspeed too" in line for line in lines)


def test_a_users_file_is_merged(json_file: Any) -> None:
    file = {
        "train_batch_size": 256,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": 100,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": False},
        "zero_optimization": {"stage": 2, "overlap_comm": True, "offload_optimizer": {"device": "cpu"}},
    }
    made = settings(json_file(file))
    zero = {"stage": 2, "overlap_comm": True, "offload_optimizer": {"device": "cpu"}}
    assert made["zero_optimization"] == zero and made["steps_per_print"] == 100
    assert made["gradient_clipping"] == 1.0 and made["train_micro_batch_size_per_gpu"] == 1
    assert "train_batch_size" not in made
    assert zero_stage(parser.load(TrainConfig, [*WORDS, json_file(file)])) == 2


def test_all_mistakes_in_a_users_file_are_in_one_message(json_file: Any) -> None:
    file = {
        "zero_optimization": {
            "stage": 2,
            "overlap_com": True,
            "reduce_bucket_size": "many",
            "offload_optimizer": {"devcie": "cpu"},
        },
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW"},
        "gradient_accumulation_steps": 4,
        "train_batch_size": 100,
        "step_per_print": 10,
        "pipeline": {},
        "tensorboard": {"enable": True},
        "flops_profiler": {"topmodules": 1},
        "wandb": True,
    }
    expected = [
        "zero_optimization.overlap_com: no such key (did you mean 'overlap_comm'?)",
        "zero_optimization.reduce_bucket_size: Input should be a valid integer",
        "zero_optimization.offload_optimizer.devcie: no such key (did you mean 'device'?)",
        "zero_optimization.stage=2: engine.zero_stage makes it 1",
        "gradient_clipping=0.5: optimizer.max_grad_norm makes it 1.0",
        "bf16.enabled=true: precision=bf16 (precision=bf16_weights is what DeepSpeed calls bf16) makes it false",
        "optimizer: leave it out; the optimizer is set by optimizer.*",
        "gradient_accumulation_steps: leave it out; micro-batches follow from batch_size and tokens_per_device",
        "train_batch_size=100: batch_size makes it 256",
        "step_per_print: no such key (did you mean 'steps_per_print'?)",
        "pipeline: leave it out",
        "tensorboard.enable: no such key (did you mean 'enabled'?)",
        "flops_profiler.topmodules: no such key (did you mean 'top_modules'?)",
        "wandb: is a section",
        "engine.offload_parameters: needs engine.zero_stage=3",
    ]
    lines = mistakes(json_file(file), "engine.zero_stage=1", "engine.offload_parameters=true")
    missing = [part for part in expected if not any(part in line for line in lines)]
    assert not missing and len(lines) == len(expected), "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{,}", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"fp16": {}, "fp16": {}}', "it has the key 'fp16' twice"),
        ('{"communication_data_type": "fp8"}', "DeepSpeed rejects it: Invalid communication_data_type"),
        ('{"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu", "ratio": 0.5}}}', "Stage 3"),
    ],
)
def test_an_unusable_file_is_one_line(json_file: Any, content: str, said: str) -> None:
    (line,) = mistakes(json_file(content))
    assert said in line and "mine.json" in line


def test_deepspeed_still_reads_every_key_that_is_supported() -> None:
    import_deepspeed(CPU)
    read = deepspeed_user_config._keys_read()
    assert {*deepspeed_user_config._models(), *deepspeed_user_config._VALUES} <= read[""]
    assert all(len(read[section]) >= 3 for section in deepspeed_user_config._PLAIN_SECTIONS)
