"""The document: the page as HTML, its charts, and the data of its maps."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import analysis_tables
from .charts import Chart, without_mentions
from .inputs import Material
from .libraries import missing_extra
from .maps import SENSE, WordMap
from .plotly_charts import draw, plotly_script
from .template_context import TOO_RARE, template_context
from .training_charts import funnel_chart, loss_chart

# Coordinates are whole numbers up to this: finer than any screen.
_REACH = 30_000


@dataclass(frozen=True)
class Charts:
    """The page's charts, by the section that they stand in."""

    study: dict[str, Chart]
    before_after: list[Chart]
    ranks: list[Chart]
    pairs: list[Chart]
    senses: list[Chart]

    @property
    def all(self) -> list[Chart]:
        return [*self.study.values(), *self.before_after, *self.ranks, *self.pairs, *self.senses]


def charts_of(material: Material, shown: dict[str, Any]) -> Charts:
    """What the page draws, accounts masked.

    Args:
        material: what the stages left.
        shown: the context of the template.
    """
    change = material.change
    study = {"loss": loss_chart(material.training, material.validation, material.run.get("best_step"))}
    if shown["funnel"]:
        study["funnel"] = funnel_chart(shown["funnel"])
    ranks = analysis_tables.rank_chart(change) if change else None
    return Charts(
        study=without_mentions(study),
        before_after=without_mentions(analysis_tables.before_after_charts(shown["words"])),
        ranks=without_mentions([ranks] if ranks else []),
        pairs=without_mentions(analysis_tables.pair_charts(change) if change else []),
        senses=without_mentions(
            analysis_tables.sense_charts(change.senses if change else None, change.by if change else "")
        ),
    )


def render(material: Material) -> tuple[str, Charts]:
    """The page as HTML, and its charts.

    Raises:
        UserError: jinja2 or plotly is not installed.
        ValueError, TypeError, LookupError: the material has other fields than the stages leave.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
        from markupsafe import Markup
    except ImportError:
        raise missing_extra("jinja2") from None
    script = plotly_script()
    shown = template_context(material)
    charts = charts_of(material, shown)
    environment = Environment(
        loader=PackageLoader("bert_tweets.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    # plotly writes what stands in a figure as JSON without < and >.
    environment.filters["drawn"] = lambda chart: Markup(draw(chart))  # noqa: S704
    data = map_data(material.maps)
    try:
        page = environment.get_template("page.html").render(
            **without_mentions(shown),
            too_rare=TOO_RARE,
            plotly=Markup(script),  # noqa: S704
            charts=charts,
            maps=without_mentions([word.word for word in material.maps]),
            map_columns=_columns(material.maps),
            map_data=Markup(_as_script(data)),  # noqa: S704
            projection=material.projection,
            with_text=any(word.texts for word in material.maps),
        )
    except UndefinedError as error:
        raise ValueError(str(error)) from None
    return page, charts


def map_data(maps: list[WordMap]) -> list[dict[str, Any]]:
    """The maps as JSON can write them, accounts masked: numbers as base64 of little-endian integers."""
    return [
        {
            "word": without_mentions(word.word),
            "total": word.total,
            "spaces": [
                {
                    "title": without_mentions(space.title),
                    "explained": space.explained,
                    "x": _packed(np.rint(space.points[:, 0] * _REACH), "<i2"),
                    "y": _packed(np.rint(space.points[:, 1] * _REACH), "<i2"),
                }
                for space in word.spaces
            ],
            "columns": {
                without_mentions(name): {"names": without_mentions(column.names), "codes": _packed(column.codes, "<i4")}
                if not column.names
                else {"names": without_mentions(column.names), "codes": _packed(column.codes, "<i1")}
                for name, column in word.columns.items()
            },
            "texts": without_mentions(word.texts),
        }
        for word in maps
    ]


def _packed(values: npt.NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _as_script(record: Any) -> str:
    """JSON that ends no script."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _columns(maps: list[WordMap]) -> list[dict[str, str]]:
    """What the reader may colour points by: names of columns and what they are called."""
    names = list(dict.fromkeys(name for word in maps for name in word.columns))
    return [{"name": without_mentions(name), "title": without_mentions(column_title(name))} for name in names]


def column_title(name: str) -> str:
    """What a column is called: a kept one by its own name."""
    return "usage cluster" if name == SENSE else name.removeprefix("group.")
