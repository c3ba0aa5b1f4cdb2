"""run: the full pipeline with one command: a plan from a trial on some of the tweets, then each stage."""

from __future__ import annotations

import csv
import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.page.libraries import require_libraries
from bert_tweets.words.store.folder import EMBED_RECORD, read_embed_record

from .common import subprocesses
from .common.subprocesses import command
from .config import PERIODS, EmbedConfig, RunConfig, parser

_TRIAL_TWEETS = 1000
_TRIAL_BATCH = 128
_TRIAL_STEPS = 4
_BACKGROUND_TWEETS = 5000  # embed's default
_EVALUATED_TWEETS = 10_000  # evaluate's default
# Two thirds of a training step are backward pass and optimizer; evaluate and embed have neither.
_FORWARD_SHARE = 1 / 3
_LONG_SECONDS = 15 * 60
_FEWEST_HELD_OUT = 10
# Settings of embed that another call may change.
_EMBED_SETTINGS = ("words", "by", "max_occurrences", "controls", "include_text")


@dataclass(frozen=True)
class Trial:
    """Figures of a small run on this machine.

    Attributes:
        rows: rows of the whole input.
        kept, validation: shares of the rows that are kept, and of the tweets that are held out.
        tweets_per_second: rate of prepare.
        tokens_per_second: rate of training on all devices, without padding.
    """

    rows: int
    kept: float
    tweets_per_second: float
    tokens_per_tweet: float
    tokens_per_second: float
    validation: float = 0.01


def stage(argv: list[str]) -> None:
    """Print the plan, then run each stage; a stage that is complete is not repeated."""
    config = parser.load(RunConfig, argv)
    if config.max_steps is not None and config.epochs is not None:
        raise UserError("max_steps and epochs: give one of them, not both")
    require_libraries()  # the last stage needs them, hours from now
    commands = stages(config)
    _require_study(config)
    if (Path(config.output) / "run" / "run.json").is_file():
        print(f"{config.output}: shards and model exist already; running the stages that are not complete")
    else:
        _plan(config, commands)
    if config.dry_run:
        return
    started = time.monotonic()
    for arguments in commands:
        ready = _next_command(config, arguments)
        if ready:
            subprocesses.run_command(ready)
    minutes = (time.monotonic() - started) / 60
    print(f"\nthe whole pipeline took {minutes:.1f} min; open {Path(config.output) / 'report.html'}")


def _plan(config: RunConfig, commands: list[list[str]]) -> None:
    print("plan: measuring the speed of this machine on some of the tweets …", flush=True)
    trial = run_trial(config)
    print("\n".join(plan(config, trial)), flush=True)
    print("\nstages, each a command of its own:")
    print("\n".join(f"  {subprocesses.shell_line(arguments)}" for arguments in commands), flush=True)


def stages(config: RunConfig) -> list[list[str]]:
    """The command of each stage, in order."""
    study = Path(config.output)
    data, device, seed = f"data.path={study}/shards", f"device={config.device}", f"seed={config.seed}"
    adapted, base = f"{study}/run/model", f"base={config.model}"
    epochs = f"epochs={parser.shown_value(config.epochs or 1.0)}"
    length = f"max_steps={config.max_steps}" if config.max_steps else epochs
    train = [data, f"model.name={config.model}", f"output={study}/run", length, f"batch_size={config.batch_size}"]
    # A list of one, because the folder's name may contain a comma.
    embed = [data, f"model={parser.shown_value([adapted])}", base, f"words={parser.shown_value(config.words)}"]
    embed += [f"output={study}/words", f"max_occurrences={config.max_occurrences}", f"controls={config.controls}"]
    embed += [f"by={config.by}"] if config.by else []
    text = f"include_text={str(config.include_text).lower()}"
    parts = [f"run={study}/run", f"evaluation={study}/eval", f"words={study}/words"]
    return [
        command("prepare", [*_source(config), f"output={study}/shards", seed]),
        command("train", [*train, f"precision={config.precision}", seed, device], _devices(config)),
        command("evaluate", [data, f"model={adapted}", base, f"output={study}/eval", seed, device], _devices(config)),
        command("embed", [*embed, text, seed, device], _devices(config)),
        command("report", [*parts, text, f"output={study}/report.html"]),
    ]


def _require_study(config: RunConfig) -> None:
    """Raise UserError for a folder that contains other files."""
    folder = Path(config.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder with output=")
    ours = {"shards", "run", "eval", "words", "report.html"}
    ours |= {"methods.md", "references.bib", "reproduce.json", "pictures"}
    others = [p.name for p in folder.glob("*") if p.name not in ours and not p.name.endswith(".unfinished")]
    if others:
        raise UserError(f"{folder}: contains other files ({others[0]}); name a new folder with output=")


def _next_command(config: RunConfig, arguments: list[str]) -> list[str]:
    """A stage's command when its turn has come; empty if there is nothing for it to do.

    If the words differ from the last time, their folder is made again. With too few held-out tweets, evaluate is
    omitted.
    """
    study, stage_name = Path(config.output), subprocesses.stage_of(arguments)
    can_evaluate = True
    if stage_name in ("evaluate", "report"):
        can_evaluate = Manifest.read(study / "shards").rows("validation") >= _FEWEST_HELD_OUT
    made = study / "words" / EMBED_RECORD
    if stage_name == "embed" and made.is_file():
        settings = read_embed_record(made.parent)["settings"]
        if any(settings.get(key) != getattr(config, key) for key in _EMBED_SETTINGS):
            print(f"\n{study / 'words'}: was made with other words or settings; embedding again", flush=True)
            shutil.rmtree(study / "words")
    if stage_name == "evaluate" and not can_evaluate:
        print("\nwarning: too few held-out tweets to evaluate whether adaptation helped", flush=True)
        return []
    return [word for word in arguments if can_evaluate or not word.startswith("evaluation=")]


def run_trial(config: RunConfig) -> Trial:
    """Prepare and train on the first tweets, in a temporary folder; mistakes in the settings show here first."""
    from bert_tweets.corpus.sources import discovery

    paths = discovery.expand(config.input)
    columns = discovery.find_columns(paths, {"text": config.text_column})
    texts: list[str] = []
    rows = 0
    for part in discovery.read_tweets(paths, columns):
        texts += part.fields["text"][: max(0, _TRIAL_TWEETS - len(texts))].to_pylist()
        rows += part.read
    with tempfile.TemporaryDirectory(prefix="bert-tweets-") as name:
        folder = Path(name)
        with (folder / "tweets.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts)])
        prepare = [f"input={folder}/tweets.csv", f"output={folder}/shards", f"tokenizer={config.model}"]
        subprocesses.run_quietly(command("prepare", prepare))
        train = [
            f"data.path={folder}/shards",
            f"model.name={config.model}",
            f"output={folder}/run",
            f"max_steps={_TRIAL_STEPS}",
            f"batch_size={_TRIAL_BATCH}",
            f"precision={config.precision}",
            f"device={config.device}",
            "validation.max_tweets=1",
            "log.every_steps=1",
        ]
        subprocesses.run_quietly(command("train", train, _devices(config)))
        funnel = json.loads((folder / "shards" / "funnel.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    kept = funnel["splits"]["train"]
    return Trial(
        rows=rows,
        kept=funnel["kept"] / max(1, funnel["read"]),
        tweets_per_second=_encoding_rate(texts, config.model),
        tokens_per_tweet=kept["tokens"] / max(1, kept["tweets"]),
        tokens_per_second=max(line["tokens_per_second"] for line in lines[1:]),
    )


def plan(config: RunConfig, trial: Trial) -> list[str]:
    """Lines with rows, steps and estimated time on this machine, and what to change if that is too long."""
    tweets = trial.rows * trial.kept
    trained = tweets * (1 - trial.validation)
    steps = config.max_steps or max(1, math.ceil(trained * (config.epochs or 1) / config.batch_size))
    epochs = config.max_steps * config.batch_size / trained if config.max_steps else config.epochs or 1
    token_rate = trial.tokens_per_second
    forward_rate = token_rate / _FORWARD_SHARE / (2 if config.precision == "bf16" else 1)
    controls = config.controls * EmbedConfig().control_occurrences
    seen = len(config.words) * ((config.max_occurrences or tweets / 100) + controls)
    train = epochs * trained * trial.tokens_per_tweet / token_rate
    # Both run two models.
    evaluate = 2 * min(_EVALUATED_TWEETS, tweets * trial.validation) * trial.tokens_per_tweet / forward_rate
    embed = 2 * min(tweets, seen + _BACKGROUND_TWEETS) * trial.tokens_per_tweet / forward_rate
    seconds = {"prepare": tweets / trial.tweets_per_second, "train": train, "evaluate": evaluate, "embed": embed}
    total = sum(seconds.values())
    lines = [
        f"  input     {trial.rows:,} rows, about {tweets:,.0f} tweets kept, {trial.tokens_per_tweet:.1f} tokens each",
        f"  training  {steps:,} steps of {config.batch_size} tweets, {epochs:.2f} epochs, "
        f"at about {token_rate:,.0f} tokens/s here",
        f"  time      about {_minutes(total)}: " + ", ".join(f"{name} {_minutes(s)}" for name, s in seconds.items()),
    ]
    if total > _LONG_SECONDS:
        a_step = config.batch_size * trial.tokens_per_tweet / token_rate
        fitting = max(10, int((_LONG_SECONDS - (total - train)) / a_step))
        lines.append(
            f"  too long? max_steps={fitting} makes it about {_minutes(total - train + fitting * a_step)}; "
            "so does a GPU, a smaller model= or fewer max_occurrences= and controls="
        )
    return lines


def _encoding_rate(texts: list[str], model: str) -> float:
    """Tweets per second that this machine cleans and tokenizes on one core."""
    import pyarrow as pa

    from bert_tweets.corpus.text import cleaning
    from bert_tweets.corpus.text.tokenizer import BatchTokenizer, load_tokenizer

    tokenizer = load_tokenizer(model)
    encoder, preset = BatchTokenizer(tokenizer, 128), cleaning.resolve("auto", tokenizer)
    encoder(texts[:10])
    started = time.perf_counter()
    encoder(cleaning.clean(pa.array(texts, pa.string()), preset).to_pylist())
    return len(texts) / (time.perf_counter() - started)


def _source(config: RunConfig) -> list[str]:
    column = [f"text_column={config.text_column}"] if config.text_column else []
    kept = [f"group_columns={parser.shown_value([config.by])}"] if config.by and config.by not in PERIODS else []
    return [f"input={parser.shown_value(config.input)}", *column, *kept, f"tokenizer={config.model}"]


def _devices(config: RunConfig) -> int:
    """Number of processes of the stages that use a model: one per GPU, or one."""
    if config.device == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


if __name__ == "__main__":
    main()
