"""Evaluation: masked loss on held-out tweets with one fixed set of masks, and how adaptation changed it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import default_rng

from bert_tweets.common.errors import UserError
from bert_tweets.config import EvaluateConfig, ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, open_split, verify
from bert_tweets.data.layout import Layout, row_length_of
from bert_tweets.data.loader import StepLoader
from bert_tweets.data.masking import masking_for
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed.download import check_local, fetch_and_check
from bert_tweets.distributed.world import World, process_group
from bert_tweets.engine.precision import autocast
from bert_tweets.model.export import adapted_on
from bert_tweets.model.loading import load_model, weights_identity
from bert_tweets.model.masked_lm import PackedMaskedLM

from . import messages
from .records import Evaluation, ExcludedBase, ModelScores, Outcome, PairedDifference

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MASKED_SHARE = 0.15  # independent of training, so that figures of different runs can be compared
_TWEETS_A_STEP = 1024
_FEW_TWEETS, _FEWEST_CLUSTERS = 50, 20
_NO_HEAD = "it is an encoder without a trained masked-LM head: its loss would be that of a random head"


@dataclass(frozen=True)
class TweetScores:
    """A model's scores by tweet; all float64 [tweets of the split].

    Attributes:
        loss: sum of the losses at masked positions, in nats.
        correct: number of masked tokens predicted correctly.
        masked: number of masked tokens; the same for every model.
    """

    loss: Floats
    correct: Floats
    masked: Floats

    @property
    def mean_loss(self) -> float:
        return float(self.loss.sum() / self.masked.sum())

    @property
    def accuracy(self) -> float:
        return float(self.correct.sum() / self.masked.sum())


def evaluate(config: EvaluateConfig, world: World) -> Evaluation | None:
    """Evaluate a model, and compare it with its base if one is given; each rank scores its share of the tweets.

    Returns:
        The evaluation; None on ranks other than 0.

    Raises:
        UserError: no validation tweets, or a model that does not fit the shards.
    """
    manifest = Manifest.read(config.data.path)
    models = [ModelConfig(name=name) for name in (config.model, config.base) if name]
    check_local(models, manifest)
    row_length_of(config.data, manifest)
    if config.data.verify:
        verify(config.data.path, world.local_part(manifest.splits["validation"]))
    split = open_split(config.data.path, manifest, "validation")
    if not len(split):
        raise UserError(f"{config.data.path}: its validation split is empty; prepare with validation_fraction above 0")
    with process_group(world):
        fetch_and_check(models, manifest, world)
        model = _score(config.model, split, manifest, config, world)
        if model is None:
            raise UserError(f"{config.model}: {_NO_HEAD}; evaluate a model that train has exported")
        if not model.masked.sum():
            raise UserError(
                f"{config.data.path}: its {len(split)} held-out tweets have no token to mask; prepare more tweets"
            )
        base = _score(config.base, split, manifest, config, world) if config.base else None
    return _evaluation(config, manifest, _clusters(split), model, base) if world.is_main else None


def _evaluation(
    config: EvaluateConfig, manifest: Manifest, clusters: Ints, model: TweetScores, base: TweetScores | None
) -> Evaluation:
    difference = _paired_difference(model, base, clusters, config) if base else None
    excluded = ExcludedBase(config.base, _NO_HEAD) if config.base and not base else None
    scores, outcome = _model_scores(config.model, model, clusters, config), outcome_of(difference, excluded)
    return Evaluation(
        model=scores,
        base=_model_scores(config.base, base, clusters, config) if base else None,
        excluded_base=excluded,
        difference=difference,
        outcome=outcome,
        verdict=messages.evaluation_verdict(outcome, scores, excluded, difference),
        notes=_notes(config, manifest, scores.tweets),
        weights={role: weights_identity(name) for role in ("model", "base") if (name := getattr(config, role))},
        recipe=manifest.recipe.hash,
        data=manifest.fingerprint,
        seed=config.seed,
    )


def outcome_of(difference: PairedDifference | None, excluded_base: ExcludedBase | None) -> Outcome:
    """Whether adaptation helped."""
    if difference is None:
        return Outcome.NOT_COMPARABLE if excluded_base else Outcome.NO_BASE
    if difference.clusters < _FEWEST_CLUSTERS:
        return Outcome.TOO_FEW
    if difference.high < 0:
        return Outcome.HELPED
    return Outcome.HARMED if difference.low > 0 else Outcome.NO_EFFECT


def _notes(config: EvaluateConfig, manifest: Manifest, tweets: int) -> list[str]:
    """Reasons why the figures are weaker than they look."""
    notes = []
    if tweets < _FEW_TWEETS:
        notes.append(
            f"only {tweets} held-out tweets: the interval may be too narrow; raise validation_fraction in prepare"
        )
    if adapted_on(config.model) not in (None, manifest.fingerprint):
        notes.append(
            f"{config.model}: was adapted on other shards than these; the tweets held out here may be among its "
            "training tweets, which makes its loss look better than it is"
        )
    return notes


@torch.inference_mode()
def _score(name: str, split: Split, manifest: Manifest, config: EvaluateConfig, world: World) -> TweetScores | None:
    """The scores of a model, the same on every rank; None if it has no trained head."""
    loaded = load_model(ModelConfig(name=name), manifest, config.seed)
    if not loaded.has_trained_head:
        return None
    module = PackedMaskedLM(loaded.model).to(world.device).eval()
    masking = masking_for(manifest, config.seed, _MASKED_SHARE, whole_word=False)
    on_device = masking.to(world.device)
    layout = Layout(row_length_of(config.data, manifest), config.tokens_per_device, manifest.pad_id)
    stream = Stream(len(split), config.seed, _TWEETS_A_STEP, min(len(split), config.max_tweets))
    totals = torch.zeros(3, len(split), dtype=torch.float64)
    # The steps of a single rank, so that micro-batches are shared among ranks, not tweets.
    units = world.work_split.chunks(stream.steps)
    for step in islice(StepLoader(split, stream, masking, layout, workers=1).steps(units.start), len(units)):
        for number in world.work_split.parts_of(step.index, stream.steps, len(step.micro_batches)):
            batch = step.micro_batches[number]
            with autocast(world.device, config.precision):
                predictions = module.predictions(batch.to(world.device), on_device)
            segments = predictions.segments.cpu()
            tweets = batch.tweet_index[segments]
            filled = segments > 0
            parts = (predictions.losses.cpu(), predictions.correct.cpu(), filled)
            for total, part in zip(totals, parts, strict=True):
                total.index_add_(0, tweets[filled], part[filled].double())
    # A tweet is scored by one rank; the others add zeros, which is exact.
    loss, correct, masked = world.sum(totals).numpy()
    return TweetScores(loss, correct, masked)


def _clusters(split: Split) -> Ints:
    """The near-duplicate cluster of each tweet; int64 [tweets]."""
    columns = [split.batch(shard).column("cluster").to_numpy() for shard in range(len(split.shards))]
    return np.concatenate([np.empty(0, np.int64), *columns])


def _interval(clusters: Ints, loss: Floats, masked: Floats, config: EvaluateConfig) -> list[float]:
    """The 95 % percentile interval of the mean loss per masked token, over bootstrap resamples of whole clusters.

    After Efron and Tibshirani 1993, chapter 8. `loss` is the sum of the losses (or of their differences) of each tweet.
    """
    evaluated = masked > 0
    _, of_tweet = np.unique(clusters[evaluated], return_inverse=True)
    by_cluster = np.stack([np.bincount(of_tweet, weights=part[evaluated]) for part in (loss, masked)], axis=1)
    count, generator = len(by_cluster), default_rng(config.seed)
    samples = np.empty((config.bootstrap_samples, 2))
    for index in range(config.bootstrap_samples):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        samples[index] = times @ by_cluster
    return [float(bound) for bound in np.quantile(samples[:, 0] / samples[:, 1], [0.025, 0.975])]


def _model_scores(name: str, scores: TweetScores, clusters: Ints, config: EvaluateConfig) -> ModelScores:
    low, high = _interval(clusters, scores.loss, scores.masked, config)
    return ModelScores(
        name=name,
        loss=scores.mean_loss,
        low=low,
        high=high,
        perplexity=math.exp(scores.mean_loss),
        accuracy=scores.accuracy,
        masked_tokens=int(scores.masked.sum()),
        tweets=int((scores.masked > 0).sum()),
    )


def _paired_difference(
    model: TweetScores, base: TweetScores, clusters: Ints, config: EvaluateConfig
) -> PairedDifference:
    """Model minus base on the same masks, with its interval over resampled clusters."""
    assert np.array_equal(model.masked, base.masked), "the two models were scored on different masks"
    low, high = _interval(clusters, model.loss - base.loss, model.masked, config)
    return PairedDifference(
        loss=model.mean_loss - base.mean_loss,
        low=low,
        high=high,
        accuracy=model.accuracy - base.accuracy,
        clusters=len(np.unique(clusters[model.masked > 0])),
        samples=config.bootstrap_samples,
    )
