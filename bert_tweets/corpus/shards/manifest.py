"""The manifest: the contents of a folder of shards, and the names of the files in it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum
from bert_tweets.config import Settings
from bert_tweets.corpus.text.recipe import FORMAT_VERSION, Recipe

MANIFEST_FILE = "manifest.json"
FUNNEL_FILE = "funnel.json"
RECORD_FILE = "prepare.json"
TOKENIZER_FOLDER = "tokenizer"
SPLITS = ("train", "validation")
_SHARD = rf"({'|'.join(SPLITS)})/[\w-]+\.arrow"


def shard_file(split: str, number: int) -> str:
    """Path of a shard below the folder of the shards: `train/00000.arrow`."""
    return f"{split}/{number:05d}.arrow"


def checksum_file(file: str) -> str:
    """Path of the block checksums of a shard: `train/00000.crc32` for `train/00000.arrow`."""
    return str(PurePosixPath(file).with_suffix(".crc32"))


def how_to_recreate(folder: str | Path) -> str:
    """Advice for a damaged folder of shards; prepare does not overwrite one."""
    return f"remove {folder}, then prepare again"


@contextmanager
def read_errors(path: str | Path) -> Iterator[None]:
    """Report a file that cannot be read right now differently from a damaged one, which must be prepared again."""
    try:
        yield
    except OSError as error:
        # Errors raised by Arrow itself have no number.
        if error.errno in (None, errno.ENOENT):
            raise
        named, reason = error.filename or path, os.strerror(error.errno)
        raise UserError(
            f"{named}: cannot be read ({reason}); check its permissions and its disk", found_by_one_rank=True
        ) from None


def tokenizer_files(folder: Path) -> dict[str, str]:
    """sha256 (hex) of each tokenizer file in a folder of shards, by file name."""
    found = sorted(path for path in (folder / TOKENIZER_FOLDER).glob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def damaged_tokenizer_files(folder: Path, manifest: Manifest) -> list[str]:
    """Paths, below the folder of the shards, of tokenizer files that are missing or changed."""
    found = tokenizer_files(folder)
    names = (name for name, digest in manifest.tokenizer_files.items() if found.get(name) != digest)
    return [f"{TOKENIZER_FOLDER}/{name}" for name in names]


def require_tokenizer(folder: Path, manifest: Manifest) -> None:
    """Raise UserError if a file of the shards' tokenizer is missing or changed."""
    for file in damaged_tokenizer_files(folder, manifest):
        raise UserError(f"{folder / file}: is missing or has changed; {how_to_recreate(folder)}")


@dataclass(frozen=True)
class ShardEntry:
    """One shard file.

    Attributes:
        file: path below the folder of the shards, with forward slashes (`train/00000.arrow`).
        rows: number of tweets.
        tokens: number of tokens, including special ones.
        bytes: file size.
        sha256: checksum of the file, hex.

    Raises:
        ValueError: the path is not that of a shard of this folder, or a count is out of range.
    """

    file: str
    rows: int
    tokens: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch(_SHARD, self.file):
            raise ValueError(f"it names {self.file[:80]!r}, which is not a shard of this folder")
        if not all(0 <= count < 2**48 for count in (self.rows, self.tokens, self.bytes)):
            raise ValueError(f"{self.file}: its row, token or byte count is out of range")


@dataclass(frozen=True)
class Manifest:
    """A complete folder of shards.

    Attributes:
        recipe: how text became tokens.
        max_length: maximum length of a tweet in tokens, including special ones.
        vocabulary_size: number of ids of the tokenizer.
        special_ids: ids of all special tokens, including [UNK]: never masked, never a random replacement.
        pad_id, mask_id, unknown_id: ids of these tokens.
        unknown_tokens: number of [UNK] tokens in both splits.
        splits: shards of `train` and of `validation`, in order.
        groups: additional columns that were kept, `group.NAME` in the shards.
        lengths: histogram of tweet lengths of each split; entry n counts the tweets of n tokens.
        settings: settings of prepare, without secrets.
        tokenizer_files: sha256 (hex) of each tokenizer file.
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
    settings: Settings = field(default_factory=dict)
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

    def to_json(self) -> Mapping[str, object]:
        """The record that `manifest.json` holds, with its checksum."""
        derived = {"recipe": self.recipe.to_json(), "fingerprint": self.fingerprint}
        return add_checksum({**asdict(self), "format_version": FORMAT_VERSION, **derived})

    @staticmethod
    def read(folder: str | Path) -> Manifest:
        """Read the manifest of a folder of shards.

        Raises:
            UserError: the folder does not exist, holds no shards, has another format version, or has changed.
        """
        path = Path(folder) / MANIFEST_FILE
        with read_errors(path):
            if not Path(folder).is_dir():
                raise UserError(f"{folder}: no such folder of shards; make one with bert-tweets prepare")
            if not path.is_file():
                raise UserError(
                    f"{folder}: contains no {MANIFEST_FILE}, so it is not a (complete) folder of shards; name one that "
                    f"prepare made, or if this was one, {how_to_recreate(folder)}"
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
        """Raise ValueError if parts of the manifest contradict each other."""
        for split in SPLITS:
            counts = self.lengths[split]
            tokens = sum(length * count for length, count in enumerate(counts))
            if (sum(counts), tokens, len(counts)) != (self.rows(split), self.tokens(split), self.max_length + 1):
                raise ValueError(f"its lengths of {split} do not match its shards")
        if self.fingerprint != fingerprint:
            raise ValueError("its fingerprint does not match its shards")
