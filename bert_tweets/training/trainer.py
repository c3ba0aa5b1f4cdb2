"""Training: from settings to an adapted model, top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from bert_tweets.common.errors import Stopped, UserError
from bert_tweets.common.logs import EVERY_RANK, FILE_ONLY, log_to_file
from bert_tweets.common.output_folder import output_errors
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import ShardWatcher, verify
from bert_tweets.data.batches import Step
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.download import check_local, fetch_and_check
from bert_tweets.distributed.world import World
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import SCRATCH, LoadedModel, load_model, weights_identity

from . import checkpoint, messages, run_folder
from .async_checkpoint import AsyncCheckpointer
from .build import build, check_engine, stream_for
from .checkpoint import Metadata, Progress
from .determinism import gc_step, make_deterministic, manual_gc, profiler
from .flops import matrix_peak
from .gradient_guard import GradientGuard
from .lr_schedule import schedule_of
from .metrics import IntervalMeter, JsonLines, Totals, finite, utc_now
from .provenance import device_name, require_same_inputs, run_fingerprint, versions
from .records import RunSummary, ValidationLine, read_run_summary, write_run_summary
from .resume import ResumePoint, require_checkpoint
from .signals import GracefulShutdown
from .validate import BestModel, interval_for, validation_for
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

# The process group's timeout is later than the watchdog's, whose message says more.
_GROUP_TIMEOUT_MARGIN = 60


def train(config: TrainConfig) -> None:
    """Adapt a model to the shards and export it.

    Raises:
        UserError: an error that the user can fix, found before the process group starts wherever possible.
        Stopped: the run was asked to stop, and has saved.
    """
    if config.deterministic:
        make_deterministic()
    world = ranks.world_from_environment(config.device)
    manifest = Manifest.read(config.data.path)
    stream = stream_for(config, manifest)
    if run_folder.run_state(config) == "finished":
        folder = Path(config.output)
        require_same_inputs(config, read_run_summary(folder), run_fingerprint(config, manifest))
        logger.info(f"{folder}: this run is finished; the model is in {folder / run_folder.MODEL}")
        return
    require_checkpoint(config)
    check_local([config.model], manifest)
    check_engine(config, world)
    if config.data.verify:
        every = [shard for split in SPLITS for shard in manifest.splits[split]]
        verify(config.data.path, world.local_part(every))

    timeout = config.engine.timeout_seconds + _GROUP_TIMEOUT_MARGIN
    ranks.start_process_group(world, timeout, always=config.engine.name == "deepspeed")
    try:
        run_training(config, manifest, stream, world)
    finally:
        ranks.stop_process_group()


def run_training(config: TrainConfig, manifest: Manifest, stream: Stream, world: World) -> None:
    """Train from the step that the run has reached; the process group has started. Raises as `train` does."""
    folder = Path(config.output)
    with GracefulShutdown(log=world.is_main) as shutdown, ExitStack() as stack:
        fetch_and_check([config.model], manifest, world)
        loaded = load_model(config.model, manifest, config.seed)
        resume_point = ResumePoint(config, run_fingerprint(config, manifest), world)
        resume_point.require_stream(stream, manifest.fingerprint)
        state = world.run_on_rank0(lambda: run_folder.run_state(config))
        world.run_on_rank0(lambda: stack.enter_context(run_folder.open_run_folder(config)))
        stack.enter_context(log_to_file(folder / run_folder.LOG))
        world.run_on_rank0(lambda: _delete_later_checkpoints(folder, resume_point.step))
        if resume_point.record:
            logger.info(f"resuming after step {resume_point.step} from {resume_point.folder}")
        elif state == "unfinished":
            logger.info(f"{folder}: holds this run, started but not finished; starting from scratch")
        with _log_exceptions(world.rank):
            Run(config, manifest, stream, loaded, resume_point, shutdown, world).train()


@contextmanager
def _log_exceptions(rank: int) -> Iterator[None]:
    """Write what ends the run to its log file; the console gets it from the command."""
    try:
        yield
    except (Stopped, UserError) as error:
        logger.error(str(error), extra=FILE_ONLY)
        raise
    except Exception:
        logger.exception(f"rank {rank} failed", extra=FILE_ONLY | EVERY_RANK)
        raise


def _delete_later_checkpoints(folder: Path, step: int) -> None:
    with output_errors(folder):
        removed = checkpoint.delete_after(folder / run_folder.CHECKPOINTS, step or -1)
    if removed:
        logger.info(f"deleted, because the run resumes from an earlier step: {', '.join(removed)}")


class Run:
    """A run, from the step that it has reached to its model; `loaded` is the initial model."""

    def __init__(
        self,
        config: TrainConfig,
        manifest: Manifest,
        stream: Stream,
        loaded: LoadedModel,
        resume_point: ResumePoint,
        shutdown: GracefulShutdown,
        world: World,
    ):
        self.config, self.manifest, self.stream, self.loaded, self.world = config, manifest, stream, loaded, world
        self.folder, self.first = Path(config.output), resume_point.step
        resume_point.load_weights(loaded.model)
        self.parts = build(config, manifest, world, loaded, shutdown)
        self.engine = self.parts.engine
        self.schedule = schedule_of(config.schedule, config.optimizer.learning_rate, stream.steps)
        self.validation = validation_for(config, manifest, stream, self.parts.layout, world)
        self.validate_every = config.validation.every_steps or interval_for(config, manifest, stream)
        self.metrics, self.validations, skipped = (
            JsonLines(self.folder / name, world.is_main, self.first or -1)
            for name in (run_folder.METRICS, run_folder.VALIDATION, run_folder.SKIPPED)
        )
        peak = matrix_peak(world.device, config.precision)
        self.meter = IntervalMeter(world, self.engine.timer, self.parts.flops_per_token, peak)
        self.best = BestModel(config.validation.patience, keep=world.is_main)
        remedy = messages.remedy_for_zero_gradients(self.parts.module.compiled, config.precision)
        self.guard = GradientGuard(stream, self.parts.loader.split, config.max_nonfinite_steps, skipped, remedy)
        self.totals = Totals()
        every_shard = [shard for split in SPLITS for shard in manifest.splits[split]]
        self.shards = ShardWatcher(config.data.path, world.local_part(every_shard))
        self.fingerprint = resume_point.fingerprint
        metadata = Metadata(self.engine.name, world.world_size, versions(), parser.flatten(config))
        keep, has_dropout = config.checkpoint.keep, config.model.dropout > 0
        self.checkpointer = AsyncCheckpointer(self.folder, keep, world, self.fingerprint, metadata, has_dropout)
        self.watchdog = Watchdog(self.folder, world, config.engine.timeout_seconds)
        self.progress = ProgressBar("training", stream.steps, done=self.first, tenths=True, shown=world.is_main)
        self._log_plan()
        self.done = self.first
        if resume_point.record:
            self._restore(resume_point, resume_point.record.progress)

    def train(self) -> None:
        """Take the remaining steps and export the model; or save and exit, if asked to stop.

        Raises:
            Stopped: a signal asked the run to stop.
            UserError: too many steps were skipped, gradients were zero, or the final checkpoint was not written.
        """
        config, steps = self.config, self.stream.steps
        tracing = profiler(self.folder, self.world.device, config.profile and self.world.is_main)
        is_stopping = False
        with self.watchdog, self.checkpointer, self.progress, manual_gc(), tracing as trace:
            if not self.first:
                self._validate()
            requested_at = time.perf_counter()
            for step in self.parts.loader.steps(self.first):
                self._take(step, time.perf_counter() - requested_at)
                trace.step()
                if self.done % self.validate_every == 0 or self.done == steps:
                    self._validate()
                    if self.best.should_stop:
                        logger.info(f"stopped early: {self.best.since} validations in a row brought no new best")
                        break
                # After the last step the run finishes instead.
                is_stopping = self.done < steps and (step.is_last or self.done - self.first == config.stop_after_steps)
                every = config.checkpoint.every_steps
                if is_stopping or (every and self.done % every == 0):
                    self._save()
                if is_stopping:
                    break
                requested_at = time.perf_counter()
            self.checkpointer.wait(needed=is_stopping, alive=self._alive)
        if not is_stopping:
            self._export()
            return
        has_limit = bool(config.stop_after_steps) and not step.is_last
        text = messages.stopped(self.done, steps, self.checkpointer.folder, config.resume, has_limit)
        if step.is_last:
            raise Stopped(f"asked to stop: {text}")
        logger.info(text)

    def _take(self, step: Step, waited: float) -> None:
        """Take one step, and log its line of metrics if one is due."""
        learning_rate = self.schedule.learning_rate(step.index)
        loss_share, grad_norm = self.engine.train_step(step, self.parts.masking, learning_rate)
        self.meter.add(step, loss_share, grad_norm, waited)
        self.guard.add(step, grad_norm)
        self.totals.add(step)
        self.done, note = step.index + 1, ""
        self.watchdog.beat(self.done)
        if self.done % self.config.log.every_steps == 0 or self.done == self.stream.steps:
            line = self.meter.line(self.done, self.stream.epoch(self.done), learning_rate, grad_norm)
            gc_step()
            self.metrics.write(line)
            note = messages.progress_note(line)
            self._check_gradients()
        self.progress(1, note)

    def _alive(self) -> None:
        self.watchdog.beat(self.done)

    def _check_gradients(self) -> None:
        """Log the problems of recent gradients. Waits for the device."""
        for problem in self.guard.read():
            logger.warning(messages.gradient_problem(problem.step, problem.is_skipped))

    def _validate(self) -> None:
        if self.validation is None:
            return
        started = time.perf_counter()
        self._check_gradients()
        loss = self.validation.loss(self.engine, self._alive)
        epoch = self.stream.epoch(self.done)
        line: ValidationLine = {"time": utc_now(), "step": self.done, "epoch": epoch, "validation_loss": finite(loss)}
        self.validations.write(line)
        logger.info(f"step {self.done}/{self.stream.steps}  validation loss {loss:.4f}")
        if self.best.update(self.done, loss, self.engine):
            logger.warning(
                f"validation loss has risen from {self.best.loss:.4f} (step {self.best.step}) to {loss:.4f} "
                f"(step {self.done}): the model may be memorising the training tweets; "
                "the best model by validation is exported"
            )
        self.meter.exclude(time.perf_counter() - started)

    def _save(self) -> None:
        self.shards.require()
        self._check_gradients()
        progress = Progress(self.best.state(), self.meter.state(), self.totals.state(), self.guard.state())
        sampler = self.parts.loader.state(self.done)
        best = self.best.weights if self.best.step != self.done else None
        self.meter.exclude(self.checkpointer.save(self.done, self.engine, sampler, progress, best, self._alive))

    def _restore(self, resume_point: ResumePoint, progress: Progress) -> None:
        if not resume_point.load_state(self.parts) and self.config.model.dropout:
            logger.info(
                "dropout differs from that of an uninterrupted run: the checkpoint was made by another number of ranks "
                "or on another kind of device"
            )
        self.best.restore(progress.best, resume_point.best_weights(self.parts))
        self.meter.restore(progress.meter)
        self.totals.restore(progress.totals)
        self.guard.restore(progress.guard)

    def _export(self) -> None:
        self.shards.require()
        weights = self.best.final_weights(self.engine)
        if self.world.is_main:
            folder, size = self.folder / run_folder.MODEL, self.parts.vocabulary_size
            export_model(folder, self.loaded.model, weights, self.manifest, self.config.data.path, size)
            write_run_summary(self.folder, self._summary(weights_identity(str(folder))))
            step = self.best.step if self.best.any_chosen else self.done
            logger.info(messages.exported(step, self.best.any_chosen, folder))
        self.world.barrier()

    def _summary(self, exported: str) -> RunSummary:
        best = self.best
        return RunSummary(
            model=self.config.model.name,
            has_trained_head=self.loaded.has_trained_head,
            best_step=best.step if best.any_chosen else None,
            validation_loss=best.loss if best.any_chosen else None,
            start_validation_loss=finite(best.start_loss),
            stopped_early=best.should_stop,
            ranks=self.world.world_size,
            engine=self.engine.name,
            device=device_name(self.world.device),
            precision=self.config.precision,
            recipe=self.manifest.recipe.hash,
            data=self.fingerprint.data,
            weights=self.fingerprint.weights,
            versions=versions(),
            exported=exported,
            **asdict(self.totals.state()),
            epochs=self.stream.epoch(self.done),
            rows=self.stream.rows,
            steps=self.done,
            planned_steps=self.stream.steps,
        )

    def _log_plan(self) -> None:
        name, attention = self.config.model.name, self.parts.attention
        if not self.loaded.has_trained_head:
            logger.info(messages.new_head(name, name == SCRATCH))
        if self.loaded.added_tokens:
            logger.info(
                f"{name} gets {self.loaded.added_tokens} tokens that were added to its tokenizer; "
                "the vector of each starts as the mean of those of its name's subwords"
            )
        plan = (self.config, self.manifest, self.stream, self.schedule, self.world, self.engine.name, attention)
        for line in messages.plan(*plan):
            logger.info(line)
        if warning := messages.high_learning_rate(self.schedule.peak):
            logger.warning(warning)
