"""Saving while training goes on: a step waits for the snapshot alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.distributed.world import World
from bert_tweets.engine.protocol import Engine

from . import checkpoint
from .checkpoint import Record
from .rng_state import generators_of

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0


class Saver:
    """Writes checkpoints behind the back of training, one at a time.

    Args:
        run: folder of the run.
        keep: so many of the newest stay.
        world: the ranks; rank 0 writes.
        made_from, told: of the record.
        with_generators: what the ranks draw from (dropout) decides what comes next.
    """

    def __init__(
        self, run: Path, keep: int, world: World, made_from: dict[str, Any], told: dict[str, Any], with_generators: bool
    ):
        self.folder = run / checkpoint.FOLDER
        self.keep, self.world, self.made_from, self.told = keep, world, made_from, told
        self.with_generators = with_generators
        self.saved = -1
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def save(
        self,
        step: int,
        engine: Engine,
        sampler: dict[str, Any],
        progress: dict[str, Any],
        best: dict[str, Tensor] | None,
        alive: Callable[[], None] = lambda: None,
    ) -> float:
        """Takes a snapshot and has it written; all ranks call it.

        Args:
            step: steps that are done.
            engine: gives its state.
            sampler, progress: of the record.
            best: the weights that would be exported, where they are others than those of now.
            alive: is called now and then while an earlier checkpoint is being written.

        Returns:
            Seconds that training waited, for an earlier checkpoint to be written first too.
        """
        begun = time.perf_counter()
        if step != self.saved:
            self._settle(alive)
            self._warn(self._join())
            state = engine.state(keep=self.world.is_main)
            generators = generators_of(self.world) if self.with_generators else {}
            if state is not None:
                record = Record(step, self.made_from, sampler, progress, state.numbers, self.told)
                tensors = {"weights": state.weights, "moments": state.moments, "best": best or {}}
                self._begin(record, {**tensors, "generators": generators})
            self.saved = step
        return time.perf_counter() - begun

    def wait(self, needed: bool, alive: Callable[[], None] = lambda: None) -> None:
        """Waits until the last checkpoint is written; all ranks call it.

        Args:
            needed: the run leaves, to go on from it.
            alive: see `save`.

        Raises:
            UserError: it was not written, and is needed; on all ranks.
        """

        def join() -> None:
            trouble = self._join()
            if trouble and needed:
                raise UserError(f"the last checkpoint was not written: {trouble}")
            self._warn(trouble)

        self._settle(alive)
        self.world.run_on_rank0(join)

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Who presses Ctrl-C twice does not wait: what is not whole is not there.
        if not isinstance(error, KeyboardInterrupt):
            self._join()

    @staticmethod
    def _warn(trouble: str) -> None:
        """It costs that checkpoint, not the run."""
        if trouble:
            logger.warning(f"the last checkpoint was not written: {trouble}")

    def _settle(self, alive: Callable[[], None]) -> None:
        """All ranks wait for rank 0's disk, however long that takes, and stay alive."""
        while self.world.broadcast_object(self._is_writing()):
            alive()

    def _is_writing(self) -> bool:
        if self._thread:
            self._thread.join(_PATIENCE_SECONDS)
        return self._thread is not None and self._thread.is_alive()

    def _join(self) -> str:
        """Waits for the thread; what went wrong in it, in a line."""
        if self._thread:
            self._thread.join()
            self._thread = None
        trouble, self._trouble = self._trouble, ""
        return trouble

    def _begin(self, record: Record, tensors: dict[str, dict[str, Tensor]]) -> None:
        def work() -> None:
            try:
                checkpoint.write_checkpoint(self.folder, record, tensors, self.keep)
            except Exception as error:  # whatever it was, nothing is saved; who waits tells it
                self._trouble = str(error) if isinstance(error, OSError | UserError) else repr(error)

        self._thread = threading.Thread(target=work, name="saver", daemon=True)
        self._thread.start()
