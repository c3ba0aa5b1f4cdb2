"""Evaluation: masked loss on held-out tweets with one fixed mask set, and what adaptation changed in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

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

Floats = npt.NDArray[np.float64]
_MASKED_SHARE = 0.15  # whatever the training masked: figures of different runs can then be compared
_TWEETS_A_STEP = 1024
_FEW_TWEETS, _FEWEST_CLUSTERS = 50, 20


@dataclass(frozen=True)
class Score:
    """A model's guesses, summed by tweet; all float64 [tweets of the split].

    Attributes:
        loss: sum of the losses at masked positions, in nats.
        correct: masked tokens guessed right.
        masked: masked tokens; the same for every model.
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


def evaluate(config: EvaluateConfig, world: World) -> dict[str, Any] | None:
    """Evaluates a model, beside its base where one is given; each rank scores its share of the tweets.

    Returns:
        What goes into metrics.json; None on other ranks than 0.

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
        scores, reasons = _scores(config, manifest, split, world)
    return _metrics(config, manifest, split, scores, reasons) if world.is_main else None


def _scores(
    config: EvaluateConfig, manifest: Manifest, split: Split, world: World
) -> tuple[dict[str, Score | None], dict[str, str | None]]:
    """The score of model and base by role, the same on every rank; or why there is none."""
    scores: dict[str, Score | None] = {}
    reasons: dict[str, str | None] = {}
    for role, name in (("model", config.model), ("base", config.base)):
        if not name:
            continue
        loaded = load_model(ModelConfig(name=name), manifest, config.seed)
        reasons[role] = None
        if not loaded.has_trained_head:
            reasons[role] = "it is an encoder without a trained masked-LM head: its loss would be that of a random head"
        scores[role] = None if reasons[role] else _score(loaded.model, split, manifest, config, world)
    if scores["model"] is None:
        raise UserError(f"{config.model}: {reasons['model']}; evaluate a model that train has exported")
    if not scores["model"].masked.sum():
        raise UserError(
            f"{config.data.path}: its {len(split)} held-out tweets have no token to mask; prepare more tweets"
        )
    return scores, reasons


def _metrics(
    config: EvaluateConfig,
    manifest: Manifest,
    split: Split,
    scores: dict[str, Score | None],
    reasons: dict[str, str | None],
) -> dict[str, Any]:
    model, base = scores["model"], scores.get("base")
    assert model is not None
    clusters = _clusters(split)
    difference = _paired_difference(model, base, clusters, config) if base else None
    return {
        "model": _figures(config.model, model, clusters, config, None),
        "base": _figures(config.base, base, clusters, config, reasons["base"]) if config.base else None,
        "difference": difference,
        "verdict": verdict(config, model, difference, reasons.get("base")),
        "notes": _notes(config, manifest, int((model.masked > 0).sum())),
        "weights": {role: weights_identity(getattr(config, role)) for role in scores},
        "recipe": manifest.recipe.hash,
        "data": manifest.fingerprint,
        "seed": config.seed,
    }


def _notes(config: EvaluateConfig, manifest: Manifest, tweets: int) -> list[str]:
    """What makes the figures weaker than they look."""
    notes = []
    if tweets < _FEW_TWEETS:
        notes.append(
            f"only {tweets} held-out tweets: the interval may be too narrow; raise validation_fraction in prepare"
        )
    if adapted_on(config.model) not in (None, manifest.fingerprint):
        notes.append(
            f"{config.model}: was adapted on other shards than these; the tweets held out here may be among those that "
            "it was trained on, and its loss then flatters it"
        )
    return notes


def verdict(config: EvaluateConfig, model: Score, difference: dict[str, Any] | None, reason: str | None) -> str:
    """One sentence for people."""
    if reason:
        return (
            f"Whether adaptation helped cannot be said: {config.base} is not comparable, for {reason}. "
            f"The adapted model guesses {model.accuracy:.1%} of the masked tokens right."
        )
    if difference is None:
        return f"The model guesses {model.accuracy:.1%} of the masked tokens right; there is no base to compare with."
    if difference["clusters"] < _FEWEST_CLUSTERS:
        return (
            f"Whether adaptation helped cannot be said: {difference['clusters']} held-out tweets are too few. "
            "Prepare with a larger validation_fraction."
        )
    low, high, change = difference["low"], difference["high"], difference["loss"]
    near, far = sorted((abs(low), abs(high)))
    interval = f"by {abs(change):.3f} nats a token (95 % interval {near:.3f} to {far:.3f})"
    if high < 0:
        return f"Adaptation helped: the masked loss on held-out tweets fell {interval}."
    if low > 0:
        return f"Adaptation did harm: the masked loss on held-out tweets rose {interval}."
    return (
        f"No effect of adaptation was shown: the masked loss changed by {change:+.3f} nats a token "
        f"(95 % interval {low:+.3f} to {high:+.3f})."
    )


@torch.inference_mode()
def _score(model: Any, split: Split, manifest: Manifest, config: EvaluateConfig, world: World) -> Score:
    module = PackedMaskedLM(model).to(world.device).eval()
    masking = masking_for(manifest, config.seed, _MASKED_SHARE, whole_word=False)
    on_device = masking.to(world.device)
    layout = Layout(row_length_of(config.data, manifest), config.tokens_per_device, manifest.pad_id)
    stream = Stream(len(split), config.seed, _TWEETS_A_STEP, min(len(split), config.max_tweets))
    totals = torch.zeros(3, len(split), dtype=torch.float64)
    # The steps of a world of one, so that its micro-batches are shared out and not the tweets.
    units = world.work_split.chunks(stream.steps)
    for step in islice(StepLoader(split, stream, masking, layout, workers=1).steps(units.start), len(units)):
        for number in world.work_split.parts_of(step.index, stream.steps, len(step.micro_batches)):
            batch = step.micro_batches[number]
            with autocast(world.device, config.precision):
                guesses = module.guesses(batch.to(world.device), on_device)
            segments = guesses.segments.cpu()
            tweets = batch.tweet_index[segments]
            filled = segments > 0
            parts = (guesses.losses.cpu(), guesses.correct.cpu(), filled)
            for total, part in zip(totals, parts, strict=True):
                total.index_add_(0, tweets[filled], part[filled].double())
    # A tweet is scored by one rank; the others add zeros, which is exact.
    loss, correct, masked = world.sum(totals).numpy()
    return Score(loss, correct, masked)


def _clusters(split: Split) -> npt.NDArray[np.int64]:
    """The near-duplicate cluster of each tweet; int64 [tweets]."""
    columns = [split.batch(shard).column("cluster").to_numpy() for shard in range(len(split.shards))]
    return np.concatenate([np.empty(0, np.int64), *columns])


def _resamples(clusters: npt.NDArray[np.int64], sums: list[Floats], config: EvaluateConfig) -> Floats:
    """Sums over bootstrap resamples of whole clusters (Efron and Tibshirani 1993, chapter 8).

    Args:
        clusters: int64 [tweets].
        sums: each float64 [tweets].

    Returns:
        float64 [samples, sums].
    """
    evaluated = sums[-1] > 0
    _, of_tweet = np.unique(clusters[evaluated], return_inverse=True)
    by_cluster = np.stack([np.bincount(of_tweet, weights=part[evaluated]) for part in sums], axis=1)
    count, generator = len(by_cluster), default_rng(config.seed)
    samples = np.empty((config.bootstrap_samples, len(sums)))
    for index in range(config.bootstrap_samples):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        samples[index] = times @ by_cluster
    return samples


def _figures(
    name: str,
    score: Score | None,
    clusters: npt.NDArray[np.int64],
    config: EvaluateConfig,
    reason: str | None,
) -> dict[str, Any]:
    empty = dict.fromkeys(("loss", "perplexity", "accuracy", "masked_tokens", "tweets", "low", "high"))
    figures: dict[str, Any] = {"name": name, "comparable": score is not None, "reason": reason, **empty}
    if score is None:
        return figures
    samples = _resamples(clusters, [score.loss, score.masked], config)
    low, high = np.quantile(samples[:, 0] / samples[:, 1], [0.025, 0.975])
    return figures | {
        "loss": score.mean_loss,
        "perplexity": math.exp(score.mean_loss),
        "accuracy": score.accuracy,
        "masked_tokens": int(score.masked.sum()),
        "tweets": int((score.masked > 0).sum()),
        "low": float(low),
        "high": float(high),
    }


def _paired_difference(
    model: Score, base: Score, clusters: npt.NDArray[np.int64], config: EvaluateConfig
) -> dict[str, Any]:
    """Model minus base on the same masks, with the percentile interval over resampled clusters."""
    assert np.array_equal(model.masked, base.masked), "two models were asked for different tokens"
    samples = _resamples(clusters, [model.loss - base.loss, model.masked], config)
    low, high = np.quantile(samples[:, 0] / samples[:, 1], [0.025, 0.975])
    return {
        "loss": model.mean_loss - base.mean_loss,
        "low": float(low),
        "high": float(high),
        "accuracy": model.accuracy - base.accuracy,
        "clusters": len(np.unique(clusters[model.masked > 0])),
        "samples": config.bootstrap_samples,
    }
