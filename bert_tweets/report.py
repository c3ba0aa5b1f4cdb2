"""report: one self-contained page of what a study did and found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError, run_entry, without_secrets
from bert_tweets.common.output_folder import from_json
from bert_tweets.page.libraries import require_libraries

from .config import (
    AnalyzeConfig,
    EmbedConfig,
    EvaluateConfig,
    PrepareConfig,
    ReportConfig,
    TrainConfig,
    parser,
)

# What a record of other fields, or of other types in them, comes to on its way to the page.
_UNLIKE_OURS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def stage(argv: list[str]) -> None:
    """Reads what the stages left and writes the page. Imports neither torch nor transformers."""
    config = parser.load(ReportConfig, argv)
    require_libraries(maps=bool(config.words), pictures=config.pictures)
    from bert_tweets.page.companion_files import pictures, require_ours, texts, write_companions
    from bert_tweets.page.html import render

    output = Path(config.output)
    require_ours(output)
    try:
        material = collect(config)
        page, charts = render(material)
        beside, drawn = texts(material), pictures(material, charts) if config.pictures else {}
    except _UNLIKE_OURS as error:
        keys = ("run", "evaluation", "words", "change")
        where = ", ".join(f"{key}={path}" for key in keys if (path := getattr(config, key)))
        raise UserError(
            f"{where}: hold records that are not as this version leaves them ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:80]}); make them again"
        ) from None
    write_companions(output, page, beside, drawn)
    print(f"report: {output}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def collect(config: ReportConfig) -> Any:
    """What the page is made of.

    Returns:
        `words.page.material.Material`.

    Raises:
        UserError: a folder is missing, unfinished or damaged, or was made from other tweets.
    """
    from bert_tweets.page.inputs import Material

    folder = Path(config.run)
    run = _record(folder, "run.json", "train", "run")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={folder}: holds no config.yaml, so it is not whole; train again into a new folder")
    training = parser.load(TrainConfig, ["--config", str(folder / "config.yaml")])
    evaluation = words = None
    made = _Made([f"bert-tweets train {_joined(parser.overrides(training))}"], {"train": training.seed})
    made.settings["train"] = asdict(training)
    if config.evaluation:
        evaluation = _record(Path(config.evaluation), "metrics.json", "evaluate", "evaluation")
        _require_same_study(run, evaluation, f"evaluation={config.evaluation}")
        made.add(Path(config.evaluation) / "evaluate.json", EvaluateConfig, {"output": config.evaluation})
    if config.words:
        words = _record(Path(config.words), "summary.json", "embed", "words")
        _require_same_study(run, words, f"words={config.words}")
        made.add(Path(config.words) / "embed.json", EmbedConfig, {"output": config.words})
    change = _change(config, made)
    shards = Path(training.data.path)
    made.add(shards / "manifest.json", PrepareConfig, {"output": str(shards)}, first=True)
    if "prepare" in made.settings:
        # What `auto` came to.
        made.settings["prepare"]["clean"] = _json(shards / "manifest.json")["recipe"]["clean"]
    return Material(
        title=config.title,
        run=run,
        training=_lines(folder / "metrics.jsonl"),
        validation=_lines(folder / "validation.jsonl"),
        funnel=_json(shards / "funnel.json") if (shards / "funnel.json").is_file() else None,
        evaluation=evaluation,
        words=words,
        change=change,
        maps=_maps(config, words, change) if words else [],
        projection=config.projection,
        commands=made.commands,
        seeds=made.seeds,
        settings=made.settings,
    )


def _change(config: ReportConfig, made: _Made) -> Any:
    """What analyze left, in a folder of its own or in that of the words; None where there is nothing."""
    from bert_tweets.page.inputs import Change

    folder = Path(config.change or config.words)
    if not config.change and not (config.words and (folder / "change.json").is_file()):
        return None
    if not config.words:
        raise UserError(f"change={folder}: give words= too, the folder that it was made from")
    rows = _json(_there(folder, "change.json", "analyze", "change"), list)
    settings = _json(folder / "analyze.json") if (folder / "analyze.json").is_file() else {}
    _require_same_words(settings, Path(config.words), folder)
    if settings:
        made.add(folder / "analyze.json", AnalyzeConfig, {"output": str(folder), "words": config.words})
    left: dict[str, Any] = {}
    for name, kind in (("controls", list), ("senses", dict), ("regression", list)):
        path = folder / f"{name}.json"
        left[name] = _json(path, kind) if path.is_file() else None
    of_analyze = settings.get("settings", {})
    return Change(rows=rows, by=str(of_analyze.get("by", "")), settings=of_analyze, **left)


def _require_same_words(settings: dict[str, Any], words: Path, folder: Path) -> None:
    made = words / "embed.json"
    if "words" in settings and made.is_file() and settings["words"] != _json(made):
        raise UserError(f"change={folder}: was made from other vectors than words={words}; analyze these")


def _maps(config: ReportConfig, words: dict[str, Any], change: Any) -> Any:
    from bert_tweets.page.maps import MapSpec, word_maps

    titles = {"model": "the adapted model", "base": "the model before"}
    senses = (change.senses if change else None) or {}
    wanted = MapSpec(
        words=[str(word) for word in words["words"]],
        titles=titles if words["base"] else {"model": titles["model"]},
        layer=(change.settings.get("layer") if change else None) or words.get("vectors_layer"),
        points=config.map_points,
        projection=config.projection,
        include_text=config.include_text,
        seed=config.seed,
        senses={word: [one["name"] for one in sense["senses"]] for word, sense in senses.items()},
        change=Path(config.change or config.words),
    )
    return word_maps(Path(config.words), wanted)


def _record(folder: Path, name: str, stage_name: str, key: str) -> dict[str, Any]:
    return dict(_json(_there(folder, name, stage_name, key)))


def _there(folder: Path, name: str, stage_name: str, key: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: no such folder; make it with bert-tweets {stage_name}")
    if not (folder / name).is_file() and (folder.parent / name).is_file():
        raise UserError(f"{key}={folder}: did you mean {folder.parent}?")
    if not (folder / name).is_file():
        raise UserError(f"{key}={folder}: holds no {name}, so {stage_name} has not finished there; run it again")
    return folder / name


def _json(path: Path, kind: type = dict) -> Any:
    try:
        record = from_json(path.read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, kind):
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


@dataclass
class _Made:
    """How the stages were run: their commands, seeds and settings, from what they left behind."""

    commands: list[str]
    seeds: dict[str, int]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, path: Path, config_type: type, known: dict[str, str], first: bool = False) -> None:
        """Adds a stage whose settings a file holds, where there is one; `known` are those that it does not hold."""
        if not path.is_file():
            return
        settings = _json(path).get("settings", {})
        words = []
        for setting in parser.fields_of(config_type):
            value: Any = {**settings, **known}
            for part in setting.key.split("."):
                value = value.get(part, setting.default) if isinstance(value, dict) else setting.default
            # Of the secret only whether there was one is known.
            if value != setting.default and setting.key != "author_salt":
                words.append(f"{setting.key}={parser.shown_value(value)}")
        name = (config_type.__doc__ or "").split(":")[0]
        self.commands.insert(0 if first else len(self.commands), f"bert-tweets {name} {_joined(words)}")
        self.seeds[name] = settings.get("seed", 0)
        self.settings[name] = settings


def _joined(words: list[str]) -> str:
    import shlex

    return without_secrets(shlex.join(words))


if __name__ == "__main__":
    main()
