"""Training: from settings to an adapted model, top to bottom."""

from __future__ import annotations

import math
import platform
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers

from .. import __version__
from ..config import TrainConfig
from ..data.loader import Layout
from ..data.manifest import SPLITS, Manifest
from ..data.masking import masking_for
from ..data.order import Stream
from ..data.shards import open_split, verify
from ..engine import world as ranks
from ..engine.fetching import check_local, fetch_and_check
from ..engine.world import World
from ..model.export import export_model
from ..model.loading import SCRATCH, LoadedModel, load_model, weights_identity
from . import run_folder
from .flops import matrix_peak
from .metrics import IntervalMeter, JsonLines, Progress
from .schedule import Schedule, schedule_of
from .setup import Training, build, check_engine, stream_for
from .steady import collect, garbage_by_hand, make_deterministic, profiler
from .validation import FEWEST_MASKED, BestModel, Validation

# Validation masks do not depend on the run's seed, so that runs can be compared.
_VALIDATION_SEED = 0
_VALIDATION_PROBABILITY = 0.15


def train(config: TrainConfig) -> None:
    """Adapts a model to the shards and exports it.

    Raises:
        UserError: a mistake of the user's, found before the process group starts wherever it can be.
    """
    if config.deterministic:
        make_deterministic()
    world = ranks.this_world(config.device)
    manifest = Manifest.read(config.data.path)
    stream = stream_for(config, manifest)
    state = run_folder.state(config)
    if state == "finished":
        run_folder.require_made_from(config, _identity(config, manifest))
        _say(
            world,
            f"{config.output}: this run is finished; the model is in {config.output}/{run_folder.MODEL}",
        )
        return
    check_local([config.model], manifest)
    check_engine(config, world)
    if config.data.verify:
        every = [shard for split in SPLITS for shard in manifest.splits[split]]
        verify(config.data.path, world.local_part(every))

    ranks.start(world, config.engine.timeout_seconds, always=config.engine.name == "deepspeed")
    try:
        loaded = _load(config, manifest, world)
        if world.is_main:
            run_folder.begin(config)
        if state == "unfinished":
            _say(world, f"{config.output}: holds this run, begun and not finished; starting over")
        world.barrier()
        _train(config, manifest, stream, loaded, world)
    finally:
        ranks.stop()


def _train(config: TrainConfig, manifest: Manifest, stream: Stream, loaded: LoadedModel, world: World) -> None:
    folder = Path(config.output)
    parts = build(config, manifest, world, loaded)
    loader, engine = parts.loader, parts.engine
    schedule = schedule_of(config.schedule, config.optimizer.learning_rate, stream.steps)
    validation = _validation(config, manifest, parts.layout, world)
    every = config.validation.every_steps or _validation_interval(config, manifest, stream)
    meter = IntervalMeter(world, parts.flops_per_token, matrix_peak(world.device, config.precision))
    metrics = JsonLines(folder / run_folder.METRICS, world.is_main)
    validations = JsonLines(folder / run_folder.VALIDATION, world.is_main)
    best = BestModel(config.validation.patience, keep=world.is_main)
    _say(world, _plan_line(config, manifest, stream, schedule, world, parts))

    started = time.perf_counter()
    done = tokens = tweets = 0
    tracing = profiler(folder, world.device, config.profile and world.is_main)
    with Progress(stream.steps, world.is_main) as progress, garbage_by_hand(), tracing as trace:

        def validate() -> None:
            if validation is None:
                return
            begun = time.perf_counter()
            loss = validation.loss(engine)
            validations.write({"step": done, "epoch": stream.epoch(done), "validation_loss": loss})
            warning = best.see(done, loss, engine)
            progress.say(f"step {done}/{stream.steps}  validation loss {loss:.4f}")
            if warning:
                progress.say(warning)
            meter.exclude(time.perf_counter() - begun)

        validate()
        asked = time.perf_counter()
        for step in loader.steps():
            waited = time.perf_counter() - asked
            learning_rate = schedule.learning_rate(step.index)
            loss_share, grad_norm = engine.train_step(step, parts.masking, learning_rate)
            meter.add(step, loss_share, waited)
            trace.step()
            done, tokens, tweets = step.index + 1, tokens + step.tokens, tweets + step.tweets
            line = None
            if done % config.log.every_steps == 0 or done == stream.steps:
                line = meter.line(grad_norm)
                collect()
                metrics.write({"step": done, "epoch": stream.epoch(done), "learning_rate": learning_rate, **line})
            progress.advance(done, line)
            if done % every == 0 or done == stream.steps:
                validate()
                if best.should_stop:
                    progress.say(f"stopped early: {best.since} validations in a row brought no new best")
                    break
            asked = time.perf_counter()

    seconds = time.perf_counter() - started
    weights = best.chosen(engine)
    if world.is_main:
        export_model(
            folder / run_folder.MODEL, loaded.model, weights, manifest, config.data.path, parts.vocabulary_size
        )
        summary = _summary(config, manifest, loaded, best, world, engine.name)
        summary["exported"] = weights_identity(str(folder / run_folder.MODEL))
        summary |= {"tweets": tweets, "epochs": stream.epoch(done)}
        summary |= {
            "rows": stream.rows,
            "steps": done,
            "planned_steps": stream.steps,
            "seconds": seconds,
            "tokens": tokens,
        }
        run_folder.finish(folder, summary)
        from_step = f"step {best.step}, the best by validation" if validation else f"step {done}"
        print(f"model of {from_step}: {folder / run_folder.MODEL}", flush=True)
    world.barrier()


def _load(config: TrainConfig, manifest: Manifest, world: World) -> LoadedModel:
    fetch_and_check([config.model], manifest, world)
    loaded = load_model(config.model, manifest, config.seed)
    if not loaded.has_trained_head:
        what = "is made from scratch" if config.model.name == SCRATCH else "is an encoder without a masked-LM head"
        _say(
            world,
            f"{config.model.name} {what}: its head is new, on the scale of the embeddings; "
            "the early fall of the loss is that head being learnt, not adaptation to tweets",
        )
    if loaded.added_tokens:
        _say(
            world,
            f"{config.model.name} takes on {loaded.added_tokens} tokens that were added to its tokenizer; "
            "each begins as the mean of the pieces of its name",
        )
    return loaded


def _validation(config: TrainConfig, manifest: Manifest, layout: Layout, world: World) -> Validation | None:
    split = open_split(config.data.path, manifest, "validation")
    if not len(split):
        _say(world, "warning: the validation split is empty: no early stop, the last step is exported")
        return None
    masking = masking_for(manifest, _VALIDATION_SEED, _VALIDATION_PROBABILITY, False)
    validation = Validation(split, masking, layout, world, config.validation.max_tweets)
    masked = validation.masked_tokens()
    if masked < FEWEST_MASKED:
        _say(
            world,
            f"warning: only {masked} masked tokens to validate on: no early stop, the last step is exported; "
            "raise validation_fraction in prepare",
        )
        return None
    return validation


def _validation_interval(config: TrainConfig, manifest: Manifest, stream: Stream) -> int:
    """Steps between validations: twenty of them, fewer where they would take over a tenth of the time, one an epoch."""
    tweets = min(config.validation.max_tweets, manifest.rows("validation"))
    # A validated tweet costs a third of a trained one: there is no backward pass.
    affordable = math.ceil(tweets / 3 / (0.1 * stream.batch_size))
    epoch = math.ceil(stream.rows / stream.batch_size)
    return max(1, min(max(stream.steps // 20, affordable), epoch))


def _plan_line(
    config: TrainConfig, manifest: Manifest, stream: Stream, schedule: Schedule, world: World, parts: Training
) -> str:
    rate = config.optimizer.learning_rate
    falling = f"wsd (falls over the last {schedule.decay_steps})" if schedule.name == "wsd" else schedule.name
    lines = [
        f"training {config.model.name} on {stream.rows:,} tweets ({manifest.tokens('train'):,} tokens): "
        f"{stream.steps:,} steps of {stream.batch_size} tweets, {stream.length / stream.rows:.2f} epochs, "
        f"{world.world_size} rank(s) on {world.device.type} ({parts.engine.name}), {config.precision}, "
        f"attention '{parts.attention}'",
        f"learning rate {rate:g} after {schedule.warmup_steps} steps of warm-up, then {falling}; "
        f"attention dropout is off, hidden dropout {config.model.dropout:g}",
    ]
    if rate > 2e-4:
        lines.append(f"warning: a learning rate of {rate:g} is high for a pre-trained BERT; 5e-5 is usual")
    if config.model.dropout:
        lines.append("hidden dropout depends on layout: runs of other sizes agree in data and masks only")
    return "\n".join(lines)


def _summary(
    config: TrainConfig, manifest: Manifest, loaded: LoadedModel, best: BestModel, world: World, engine_name: str
) -> dict[str, Any]:
    return {
        "model": config.model.name,
        "has_trained_head": loaded.has_trained_head,
        "best_step": best.step if best.start_loss is not None else None,
        "validation_loss": best.loss if best.start_loss is not None else None,
        "start_validation_loss": best.start_loss,
        "stopped_early": best.should_stop,
        "ranks": world.world_size,
        "engine": engine_name,
        "device": _device_name(world.device),
        "precision": config.precision,
        "recipe": manifest.recipe.hash,
        **_identity(config, manifest),
        "versions": {
            "bert_tweets": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "pyarrow": pa.__version__,
        },
    }


def _identity(config: TrainConfig, manifest: Manifest) -> dict[str, str]:
    return {"data": manifest.fingerprint, "weights": weights_identity(config.model.name)}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads a rank"


def _say(world: World, text: str) -> None:
    if world.is_main:
        print(text, flush=True)
