"""The page: one self-contained HTML document with tables, charts as SVG, and interactive maps."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.config import PERIODS

from . import analysis_charts, tables, template_context
from .charts import Chart
from .drawing import Picture, draw_chart
from .inputs import StudyRecords
from .libraries import missing_extra
from .maps import WordMap
from .mentions import without_mentions
from .names import column_title, short_name
from .training_charts import funnel_chart, loss_chart

# Coordinates on maps are integers up to this: finer than any screen.
_MAX_COORDINATE = 30_000


def render(study: StudyRecords, with_files: bool) -> tuple[str, list[Picture]]:
    """Render the page: its HTML and the charts in it, on demand with their files.

    Raises:
        UserError: a library is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise missing_extra("jinja2") from None
    environment = Environment(
        loader=PackageLoader("bert_tweets.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    pictures = {
        section: [draw_chart(without_mentions(chart), with_files) for chart in charts]
        for section, charts in _charts(study).items()
    }
    page = environment.get_template("page.html").render(
        **without_mentions(_context(study)),
        pictures=pictures,
        # matplotlib escapes the texts in an SVG.
        markup=Markup,
        plotly=Markup(_plotly_script() if study.maps else ""),  # noqa: S704
        map_data=Markup(_as_script(map_data(study.maps))),  # noqa: S704
    )
    return page, [picture for drawn in pictures.values() for picture in drawn]


def _charts(study: StudyRecords) -> dict[str, list[Chart]]:
    """The charts of each section."""
    change = study.change
    return {
        "loss": [loss_chart(study)],
        "funnel": [funnel_chart(study.funnel)] if study.funnel else [],
        "drift": analysis_charts.drift_charts(study.words) if study.words else [],
        "ranks": analysis_charts.rank_charts(change) if change else [],
        "pairs": analysis_charts.pair_charts(change) if change else [],
        "senses": analysis_charts.sense_charts(change) if change else [],
    }


def _context(study: StudyRecords) -> Mapping[str, object]:
    """The variables of the template, but for charts and maps."""
    change, words, evaluation = study.change, study.words, study.evaluation
    controls = bool(change and change.controls)
    columns = dict.fromkeys(name for word in study.maps for name in word.columns)
    return {
        "title": study.title,
        "run": study.run,
        "initial_model": short_name(study.run.model),
        "stages": study.stages,
        "facts": template_context.facts(study),
        "evaluation": evaluation,
        "evaluation_table": tables.evaluation_table(evaluation) if evaluation else None,
        "funnel": tables.funnel_table(study.funnel) if study.funnel else None,
        "words": words,
        "base": short_name(words.base) if words and words.base else None,
        "cards": template_context.word_cards(words) if words else [],
        "occurrences": template_context.occurrence_table(words) if words else None,
        "rare": template_context.rare_words(words),
        "min_found": template_context.MIN_FOUND,
        "was_compared": change is not None,
        "findings": template_context.word_findings(change),
        "by": change.by if change else "",
        "in_time": change is not None and change.by in PERIODS,
        "has_controls": controls,
        "matched_on": template_context.matched_on(change) if change else "",
        "ranks": tables.comparison_table("Tests over all groups", change.omnibus, controls) if change else None,
        "pairs": tables.comparison_table("Pairs of groups", change.pairs, controls) if change else None,
        "senses": tables.senses_table(change.senses) if change and change.senses else None,
        "criterion": tables.usual_criterion(change.senses) if change and change.senses else "",
        "regression": tables.regression_table(change.regression) if change and change.regression else None,
        "map_words": [word.word for word in study.maps],
        "map_count": len(study.maps[0].spaces) if study.maps else 0,
        "map_columns": {name: column_title(name) for name in columns},
        "projection": study.projection,
        "with_text": any(word.texts for word in study.maps),
    }


def _plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise missing_extra("plotly") from None
    return str(get_plotlyjs())


def map_data(maps: list[WordMap]) -> list[dict[str, object]]:
    """The maps for JSON, without mentions; arrays as base64 of little-endian integers."""
    return [
        {
            "word": without_mentions(word.word),
            "total": word.total,
            "spaces": [
                {
                    "title": without_mentions(space.title),
                    "explained": space.explained,
                    "x": _packed(np.rint(space.points[:, 0] * _MAX_COORDINATE), "<i2"),
                    "y": _packed(np.rint(space.points[:, 1] * _MAX_COORDINATE), "<i2"),
                }
                for space in word.spaces
            ],
            "columns": {
                without_mentions(name): {
                    "names": without_mentions(column.names),
                    "codes": _packed(column.codes, "<i1" if column.names else "<i4"),
                }
                for name, column in word.columns.items()
            },
            "texts": without_mentions(word.texts),
        }
        for word in maps
    ]


def _packed(values: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode("ascii")


def _as_script(record: object) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
