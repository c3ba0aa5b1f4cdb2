"""Speed of the training step at one shape, and its profile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from benchmarks.common import Row
from benchmarks.gpu_profile import PROFILED, profile_step
from benchmarks.gpu_rows import GpuRun, Rows
from benchmarks.throughput_ours import Ours, peaks, train_config
from benchmarks.timed_worker import reset_memory
from benchmarks.worker_group import summarize, utilisation
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import Step
from bert_tweets.distributed import world as ranks
from bert_tweets.training.determinism import manual_gc

_INSPECTED_STEPS = 20


def step_bf16(run: GpuRun, rows: Rows) -> None:
    """Measure the main configuration: BERT-base in bf16."""
    measure(run, rows, "bf16")


def step_bf16_weights(run: GpuRun, rows: Rows) -> None:
    """Measure the same with bf16 weights and fp32 master weights."""
    measure(run, rows, "bf16_weights")


def measure(run: GpuRun, rows: Rows, precision: str, steps: int = 60, **settings: str) -> None:
    """Add rows for one training configuration: its speed, phases and profile; or the error.

    Args:
        run: paths and sizes of the GPU run.
        rows: receives the results.
        precision: precision of the products.
        steps: number of timed steps, optimizer included.
        settings: further settings of the training run.
    """
    tokens = int(settings.pop("tokens_per_device", 1024 if run.small else 65_536))
    columns: Row = {"model": "tiny" if run.small else "bert-base-random", "precision": precision, **settings}
    columns |= {"tokens_per_device": tokens, "optimizer_included": True}
    with rows.record_errors("step", columns), manual_gc():
        ours = _training_run(run, precision, tokens, settings)
        training = ours.training
        shape, ours.steps = of_one_shape(ours.steps)
        columns["rows"] = " + ".join(map(str, shape))
        columns |= {"engine": training.engine.name, "attention": training.attention}
        columns["compiled"] = training.module.compiled
        _measure(run, rows, ours, columns, steps)


def _training_run(run: GpuRun, precision: str, tokens: int, settings: dict[str, str]) -> Ours:
    world, manifest = ranks.world_from_environment("auto"), Manifest.read(run.shards)
    ranks.start_process_group(world, 600)
    reset_memory(world.device)
    own = {"model": run.model(), "tokens_per_device": tokens, "precision": precision, "overrides": settings}
    config = train_config(run.shards, world.device.type, own, manifest, 1)
    return Ours(config, manifest, world)


def _measure(run: GpuRun, rows: Rows, ours: Ours, columns: Row, steps: int) -> None:
    start = time.perf_counter()
    ours.turn(1, 0)
    columns = {**columns, "first_step_seconds": time.perf_counter() - start}
    measured = ours.turn(2 if run.small else steps, 1 if run.small else 5)
    peak = peaks(run.device, columns["precision"])
    rows.add("step", **columns, **rate(measured, ours.training.flops_per_token, peak))
    rows.add("phases of the step", **columns, milliseconds_by_phase=ours.phases(PROFILED))
    title = f"{columns['precision']}, {columns['tokens_per_device']:,} tokens per device"
    rows.add("profile", **columns, **profile_step(ours, run, title))


def of_one_shape(steps: Iterator[Step]) -> tuple[tuple[int, ...], Iterator[Step]]:
    """The most common shape among the next steps (rows per micro-batch), and the steps that have it.

    Nearly all steps have it if they fill the micro-batch; each other shape would have to be compiled.
    """
    first = list(islice(steps, _INSPECTED_STEPS))
    (shape, _), *_others = Counter(map(_rows_of, first)).most_common(1)
    return shape, (step for step in chain(first, steps) if _rows_of(step) == shape)


def _rows_of(step: Step) -> tuple[int, ...]:
    return tuple(len(batch.input_ids) for batch in step.micro_batches)


def rate(measured: dict[str, Any], flops_per_token: float, peak: dict[str, float]) -> dict[str, Any]:
    """Columns of a row: real tokens per second, model FLOPs utilisation (MFU), and evidence that the steps trained.

    Args:
        measured: result of `Ours.turn`.
        flops_per_token: FLOPs that the model needs per real token.
        peak: result of `throughput_ours.peaks`.
    """
    columns = summarize([measured])
    columns |= utilisation(columns["tokens_per_second"] * flops_per_token, peak)
    losses, norms = measured["losses"], measured["gradient_norms"]
    columns |= {"first_loss": losses[0], "last_loss": losses[-1], "smallest_gradient_norm": min(norms)}
    return {**columns, "largest_gradient_norm": max(norms), "flops_per_token": flops_per_token, **peak}
