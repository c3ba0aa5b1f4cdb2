"""The manifest: what a folder of shards holds, by which it is opened, checked and named."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum
from bert_tweets.corpus.text.recipe import FORMAT_VERSION, Recipe

FILE = "manifest.json"
FUNNEL_FILE = "funnel.json"
RECORD_FILE = "prepare.json"
TOKENIZER_FOLDER = "tokenizer"
SPLITS = ("train", "validation")
_SHARD = rf"({'|'.join(SPLITS)})/[\w-]+\.arrow"


def how_to_recreate(folder: str | Path) -> str:
    """What to do about a folder of shards that is damaged: prepare does not write over what is there."""
    return f"remove {folder}, then prepare again"


@contextmanager
def read_errors(path: str | Path) -> Iterator[None]:
    """Tells what the system refuses today from a file that is damaged, which would have to be made again."""
    try:
        yield
    except OSError as error:
        # Arrow's own complaints have no number.
        if error.errno in (None, errno.ENOENT):
            raise
        named, reason = error.filename or path, os.strerror(error.errno)
        raise UserError(
            f"{named}: cannot be read ({reason}); check its permissions and its disk", found_by_one_rank=True
        ) from None


def tokenizer_files(folder: Path) -> dict[str, str]:
    """Of each file of the tokenizer in a folder of shards, its sha256 as hex."""
    found = sorted(path for path in (folder / TOKENIZER_FOLDER).glob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def damaged_tokenizer_files(folder: Path, manifest: Manifest) -> list[str]:
    """The files of the tokenizer, by their paths below the folder of the shards, that are not as they were written."""
    found = tokenizer_files(folder)
    names = (name for name, digest in manifest.tokenizer_files.items() if found.get(name) != digest)
    return [f"{TOKENIZER_FOLDER}/{name}" for name in names]


def require_tokenizer(folder: Path, manifest: Manifest) -> None:
    """Raises UserError where a file of the shards' tokenizer is not as it was written."""
    for file in damaged_tokenizer_files(folder, manifest):
        raise UserError(f"{folder / file}: is missing, or is not as it was written; {how_to_recreate(folder)}")


@dataclass(frozen=True)
class ShardEntry:
    """One shard file.

    Attributes:
        file: path below the folder of the shards, with forward slashes (`train/00000.arrow`).
        rows: tweets.
        tokens: tokens, special ones included.
        bytes: size of the file.
        sha256: of the file, as hex.

    Raises:
        ValueError: the path is that of no shard, or leads out of the folder; or a count is none.
    """

    file: str
    rows: int
    tokens: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch(_SHARD, self.file):
            raise ValueError(f"it names {self.file[:80]!r}, which is no shard of this folder")
        if not all(0 <= count < 2**48 for count in (self.rows, self.tokens, self.bytes)):
            raise ValueError(f"{self.file}: its counts cannot be")


@dataclass(frozen=True)
class Manifest:
    """A whole folder of shards.

    Attributes:
        recipe: how text became tokens.
        max_length: longest tweet in tokens, special ones included.
        vocabulary_size: ids are below it.
        special_ids: every special token's id, [UNK]'s too: never masked, never a random replacement.
        pad_id, mask_id, unknown_id: of the tokenizer.
        unknown_tokens: [UNK]s among the tokens of both splits.
        splits: shards of `train` and of `validation`, in order.
        groups: further columns that were kept, `group.NAME` in the shards.
        lengths: of each split, how many tweets have how many tokens: entry n counts those of n tokens.
        settings: what prepare was called with, but for secrets.
        tokenizer_files: of each file in the tokenizer's folder, its sha256 as hex.
    """

    recipe: Recipe
    max_length: int
    vocabulary_size: int
    special_ids: list[int]
    pad_id: int
    mask_id: int
    unknown_id: int
    unknown_tokens: int
    splits: dict[str, list[ShardEntry]]
    groups: list[str] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer_files: dict[str, str] = field(default_factory=dict)

    def rows(self, split: str) -> int:
        return sum(shard.rows for shard in self.splits[split])

    def tokens(self, split: str) -> int:
        return sum(shard.tokens for shard in self.splits[split])

    @property
    def fingerprint(self) -> str:
        """sha256 over recipe and shard checksums: the same tweets, tokens and order."""
        parts = [self.recipe.hash] + [s.sha256 for split in SPLITS for s in self.splits[split]]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The manifest as its file has it, sealed."""
        return add_checksum(
            {
                **asdict(self),
                "format_version": FORMAT_VERSION,
                "recipe": self.recipe.to_json(),
                "fingerprint": self.fingerprint,
            }
        )

    @staticmethod
    def read(folder: str | Path) -> Manifest:
        """Opens the manifest of a folder of shards.

        Raises:
            UserError: no such folder, not a folder of shards, of another format version, or changed since.
        """
        path = Path(folder) / FILE
        with read_errors(path):
            if not Path(folder).is_dir():
                raise UserError(f"{folder}: no such folder of shards; make one with bert-tweets prepare")
            if not path.is_file():
                raise UserError(
                    f"{folder}: holds no {FILE}, so it is not a folder of (whole) shards; name one that prepare made, "
                    f"or if this was one, {how_to_recreate(folder)}"
                )
            content = path.read_bytes()
        try:
            record = verify_checksum(content)
            version = record.pop("format_version")
            if version != FORMAT_VERSION:
                raise UserError(
                    f"{path}: format version {version}, this program reads {FORMAT_VERSION}; {how_to_recreate(folder)}"
                )
            fingerprint = record.pop("fingerprint")
            del record["recipe"]["hash"]
            manifest = parse_record(record, Manifest, "the manifest")
            manifest.require_consistent(fingerprint)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); {how_to_recreate(folder)}") from None
        return manifest

    def require_consistent(self, fingerprint: str) -> None:
        """Raises ValueError where one part of the manifest belies another."""
        for split in SPLITS:
            counts = self.lengths[split]
            tokens = sum(length * count for length, count in enumerate(counts))
            if (sum(counts), tokens, len(counts)) != (self.rows(split), self.tokens(split), self.max_length + 1):
                raise ValueError(f"its lengths of {split} are not those of its shards")
        if self.fingerprint != fingerprint:
            raise ValueError("its fingerprint is not that of its shards")
