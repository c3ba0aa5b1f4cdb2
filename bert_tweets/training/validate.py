"""Periodic validation: the masked loss on held-out tweets, the best model so far, and when to stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.layout import Layout, validation_batch
from bert_tweets.data.loader import StepLoader
from bert_tweets.data.masking import Masking, masking_for
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed.world import World
from bert_tweets.engine.protocol import Engine

logger = logging.getLogger(__name__)

# A mean over fewer guesses than these says nothing by which training could be steered.
FEWEST_MASKED = 30
# Validation masks do not depend on the run's seed, so that runs can be compared.
_SEED = 0
MASKED_SHARE = 0.15
_KEPT = ("step", "loss", "start_loss", "since", "warned")


class Validation:
    """The masked loss on a fixed, seeded set of held-out tweets and masks.

    Args:
        split: the validation split, not empty.
        masking: draws the masks, the same at every call.
        layout: of the micro-batches.
        world: the ranks; each computes its share.
        max_tweets: tweets that are used.
        batch_size: tweets that are packed together, over all ranks.
    """

    def __init__(
        self, split: Split, masking: Masking, layout: Layout, world: World, max_tweets: int, batch_size: int = 1024
    ):
        self.world, self.masking = world, masking
        stream = Stream(len(split), masking.seed, batch_size, min(len(split), max_tweets))
        self.loader = StepLoader(split, stream, masking, layout, world.rank, world.world_size, gather=world.gather)
        self.on_device = masking.to(world.device)

    def masked_tokens(self) -> int:
        """Masked tokens of the whole set, the same on every rank."""
        return sum(step.masked_tokens for step in self.loader.steps())

    def loss(self, engine: Engine, alive: Callable[[], None] = lambda: None) -> float:
        """Mean loss over the masked tokens, in nats; the same on every rank. Waits for the device.

        Args:
            engine: computes it.
            alive: is called now and then.
        """
        loss_sum, masked = torch.zeros((), dtype=torch.float64, device=self.world.device), 0
        for step in self.loader.steps():
            for batch in step.micro_batches:
                loss_sum += engine.loss_sum(batch, self.on_device)
            alive()
            masked += step.masked_tokens
        return float(self.world.sum(loss_sum)) / max(1, masked)


@dataclass
class BestModel:
    """The best weights by validation, and how long ago they were.

    Attributes:
        patience: validations without a new best before training stops; 0 never.
        keep: whether this rank holds the weights.
    """

    patience: int
    keep: bool
    step: int = 0
    loss: float = float("inf")
    start_loss: float | None = None
    since: int = 0
    weights: dict[str, Any] | None = field(default=None, repr=False)
    warned: bool = False

    def see(self, step: int, loss: float, engine: Engine) -> str | None:
        """Takes note of a validation; returns a warning the first time that the loss stays above the best.

        One validation above the best is noise as often as not; two in a row are worth a word.
        """
        if self.start_loss is None:
            self.start_loss = loss
        if loss < self.loss:
            self.step, self.loss, self.since = step, loss, 0
            self.weights = engine.weights(self.keep)
            return None
        self.since += 1
        if self.warned or self.since < 2:
            return None
        self.warned = True
        return (
            f"warning: validation loss has risen, from {self.loss:.4f} (step {self.step}) to {loss:.4f} "
            f"(step {step}): the model may be learning the training tweets by heart; "
            f"what is exported is the best by validation"
        )

    def state(self) -> dict[str, Any]:
        """All but the weights, as JSON can write it."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "loss": None if math.isinf(self.loss) else self.loss}

    def restore(self, state: dict[str, Any], weights: dict[str, Any] | None) -> None:
        """Goes on from a state and, on the rank that keeps them, the best weights."""
        for name in _KEPT:
            setattr(self, name, state[name])
        self.loss = math.inf if state["loss"] is None else state["loss"]
        self.weights = weights

    def chosen(self, engine: Engine) -> dict[str, Any] | None:
        """The best weights; where no validation has chosen any, those of now. All ranks call it."""
        return self.weights if self.any_chosen else engine.weights(self.keep)

    @property
    def any_chosen(self) -> bool:
        """Whether a validation has chosen weights; one whose loss is no number chooses none."""
        return self.loss < float("inf")

    @property
    def should_stop(self) -> bool:
        return bool(self.patience) and self.since >= self.patience


def validation_for(
    config: TrainConfig, manifest: Manifest, stream: Stream, layout: Layout, world: World
) -> Validation | None:
    """The validation of a run; None where there is too little to validate on, which is said."""
    split = open_split(config.data.path, manifest, "validation")
    if not len(split):
        logger.warning("the validation split is empty: no early stop, the last step is exported")
        return None
    masking = masking_for(manifest, _SEED, MASKED_SHARE, False)
    validation = Validation(split, masking, layout, world, config.validation.max_tweets, validation_batch(stream))
    masked = validation.masked_tokens()
    if masked < FEWEST_MASKED:
        logger.warning(
            f"only {masked} masked tokens to validate on: no early stop, the last step is exported; "
            "raise validation_fraction in prepare",
        )
        return None
    return validation


def interval_for(config: TrainConfig, manifest: Manifest, stream: Stream) -> int:
    """Steps between validations: twenty of them, fewer where they would take over a tenth of the time, one an epoch."""
    tweets = min(config.validation.max_tweets, manifest.rows("validation"))
    # A validated tweet costs a third of a trained one: there is no backward pass. However few tweets a step of
    # validation has, its micro-batches may have the shape of training's.
    cost = max(tweets / stream.batch_size, math.ceil(tweets / validation_batch(stream))) / 3
    affordable = math.ceil(cost / 0.1)
    epoch = math.ceil(stream.rows / stream.batch_size)
    return max(1, min(max(stream.steps // 20, affordable), epoch))
