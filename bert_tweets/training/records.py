"""The JSON files that train and evaluate leave for later stages: their types, writers and readers. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import from_json, write_json_atomic

from .run_folder import METRICS, SUMMARY, VALIDATION

EVALUATION, EVALUATION_SETTINGS = "metrics.json", "evaluate.json"
Line = TypeVar("Line")


@dataclass(frozen=True)
class RunSummary:
    """`run.json`, written when a run has finished; losses are in nats per masked token.

    Attributes:
        model: name of the model that training started from.
        has_trained_head: False if its masked-LM head was new.
        best_step: step whose weights were exported; None without a validation.
        start_validation_loss: loss before the first step; None if there was no finite one.
        weights, exported: identity of the initial and of the exported weights.
        tokens, tweets, seconds: of training, over all launches; only real tokens count.
        rows: tweets of the training split.
        planned_steps: optimizer steps without early stopping.
    """

    model: str
    has_trained_head: bool
    best_step: int | None
    validation_loss: float | None
    start_validation_loss: float | None
    stopped_early: bool
    ranks: int
    engine: str
    device: str
    precision: str
    recipe: str
    data: str
    weights: str
    exported: str
    versions: dict[str, str]
    tokens: int
    tweets: int
    seconds: float
    epochs: float
    rows: int
    steps: int
    planned_steps: int


class MetricsLine(TypedDict):
    """A line of `metrics.jsonl`; a number that is not finite is None.

    The interval starts after the previous line. `loss` is the mean loss of the last step, `loss_mean` that of the
    interval, in nats per masked token. Lists have an entry per rank: median and 95th percentile, in seconds.
    """

    time: str
    step: int
    epoch: float
    learning_rate: float
    loss: float | None
    loss_mean: float | None
    grad_norm: float | None
    tokens_per_second: float | None
    tweets_per_second: float | None
    mfu: float | None
    padding_fraction: float | None
    data_wait_fraction: float | None
    step_seconds: float | None
    rank_compute_seconds: list[list[float]]
    rank_data_wait_seconds: list[list[float]]
    slowest_rank: int


class ValidationLine(TypedDict):
    """A line of `validation.jsonl`; a loss that is not finite is None."""

    time: str
    step: int
    epoch: float
    validation_loss: float | None


class SkippedLine(TypedDict):
    """A line of `skipped.jsonl`: a skipped step, and the ids and indices of its tweets."""

    step: int
    ids: list[str]
    tweets: list[int]


class Outcome(StrEnum):
    """The answer of evaluate to "did adaptation help?"."""

    HELPED = "helped"
    HARMED = "harmed"
    NO_EFFECT = "no effect shown"
    TOO_FEW = "too few tweets"
    NOT_COMPARABLE = "base not comparable"
    NO_BASE = "no base"


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model on the held-out tweets.

    Attributes:
        loss: mean loss in nats per masked token, with its 95 % interval from `low` to `high`.
        accuracy: share of the masked tokens that are predicted correctly.
        tweets: number of tweets with a masked token.
    """

    name: str
    loss: float
    low: float
    high: float
    perplexity: float
    accuracy: float
    masked_tokens: int
    tweets: int


@dataclass(frozen=True)
class ExcludedBase:
    """A base that cannot be compared with the model; `reason` completes "it is not comparable, because …"."""

    name: str
    reason: str


@dataclass(frozen=True)
class PairedDifference:
    """Model minus base on the same masks.

    Attributes:
        loss: difference of the mean losses, with its 95 % bootstrap interval from `low` to `high`.
        clusters: near-duplicate clusters that were resampled.
        samples: bootstrap samples.
    """

    loss: float
    low: float
    high: float
    accuracy: float
    clusters: int
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """`eval/metrics.json`.

    Attributes:
        base, difference: None without a base, or if it is not comparable.
        verdict: the outcome as a sentence.
        weights: identity of the weights, by role (model, base).
        notes: what makes the figures weaker than they look, in sentences.
    """

    model: ModelScores
    base: ModelScores | None
    excluded_base: ExcludedBase | None
    difference: PairedDifference | None
    outcome: Outcome
    verdict: str
    weights: dict[str, str]
    recipe: str
    data: str
    seed: int
    notes: list[str] = field(default_factory=list)


def write_run_summary(folder: Path, summary: RunSummary) -> None:
    """Write `run.json`; from then on the run counts as finished."""
    write_json_atomic(folder / SUMMARY, asdict(summary))


def read_run_summary(folder: Path) -> RunSummary:
    """Read `run.json` of a run's folder; raises UserError if it is missing (the run has not finished) or damaged."""
    return _read(folder / SUMMARY, RunSummary, "train")


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    write_json_atomic(folder / EVALUATION, asdict(evaluation))


def read_evaluation(folder: Path) -> Evaluation:
    """Read `metrics.json` of an evaluation's folder; raises UserError if it is missing or damaged."""
    return _read(folder / EVALUATION, Evaluation, "evaluate")


def read_metrics(folder: Path) -> list[MetricsLine]:
    """Read `metrics.jsonl` of a run's folder; [] if there is no such file. Raises UserError if a line is damaged."""
    return _read_lines(folder / METRICS, MetricsLine)


def read_validation(folder: Path) -> list[ValidationLine]:
    """Read `validation.jsonl` of a run's folder, as `read_metrics` does."""
    return _read_lines(folder / VALIDATION, ValidationLine)


def _read(path: Path, declared: type[Line], stage: str) -> Line:
    try:
        return parse_record(from_json(path.read_bytes()), declared, "it")
    except FileNotFoundError:
        raise UserError(f"{path}: is missing, so {stage} has not finished there; run it again") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); run {stage} again into a new folder") from None


def _read_lines(path: Path, declared: Any) -> list[Any]:
    if not path.is_file():
        return []
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        return [parse_record(from_json(line), declared, "a line") for line in lines]
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); train again into a new folder") from None
