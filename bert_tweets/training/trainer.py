"""Training: from settings to an adapted model, top to bottom."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import Stopped
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import ShardWatcher, verify
from bert_tweets.data.batches import Step
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.download import check_local
from bert_tweets.distributed.world import World
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import LoadedModel, weights_identity

from . import run_folder
from .async_checkpoint import Saver
from .build import build, check_engine, load_for_run, stream_for
from .determinism import collect, garbage_by_hand, make_deterministic, profiler
from .flops import matrix_peak
from .gradient_guard import GradientGuard, remedy_for_zero_gradients
from .lr_schedule import schedule_of
from .metrics import IntervalMeter, JsonLines, Totals, finite, progress_note, utc_now
from .resume import Resumed, require_place, run_fingerprint
from .run_summary import input_identity, plan, summary, versions
from .signals import StopRequest
from .validate import BestModel, interval_for, validation_for
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

_LATER_SECONDS = 60


def train(config: TrainConfig) -> None:
    """Adapts a model to the shards and exports it.

    Raises:
        UserError: a mistake of the user's, found before the process group starts wherever it can be.
        Stopped: it was asked to stop, and has saved.
    """
    if config.deterministic:
        make_deterministic()
    world = ranks.world_from_environment(config.device)
    manifest = Manifest.read(config.data.path)
    stream = stream_for(config, manifest)
    if run_folder.state(config) == "finished":
        run_folder.require_made_from(config, input_identity(config, manifest))
        logger.info(f"{config.output}: this run is finished; the model is in {Path(config.output) / run_folder.MODEL}")
        return
    require_place(config)
    check_local([config.model], manifest)
    check_engine(config, world)
    if config.data.verify:
        every = [shard for split in SPLITS for shard in manifest.splits[split]]
        verify(config.data.path, world.local_part(every))

    # The watchdog comes first, and tells more.
    ranks.start_process_group(
        world, config.engine.timeout_seconds + _LATER_SECONDS, always=config.engine.name == "deepspeed"
    )
    try:
        run_training(config, manifest, stream, world)
    finally:
        ranks.stop_process_group()


def run_training(config: TrainConfig, manifest: Manifest, stream: Stream, world: World) -> None:
    """Trains from where the run stands; the process group has started.

    Raises:
        UserError, Stopped: see `train`.
    """
    with StopRequest(world.is_main) as asked, ExitStack() as held:
        loaded = load_for_run(config, manifest, world)
        resumed = Resumed(config, run_fingerprint(config, manifest), world)
        resumed.require_stream(stream, manifest.fingerprint)
        state = world.run_on_rank0(lambda: run_folder.state(config))
        world.run_on_rank0(lambda: held.enter_context(run_folder.begun(config, resumed.step)))
        if resumed.record:
            logger.info(f"resuming after step {resumed.step} from {resumed.folder}")
        elif state == "unfinished":
            logger.info(f"{config.output}: holds this run, begun and not finished; starting over")
        Run(config, manifest, stream, loaded, resumed, asked, world).train()


class Run:
    """A run from where it stands to its model.

    Args:
        config: its settings.
        manifest: of its shards.
        stream: its tweets.
        loaded: the model that it began with.
        resumed: the checkpoint that it goes on from, or none.
        asked: says when this rank is asked to stop.
        world: the ranks.
    """

    def __init__(
        self,
        config: TrainConfig,
        manifest: Manifest,
        stream: Stream,
        loaded: LoadedModel,
        resumed: Resumed,
        asked: StopRequest,
        world: World,
    ):
        self.config, self.manifest, self.stream, self.loaded, self.world = config, manifest, stream, loaded, world
        self.folder, self.first = Path(config.output), resumed.step
        resumed.put_weights(loaded.model)
        self.parts = build(config, manifest, world, loaded, asked)
        self.engine = self.parts.engine
        self.schedule = schedule_of(config.schedule, config.optimizer.learning_rate, stream.steps)
        self.validation = validation_for(config, manifest, stream, self.parts.layout, world)
        self.validate_every = config.validation.every_steps or interval_for(config, manifest, stream)
        self.metrics, self.validations, skips = (
            JsonLines(self.folder / name, world.is_main, self.first or -1)
            for name in (run_folder.METRICS, run_folder.VALIDATION, run_folder.SKIPPED)
        )
        peak = matrix_peak(world.device, config.precision)
        self.meter = IntervalMeter(world, self.engine.stopwatch, self.parts.flops_per_token, peak)
        self.best = BestModel(config.validation.patience, keep=world.is_main)
        remedy = remedy_for_zero_gradients(self.parts.module.compiled, config.precision)
        self.guard = GradientGuard(stream, self.parts.loader.split, config.max_nonfinite_steps, skips, remedy)
        self.totals = Totals()
        every_shard = [shard for split in SPLITS for shard in manifest.splits[split]]
        self.shards = ShardWatcher(config.data.path, world.local_part(every_shard))
        told: dict[str, Any] = {"engine": self.engine.name, "ranks": world.world_size, "versions": versions()}
        told["config"] = parser.flatten(config)
        self.saver = Saver(self.folder, config.checkpoint.keep, world, resumed.expected, told, config.model.dropout > 0)
        self.watchdog = Watchdog(self.folder, world, config.engine.timeout_seconds)
        self.progress = ProgressBar("training", stream.steps, done=self.first, tenths=True, shown=world.is_main)
        logger.info(plan(config, manifest, stream, self.schedule, world, self.parts))
        self.done = self.first
        if resumed.record:
            self._restore(resumed, resumed.record.progress)

    def train(self) -> None:
        """Takes the steps that are left, and exports the model; or saves and leaves, when asked to.

        Raises:
            Stopped: a signal asked for it.
            UserError: too many steps were skipped, gradients were zero, or what was asked to be saved could not be.
        """
        config, steps = self.config, self.stream.steps
        tracing = profiler(self.folder, self.world.device, config.profile and self.world.is_main)
        leaving = False
        with self.watchdog, self.saver, self.progress, garbage_by_hand(), tracing as trace:
            if not self.first:
                self._validate()
            asked_at = time.perf_counter()
            for step in self.parts.loader.steps(self.first):
                self._take(step, time.perf_counter() - asked_at)
                trace.step()
                if self.done % self.validate_every == 0 or self.done == steps:
                    self._validate()
                    if self.best.should_stop:
                        logger.info(f"stopped early: {self.best.since} validations in a row brought no new best")
                        break
                # Behind the last step there is nothing to leave.
                leaving = self.done < steps and (step.is_last or self.done - self.first == config.stop_after_steps)
                every = config.checkpoint.every_steps
                if leaving or (every and self.done % every == 0):
                    self._save()
                if leaving:
                    break
                asked_at = time.perf_counter()
            self.saver.wait(needed=leaving, alive=self._alive)
        if not leaving:
            self._export()
            return
        how = "rerun the same command" if config.resume == "auto" else "run it with resume=auto"
        how += "" if step.is_last or not config.stop_after_steps else " (without stop_after_steps, to the end)"
        where = f"checkpoint saved after step {self.done} of {steps} in {self.saver.folder}; {how} to resume"
        if step.is_last:
            raise Stopped(f"asked to stop: {where}")
        logger.info(where)

    def _take(self, step: Step, waited: float) -> None:
        """One step, and its line in the metrics where one is due."""
        learning_rate = self.schedule.learning_rate(step.index)
        loss_share, grad_norm = self.engine.train_step(step, self.parts.masking, learning_rate)
        self.meter.add(step, loss_share, grad_norm, waited)
        self.guard.add(step, grad_norm)
        self.totals.add(step)
        self.done, note = step.index + 1, ""
        self.watchdog.beat(self.done)
        if self.done % self.config.log.every_steps == 0 or self.done == self.stream.steps:
            line = self.meter.line(grad_norm)
            collect()
            epoch = self.stream.epoch(self.done)
            position = {"time": utc_now(), "step": self.done, "epoch": epoch, "learning_rate": learning_rate}
            self.metrics.write({**position, **line})
            note = progress_note(line)
            self._check_gradients()
        self.progress(1, note)

    def _alive(self) -> None:
        self.watchdog.beat(self.done)

    def _check_gradients(self) -> None:
        """Waits for the device."""
        for warning in self.guard.read():
            logger.warning(warning)

    def _validate(self) -> None:
        if self.validation is None:
            return
        begun = time.perf_counter()
        self._check_gradients()
        loss = self.validation.loss(self.engine, self._alive)
        epoch = self.stream.epoch(self.done)
        self.validations.write({"time": utc_now(), "step": self.done, "epoch": epoch, "validation_loss": finite(loss)})
        warning = self.best.see(self.done, loss, self.engine)
        logger.info(f"step {self.done}/{self.stream.steps}  validation loss {loss:.4f}")
        if warning:
            logger.warning(warning)
        self.meter.exclude(time.perf_counter() - begun)

    def _save(self) -> None:
        self.shards.require()
        self._check_gradients()
        standing: dict[str, Any] = {"best": self.best.state(), "meter": self.meter.state()}
        standing |= {"totals": self.totals.state(), "gradients": self.guard.state()}
        sampler = self.parts.loader.state(self.done).to_json()
        best = self.best.weights if self.best.step != self.done else None
        self.meter.exclude(self.saver.save(self.done, self.engine, sampler, standing, best, self._alive))

    def _restore(self, resumed: Resumed, standing: dict[str, Any]) -> None:
        if not resumed.put_state(self.parts) and self.config.model.dropout:
            logger.info("dropout draws anew: the checkpoint was made by other ranks or on another kind of device")
        self.best.restore(standing["best"], resumed.best(self.parts))
        self.meter.restore(standing["meter"])
        self.totals.restore(standing["totals"])
        self.guard.restore(standing["gradients"])

    def _export(self) -> None:
        self.shards.require()
        weights = self.best.chosen(self.engine)
        if self.world.is_main:
            folder = self.folder / run_folder.MODEL
            size = self.parts.vocabulary_size
            export_model(folder, self.loaded.model, weights, self.manifest, self.config.data.path, size)
            record = summary(self.config, self.manifest, self.loaded, self.best, self.world, self.engine.name)
            record |= {"exported": weights_identity(str(folder)), **self.totals.state()}
            record |= {"epochs": self.stream.epoch(self.done), "rows": self.stream.rows}
            record |= {"steps": self.done, "planned_steps": self.stream.steps}
            run_folder.finish(self.folder, record)
            best = f"step {self.best.step}, the best by validation"
            logger.info(f"model of {best if self.best.any_chosen else f'step {self.done}'}: {folder}")
        self.world.barrier()
