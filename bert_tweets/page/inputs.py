"""Inputs of the page: the records that the stages left, read as types and checked to belong to one study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError, without_secrets
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import from_json
from bert_tweets.config import (
    AnalyzeConfig,
    EmbedConfig,
    EvaluateConfig,
    PrepareConfig,
    ReportConfig,
    Settings,
    TrainConfig,
    parser,
)
from bert_tweets.corpus.shards.funnel import Funnel
from bert_tweets.corpus.shards.manifest import FUNNEL_FILE, MANIFEST_FILE, Manifest
from bert_tweets.training import records as run_records
from bert_tweets.training.records import Evaluation, MetricsLine, RunSummary, ValidationLine
from bert_tweets.training.run_folder import CONFIG
from bert_tweets.training.run_folder import SUMMARY as RUN_SUMMARY
from bert_tweets.words.analysis import records
from bert_tweets.words.analysis.records import ChangeRow, Contrast, ControlRow, Measure, RegressionRow, WordSenses
from bert_tweets.words.store.folder import EMBED_RECORD, SUMMARY, EmbedRecord, read_embed_record
from bert_tweets.words.store.summary import Summary, read_summary

from .maps import MapSpec, WordMap, word_maps


@dataclass(frozen=True)
class Stage:
    """A stage as it was run: its command line, seed, and the settings that its output records."""

    name: str
    command: str
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Change:
    """The output of analyze: change.json, and the other files where they exist."""

    rows: list[ChangeRow]
    settings: AnalyzeConfig | None = None
    controls: list[ControlRow] = field(default_factory=list)
    senses: dict[str, WordSenses] = field(default_factory=dict)
    regression: list[RegressionRow] = field(default_factory=list)

    @property
    def by(self) -> str:
        """What the groups are, a period or a column; empty if it is not known."""
        return self.settings.by if self.settings else ""

    @property
    def omnibus(self) -> list[ChangeRow]:
        """The tests over all groups."""
        return [row for row in self._energy if row["contrast"] == Contrast.OMNIBUS]

    @property
    def pairs(self) -> list[ChangeRow]:
        """The comparisons of two groups."""
        return [row for row in self._energy if row["contrast"] != Contrast.OMNIBUS]

    @property
    def tested(self) -> list[ChangeRow]:
        return [row for row in self._energy if row["p_value"] is not None]

    @property
    def untested(self) -> list[ChangeRow]:
        """Comparisons with too few occurrences."""
        return [row for row in self._energy if row["p_value"] is None]

    @property
    def _energy(self) -> list[ChangeRow]:
        return [row for row in self.rows if row["measure"] == Measure.ENERGY]


@dataclass(frozen=True)
class StudyRecords:
    """The records of a study.

    Attributes:
        run, training, validation: run.json, metrics.jsonl and validation.jsonl.
        config: settings of the training.
        stages: the stages, in the order in which they were run.
        manifest, funnel: of the shards; None if they are gone.
        evaluation, words, change: outputs of evaluate, embed and analyze; None without them.
        projection: method of the maps: pca or tsne.
    """

    title: str
    run: RunSummary
    config: TrainConfig
    training: list[MetricsLine]
    validation: list[ValidationLine]
    stages: list[Stage]
    manifest: Manifest | None = None
    funnel: Funnel | None = None
    evaluation: Evaluation | None = None
    words: Summary | None = None
    change: Change | None = None
    maps: list[WordMap] = field(default_factory=list)
    projection: str = "pca"


def read_study(config: ReportConfig) -> StudyRecords:
    """Read the records that the settings name.

    Raises:
        UserError: a folder is missing, unfinished or damaged, or belongs to another study.
    """
    folder = _require_finished(config.run, RUN_SUMMARY, "train", "run")
    if not (folder / CONFIG).is_file():
        raise UserError(f"run={folder}: has no {CONFIG}, so it is incomplete; train again into a new folder")
    run = run_records.read_run_summary(folder)
    training = parser.load(TrainConfig, ["--config", str(folder / CONFIG)])
    command = f"bert-tweets train {_quoted(parser.overrides(training))}"
    stages = [Stage("train", command, training.seed, asdict(training))]
    evaluation = words = change = manifest = funnel = None
    shards = Path(training.data.path)
    if (shards / MANIFEST_FILE).is_file():
        manifest = Manifest.read(shards)
        # The settings may say `auto`; the recipe says what that was.
        settings = {**manifest.settings, "clean": manifest.recipe.clean}
        stages.insert(0, _stage(PrepareConfig, settings, output=str(shards)))
    if (shards / FUNNEL_FILE).is_file():
        funnel = Funnel.from_file(shards / FUNNEL_FILE)
    if config.evaluation:
        path = _require_finished(config.evaluation, run_records.EVALUATION, "evaluate", "evaluation")
        evaluation = run_records.read_evaluation(path)
        _require_same_study(run, evaluation, f"evaluation={path}")
        if (path / run_records.EVALUATION_SETTINGS).is_file():
            stages.append(_stage(EvaluateConfig, _evaluation_settings(path), output=config.evaluation))
    if config.words:
        path = _require_finished(config.words, SUMMARY, "embed", "words")
        words = read_summary(path)
        _require_same_study(run, words, f"words={path}")
        if (path / EMBED_RECORD).is_file():
            stages.append(_stage(EmbedConfig, read_embed_record(path)["settings"], output=config.words))
    if config.change or (config.words and (Path(config.words) / records.CHANGE).is_file()):
        change = _read_change(Path(config.change or config.words), config.words)
        if change.settings:
            recorded = records.settings_without_paths(change.settings)
            stages.append(_stage(AnalyzeConfig, recorded, output=config.change or config.words, words=config.words))
    return StudyRecords(
        title=config.title,
        run=run,
        config=training,
        training=run_records.read_metrics(folder),
        validation=run_records.read_validation(folder),
        stages=stages,
        manifest=manifest,
        funnel=funnel,
        evaluation=evaluation,
        words=words,
        change=change,
        maps=word_maps(Path(config.words), _map_spec(config, words, change)) if words else [],
        projection=config.projection,
    )


def _read_change(folder: Path, words: str) -> Change:
    if not words:
        raise UserError(f"change={folder}: give words= too, the folder that it was made from")
    _require_finished(folder, records.CHANGE, "analyze", "change")
    record = records.read_settings(folder)
    made_from = Path(words) / EMBED_RECORD
    if record and made_from.is_file() and record.words != read_embed_record(words):
        raise UserError(f"change={folder}: was made from other vectors than words={words}; run analyze on these")
    return Change(
        rows=records.read_change(folder),
        settings=record.settings if record else None,
        controls=records.read_controls(folder) or [],
        senses=records.read_senses(folder) or {},
        regression=records.read_regression(folder) or [],
    )


def _map_spec(config: ReportConfig, words: Summary, change: Change | None) -> MapSpec:
    titles = {"model": "adapted model"} | ({"base": "base model"} if words.base else {})
    all_senses = change.senses if change else {}
    return MapSpec(
        words=list(words.words),
        titles=titles,
        layer=(change.settings.layer if change and change.settings else None) or words.vectors_layer,
        points=config.map_points,
        projection=config.projection,
        include_text=config.include_text,
        seed=config.seed,
        senses={word: [sense["name"] for sense in of_word["senses"]] for word, of_word in all_senses.items()},
        change=Path(config.change or config.words),
    )


def _require_finished(folder: str | Path, name: str, stage: str, key: str) -> Path:
    """The folder, which must hold the file that the stage writes last."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: no such folder; make it with bert-tweets {stage}")
    if not (folder / name).is_file() and (folder.parent / name).is_file():
        raise UserError(f"{key}={folder}: did you mean {folder.parent}?")
    if not (folder / name).is_file():
        raise UserError(f"{key}={folder}: has no {name}, so {stage} has not finished there; run it again")
    return folder


def _require_same_study(run: RunSummary, other: Evaluation | Summary, where: str) -> None:
    """Figures of other shards or models must not appear on this run's page."""
    if (other.recipe, other.data) != (run.recipe, run.data):
        raise UserError(f"{where}: was made from other shards than the run; make both from the same data.path")
    if other.weights.get("model") != run.exported:
        raise UserError(f"{where}: was made with another model than this run's; make it with model=RUN/model")
    if other.weights.get("base", run.weights) != run.weights:
        what = f"its base is not the model that training started from ({run.model})"
        raise UserError(f"{where}: {what}; make it with that base")


def _evaluation_settings(folder: Path) -> Settings:
    path = folder / run_records.EVALUATION_SETTINGS
    try:
        # evaluate and embed record their settings, tweets and weights alike.
        return parse_record(from_json(path.read_bytes()), EmbedRecord, path.name)["settings"]
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); run evaluate again into a new folder") from None


def _stage(config_type: type, settings: Settings, **paths: str) -> Stage:
    """A stage by its recorded settings, and the paths that are not recorded."""
    values = {**settings, **paths}
    arguments = []
    for setting in parser.fields_of(config_type):
        value: Any = values
        for part in setting.key.split("."):
            value = value.get(part, setting.default) if isinstance(value, Mapping) else setting.default
        # Of the salt only whether there was one is recorded.
        if value != setting.default and setting.key != "author_salt":
            arguments.append(f"{setting.key}={parser.shown_value(value)}")
    name = (config_type.__doc__ or "").partition(":")[0]
    return Stage(name, f"bert-tweets {name} {_quoted(arguments)}", settings.get("seed", 0), settings)


def _quoted(arguments: list[str]) -> str:
    return without_secrets(shlex.join(arguments))
