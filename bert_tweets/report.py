"""report: one self-contained page of what a study did and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import options
from .config import EmbedConfig, EvaluateConfig, PrepareConfig, ReportConfig, TrainConfig
from .errors import UserError, run_entry, without_secrets
from .files import from_json, write_atomic

# What our pages begin with: only such a file is written over.
PAGE_MARK = '<meta name="generator" content="bert_tweets">'
# What a record of other fields, or of other types in them, comes to on its way to the page.
_UNLIKE_OURS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def stage(argv: list[str]) -> None:
    """Reads what the stages left and writes the page. Imports neither torch nor transformers."""
    config = options.load(ReportConfig, argv)
    from .words.page import render

    output = Path(config.output)
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name a file with output=report.html")
    if output.is_file() and PAGE_MARK not in output.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise UserError(f"{output}: is no report of ours; name another file with output=")
    try:
        page = render(collect(config))
    except _UNLIKE_OURS as error:
        where = ", ".join(f"{key}={path}" for key in ("run", "evaluation", "words") if (path := getattr(config, key)))
        raise UserError(
            f"{where}: hold records that are not as this version leaves them ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:80]}); make them again"
        ) from None
    _write(output, page)
    print(f"report: {output}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def collect(config: ReportConfig) -> Any:
    """What the page is made of.

    Returns:
        `words.page.Material`.

    Raises:
        UserError: a folder is missing, unfinished or damaged, or was made from other tweets.
    """
    from .words.page import Material

    folder = Path(config.run)
    run = _record(folder, "run.json", "train", "run")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={folder}: holds no config.yaml, so it is not whole; train again into a new folder")
    training = options.load(TrainConfig, ["--config", str(folder / "config.yaml")])
    evaluation = words = None
    commands = [f"bert-tweets train {_joined(options.overrides(training))}"]
    seeds = {"train": training.seed}
    if config.evaluation:
        evaluation = _record(Path(config.evaluation), "metrics.json", "evaluate", "evaluation")
        _require_same_study(run, evaluation, f"evaluation={config.evaluation}")
        _add_stage(commands, seeds, Path(config.evaluation) / "evaluate.json", EvaluateConfig, config.evaluation)
    if config.words:
        words = _record(Path(config.words), "summary.json", "embed", "words")
        _require_same_study(run, words, f"words={config.words}")
        _add_stage(commands, seeds, Path(config.words) / "embed.json", EmbedConfig, config.words)
    shards = Path(training.data.path)
    _add_stage(commands, seeds, shards / "manifest.json", PrepareConfig, str(shards), first=True)
    return Material(
        title=config.title,
        run=run,
        training=_lines(folder / "metrics.jsonl"),
        validation=_lines(folder / "validation.jsonl"),
        funnel=_json(shards / "funnel.json") if (shards / "funnel.json").is_file() else None,
        evaluation=evaluation,
        words=words,
        commands=commands,
        seeds=seeds,
    )


def _record(folder: Path, name: str, stage_name: str, key: str) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: no such folder; make it with bert-tweets {stage_name}")
    if not (folder / name).is_file() and (folder.parent / name).is_file():
        raise UserError(f"{key}={folder}: did you mean {folder.parent}?")
    if not (folder / name).is_file():
        raise UserError(f"{key}={folder}: holds no {name}, so {stage_name} has not finished there; run it again")
    return _json(folder / name)


def _json(path: Path) -> dict[str, Any]:
    try:
        record = from_json(path.read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path}: is damaged: not JSON; make it again")
    return record


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; none where there is no file."""
    if not path.is_file():
        return []
    try:
        return [from_json(line) for line in path.read_bytes().splitlines() if line.strip()]
    except ValueError:
        raise UserError(f"{path}: is damaged: not JSON lines; train again into a new folder") from None


def _require_same_study(run: dict[str, Any], other: dict[str, Any], where: str) -> None:
    """One page shows one study: figures of other shards or models beside this run's would be taken for its own."""
    for key in ("recipe", "data"):
        if other[key] != run[key]:
            raise UserError(f"{where}: was made from other shards than the run; make both from the same data.path")
    weights = other["weights"]
    if weights["model"] != run["exported"]:
        raise UserError(
            f"{where}: was made with another model than the one that the run left; make it with model=RUN/model"
        )
    if weights.get("base", run["weights"]) != run["weights"]:
        raise UserError(
            f"{where}: its base is not the model that the run began from ({run['model']}); make it with that"
        )


def _add_stage(
    commands: list[str], seeds: dict[str, int], path: Path, config_type: type, output: str, first: bool = False
) -> None:
    """Adds a stage's command and seed from the settings that it left behind, where it left any."""
    if not path.is_file():
        return
    settings = _json(path).get("settings", {})
    words = []
    for setting in options.fields_of(config_type):
        value: Any = {**settings, "output": output}
        for part in setting.key.split("."):
            value = value.get(part, setting.default) if isinstance(value, dict) else setting.default
        # Of the secret only whether there was one is known.
        if value != setting.default and setting.key != "author_salt":
            words.append(f"{setting.key}={options.shown(value)}")
    name = (config_type.__doc__ or "").split(":")[0]
    commands.insert(0 if first else len(commands), f"bert-tweets {name} {_joined(words)}")
    seeds[name] = settings.get("seed", 0)


def _joined(words: list[str]) -> str:
    import shlex

    return without_secrets(shlex.join(words))


def _write(output: Path, page: str) -> None:
    """Writes the page whole or not at all."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, page.encode())
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    main()
