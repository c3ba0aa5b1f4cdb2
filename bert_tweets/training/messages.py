"""Messages of train and evaluate, made from typed values."""

from __future__ import annotations

from pathlib import Path

from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed.world import World

from .lr_schedule import Schedule
from .records import ExcludedBase, MetricsLine, ModelScores, Outcome, PairedDifference

_HIGH_RATE = 2e-4
_NAMED_STEPS = 3


def plan(
    config: TrainConfig,
    manifest: Manifest,
    stream: Stream,
    schedule: Schedule,
    world: World,
    engine: str,
    attention: str,
) -> list[str]:
    decay = f"wsd (decays over the last {schedule.decay_steps})" if schedule.name == "wsd" else schedule.name
    lines = [
        f"training {config.model.name} on {stream.rows:,} tweets ({manifest.tokens('train'):,} tokens): "
        f"{stream.steps:,} steps of {stream.batch_size} tweets, {stream.length / stream.rows:.2f} epochs, "
        f"{world.world_size} rank(s) on {world.device.type} ({engine}), {config.precision}, attention '{attention}'",
        f"learning rate {schedule.peak:g} after {schedule.warmup_steps} steps of warm-up, then {decay}; "
        f"attention dropout is off, hidden dropout {config.model.dropout:g}",
    ]
    if config.model.dropout:
        lines.append("hidden dropout depends on the layout: runs of other sizes agree only in data and masks")
    return lines


def high_learning_rate(rate: float) -> str | None:
    if rate <= _HIGH_RATE:
        return None
    return f"a learning rate of {rate:g} is high for a pre-trained BERT; 5e-5 is usual"


def new_head(model: str, from_scratch: bool) -> str:
    what = "the model is new" if from_scratch else f"{model} is an encoder without a masked-LM head"
    return (
        f"{what}: its head starts untrained, on the scale of the embeddings; "
        "the early fall of the loss is that head being learnt, not adaptation to tweets"
    )


def stopped(step: int, steps: int, folder: Path, resume: str, has_limit: bool) -> str:
    """A run that has saved its checkpoint and exits; `has_limit` if it ended by `stop_after_steps`."""
    how = "rerun the same command" if resume == "auto" else "run it with resume=auto"
    how += " (without stop_after_steps, to the end)" if has_limit else ""
    return f"checkpoint saved after step {step} of {steps} in {folder}; {how} to resume"


def signal_received(name: str) -> str:
    again = "; Ctrl-C again stops at once" if name == "SIGINT" else ""
    return f"{name}: saving a checkpoint after the next step, then exiting{again}"


def exported(step: int, is_best: bool, folder: Path) -> str:
    return f"model of step {step}{', the best by validation' if is_best else ''}: {folder}"


def progress_note(line: MetricsLine) -> str:
    """The text next to the progress bar."""
    loss = "not finite" if line["loss_mean"] is None else f"{line['loss_mean']:.3f}"
    return f"loss {loss}, {line['tokens_per_second'] or 0:,.0f} tokens/s"


def gradient_problem(step: int, is_skipped: bool) -> str:
    if is_skipped:
        return f"step {step + 1} was skipped: its loss or gradient was not finite"
    return f"step {step + 1} trained nothing: its gradient is exactly zero"


def too_many_skipped(skipped: list[int], window: int, budget: int, file: Path) -> str:
    more = ["..."] if len(skipped) > _NAMED_STEPS else []
    named = ", ".join([*(str(step + 1) for step in skipped[:_NAMED_STEPS]), *more])
    return (
        f"{len(skipped)} of the last {window:,} steps had a loss or a gradient that is not finite (steps {named}; "
        f"their tweets are in {file}), more than max_nonfinite_steps={budget}; lower optimizer.learning_rate, or use "
        "precision=bf16 or fp32"
    )


def remedy_for_zero_gradients(compiled: bool, precision: str) -> str:
    """Advice if gradients are exactly zero; `compiled` by torch.compile or not."""
    if compiled:
        return "the cause may be in the code that torch.compile generated: use model.compile=false"
    if precision == "fp16":
        return "fp16 may round all of them to zero: use precision=bf16 or fp32"
    return "the weights of model.name may be damaged: start from another model"


def evaluation_verdict(
    outcome: Outcome, model: ModelScores, excluded_base: ExcludedBase | None, difference: PairedDifference | None
) -> str:
    """The answer to "did adaptation help?" in a sentence or two."""
    correct = f"predicts {model.accuracy:.1%} of the masked tokens correctly"
    if outcome is Outcome.NO_BASE:
        return f"The model {correct}; there is no base to compare it with."
    if excluded_base:
        return (
            f"Whether adaptation helped cannot be said: {excluded_base.name} is not comparable, because "
            f"{excluded_base.reason}. The adapted model {correct}."
        )
    assert difference is not None
    low, high, change = difference.low, difference.high, difference.loss
    if outcome is Outcome.TOO_FEW:
        return (
            f"Whether adaptation helped cannot be said: {difference.clusters} held-out tweets are too few. "
            "Prepare with a larger validation_fraction."
        )
    if outcome is Outcome.NO_EFFECT:
        return (
            f"No effect of adaptation was shown: the masked loss changed by {change:+.3f} nats per token "
            f"(95 % interval {low:+.3f} to {high:+.3f})."
        )
    near, far = sorted((abs(low), abs(high)))
    interval = f"by {abs(change):.3f} nats per token (95 % interval {near:.3f} to {far:.3f})"
    if outcome is Outcome.HELPED:
        return f"Adaptation helped: the masked loss on held-out tweets fell {interval}."
    return f"Adaptation did harm: the masked loss on held-out tweets rose {interval}."
