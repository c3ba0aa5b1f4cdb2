"""The speed of the training step at one shape, and where its time goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from benchmarks.gpu_profile import PROFILED, profiled
from benchmarks.gpu_rows import Place, Rows
from benchmarks.throughput_ours import Ours, configured, peaks
from benchmarks.throughput_parties import summary
from benchmarks.throughput_steps import fresh_memory
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import Step
from bert_tweets.distributed import world as ranks
from bert_tweets.training.determinism import manual_gc

_LOOKED_AT = 20


def step_bf16(place: Place, rows: Rows) -> None:
    """The headline: BERT-base, bf16."""
    measure(place, rows, "bf16")


def step_bf16_weights(place: Place, rows: Rows) -> None:
    """The same with weights in bf16 and fp32 masters."""
    measure(place, rows, "bf16_weights")


def measure(place: Place, rows: Rows, precision: str, steps: int = 60, **settings: str) -> None:
    """Rows for one way of training: its speed, then its profile; or why there is none.

    Args:
        place: of the run.
        rows: take the results.
        precision: of the products.
        steps: that are timed, optimizer included.
        settings: of the run, further ones.
    """
    tokens = int(settings.pop("tokens_per_device", 1024 if place.small else 65_536))
    about: dict[str, Any] = {"model": "tiny" if place.small else "bert-base-random", "precision": precision, **settings}
    about |= {"tokens_per_device": tokens, "optimizer_included": True}
    with rows.failing("step", about), manual_gc():
        ours = _run_of(place, precision, tokens, settings)
        parts = ours.training
        shape, ours.coming = of_one_shape(ours.coming)
        about["rows"] = " + ".join(map(str, shape))
        about |= {"engine": parts.engine.name, "attention": parts.attention, "compiled": parts.module.compiled}
        _measure(place, rows, ours, about, steps)


def _run_of(place: Place, precision: str, tokens: int, settings: dict[str, str]) -> Ours:
    world, manifest = ranks.world_from_environment("auto"), Manifest.read(place.shards)
    ranks.start_process_group(world, 600)
    fresh_memory(world.device)
    given: dict[str, Any] = {"model": place.model(), "tokens_per_device": tokens, "precision": precision}
    config = configured(place.shards, world.device.type, {**given, "settings": settings}, manifest, 1)
    return Ours(config, manifest, world)


def _measure(place: Place, rows: Rows, ours: Ours, about: dict[str, Any], steps: int) -> None:
    started = time.perf_counter()
    ours.turn(1, 0)
    about = {**about, "first_step_seconds": time.perf_counter() - started}
    taken = ours.turn(2 if place.small else steps, 1 if place.small else 5)
    peak = peaks(place.device, about["precision"])
    rows.add("step", **about, **rate(taken, ours.training.flops_per_token, peak))
    rows.add("parts of the step", **about, milliseconds_by_part=ours.parts(PROFILED))
    title = f"{about['precision']}, {about['tokens_per_device']:,} tokens a device"
    rows.add("profile", **about, **profiled(ours, place, title))


def of_one_shape(steps: Iterator[Step]) -> tuple[tuple[int, ...], Iterator[Step]]:
    """The rows of the commonest shape among the next steps, and the steps of that shape alone.

    A step that fills the micro-batch has it nearly always; others would have to be compiled.
    """
    first = list(islice(steps, _LOOKED_AT))
    (shape, _), *_others = Counter(map(_rows_of, first)).most_common(1)
    return shape, (step for step in chain(first, steps) if _rows_of(step) == shape)


def _rows_of(step: Step) -> tuple[int, ...]:
    return tuple(len(batch.input_ids) for batch in step.micro_batches)


def rate(taken: dict[str, Any], flops_per_token: float, peak: dict[str, float]) -> dict[str, Any]:
    """Columns of a row: real tokens a second, model FLOPs utilisation, and proof that the steps trained.

    Args:
        taken: by `Ours.turn`.
        flops_per_token: that the model needs for a real token.
        peak: by `throughput_ours.peaks`.
    """
    found = summary([taken])
    needed = found["tokens_per_second"] * flops_per_token
    found |= {"mfu": needed / peak["matrix_peak"], "mfu_of_measured_peak": needed / peak["measured_peak"]}
    losses, norms = taken["losses"], taken["gradient_norms"]
    found |= {"first_loss": losses[0], "last_loss": losses[-1], "smallest_gradient_norm": min(norms)}
    return {**found, "largest_gradient_norm": max(norms), "flops_per_token": flops_per_token, **peak}
