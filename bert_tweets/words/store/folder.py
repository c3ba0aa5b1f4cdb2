"""The folder that embed writes: its file names, and the record of the settings, tweets and weights it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, TypeVar

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import from_json, write_json_atomic
from bert_tweets.config import Settings

OCCURRENCES, SUMMARY, EMBED_RECORD = "occurrences.parquet", "summary.json", "embed.json"
VECTORS, BASE_VECTORS, STATIC_VECTORS = "vectors.txt", "base_vectors.txt", "static_vectors.txt"

Record = TypeVar("Record")


class EmbedRecord(TypedDict):
    """embed.json: settings without `output`, fingerprint of the tweets, and identity of the weights by model name."""

    settings: Settings
    data: str
    weights: dict[str, str]


def write_embed_record(folder: Path, record: EmbedRecord) -> None:
    write_json_atomic(folder / EMBED_RECORD, record)


def read_embed_record(folder: str | Path) -> EmbedRecord:
    """Read embed.json; raises UserError if it is missing or damaged."""
    return read_file(folder, EMBED_RECORD, EmbedRecord)


def read_file(folder: str | Path, name: str, declared: type[Record]) -> Record:
    """Read a JSON file of the folder as its declared type; raises UserError if it is missing or damaged."""
    path = Path(folder) / name
    try:
        return parse_record(from_json(path.read_bytes()), declared, name)
    except FileNotFoundError:
        raise UserError(f"{folder}: has no {name}; give a folder written by embed") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as written by embed ({error}); embed again") from None
