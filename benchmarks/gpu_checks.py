"""What must be right before a speed counts: attention against float64, and the compiled step against the eager one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import attention
from benchmarks.gpu_rows import Place, Rows
from benchmarks.throughput_ours import configured
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import MicroBatch
from bert_tweets.distributed import world as ranks
from bert_tweets.engine.precision import autocast
from bert_tweets.model.attention import Backend, Shape, backend_named, backend_names
from bert_tweets.training.build import Training, build

# ‖difference‖ / ‖float64‖ at most: rounding of the operands, which tf32 or a wrong mask would exceed.
ATTENTION_ERRORS = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
# FlexAttention is left to its tests: it compiles a kernel for each type.
ATTENTION = [name for name in backend_names() if name != "flex"]
COMPILED_ERRORS = {"fp32": 1e-4, "bf16": 3e-2}


def attention_errors(place: Place, rows: Rows) -> None:
    """A row for each backend and type of number: relative errors of the output and of the gradients."""
    sizes = {"rows": 8 if place.small else 64, "row_length": 128, "heads": 2 if place.small else 12, "head_size": 64}
    race = attention.Race({**attention.DEFAULTS, **sizes, "shards": place.shards})
    for dtype, limit in ATTENTION_ERRORS.items():
        packed, upstream = race.states(dtype)
        exact = packed.detach().double().requires_grad_()
        truth = _gradients(_float64_attention(exact, race), exact, upstream, race)
        for backend in map(backend_named, ATTENTION):
            about = {"attention": backend.name, "dtype": str(dtype).removeprefix("torch."), **sizes}
            if missing := backend.missing(Shape(place.device.type, dtype, 64, 128)):
                rows.add("attention check", **about, skipped=missing)
                continue
            with rows.failing("attention check", about):
                found = _gradients(_attended(backend, packed, race), packed, upstream, race)
                errors = {name: relative_error(found[name], truth[name]) for name in truth}
                failed = {} if all(error < limit for error in errors.values()) else {"failed": f"above {limit}"}
                rows.add("attention check", **about, **errors, **failed)


def _attended(backend: Backend, packed: Tensor, race: attention.Race) -> Tensor:
    return backend.attend_packed(packed, backend.plan(race.segments, race.tweets), race.scale, None)


def _float64_attention(packed: Tensor, race: attention.Race) -> Tensor:
    query, key, value = packed.transpose(1, 3).unbind(dim=2)
    seen = race.segments[:, None, :, None] == race.segments[:, None, None, :]
    scores = (query @ key.transpose(2, 3) * race.scale).masked_fill(~seen, -torch.inf)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2)


def _gradients(out: Tensor, packed: Tensor, upstream: Tensor, race: attention.Race) -> dict[str, Tensor]:
    """The output at real tokens, and the gradients of query, key and value."""
    real = (race.segments > 0)[:, :, None, None]
    gradient = torch.autograd.grad(out, packed, (upstream * real).to(out.dtype))[0]
    return {"output": out.detach() * real, **dict(zip(("query", "key", "value"), gradient.unbind(dim=2), strict=True))}


def relative_error(found: Tensor, truth: Tensor) -> float:
    """‖found − truth‖ / ‖truth‖, in float64."""
    truth = truth.double()
    return float((found.double() - truth).norm() / truth.norm())


def compiled_against_eager(place: Place, rows: Rows) -> None:
    """Loss and gradients of two layers of BERT-base, compiled and not; no gradient may be zero."""
    for precision in ("bf16", "fp32"):
        with rows.failing("compiled check", {"precision": precision}), without_code_on_a_cpu(place):
            ways = [two_layers(place, precision, way) for way in ("false", "true")]
            # Of one of them for both: on a CPU, tweets are laid out otherwise where nothing is compiled.
            batch = next(ways[1].loader.steps()).micro_batches[0].to(place.device)
            eager, compiled = (_loss_and_gradients(way, batch, precision) for way in ways)
            rows.add("compiled check", precision=precision, **compare(eager, compiled, COMPILED_ERRORS[precision]))


def without_code_on_a_cpu(place: Place) -> AbstractContextManager[Any]:
    """torch.compile without its code generator, which takes minutes there."""
    if place.device.type != "cpu":
        return nullcontext()
    return mock.patch.object(torch, "compile", partial(torch.compile, backend="aot_eager"))


def _loss_and_gradients(training: Training, batch: MicroBatch, precision: str) -> tuple[float, dict[str, Tensor]]:
    with autocast(batch.input_ids.device, precision):
        loss = training.module(batch, training.masking)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in _trained(training) if p.grad is not None}


def two_layers(place: Place, precision: str, compile_: str) -> Training:
    """A run of a model of two layers; always the same weights and tweets."""
    tokens = 1024 if place.small else 8192
    given: dict[str, Any] = {"model": place.model(layers=2), "tokens_per_device": tokens, "precision": precision}
    manifest, world = Manifest.read(place.shards), ranks.world_from_environment("auto")
    given |= {"model.compile": compile_}
    return build(configured(place.shards, world.device.type, given, manifest, 1), manifest, world)


def _trained(training: Training) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name, parameter in training.module.model.named_parameters():
        # The gradient of the key's bias is zero but for rounding.
        if not name.endswith("key.bias"):
            yield name, parameter


def compare(
    eager: tuple[float, dict[str, Tensor]], compiled: tuple[float, dict[str, Tensor]], limit: float
) -> dict[str, Any]:
    """How far apart two losses and their gradients are, and why that is a failure."""
    (loss, expected), (other, found) = eager, compiled
    zero = [name for name in expected if name not in found or not float(found[name].norm()) > 0]
    if len(zero) == len(expected):
        return {"failed": "all gradients are zero", "eager_loss": loss, "compiled_loss": other}
    errors = {name: relative_error(found[name], expected[name]) for name in expected if name not in zero}
    worst = max(errors, key=lambda name: errors[name], default="")
    # Of all gradients together: those of single weights may be small, and mostly rounding in bf16.
    error = relative_error(*(torch.cat([each[name].flatten() for name in errors]) for each in (found, expected)))
    apart = max(abs(other - loss) / abs(loss), error)
    failed = f"no gradient: {', '.join(zero[:3])}" if zero else "" if apart < limit else f"apart by {apart:.2g}"
    return {
        "eager_loss": loss,
        "compiled_loss": other,
        "gradient_norm": float(torch.stack([gradient.norm() for gradient in found.values()]).norm()),
        "error_of_all_gradients": error,
        "largest_error": errors.get(worst, float("nan")),
        "largest_error_at": worst,
        **({"failed": failed} if failed else {}),
    }
