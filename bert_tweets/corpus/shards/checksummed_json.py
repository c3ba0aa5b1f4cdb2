"""Records: JSON that carries a checksum of itself, and that is read by the types that its fields declare."""

from __future__ import annotations

import hashlib
import json
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from bert_tweets.common.output_folder import from_json


def add_checksum(record: dict[str, Any]) -> dict[str, Any]:
    """A record and its checksum: sha256 of its JSON, the keys sorted."""
    return {**record, "checksum": hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()}


def verify_checksum(data: bytes) -> dict[str, Any]:
    """The record that `add_checksum` was given, out of JSON.

    Raises:
        ValueError: it is not as it was written.
    """
    record = from_json(data)
    if not isinstance(record, dict) or "checksum" not in record:
        raise ValueError("it has no checksum")
    if add_checksum({name: value for name, value in record.items() if name != "checksum"}) != record:
        raise ValueError("its content does not fit its checksum")
    del record["checksum"]
    return record


@cache
def _fields_of(declared: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; nothing for another type."""
    return get_type_hints(declared) if is_dataclass(declared) else {}


def validate(value: Any, declared: Any, where: str) -> None:
    """Compares a value out of JSON with a declared type; a dataclass is an object of its fields.

    Args:
        where: the value stands, for the message.

    Raises:
        ValueError: it is of another type.
    """
    if isinstance(declared, UnionType):
        declared = NoneType if value is None else get_args(declared)[0]
    known, inside = _fields_of(declared), get_args(declared)
    kind = dict if known else get_origin(declared) or declared
    if kind is not Any and type(value) is not kind:
        raise ValueError(f"{where} is no {kind.__name__}")
    if known and value.keys() != known.keys():
        raise ValueError(f"{where} has not the fields {', '.join(known)}")
    if kind is dict:
        for name, part in value.items():
            validate(part, known[name] if known else inside[1], f"{where}.{name}")
    elif kind is list:
        for part in value:
            validate(part, inside[0], f"an entry of {where}")
