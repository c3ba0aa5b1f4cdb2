"""Correctness checks before speeds count: attention against float64, and the compiled step against the eager one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import attention
from benchmarks.gpu_rows import GpuRun, Rows
from benchmarks.throughput_ours import train_config
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import MicroBatch
from bert_tweets.distributed import world as ranks
from bert_tweets.engine.precision import autocast
from bert_tweets.model.attention import Backend, Shape, backend_named, backend_names
from bert_tweets.training.build import Training, build

# Upper limits of ‖difference‖ / ‖float64‖: rounding of the operands stays below, tf32 or a wrong mask does not.
ATTENTION_ERRORS = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
# FlexAttention is covered by its tests only, because it compiles a kernel per dtype.
ATTENTION = [name for name in backend_names() if name != "flex"]
COMPILED_ERRORS = {"fp32": 1e-4, "bf16": 3e-2}


def attention_errors(run: GpuRun, rows: Rows) -> None:
    """Add a row per backend and dtype: relative errors of the output and the gradients."""
    sizes = {"rows": 8 if run.small else 64, "row_length": 128, "heads": 2 if run.small else 12, "head_size": 64}
    race = attention.Race({**attention.DEFAULTS, **sizes, "shards": run.shards})
    for dtype, limit in ATTENTION_ERRORS.items():
        packed, upstream = race.states(dtype)
        exact = packed.detach().double().requires_grad_()
        expected = _gradients(_float64_attention(exact, race), exact, upstream, race)
        for backend in map(backend_named, ATTENTION):
            columns = {"attention": backend.name, "dtype": str(dtype).removeprefix("torch."), **sizes}
            if missing := backend.missing(Shape(run.device.type, dtype, 64, 128)):
                rows.add("attention check", **columns, skipped=missing)
                continue
            with rows.record_errors("attention check", columns):
                actual = _gradients(_attend(backend, packed, race), packed, upstream, race)
                errors = {name: relative_error(actual[name], expected[name]) for name in expected}
                failed = {} if all(error < limit for error in errors.values()) else {"failed": f"above {limit}"}
                rows.add("attention check", **columns, **errors, **failed)


def _attend(backend: Backend, packed: Tensor, race: attention.Race) -> Tensor:
    return backend.attend_packed(packed, backend.plan(race.segments, race.tweets), race.scale, None)


def _float64_attention(packed: Tensor, race: attention.Race) -> Tensor:
    query, key, value = packed.transpose(1, 3).unbind(dim=2)
    same_tweet = race.segments[:, None, :, None] == race.segments[:, None, None, :]
    scores = (query @ key.transpose(2, 3) * race.scale).masked_fill(~same_tweet, -torch.inf)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2)


def _gradients(out: Tensor, packed: Tensor, upstream: Tensor, race: attention.Race) -> dict[str, Tensor]:
    """The output at real tokens, and the gradients with respect to query, key and value."""
    real = (race.segments > 0)[:, :, None, None]
    gradient = torch.autograd.grad(out, packed, (upstream * real).to(out.dtype))[0]
    return {"output": out.detach() * real, **dict(zip(("query", "key", "value"), gradient.unbind(dim=2), strict=True))}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖, in float64."""
    expected = expected.double()
    return float((actual.double() - expected).norm() / expected.norm())


def compiled_against_eager(run: GpuRun, rows: Rows) -> None:
    """Compare loss and gradients of two layers of BERT-base, compiled and eager; no gradient may be zero."""
    for precision in ("bf16", "fp32"):
        with rows.record_errors("compiled check", {"precision": precision}), no_code_generation_on_cpu(run):
            trainings = [two_layers(run, precision, compile_) for compile_ in ("false", "true")]
            # One batch for both, because on a CPU the layout of tweets depends on whether the step is compiled.
            batch = next(trainings[1].loader.steps()).micro_batches[0].to(run.device)
            eager, compiled = (_loss_and_gradients(training, batch, precision) for training in trainings)
            rows.add("compiled check", precision=precision, **compare(eager, compiled, COMPILED_ERRORS[precision]))


def no_code_generation_on_cpu(run: GpuRun) -> AbstractContextManager[Any]:
    """On a CPU, use torch.compile without its code generator, which takes minutes there."""
    if run.device.type != "cpu":
        return nullcontext()
    return mock.patch.object(torch, "compile", partial(torch.compile, backend="aot_eager"))


def _loss_and_gradients(training: Training, batch: MicroBatch, precision: str) -> tuple[float, dict[str, Tensor]]:
    with autocast(batch.input_ids.device, precision):
        loss = training.module(batch, training.masking)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in _checked_parameters(training) if p.grad is not None}


def two_layers(run: GpuRun, precision: str, compile_: str) -> Training:
    """A training run of a two-layer model, always with the same weights and tweets."""
    tokens = 1024 if run.small else 8192
    settings: dict[str, Any] = {"model": run.model(layers=2), "tokens_per_device": tokens, "precision": precision}
    manifest, world = Manifest.read(run.shards), ranks.world_from_environment("auto")
    settings |= {"model.compile": compile_}
    return build(train_config(run.shards, world.device.type, settings, manifest, 1), manifest, world)


def _checked_parameters(training: Training) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name, parameter in training.module.model.named_parameters():
        # The gradient of the key's bias is zero, except for rounding.
        if not name.endswith("key.bias"):
            yield name, parameter


def compare(
    eager: tuple[float, dict[str, Tensor]], compiled: tuple[float, dict[str, Tensor]], limit: float
) -> dict[str, Any]:
    """Columns of a row: the differences of losses and gradients, and `failed` with the reason if they are too large."""
    (eager_loss, expected), (compiled_loss, actual) = eager, compiled
    zero = [name for name in expected if name not in actual or not float(actual[name].norm()) > 0]
    if len(zero) == len(expected):
        return {"failed": "all gradients are zero", "eager_loss": eager_loss, "compiled_loss": compiled_loss}
    errors = {name: relative_error(actual[name], expected[name]) for name in expected if name not in zero}
    worst = max(errors, key=lambda name: errors[name], default="")
    # Compare all gradients together: those of single weights may be small, and mostly rounding in bf16.
    error = relative_error(*(torch.cat([grads[name].flatten() for name in errors]) for grads in (actual, expected)))
    difference = max(abs(compiled_loss - eager_loss) / abs(eager_loss), error)
    failed = f"no gradient: {', '.join(zero[:3])}" if zero else ""
    if not zero and not difference < limit:
        failed = f"relative difference {difference:.2g}"
    return {
        "eager_loss": eager_loss,
        "compiled_loss": compiled_loss,
        "gradient_norm": float(torch.stack([gradient.norm() for gradient in actual.values()]).norm()),
        "error_of_all_gradients": error,
        "largest_error": errors.get(worst, float("nan")),
        "largest_error_at": worst,
        **({"failed": failed} if failed else {}),
    }
