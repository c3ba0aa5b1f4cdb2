"""Beside the page: methods, references, the study's record, pictures; only files of ours are written over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError, without_secrets
from bert_tweets.common.output_folder import from_json, to_json, write_atomic

from .charts import file_names, without_mentions
from .html import Charts, column_title
from .inputs import Material
from .maps import WordMap
from .matplotlib_charts import print_chart, print_map
from .methods import MADE_BY, METHODS_MARK, methods, reproduction
from .references import BIB_MARK, bibliography, used

# What a page of ours begins with.
PAGE_MARK = '<meta name="generator" content="bert_tweets">'

METHODS, REFERENCES, REPRODUCE, PICTURES, INDEX = (
    "methods.md",
    "references.bib",
    "reproduce.json",
    "pictures",
    "pictures.json",
)

Files = dict[str, bytes]


def texts(material: Material) -> Files:
    """The three texts, by name."""
    return {
        METHODS: methods(material).encode(),
        REFERENCES: bibliography(used(material)).encode(),
        REPRODUCE: to_json(_without_secrets(reproduction(material))),
    }


def pictures(material: Material, charts: Charts) -> Files:
    """Each picture as PNG and SVG, and an index of what each shows; by name.

    Raises:
        UserError: matplotlib is not installed.
    """
    drawn: Files = {}
    index: list[dict[str, str]] = []
    for chart in charts.all:
        index.append({"name": chart.name, "title": chart.title, "shows": chart.alt})
        drawn |= {f"{chart.name}.{ending}": data for ending, data in print_chart(chart).items()}
    for name, word, column in _map_pictures(material.maps):
        title = without_mentions(f"{word.word}, by {column_title(column)}")
        shows = f"Occurrences of {without_mentions(word.word)}, a map a model, coloured by {column_title(column)}."
        index.append({"name": name, "title": title, "shows": shows})
        drawn |= {f"{name}.{ending}": data for ending, data in print_map(word, column, title).items()}
    return {**drawn, INDEX: to_json({"made_by": MADE_BY, "pictures": index})}


def _map_pictures(maps: list[WordMap]) -> Iterator[tuple[str, WordMap, str]]:
    for name, word in zip(file_names("map", [word.word for word in maps]), maps, strict=True):
        for column in word.columns:
            (suffix,) = file_names("by", [column_title(column)])
            yield f"{name}-{suffix}", word, column


def require_ours(page: Path) -> None:
    """Refuses to write over what others made.

    Raises:
        UserError: names the file.
    """
    if page.is_dir():
        raise UserError(f"{page}: is a folder; name a file with output=report.html")
    marks = {page: PAGE_MARK, page.parent / METHODS: METHODS_MARK, page.parent / REFERENCES: BIB_MARK}
    marks[page.parent / REPRODUCE] = f'"made_by": "{MADE_BY}"'
    for path, mark in marks.items():
        if path.is_file() and mark not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
            raise UserError(f"{path}: is no report of ours; name a file in another folder with output=")
    folder = page.parent / PICTURES
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a file in another folder with output=")
    ours = _listed(folder)
    strangers = sorted(path.name for path in folder.glob("*") if path.name not in ours and path.name != INDEX)
    strangers = [name for name in strangers if not name.endswith(".unfinished")]
    if strangers:
        raise UserError(f"{folder}: holds other files ({strangers[0]}); name a file in another folder with output=")


def write_companions(page: Path, document: str, beside: Files, drawn: Files) -> None:
    """Writes each file whole or not at all, the page last; pictures of an earlier report that are no more go.

    Args:
        page: the page's path.
        document: the page.
        beside: the texts, by name.
        drawn: the pictures and their index, by name.
    """
    folder = page.parent / PICTURES
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        before = _listed(folder)
        if drawn:
            folder.mkdir(exist_ok=True)
            # The index is the claim on a name, and comes before the file.
            names = sorted({*before, *drawn} - {INDEX})
            write_atomic(folder / INDEX, to_json({"made_by": MADE_BY, "files": names}))
        for name in sorted(drawn.keys() - {INDEX}):
            write_atomic(folder / name, drawn[name])
        if drawn:
            write_atomic(folder / INDEX, drawn[INDEX])
            for name in before - drawn.keys():
                (folder / name).unlink(missing_ok=True)
        for name, data in beside.items():
            write_atomic(page.parent / name, data)
        write_atomic(page, document.encode())
    except OSError as error:
        raise UserError(f"{page}: cannot be written: {error.strerror}") from None


def _listed(folder: Path) -> set[str]:
    """Files of pictures that an index of ours names."""
    try:
        index = from_json((folder / INDEX).read_bytes())
        if index.get("made_by") != MADE_BY:
            return set()
        named = {f"{one['name']}.{ending}" for one in index.get("pictures", []) for ending in ("png", "svg")}
        # No name leads out of the folder.
        return {name for name in {*named, *index.get("files", [])} if name == Path(name).name}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return set()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value
