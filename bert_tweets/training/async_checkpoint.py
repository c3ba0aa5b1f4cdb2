"""Checkpoints written by a thread: a step waits only for the copy to the CPU."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.data.sampler import SamplerState
from bert_tweets.distributed.world import World
from bert_tweets.engine.base import Engine

from . import checkpoint
from .checkpoint import Metadata, Progress, Record
from .fingerprint import RunFingerprint
from .rng_state import gather_rng_states
from .run_folder import CHECKPOINTS

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0


class AsyncCheckpointer:
    """Writes checkpoints of a run on rank 0, in a thread, one at a time; keeps the newest `keep` of them.

    `with_rng_states` saves the random states that dropout draws from.
    """

    def __init__(
        self, run: Path, keep: int, world: World, fingerprint: RunFingerprint, metadata: Metadata, with_rng_states: bool
    ):
        self.folder = run / CHECKPOINTS
        self.keep, self.world, self.fingerprint, self.metadata = keep, world, fingerprint, metadata
        self.with_rng_states = with_rng_states
        self.saved_step = -1
        self._thread: threading.Thread | None = None
        self._failure = ""

    def save(
        self,
        step: int,
        engine: Engine,
        sampler: SamplerState,
        progress: Progress,
        best: dict[str, Tensor] | None,
        alive: Callable[[], None] = lambda: None,
    ) -> float:
        """Copy the state and start to write it; all ranks call it.

        Args:
            best: the weights that would be exported, if they are not those of now.
            alive: called now and then while an earlier checkpoint is being written.

        Returns:
            Seconds that training waited, including those for an earlier checkpoint.
        """
        started = time.perf_counter()
        if step != self.saved_step:
            self._wait_for_rank0(alive)
            self._warn(self._join())
            state = engine.state(keep=self.world.is_main)
            generators = gather_rng_states(self.world) if self.with_rng_states else {}
            if state is not None:
                record = Record(step, self.fingerprint, sampler, progress, state.scalars, self.metadata)
                tensors = {"weights": state.weights, "moments": state.moments, "best": best or {}}
                self._start(record, {**tensors, "generators": generators})
            self.saved_step = step
        return time.perf_counter() - started

    def wait(self, needed: bool, alive: Callable[[], None] = lambda: None) -> None:
        """Wait until the last checkpoint is written; all ranks call it.

        Args:
            needed: the run stops, and is to resume from this checkpoint.
            alive: see `save`.

        Raises:
            UserError: it is needed and was not written; on all ranks.
        """

        def join() -> None:
            failure = self._join()
            if failure and needed:
                raise UserError(f"the last checkpoint was not written: {failure}")
            self._warn(failure)

        self._wait_for_rank0(alive)
        self.world.run_on_rank0(join)

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A second Ctrl-C does not wait: an incomplete checkpoint does not count as one.
        if not isinstance(error, KeyboardInterrupt):
            self._join()

    @staticmethod
    def _warn(failure: str) -> None:
        """Log a checkpoint that failed; the run continues."""
        if failure:
            logger.warning(f"the last checkpoint was not written: {failure}")

    def _wait_for_rank0(self, alive: Callable[[], None]) -> None:
        """Wait on all ranks for rank 0's disk, however long it takes."""
        while self.world.broadcast_object(self._is_writing()):
            alive()

    def _is_writing(self) -> bool:
        if self._thread:
            self._thread.join(_PATIENCE_SECONDS)
        return self._thread is not None and self._thread.is_alive()

    def _join(self) -> str:
        """Wait for the thread; returns why it failed, or ""."""
        if self._thread:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, ""
        return failure

    def _start(self, record: Record, tensors: dict[str, dict[str, Tensor]]) -> None:
        def work() -> None:
            try:
                checkpoint.write_checkpoint(self.folder, record, tensors, self.keep)
            except Exception as error:  # any failure costs this checkpoint only; whoever waits reports it
                self._failure = str(error) if isinstance(error, OSError | UserError) else repr(error)

        self._thread = threading.Thread(target=work, name="checkpointer", daemon=True)
        self._thread.start()
