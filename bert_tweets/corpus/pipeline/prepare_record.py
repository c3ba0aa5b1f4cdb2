"""The record of a preparation, `prepare.json`: everything that determines the contents of the shards."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from bert_tweets.common.errors import Interrupted, without_secrets
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import Difference, differences
from bert_tweets.config import PrepareConfig, Settings
from bert_tweets.corpus.sources.byte_stream import is_url
from bert_tweets.corpus.sources.discovery import FileIdentity, file_identity
from bert_tweets.corpus.text import cleaning
from bert_tweets.corpus.text.recipe import FORMAT_VERSION

from .preparation import Preparation


class PrepareRecord(TypedDict):
    """Everything that determines the contents of the shards, without secrets.

    Keys:
        settings: settings, without secrets and without those that do not affect the result.
        input: identity of each file, by its name without secrets.
        columns: name of each column that was read, and of `groups`, by role.
        recipe: fingerprint of the cleaning rules, and sha256 of each file of a local tokenizer.
        format: format version of the shards.
        author_salt_scrypt: slow hash of the author salt, to recognise the same one.
        work: version of the unfinished work, in the record of unfinished work only.
    """

    settings: Settings
    input: dict[str, FileIdentity]
    columns: dict[str, Any]
    recipe: dict[str, str]
    format: int
    author_salt_scrypt: NotRequired[str]
    work: NotRequired[int]


def prepare_record(preparation: Preparation) -> PrepareRecord:
    config = preparation.config
    record = PrepareRecord(
        settings=recorded_settings(config),
        input=_identities(preparation.paths),
        columns=asdict(preparation.columns),
        recipe=_recipe_identity(config),
        format=FORMAT_VERSION,
    )
    if config.author_salt:
        record["author_salt_scrypt"] = _salt_hash(config.author_salt)
    return record


def recorded_settings(config: PrepareConfig) -> Settings:
    """Settings that determine the contents of the shards: URLs without secrets, the salt only as given or random."""
    settings = asdict(config)
    settings["input"] = [without_secrets(name) for name in config.input]
    for name in ("output", "num_workers", "executor"):
        del settings[name]
    settings["author_salt"] = "given" if config.author_salt else "random"
    return settings


def require_unchanged(paths: list[str], record: PrepareRecord) -> None:
    """Raise Interrupted if a local file is no longer the one in the record."""
    for path in paths:
        # Mirrors may report different metadata for one URL, so URLs are not checked again.
        if not is_url(path) and (not Path(path).exists() or _identities([path])[path] != record["input"][path]):
            raise Interrupted(f"{path}: changed while it was read; rerun the same command once the file is complete")


def record_differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Differences between the record of existing output and the current one, for people."""
    if there.get("format") != now.get("format"):
        return [Difference("made by a different version of bert_tweets")]
    try:
        before = _comparable(parse_record(there, PrepareRecord, "the record"))
    except ValueError as error:
        return [Difference(f"its record is damaged ({error})")]
    after = _comparable(parse_record(now, PrepareRecord, "the record"))
    found = [
        Difference("author_salt (not the same)") if one.key == "author_salt_scrypt" else one
        for one in differences({**before, "input": {}}, {**after, "input": {}})
    ]
    for name in sorted(before["input"].keys() | after["input"].keys()):
        if before["input"].get(name) != after["input"].get(name):
            found.append(_difference_of_file(name, before["input"].get(name), after["input"].get(name)))
    return found


def _identities(paths: list[str]) -> dict[str, FileIdentity]:
    found: dict[str, FileIdentity] = {}
    for path in paths:
        name = without_secrets(path)
        found[name if name not in found else f"{name} {len(found)}"] = file_identity(path)
    return found


def _salt_hash(salt: str) -> str:
    """Slow, so that the salt cannot be guessed by trying; the same for the same salt."""
    return hashlib.scrypt(salt.encode(), salt=b"bert_tweets author_salt", n=2**14, r=8, p=1, dklen=16).hex()


def _recipe_identity(config: PrepareConfig) -> dict[str, str]:
    """Identity of the recipe as far as it is known without loading a tokenizer."""
    preset = cleaning.resolve(config.clean, None, config.emoji)
    found = {"rules": cleaning.rules_fingerprint(preset)}
    for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json"):
        path = Path(config.tokenizer) / name
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _comparable(record: PrepareRecord) -> PrepareRecord:
    """Normalise a record, so that equal records mean equal shards: absolute paths, and the columns that were found."""

    def absolute(name: str) -> str:
        return name if is_url(name) else str(Path(name).expanduser().absolute())

    settings = {key: value for key, value in record["settings"].items() if not key.endswith(("_column", "_columns"))}
    settings["input"] = [absolute(name) for name in settings["input"]]
    identities = {absolute(name): identity for name, identity in record["input"].items()}
    return {**record, "settings": settings, "input": identities}


def _difference_of_file(name: str, there: FileIdentity | None, now: FileIdentity | None) -> Difference:
    if there is None or now is None:
        return Difference(f"{name} (an input {'now, not then' if there is None else 'then, not now'})")
    sizes = there["bytes"], now["bytes"]
    if sizes[0] != sizes[1] and None not in sizes:
        return Difference(f"{name} ({sizes[0]:,} bytes there, {sizes[1]:,} now)")
    if "mtime_ns" not in there or "mtime_ns" not in now:
        return Difference(f"{name} (changed since)")
    time = f"{there['mtime_ns'] // 10**9}.{there['mtime_ns'] % 10**9:09}"
    touch = f"touch -d @{time} {shlex.quote(name)}"
    return Difference(f"{name} (written or touched since; if its content is the same: {touch})", name, True)
