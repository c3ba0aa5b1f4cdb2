"""Files next to the page: methods, references, a record of the study, figures. Files of others are left alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import from_json, to_json, write_atomic

from .drawing import Picture, draw_map
from .inputs import StudyRecords
from .maps import WordMap
from .mentions import without_mentions
from .methods import METHODS_MARK, methods
from .names import column_title, file_names
from .references import BIB_MARK, bibliography, works_used
from .reproduction import MADE_BY, reproduction

PAGE_MARK = '<meta name="generator" content="bert_tweets">'  # begins a page of ours

METHODS, REFERENCES, REPRODUCE, PICTURES = "methods.md", "references.bib", "reproduce.json", "pictures"
INDEX = "pictures.json"

Files = dict[str, bytes]


class PictureIndex(TypedDict):
    """pictures.json: name, title and text alternative of each figure, and all files of the folder."""

    made_by: str
    pictures: list[dict[str, str]]
    files: list[str]


def texts(study: StudyRecords) -> Files:
    """The three text files, by name."""
    return {
        METHODS: methods(study).encode(),
        REFERENCES: bibliography(works_used(study)).encode(),
        REPRODUCE: to_json(reproduction(study)),
    }


def map_pictures(maps: list[WordMap]) -> Iterator[Picture]:
    """The maps of each word, once for each column that points can be coloured by."""
    for prefix, word in zip(file_names("map", [word.word for word in maps]), maps, strict=True):
        for column in word.columns:
            title = column_title(column)
            (name,) = file_names(f"{prefix}-by", [title])
            shows = f"Occurrences of {word.word}, one map per model, coloured by {title}."
            yield draw_map(word, column, name, *without_mentions([f"{word.word}, by {title}", shows]))


def require_ours(page: Path) -> None:
    """Raise UserError for a file that would be overwritten but was not written by report."""
    if page.is_dir():
        raise UserError(f"{page}: is a folder; name a file with output=report.html")
    marks = {page: PAGE_MARK, page.parent / METHODS: METHODS_MARK, page.parent / REFERENCES: BIB_MARK}
    marks[page.parent / REPRODUCE] = f'"made_by": "{MADE_BY}"'
    for path, mark in marks.items():
        if path.is_file() and mark not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
            raise UserError(f"{path}: was not written by report; name a file in another folder with output=")
    folder = page.parent / PICTURES
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a file in another folder with output=")
    ours = {*_indexed_files(folder), INDEX}
    others = sorted(path.name for path in folder.glob("*") if path.name not in ours and path.suffix != ".unfinished")
    if others:
        raise UserError(f"{folder}: holds other files ({others[0]}); name a file in another folder with output=")


def write_files(page: Path, document: str, companions: Files, pictures: Sequence[Picture]) -> None:
    """Write each file atomically, the page last, and delete the figures of an earlier report that are gone.

    Without pictures, the folder of figures is left as it is.

    Raises:
        UserError: a file cannot be written.
    """
    folder = page.parent / PICTURES
    drawn = {f"{one.name}.{ending}": data for one in pictures for ending, data in one.files.items()}
    entries = [{"name": one.name, "title": one.title, "shows": one.alt} for one in pictures]
    index = PictureIndex(made_by=MADE_BY, pictures=entries, files=sorted(drawn))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        if drawn:
            folder.mkdir(exist_ok=True)
            earlier = _indexed_files(folder)
            # A file is ours from when the index names it, so the index comes first.
            write_atomic(folder / INDEX, to_json({**index, "files": sorted({*earlier, *drawn})}))
            for name, data in drawn.items():
                write_atomic(folder / name, data)
            for name in earlier - drawn.keys():
                (folder / name).unlink(missing_ok=True)
            write_atomic(folder / INDEX, to_json(index))
        for name, data in companions.items():
            write_atomic(page.parent / name, data)
        write_atomic(page, document.encode())
    except OSError as error:
        raise UserError(f"{page}: cannot be written: {error.strerror}") from None


def _indexed_files(folder: Path) -> set[str]:
    """Names of the files that our index of the folder lists."""
    try:
        index = parse_record(from_json((folder / INDEX).read_bytes()), PictureIndex, INDEX)
    except (OSError, ValueError):
        return set()
    # No name may lead out of the folder.
    return {name for name in index["files"] if name == Path(name).name} if index["made_by"] == MADE_BY else set()
