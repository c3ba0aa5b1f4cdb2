"""Material: what the stages left behind, of which the page and the files beside it are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .maps import WordMap


@dataclass(frozen=True)
class Change:
    """What analyze left.

    Attributes:
        rows: change.json.
        by: what the groups are: a period or a column; empty where not known.
        settings: of analyze; empty where not known.
        controls: controls.json, None where there are none.
        senses: senses.json, None where there are none.
        regression: regression.json, None where there is none.
    """

    rows: list[dict[str, Any]]
    by: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    controls: list[dict[str, Any]] | None = None
    senses: dict[str, Any] | None = None
    regression: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Material:
    """What the stages left behind.

    Attributes:
        title: of the page.
        run: run.json.
        training, validation: lines of metrics.jsonl and validation.jsonl.
        funnel: funnel.json, None where the shards are gone.
        evaluation: metrics.json, None where there was none.
        words: summary.json, None where there was none.
        change: None where words were not compared.
        maps: of words.
        projection: that the maps are made by: pca or tsne.
        commands: command lines of the stages.
        seeds: by stage.
        settings: by stage, those of other files than this material's.
    """

    title: str
    run: dict[str, Any]
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    funnel: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    words: dict[str, Any] | None = None
    change: Change | None = None
    maps: list[WordMap] = field(default_factory=list)
    projection: str = "pca"
    commands: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
