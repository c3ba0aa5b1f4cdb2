"""JSON records: written with a checksum of themselves, and read back as the type that they are declared to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from .output_folder import from_json

Record = TypeVar("Record")


def add_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with `checksum`, the sha256 of its JSON with sorted keys."""
    return {**record, "checksum": hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()}


def verify_checksum(data: bytes) -> dict[str, Any]:
    """The record that `add_checksum` was given, read from JSON.

    Raises:
        ValueError: the record is not as it was written.
    """
    record = from_json(data)
    if not isinstance(record, dict) or "checksum" not in record:
        raise ValueError("it has no checksum")
    if add_checksum({name: value for name, value in record.items() if name != "checksum"}) != record:
        raise ValueError("its content does not match its checksum")
    del record["checksum"]
    return record


def parse_record(value: Any, declared: type[Record], where: str) -> Record:
    """A value from JSON as a declared type.

    Dataclasses and enums are built, TypedDicts stay dicts; `list`, `dict`, `tuple[X, ...]`, `Literal`, `X | None` and
    `Any` work as their names say. An integer is accepted as a float; nothing else is converted.

    Args:
        value: what `json.loads` returned.
        declared: the type, as it stands in an annotation.
        where: name of the value, for the message.

    Raises:
        ValueError: the value, or a part of it, is of another type, or a field is missing or unknown.
    """
    parsed: Record = _parse(value, declared, where)
    return parsed


@cache
def _fields_of(declared: Any) -> dict[str, Any]:
    return get_type_hints(declared, include_extras=True)


def _parse(value: Any, declared: Any, where: str) -> Any:
    kind: Any = get_origin(declared) or declared
    inside: Any = get_args(declared)
    if declared is Any:
        return value
    if kind is NotRequired:
        return _parse(value, inside[0], where)
    if kind is UnionType:
        return None if value is None and NoneType in inside else _parse(value, inside[0], where)
    if kind is Literal:
        if value not in inside:
            raise ValueError(f"{where} is not one of {', '.join(map(str, inside))}")
        return value
    if is_dataclass(kind) or is_typeddict(kind):
        return _parse_fields(value, kind, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"{where} is not one of {', '.join(str(one.value) for one in kind)}") from None
    if kind is float and type(value) is int and value.bit_length() < 1024:
        return float(value)
    expected: Any = list if kind is tuple else kind
    if type(value) is not expected:
        raise ValueError(f"{where} is not of type {kind.__name__}")
    if kind is dict:
        return {name: _parse(part, inside[1], f"{where}.{name}") for name, part in value.items()}
    if kind is list or (kind is tuple and inside[-1] is Ellipsis):
        return kind(_parse(part, inside[0], f"an entry of {where}") for part in value)
    if kind is tuple:
        if len(value) != len(inside):
            raise ValueError(f"{where} does not have {len(inside)} entries")
        return tuple(_parse(part, each, f"an entry of {where}") for part, each in zip(value, inside, strict=True))
    return value


def _parse_fields(value: Any, kind: Any, where: str) -> Any:
    known = _fields_of(kind)
    optional = {name for name, each in known.items() if get_origin(each) is NotRequired}
    if type(value) is not dict:
        raise ValueError(f"{where} is not an object")
    if not known.keys() - optional <= value.keys() <= known.keys():
        raise ValueError(f"{where} does not have exactly the fields {', '.join(known)}")
    parsed = {name: _parse(part, known[name], f"{where}.{name}") for name, part in value.items()}
    return parsed if is_typeddict(kind) else kind(**parsed)
