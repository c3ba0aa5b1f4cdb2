"""reproduce.json: what is needed to repeat the study, what was excluded, and what was tested."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from bert_tweets.common.errors import without_secrets

from .inputs import Change, StudyRecords
from .mentions import map_texts, without_mentions
from .tables import funnel_rows

MADE_BY = "bert_tweets report"

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "plotly", "matplotlib", "jinja2")
_RUN_KEYS = ("device", "ranks", "precision", "engine", "seconds")
_VECTOR_KEYS = ("layers", "pooling", "correction", "models")
_STATISTICS = ("word", "estimate", "p_value", "q_value", "exchange_unit")
_TEST_KEYS = (*_STATISTICS, "contrast", "groups", "measure", "low", "high", "verdict")
_REGRESSION_KEYS = (*_STATISTICS, "term", "statistic", "permutations")


def reproduction(study: StudyRecords) -> Mapping[str, object]:
    """The record, without secrets and mentions."""
    run, words = study.run, study.words
    system = {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()}
    initial = {"name": run.model, "revision": study.config.model.revision}
    rows = funnel_rows(study.funnel) if study.funnel else []
    record = {
        "made_by": MADE_BY,
        "commands": [stage.command for stage in study.stages],
        "seeds": {stage.name: stage.seed for stage in study.stages},
        "versions": {**run.versions, **dict(_versions())},
        "hardware": {"training": {key: getattr(run, key) for key in _RUN_KEYS}, "report": system},
        "recipe": run.recipe,
        "data": run.data,
        "model": {**initial, "weights": run.weights, "adapted_weights": run.exported},
        "funnel": [{"name": name, "count": count} for name, count, _ in rows],
        "exclusions": list(_exclusions(study)),
        "settings": {stage.name: stage.settings for stage in study.stages},
        "evaluation": asdict(study.evaluation) if study.evaluation else None,
        "vectors": {key: getattr(words, key) for key in _VECTOR_KEYS} if words else None,
        "tests": list(_tests(study.change)) if study.change else [],
    }
    published: Mapping[str, object] = map_texts(without_mentions(record), without_secrets)
    return published


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _exclusions(study: StudyRecords) -> Iterator[Mapping[str, object]]:
    """What is not in the figures, and why: rows, occurrences and comparisons."""
    for reason, count in study.funnel.dropped.items() if study.funnel else ():
        if count:
            yield {"what": "row", "reason": reason, "count": count}
    for name, word in study.words.words.items() if study.words else ():
        left = {"truncated": word.truncated, "lost to [UNK]": word.unknown, "not sampled": word.matches - word.sampled}
        for reason, count in left.items():
            if count > 0:
                yield {"what": "occurrence", "word": name, "reason": reason, "count": count}
    for row in study.change.untested if study.change else ():
        yield {"what": "comparison", "word": row["word"], "reason": row["verdict"], "groups": row["groups"]}


def _tests(change: Change) -> Iterator[Mapping[str, object]]:
    for row in change.tested:
        yield {key: value for key, value in row.items() if key in _TEST_KEYS}
    for each in change.regression:
        yield {key: value for key, value in each.items() if key in _REGRESSION_KEYS}
