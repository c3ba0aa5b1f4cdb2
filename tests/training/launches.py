"""Several launches of training in one start of ranks: `launches.py FILE`, a JSON list of lists of settings.

NOT_FINITE_AT lists steps (from 0) in which the loss of rank NOT_FINITE_RANK is NaN.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from bert_tweets.common.errors import Stopped, UserError
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed import world as ranks
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.engine.deepspeed import DeepSpeedEngine
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training import trainer
from bert_tweets.training.build import stream_for
from bert_tweets.training.trainer import run_training
from tests.engine.worker import as_in_a_process_of_its_own


def break_steps(steps: set[int]) -> None:
    """Make the losses of these steps NaN on this rank."""
    step_now = -1

    def with_step(train_step: Any) -> Any:
        def call(self: Any, step: Any, *rest: Any) -> Any:
            nonlocal step_now
            step_now = step.index
            try:
                return train_step(self, step, *rest)
            finally:
                step_now = -1

        return call

    forward = PackedMaskedLM.forward

    def broken(self: Any, *arguments: Any) -> Any:
        loss = forward(self, *arguments)
        return loss * float("nan") if step_now in steps else loss

    PackedMaskedLM.forward = broken  # type: ignore[method-assign]
    for engine in (DDPEngine, DeepSpeedEngine):
        engine.train_step = with_step(engine.train_step)  # type: ignore[attr-defined]


def main(file: Path) -> None:
    # These take half the time of such a small run, and do not affect what is compared.
    trainer.manual_gc, trainer.matrix_peak = nullcontext, lambda *_: 1e12  # type: ignore[assignment]
    world = ranks.world_from_environment("cpu")
    ranks.start_process_group(world, timeout_seconds=60, always=True)
    steps = {int(step) for step in os.environ.get("NOT_FINITE_AT", "").split(",") if step}
    if steps and os.environ["NOT_FINITE_RANK"] == str(world.rank):
        break_steps(steps)
    outcomes = []
    for words in json.loads(file.read_text()):
        config = parser.load(TrainConfig, words)
        manifest = Manifest.read(config.data.path)
        torch.manual_seed(0)
        outcome = "done"
        try:
            with as_in_a_process_of_its_own():
                run_training(config, manifest, stream_for(config, manifest), world)
        except (UserError, Stopped) as error:
            outcome = str(error)
        outcomes.append(outcome)
    if world.is_main:
        file.with_suffix(".outcomes").write_text(json.dumps(outcomes))
    ranks.stop_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
