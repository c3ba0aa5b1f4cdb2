"""Periodic validation: the masked loss on held-out tweets, the best model so far, and early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.layout import Layout, validation_batch
from bert_tweets.data.loader import StepLoader
from bert_tweets.data.masking import Masking, masking_for
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed.world import World
from bert_tweets.engine.base import Engine

from .checkpoint import BestState

logger = logging.getLogger(__name__)

# A mean over fewer predictions is too noisy to choose a model by.
FEWEST_MASKED = 30
# Validation masks do not depend on the run's seed, so that runs can be compared.
_SEED = 0
MASKED_SHARE = 0.15


class Validation:
    """The masked loss on a fixed set of held-out tweets and masks; `batch_size` tweets are packed together."""

    def __init__(
        self, split: Split, masking: Masking, layout: Layout, world: World, max_tweets: int, batch_size: int = 1024
    ):
        self.world, self.masking = world, masking
        stream = Stream(len(split), masking.seed, batch_size, min(len(split), max_tweets))
        self.loader = StepLoader(split, stream, masking, layout, world.rank, world.world_size, gather=world.gather)
        self.on_device = masking.to(world.device)

    def masked_tokens(self) -> int:
        """Number of masked tokens of the whole set, the same on every rank."""
        return sum(step.masked_tokens for step in self.loader.steps())

    def loss(self, engine: Engine, alive: Callable[[], None] = lambda: None) -> float:
        """Mean loss in nats over masked tokens, the same on every rank; calls `alive`. Waits for the device."""
        loss_sum, masked = torch.zeros((), dtype=torch.float64, device=self.world.device), 0
        for step in self.loader.steps():
            for batch in step.micro_batches:
                loss_sum += engine.loss_sum(batch, self.on_device)
            alive()
            masked += step.masked_tokens
        return float(self.world.sum(loss_sum)) / max(1, masked)


@dataclass
class BestModel:
    """The best weights by validation loss.

    Attributes:
        patience: validations without a new best before training stops; 0: never.
        keep: whether this rank keeps the weights.
        loss: loss of the best validation; infinite if there is none.
        start_loss: loss of the first validation.
        since: validations since the best one.
        warned: whether a rising loss has been reported.
    """

    patience: int
    keep: bool
    step: int = 0
    loss: float = float("inf")
    start_loss: float | None = None
    since: int = 0
    weights: dict[str, Tensor] | None = field(default=None, repr=False)
    warned: bool = False

    def update(self, step: int, loss: float, engine: Engine) -> bool:
        """Record a validation; returns True the first time that two in a row are above the best.

        A single validation above the best is often noise.
        """
        if self.start_loss is None:
            self.start_loss = loss
        if loss < self.loss:
            self.step, self.loss, self.since = step, loss, 0
            self.weights = engine.weights(self.keep)
            return False
        self.since += 1
        is_news = self.since >= 2 and not self.warned
        self.warned = self.warned or is_news
        return is_news

    def state(self) -> BestState:
        """Everything but the weights."""
        loss = None if math.isinf(self.loss) else self.loss
        return BestState(self.step, loss, self.start_loss, self.since, self.warned)

    def restore(self, state: BestState, weights: dict[str, Tensor] | None) -> None:
        """Resume from a state and, on the rank that keeps them, the best weights."""
        self.step, self.start_loss, self.since, self.warned = state.step, state.start_loss, state.since, state.warned
        self.loss = math.inf if state.loss is None else state.loss
        self.weights = weights

    def final_weights(self, engine: Engine) -> dict[str, Tensor] | None:
        """The best weights; the current ones if no validation has chosen any. All ranks call it."""
        return self.weights if self.any_chosen else engine.weights(self.keep)

    @property
    def any_chosen(self) -> bool:
        """Whether a validation had a finite loss, and so chose weights."""
        return self.loss < float("inf")

    @property
    def should_stop(self) -> bool:
        return bool(self.patience) and self.since >= self.patience


def validation_for(
    config: TrainConfig, manifest: Manifest, stream: Stream, layout: Layout, world: World
) -> Validation | None:
    """The validation of a run; None, with a warning, if there are too few tweets for one."""
    split = open_split(config.data.path, manifest, "validation")
    if not len(split):
        logger.warning("the validation split is empty: no early stopping, the last step is exported")
        return None
    masking = masking_for(manifest, _SEED, MASKED_SHARE, False)
    validation = Validation(split, masking, layout, world, config.validation.max_tweets, validation_batch(stream))
    masked = validation.masked_tokens()
    if masked < FEWEST_MASKED:
        logger.warning(
            f"only {masked} masked tokens to validate on: no early stopping, the last step is exported; "
            "raise validation_fraction in prepare"
        )
        return None
    return validation


def interval_for(config: TrainConfig, manifest: Manifest, stream: Stream) -> int:
    """Steps between validations: 20 per run, fewer if they would take over 10 % of the time, at least one per epoch."""
    tweets = min(config.validation.max_tweets, manifest.rows("validation"))
    # A validated tweet costs a third of a trained one, because there is no backward pass. Even a validation step of few
    # tweets may have micro-batches of the shape of training's.
    cost = max(tweets / stream.batch_size, math.ceil(tweets / validation_batch(stream))) / 3
    affordable = math.ceil(cost / 0.1)
    epoch = math.ceil(stream.rows / stream.batch_size)
    return max(1, min(max(stream.steps // 20, affordable), epoch))
