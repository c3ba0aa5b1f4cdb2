"""Going on: which checkpoint a run goes on from, and its state put back."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.recipe import Recipe
from bert_tweets.data.permutation import Stream
from bert_tweets.data.sampler import SamplerState
from bert_tweets.distributed.world import World
from bert_tweets.engine.optimizer_state import MOMENTS
from bert_tweets.engine.protocol import EngineState
from bert_tweets.model.vocab_padding import fit_vocabulary, names_by_token

from . import checkpoint
from .build import Training
from .checkpoint import Checkpoint, Damaged, Record
from .rng_state import put_generators
from .run_summary import input_identity

logger = logging.getLogger(__name__)

# What a run may go on with otherwise: the same tweets, masks and steps come out of it. (What the data are and which
# weights were the first is told by more than their paths.)
_FREE = (
    "output",
    "resume",
    "stop_after_steps",
    "dry_run",
    "dry_run_for.",
    "max_nonfinite_steps",
    "device",
    "deterministic",
    "profile",
    "tokens_per_device",
    "data.path",
    "data.num_workers",
    "data.verify",
    "model.name",
    "model.attention",
    "model.compile",
    "model.checkpoint_activations",
    "engine.",
    "checkpoint.",
    "log.",
)


def settings_that_stay(config: TrainConfig) -> dict[str, Any]:
    """Of a run's settings those that must be the same where it goes on, by key."""
    words = parser.flatten(config)
    return {key: value for key, value in words.items() if not key.startswith(_FREE)}


def run_fingerprint(config: TrainConfig, manifest: Manifest) -> dict[str, Any]:
    """What must be the same for a run to go on from a checkpoint."""
    return {
        "settings": settings_that_stay(config),
        "recipe": manifest.recipe.to_json(),
        **input_identity(config, manifest),
    }


def require_place(config: TrainConfig) -> None:
    """Finds a mistake in `resume=PATH` before the process group starts.

    Raises:
        UserError: there is no checkpoint.
    """
    if config.resume not in ("auto", "never") and not checkpoint.named_by(Path(config.resume)):
        raise UserError(
            f"resume={config.resume}: is no checkpoint, and no run that has one; name a folder such as "
            f"run/{checkpoint.FOLDER}/{checkpoint.name_of(500)}, or say auto or never"
        )


class Resumed:
    """The checkpoint that a run goes on from, or none: every rank makes one together with the others.

    Rank 0 alone reads it, and tells the others what is in it: they may be on machines that do not see its disk.

    Args:
        config: of the run.
        expected: as `run_fingerprint` gives it.
        world: the ranks.

    Raises:
        UserError: on all ranks; the checkpoint is of another run, which the line tells, or none is whole.
    """

    def __init__(self, config: TrainConfig, expected: dict[str, Any], world: World):
        self.world, self.expected = world, expected
        self._checkpoint: Checkpoint | None = None

        def choose() -> tuple[str, dict[str, Any]] | None:
            self._checkpoint = found = _choose(config, expected)
            return (str(found.folder), asdict(found.record)) if found else None

        chosen = world.run_on_rank0(choose)
        self.folder: str = chosen[0] if chosen else ""
        record = chosen[1] if chosen else None
        self.record: Record | None = Record(**record) if record else None

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.record.step if self.record else 0

    def require_stream(self, stream: Stream, data: str) -> None:
        """Raises UserError where the run's tweets would be others from here on than those of the run that stopped."""
        if self.record:
            SamplerState.from_json(self.record.sampler).step(stream, data)

    def put_weights(self, model: Any) -> None:
        """Gives the stock model, as it was loaded, the weights of the checkpoint."""
        if not self.record:
            return
        saved = self._of("weights", model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(self.world.broadcast(saved[name] if saved else torch.empty(weight.shape)))

    def put_state(self, parts: Training) -> bool:
        """Gives the engine its moments, and the generators their states.

        Returns:
            Whether dropout, where there is any, draws what it would have drawn.
        """
        if not self.record:
            return True
        if self._checkpoint:
            moments = self._of("moments", parts.module.model)
            parts.engine.load(EngineState({}, moments, self.record.numbers))
        else:
            parts.engine.load(None)
        return put_generators(self._checkpoint.tensors.get("generators", {}) if self._checkpoint else {}, self.world)

    def best(self, parts: Training) -> dict[str, Tensor] | None:
        """The weights that would be exported, on rank 0; None where no validation has chosen any."""
        if not self._checkpoint or self._checkpoint.record.progress["best"]["loss"] is None:
            return None
        return self._of("best" if "best" in self._checkpoint.tensors else "weights", parts.module.model)

    def _of(self, file: str, model: Any) -> dict[str, Tensor]:
        """The tensors of a file, their vocabulary padded as the model's is; nothing but on rank 0."""
        if not self._checkpoint:
            return {}
        by_token = names_by_token(model)
        if file == "moments":
            by_token = {f"{moment}.{name}" for moment in MOMENTS for name in by_token}
        return fit_vocabulary(self._checkpoint.tensors.get(file, {}), by_token, int(model.config.vocab_size))


def _started_again() -> bool:
    """Whether torchrun or Slurm has begun this very launch before."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def _choose(config: TrainConfig, expected: dict[str, Any]) -> Checkpoint | None:
    own = checkpoint.named_by(Path(config.output))
    # A launcher that starts the same words again does not mean to lose what came of them.
    resume = "auto" if own and _started_again() else config.resume
    if resume == "never":
        return None
    asked = resume != "auto"
    candidates = checkpoint.named_by(Path(resume)) if asked else own
    reasons = []
    for folder in candidates:
        try:
            found = checkpoint.read_checkpoint(folder)
        except Damaged as error:
            reasons.append(str(error))
            logger.warning(f"{error}; trying the next older checkpoint")
            continue
        different = _differences(found.record.made_from, expected)
        if different:
            raise UserError(
                f"{folder}: is of another run: {', '.join(different)}; resume with what it began with, "
                "or begin another run with output="
            )
        return found
    if asked:
        raise UserError(f"resume={config.resume}: no checkpoint there is whole; {reasons[0]}")
    if reasons:
        logger.warning("no checkpoint is whole: the run starts over")
    return None


def _differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what a checkpoint and a run differ, for people."""
    found = []
    for key in sorted(saved["settings"].keys() | now["settings"].keys()):
        before, after = saved["settings"].get(key), now["settings"].get(key)
        if before != after:
            found.append(f"{key} ({before} there, {after} now)")
    recipes = Recipe.from_json(saved["recipe"]), Recipe.from_json(now["recipe"])
    found += [f"the recipe's {part}" for part in recipes[0].differences(recipes[1])]
    if not found and saved["data"] != now["data"]:
        found.append("the shards hold other tweets")
    if saved["weights"] != now["weights"]:
        found.append("the model that it began with has other weights")
    return found
