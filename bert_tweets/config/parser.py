"""Parser for settings from YAML files and `key=value` arguments, by declared type; all errors are reported at once.

Text is taken literally, in YAML too: in a list of words, `no`, `007` and `null` are words, not a bool, a number and
None. Later layers override earlier ones: defaults, then each `--config` in order, then `key=value`. OmegaConf builds
the typed dataclass from the result. `${...}` is never resolved, because a setting may be text from an untrusted source.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.common.terminal import console

from .fields import Settings
from .mapping_syntax import parse_list, parse_mapping, quoted, unquoted

logger = logging.getLogger(__name__)

Config = TypeVar("Config")

_LAUNCHER_WORD = re.compile(r"--local[_-]rank(=.*)?$")


@dataclasses.dataclass(frozen=True)
class Field:
    """A setting: its dotted key, type, default and metadata (see `fields.setting`)."""

    key: str
    kind: Any
    optional: bool
    default: Any
    metadata: typing.Mapping[str, Any]


def fields_of(config_type: type, prefix: str = "") -> Iterator[Field]:
    """Yield all settings of a configuration in declared order, with dotted keys for the members of groups."""
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        kind, optional = hints[field.name], False
        if dataclasses.is_dataclass(kind):
            yield from fields_of(typing.cast(type, kind), f"{prefix}{field.name}.")
            continue
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
            optional = True
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        yield Field(prefix + field.name, kind, optional, made, field.metadata)


def load(config_type: type[Config], argv: list[str]) -> Config:
    """Parse and validate the settings of a stage.

    Args:
        config_type: dataclass of the stage, from `config`.
        argv: command-line arguments: `--config FILE` (may be repeated), `key=value`, `--help`.

    Raises:
        UserError: a key is unknown, malformed, out of bounds or missing; the message names every such key.
        SystemExit: help was printed; the code is 0.
    """
    files, words, wrong = _split_arguments(argv)
    if words is None:
        print_help(config_type)
        raise SystemExit(0)
    for key in _repeated_lists(argv, config_type):
        logger.warning(f"{key} is given more than once; only the last value is used. To use all, write {key}=a,b")
    known = {field.key: field for field in fields_of(config_type)}
    mappings = {key for key, field in known.items() if typing.get_origin(field.kind) is dict}
    layers: list[tuple[str, dict[str, Any]]] = [(path, _read_yaml(path, mappings)) for path in files]
    layers.append(("", words))
    values: dict[str, Any] = {}
    for source, layer in layers:
        for key, raw in layer.items():
            where = f"{key} (in {source})" if source else key
            if key not in known:
                wrong.append(_unknown(where, key, known))
                continue
            try:
                values[key] = _parse(known[key], raw)
            except ValueError as problem:
                wrong.append(f"{where}={shown_value(raw)}: {problem}")
    wrong += _missing(config_type, known, values, wrong)
    config = _build(config_type, values)
    if not wrong and hasattr(config, "problems"):
        wrong += config.problems()
    if wrong:
        raise UserError("\n       ".join(wrong))
    return config


def path_first(argv: list[str], key: str = "path") -> list[str]:
    """Expand a leading positional argument to `key=value`: `verify shards/` means `verify path=shards/`."""
    if argv and "=" not in argv[0] and not argv[0].startswith("-"):
        return [f"{key}={argv[0]}", *argv[1:]]
    return argv


def dump(config: Any) -> str:
    """Return the settings as YAML that `--config` can read."""
    import yaml

    return str(yaml.safe_dump(dataclasses.asdict(config), allow_unicode=True, sort_keys=False))


def overrides(config: Any) -> list[str]:
    """Return the `key=value` arguments for all settings that differ from their defaults."""
    values = flatten(config)
    made = [(field.key, values[field.key]) for field in fields_of(type(config)) if values[field.key] != field.default]
    return [f"{key}={shown_value(value)}" for key, value in made]


def flatten(config: Any) -> Settings:
    """Return a dict from dotted keys to values."""
    return {field.key: attrgetter(field.key)(config) for field in fields_of(type(config))}


def print_help(config_type: type) -> None:
    """Print the usage of a stage and a table of its settings: key, default, unit and meaning."""
    from rich.markup import escape
    from rich.table import Table

    stage = (config_type.__doc__ or "").strip()
    out = console(width=140)
    out.print(f"{stage}\n\nusage: bert-tweets {stage.split(':')[0]} [--config FILE]... [key=value]...\n", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=24)
    table.add_column("unit")
    table.add_column("meaning")
    for field in fields_of(config_type):
        notes = [field.metadata["meaning"]]
        if field.metadata["choices"]:
            notes.append("choices: " + ", ".join(field.metadata["choices"]))
        default = "(required)" if field.metadata["required"] else shown_value(field.default)
        table.add_row(field.key, escape(default), field.metadata["unit"], escape("; ".join(notes)))
    out.print(table)


def _split_arguments(argv: list[str]) -> tuple[list[str], dict[str, Any] | None, list[str]]:
    """Return YAML files, `key=value` pairs (None if help was requested), and an error for each other argument."""
    files: list[str] = []
    words: dict[str, Any] = {}
    wrong: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in ("-h", "--help"):
            return files, None, []
        if word == "--config":
            files.append(next(rest, ""))
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
        elif _LAUNCHER_WORD.match(word):
            if "=" not in word:
                next(rest, None)
        elif "=" in word and not word.startswith("-"):
            key, _, value = word.partition("=")
            words[key.strip()] = value
        else:
            advice = "write settings as key=value and configuration files as --config FILE"
            wrong.append(f"'{word}': not understood; {advice}")
    return files, words, wrong


def _repeated_lists(argv: list[str], config_type: type) -> list[str]:
    """Return required lists, such as input, that are given more than once: the last one overrides the others."""
    needed = (field for field in fields_of(config_type) if field.metadata["required"])
    lists = {field.key for field in needed if typing.get_origin(field.kind) is list}
    given = Counter(word.partition("=")[0].strip() for word in argv if "=" in word)
    return [key for key, count in given.items() if count > 1 and key in lists]


def _read_yaml(path: str, mappings: set[str]) -> dict[str, Any]:
    """Read a YAML file as a flat dict of dotted keys, keeping settings that are mappings whole and scalars as text."""
    import yaml

    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file")
    try:
        text = Path(path).read_text(encoding="utf-8")
        # With nested aliases, a file of ten lines can expand to billions of values.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.BaseLoader)):
            raise UserError(f"--config {path}: aliases (*name) are not supported; write the value out in each place")
        # BaseLoader ignores tags: it creates only strings, lists and mappings.
        tree = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--config {path}: not YAML, or not in UTF-8: {' '.join(str(error).split())}") from None
    if tree in (None, ""):
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"--config {path}: contains no keys; write settings as key: value")
    return dict(_flatten(tree, "", mappings))


def _flatten(tree: dict[str, Any], prefix: str, mappings: set[str]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in mappings:
            yield from _flatten(value, f"{prefix}{key}.", mappings)
        else:
            yield f"{prefix}{key}", value


def _unknown(where: str, key: str, known: dict[str, Field]) -> str:
    inside = [other for other in known if other.startswith(key + ".")]
    if inside:
        return f"{where}: is a group; its keys are {', '.join(inside)}"
    hint = did_you_mean(key, known) or did_you_mean(key, [other.rpartition(".")[2] for other in known])
    return f"{where}: no such key{hint}; --help lists all keys"


def _missing(config_type: type, known: dict[str, Field], values: dict[str, Any], wrong: list[str]) -> list[str]:
    """Return an error for each required setting that is not given and has no alternative (`instead_of`) given."""
    lines = []
    for key, field in known.items():
        others = getattr(config_type, "instead_of", {}).get(key, ())
        given = any(values.get(name, known[name].default) or _named(name, wrong) for name in (key, *others))
        if field.metadata["required"] and not given:
            lines.append(", or ".join([f"{key}: is required ({field.metadata['meaning']})", *others]))
    return lines


def _named(key: str, wrong: list[str]) -> bool:
    return any(line.startswith((f"{key}=", f"{key} (in")) for line in wrong)


def _parse(field: Field, raw: Any) -> Any:
    """Parse the value of a setting from text, or from a YAML list or mapping. Raises ValueError if it is invalid."""
    if typing.get_origin(field.kind) is list:
        (item,) = typing.get_args(field.kind)
        values = [_parse_scalar(item, one) for one in _items(raw)]
        return [_checked(field, value) for value in values]
    if typing.get_origin(field.kind) is dict:
        return _parse_mapping(typing.get_args(field.kind)[1], raw)
    if isinstance(raw, list):
        raise ValueError("is a list; expected a single value")
    if field.optional and raw.strip().lower() in ("null", "none", ""):
        return None
    if field.kind is str and raw.startswith("~/"):
        # Shells do not expand the tilde in `key=~/folder`.
        raw = str(Path(raw).expanduser())
    return _checked(field, _parse_scalar(field.kind, raw))


def _parse_mapping(kind: Any, raw: Any) -> dict[str, Any]:
    """Parse `{name: value}` or a YAML mapping to a dict from names to strings or lists of strings."""
    if isinstance(raw, str):
        entries: dict[str, Any] = parse_mapping(raw) if raw.strip() else {}
    elif isinstance(raw, dict):
        entries = raw
    else:
        raise ValueError("is a list; expected a mapping, such as {name: value}")
    if typing.get_origin(kind) is not list:
        odd = [name for name, value in entries.items() if not isinstance(value, str)]
        if odd:
            raise ValueError(f"{odd[0]!r} has several values; expected a single one")
        return {name: unquoted(value) if isinstance(raw, str) else value for name, value in entries.items()}
    lists = {name: parse_list(value) if isinstance(value, str) else value for name, value in entries.items()}
    odd = [name for name, items in lists.items() if not (items and all(isinstance(item, str) for item in items))]
    if odd:
        raise ValueError(f"{odd[0]!r} needs a list of values; write {{{odd[0]}: [one, two]}}")
    return lists


def _items(raw: Any) -> list[str]:
    if isinstance(raw, list):
        if not all(isinstance(item, str) for item in raw):
            raise ValueError("is a nested list; expected a list of values")
        return raw
    text = raw.strip()
    if text.startswith('["'):
        return _json_items(text)
    if text.startswith("[") != text.endswith("]"):
        raise ValueError('contains an unmatched bracket; write [a, b], or ["a[", "b"] for values with brackets')
    if text.startswith("["):
        text = text[1:-1]
    return [_without_quotes(item.strip()) for item in text.split(",") if item.strip()]


def _without_quotes(item: str) -> str:
    """Remove double quotes around a phrase, which users write as for a shell."""
    return item[1:-1] if len(item) > 2 and item[0] == item[-1] == '"' else item


def _json_items(text: str) -> list[str]:
    """Parse a JSON list, the syntax for values that contain a comma."""
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError('is not a valid JSON list of strings; write ["a, b", "c"], or [a, b, c]')
    return items


def _parse_scalar(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    text = text.strip()
    if kind is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError("must be true or false")
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        raise ValueError("is not a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("is not a finite number")
    if kind is float:
        return number
    if number != int(number):
        raise ValueError("is not a whole number")
    # Convert from the text if possible: a float is exact only up to 53 bits, and a seed may have 63.
    return int(text.replace("_", "")) if re.fullmatch(r"[+-]?[\d_]+", text) else int(number)


def _checked(field: Field, value: Any) -> Any:
    choices, lowest, above, highest = (field.metadata[name] for name in ("choices", "at_least", "above", "at_most"))
    if choices and value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
    if lowest is not None and value < lowest:
        raise ValueError(f"must be at least {lowest:g}")
    if above is not None and value <= above:
        raise ValueError(f"must be greater than {above:g}")
    if highest is not None and value > highest:
        raise ValueError(f"must be at most {highest:g}")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise ValueError("must be between -(2^63 - 1) and 2^63 - 1")
    return value


def _build(config_type: type[Config], values: dict[str, Any]) -> Config:
    from omegaconf import OmegaConf

    merged = OmegaConf.structured(config_type)
    for key, value in values.items():
        OmegaConf.update(merged, key, _literal(value))
    return typing.cast(Config, OmegaConf.to_object(merged))


def _literal(value: Any) -> Any:
    """Escape OmegaConf interpolations in text, so that the text is kept literally."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
    if isinstance(value, dict):
        return {name: _literal(item) for name, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, list) else value


def shown_value(value: Any) -> str:
    """Format a value for use after `key=`; lists without brackets, which some shells treat as glob patterns."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list):
        plain = [shown_value(item) for item in value]
        if any(item != item.strip() or set(item) & set(',[]"') or not item for item in plain):
            return json.dumps(value, ensure_ascii=False)
        return ",".join(plain) if plain else "[]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)}: {_shown_part(item)}" for name, item in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _shown_part(value: str | list[str]) -> str:
    return quoted(value) if isinstance(value, str) else f"[{', '.join(map(quoted, value))}]"
