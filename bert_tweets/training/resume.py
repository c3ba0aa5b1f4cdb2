"""Resuming: which checkpoint a run resumes from, and restoring its state."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import parse_record
from bert_tweets.config import TrainConfig
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed.world import World
from bert_tweets.engine.base import EngineState
from bert_tweets.engine.optimizer_state import MOMENTS
from bert_tweets.model.vocab_padding import fit_vocabulary, names_by_token

from . import checkpoint
from .build import Training
from .checkpoint import Checkpoint, Damaged, Record
from .fingerprint import RunFingerprint
from .rng_state import restore_rng_states
from .run_folder import CHECKPOINTS

logger = logging.getLogger(__name__)


def require_checkpoint(config: TrainConfig) -> None:
    """Raise UserError if `resume=PATH` names no checkpoint, before the process group starts."""
    if config.resume not in ("auto", "never") and not checkpoint.named_by(Path(config.resume)):
        raise UserError(
            f"resume={config.resume}: is not a checkpoint, nor a run that has one; name a folder such as "
            f"run/{CHECKPOINTS}/{checkpoint.name_of(500)}, or use auto or never"
        )


class ResumePoint:
    """The checkpoint that a run resumes from, if any; every rank makes one at the same time.

    Only rank 0 reads it and broadcasts it: other ranks may be on machines that do not see its disk.

    Raises:
        UserError: on all ranks; the checkpoint is another run's, or none is undamaged.
    """

    def __init__(self, config: TrainConfig, fingerprint: RunFingerprint, world: World):
        self.world, self.fingerprint = world, fingerprint
        self._checkpoint: Checkpoint | None = None

        def choose() -> tuple[str, dict[str, Any]] | None:
            self._checkpoint = found = _choose(config, fingerprint)
            return (str(found.folder), asdict(found.record)) if found else None

        found = world.run_on_rank0(choose)
        self.folder: str = found[0] if found else ""
        self.record: Record | None = parse_record(found[1], Record, "the record") if found else None

    @property
    def step(self) -> int:
        return self.record.step if self.record else 0

    def require_stream(self, stream: Stream, data: str) -> None:
        """Raise UserError if the remaining tweets would differ from those of the run that stopped."""
        if self.record:
            self.record.sampler.step(stream, data)

    def load_weights(self, model: Any) -> None:
        """Load the checkpoint's weights into the stock model, before the engine is made."""
        if not self.record:
            return
        saved = self._tensors("weights", model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(self.world.broadcast(saved[name] if saved else torch.empty(weight.shape)))

    def load_state(self, parts: Training) -> bool:
        """Load moments and scalars into the engine, and restore the random states.

        Returns:
            False if dropout, where there is any, draws differently than without the interruption.
        """
        if not self.record:
            return True
        state, generators = None, {}
        if self._checkpoint:
            state = EngineState({}, self._tensors("moments", parts.module.model), self.record.scalars)
            generators = self._checkpoint.tensors.get("generators", {})
        parts.engine.load(state)
        return restore_rng_states(generators, self.world)

    def best_weights(self, parts: Training) -> dict[str, Tensor] | None:
        """The weights that would be exported, on rank 0; None if no validation has chosen any."""
        if not self._checkpoint or self._checkpoint.record.progress.best.loss is None:
            return None
        return self._tensors("best" if "best" in self._checkpoint.tensors else "weights", parts.module.model)

    def _tensors(self, file: str, model: Any) -> dict[str, Tensor]:
        """The tensors of a file, their vocabulary padded like the model's; {} on ranks other than 0."""
        if not self._checkpoint:
            return {}
        by_token = names_by_token(model)
        if file == "moments":
            by_token = {f"{moment}.{name}" for moment in MOMENTS for name in by_token}
        return fit_vocabulary(self._checkpoint.tensors.get(file, {}), by_token, int(model.config.vocab_size))


def _was_restarted() -> bool:
    """Whether torchrun or Slurm has started this very launch before."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def _choose(config: TrainConfig, fingerprint: RunFingerprint) -> Checkpoint | None:
    own = checkpoint.named_by(Path(config.output))
    # A launcher that restarts the same command must not discard its own progress.
    resume = "auto" if own and _was_restarted() else config.resume
    if resume == "never":
        return None
    is_path, reasons = resume != "auto", []
    for folder in checkpoint.named_by(Path(resume)) if is_path else own:
        try:
            found = checkpoint.read_checkpoint(folder)
        except Damaged as error:
            reasons.append(str(error))
            logger.warning(f"{error}; trying the next older checkpoint")
            continue
        if different := found.record.fingerprint.differences(fingerprint):
            raise UserError(
                f"{folder}: belongs to another run: {', '.join(different)}; resume with the settings and data that it "
                "started with, or start another run with output="
            )
        return found
    if is_path:
        raise UserError(f"resume={config.resume}: every checkpoint there is damaged; {reasons[0]}")
    if reasons:
        logger.warning("every checkpoint is damaged: the run starts from scratch")
    return None
