"""The estimates of a dry run, compared with torch and real engines."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import BertConfig

from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig, TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed import world as ranks
from bert_tweets.model.loading import empty_model
from bert_tweets.training import dry_run, memory_estimate
from bert_tweets.training.build import Training, build
from bert_tweets.training.fingerprint import settings_that_stay
from bert_tweets.training.memory_estimate import EngineVariant, dtype_sizes, state_memory
from tests.helpers import make_shards
from tests.model.tiny import FAMILIES, stock_model
from tests.processes import run, stage

# Relative error of activations: indices and masks of a few bytes per token are not in the formulas.
BOUND = 0.005
NO_BATCH = memory_estimate.MicroBatchShape("cpu", "bucketed", 0, 128, 0, 0)


def config_of(shards: Path, **more: Any) -> TrainConfig:
    """A run of one step; `attention` and `model` set `model.attention` and `model.name`."""
    config = TrainConfig(output=str(shards.parent / "run"), max_steps=1, device="cpu", tokens_per_device=2048)
    config.data.path, config.data.num_workers = str(shards), 0
    config.model.name, config.model.attention = more.pop("model", "scratch"), more.pop("attention", "auto")
    for key, value in more.items():
        setattr(config, key, value)
    return config


def built(config: TrainConfig) -> Training:
    return build(config, Manifest.read(config.data.path), ranks.world_from_environment("cpu"))


def size(tensors: Iterable[Tensor | None]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors if tensor is not None)


def saved_bytes(parts: Training, batch: Any) -> int:
    """Bytes that the graph of a real forward pass keeps, each storage once, without the weights' own."""
    own = {weight.untyped_storage().data_ptr() for weight in parts.module.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    engine: Any = parts.engine
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        engine._forward(batch, parts.masking)
    return sum(tensor.untyped_storage().nbytes() for where, tensor in kept.items() if where not in own)


def estimated_bytes(parts: Training, batch: Any, precision: str) -> int:
    """The same by the formulas."""
    sizes = dtype_sizes(precision, EngineVariant())
    assert sizes
    segments = torch.unique(batch.segment_ids[batch.segment_ids > 0], return_counts=True)[1]
    squares = sum(memory_estimate.padded_square(length) for length in segments.tolist())
    rows, length = batch.input_ids.shape
    shape = memory_estimate.MicroBatchShape("cpu", parts.attention, rows, length, batch.masked_capacity, squares)
    settings = parts.module.model.config
    return memory_estimate.activations(settings, shape, sizes) + memory_estimate.loss_memory(settings, sizes)


@pytest.mark.parametrize("family", ["scratch", *FAMILIES])
def test_parameters_are_counted_without_weights(family: str, shards: Path, tmp_path: Path) -> None:
    name = family
    if family != "scratch":
        stock_model(family).save_pretrained(tmp_path)
        name = str(tmp_path)
    config = ModelConfig(name=name)
    # The tiny stock models have 120 tokens: a manifest of as many is enough here.
    manifest = Manifest.read(shards)
    empty = empty_model(config, manifest)
    assert all(weight.is_meta for weight in empty.parameters())
    real = stock_model(family) if family != "scratch" else built(config_of(shards)).module.model
    assert memory_estimate.count_parameters(empty).total == sum(weight.numel() for weight in real.parameters())
    assert [tuple(weight.shape) for weight in empty.parameters()] == [tuple(w.shape) for w in real.parameters()]
    assert memory_estimate.count_parameters(empty).embeddings == sum(
        w.numel() for w in real.base_model.embeddings.parameters()
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("trainable", ["all", "embeddings"])
def test_state_memory_equals_that_of_the_engine(precision: str, trainable: str, shards: Path) -> None:
    config = config_of(shards, precision=precision, batch_size=16)
    config.model.trainable = trainable
    parts = built(config)
    engine: Any = parts.engine
    found: dict[str, int] = {}
    step = engine.optimizer.step

    def keep(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        gradients = {id(p.grad): p.grad for p in (*parts.module.parameters(), *engine.parameters)}
        found["gradients"] = size(gradients.values())
        return result

    with mock.patch.object(engine.optimizer, "step", keep):
        engine.train_step(next(iter(parts.loader.steps())), parts.masking, 1e-5)
    moments = [tensor for state in engine.optimizer.state.values() for tensor in state.values()]
    masters = engine.masters._of.values() if engine.masters else []
    sizes = dtype_sizes(precision, EngineVariant())
    assert sizes
    estimate = state_memory(memory_estimate.count_parameters(parts.module.model), EngineVariant(), sizes, 1)
    assert estimate.weights == size(parts.module.parameters())
    assert estimate.masters == size(masters)
    assert estimate.gradients == found["gradients"]
    assert estimate.optimizer == size(moments)
    state = engine.state()
    on_disk = 2 * size(state.weights.values()) + size(state.moments.values())
    assert memory_estimate.checkpoint_size(memory_estimate.count_parameters(parts.module.model)) == on_disk


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("attention", ["bucketed", "sdpa"])
def test_activations_are_estimated_to_half_a_percent(precision: str, attention: str, shards: Path) -> None:
    parts = built(config_of(shards, precision=precision, attention=attention))
    batch = next(iter(parts.loader.steps())).micro_batches[0]
    assert estimated_bytes(parts, batch, precision) == pytest.approx(saved_bytes(parts, batch), rel=BOUND)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_of_a_gated_model_are_estimated_too(precision: str, shards: Path, tmp_path: Path) -> None:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    model_sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    special = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    ModernBertForMaskedLM(ModernBertConfig(vocab_size=240, **special, **model_sizes)).save_pretrained(tmp_path)
    parts = built(config_of(shards, model=str(tmp_path), precision=precision))
    batch = next(iter(parts.loader.steps())).micro_batches[0]
    assert estimated_bytes(parts, batch, precision) == pytest.approx(saved_bytes(parts, batch), rel=BOUND)


@pytest.mark.real_data
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_so_are_activations_of_a_real_encoder(precision: str, real_data: Path, tmp_path: Path) -> None:
    model = str(real_data.parent / "models" / "minilm-l6")
    shards = make_shards(tmp_path, tokenizer=model, vocabulary_size=30522)
    parts = built(config_of(shards, model=model, precision=precision))
    batch = next(iter(parts.loader.steps())).micro_batches[0]
    assert estimated_bytes(parts, batch, precision) == pytest.approx(saved_bytes(parts, batch), rel=BOUND)
    empty = empty_model(ModelConfig(name=model), Manifest.read(shards))
    assert memory_estimate.count_parameters(empty) == memory_estimate.count_parameters(parts.module.model)


def test_each_zero_stage_shards_what_it_should() -> None:
    parameters = memory_estimate.ParameterCounts(600, 300, 100, 1000, 10)
    found = []
    for number in range(4):
        sizes = dtype_sizes("fp32", EngineVariant(number))
        assert sizes
        found.append(state_memory(parameters, EngineVariant(number), sizes, 10))
    assert [one.optimizer for one in found] == [8040, 800, 800, 800]
    assert [one.masters for one in found] == [0, 400, 400, 400]
    assert [one.gradients for one in found] == [4000, 4400, 800, 800]
    # ZeRO 3 keeps a tenth of the weights, plus the gathered weights.
    assert [one.weights for one in found] == [4000, 4000, 4000, 4400]
    sizes = dtype_sizes("fp32", EngineVariant(3, True, True))
    assert sizes
    offloaded = state_memory(parameters, EngineVariant(3, True, True), sizes, 10)
    assert (offloaded.weights, offloaded.masters, offloaded.optimizer, offloaded.host) == (4000, 0, 0, 1600 + 400)
    assert dtype_sizes("bf16_weights", EngineVariant(0)) is None


def print_deepspeed_bytes(shards: str, number: int) -> None:
    """Print the bytes of all tensors after a step per parameter; runs in a process of its own."""
    config = config_of(Path(shards), precision="fp32", batch_size=16)
    config.engine.name, config.engine.zero_stage = "deepspeed", number
    config.model.scratch.hidden_size, config.model.scratch.intermediate_size = 256, 1024
    parameters = memory_estimate.count_parameters(empty_model(config.model, Manifest.read(shards))).total
    world = ranks.world_from_environment("cpu")
    ranks.start_process_group(world, 60, always=True)
    parts = built(config)
    parts.engine.train_step(next(iter(parts.loader.steps())), parts.masking, 1e-5)
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    print(f"bytes {sum(storages.values()) / parameters}")
    ranks.stop_process_group()


@pytest.mark.dist
@pytest.mark.parametrize("number", [1, 3])
def test_deepspeed_memory_is_as_estimated(number: int, shards: Path) -> None:
    pytest.importorskip("deepspeed")
    program = f"from tests.training import test_dry_run as test; test.print_deepspeed_bytes({str(shards)!r}, {number})"
    done = run(["-c", program], DS_ACCELERATOR="cpu")
    assert done.returncode == 0, done.stderr
    found = float(done.stdout.rpartition("bytes ")[2].splitlines()[0])
    sizes = dtype_sizes("fp32", EngineVariant(number))
    assert sizes
    parameters = memory_estimate.ParameterCounts(10**6, 0, 0, 10**6, 1)
    estimate = state_memory(parameters, EngineVariant(number), sizes, 1)
    between = estimate.weights + estimate.masters + estimate.optimizer
    if number == 3:
        # Gathered weights (half of `weights`) are freed, and so are the gradients that the optimizer read (half of
        # `gradients`). The bucket and the incoming gradients are not.
        bucket = memory_estimate.workspace(BertConfig(), NO_BATCH, sizes, EngineVariant(number), parameters)
        between += bucket - estimate.weights // 2 + estimate.gradients // 2
    assert found == pytest.approx(between / 10**6, rel=0.02)


def test_the_shape_of_a_step_is_that_of_the_loader(shards: Path) -> None:
    config = config_of(shards, batch_size=200, max_steps=5, tokens_per_device=512)
    manifest = Manifest.read(shards)
    estimate = dry_run.step_shape(config, manifest, ranks.world_from_environment("cpu"))
    steps = list(built(config).loader.steps())
    made = [batch for step in steps for batch in step.micro_batches]
    assert abs(estimate.micro_batches - len(made) / len(steps)) <= 1
    assert abs(estimate.batch.rows - max(len(batch.input_ids) for batch in made)) <= 1
    assert estimate.batch.masked == pytest.approx(sum(b.masked_capacity for b in made) / len(made), rel=0.25)
    assert estimate.tokens == pytest.approx(sum(step.tokens for step in steps) / len(made), rel=0.15)


def test_a_dry_run_starts_and_writes_nothing(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster of GPUs is planned on a machine without one."""
    config = config_of(shards, dry_run=True, output=str(tmp_path / "run"), batch_size=64)
    config.device, config.dry_run_for.device_memory, config.dry_run_for.devices = "cuda", 1e-3, 64
    config.dry_run_for.tokens_per_second, config.checkpoint.keep = 10.0, 10**9
    dry_run.dry_run(config)
    output = capsys.readouterr().out
    assert "64 on cuda" in output and "does not fit" in output and "TOO LITTLE" in output
    assert "seconds at 10 tokens/s per device" in output and "learning_rate: 5.0e-05" in output
    assert not dist.is_initialized() and not (tmp_path / "run").exists()
    if not torch.cuda.is_available():
        config.dry_run_for.device_memory = 0.0
        with pytest.raises(UserError, match=r"dry_run_for\.device_memory=80"):
            dry_run.dry_run(config)


def test_what_would_stop_the_run_stops_the_dry_run(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match="holds other files"):
        dry_run.dry_run(config_of(shards, dry_run=True, output=str(tmp_path / "run")))
    with pytest.raises(UserError, match="is not a checkpoint"):
        dry_run.dry_run(config_of(shards, dry_run=True, resume="/no/such/run"))


def test_dry_run_settings_are_not_part_of_a_run(shards: Path) -> None:
    planned = config_of(shards, dry_run=True)
    planned.dry_run_for.devices, planned.dry_run_for.device_memory, planned.dry_run_for.tokens_per_second = 8, 80.0, 1e6
    assert settings_that_stay(planned) == settings_that_stay(config_of(shards))


@pytest.mark.dist
def test_one_rank_prints_the_plan(shards: Path, tmp_path: Path) -> None:
    words = ("dry_run=true", f"data.path={shards}", "model.name=scratch", f"output={tmp_path}/run", "device=cpu")
    output = stage("train", *words, processes=2).stdout
    assert output.count("memory per rank") == 1 and "2 on cpu" in output and "dry_run_for.tokens_per_second" in output
    assert not (tmp_path / "run").exists()
