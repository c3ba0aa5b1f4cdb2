"""Checkpoints: one format for every engine; written completely or not at all, and checked before use.

    checkpoints/latest                          name of the newest
    checkpoints/step-00000500/checkpoint.json   the record, with a checksum: whose run, where it was, its files
                             /weights.safetensors, moments.safetensors, best.safetensors, generators.safetensors

Nothing in them is code: tensors are safetensors, all else is JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum
from bert_tweets.common.output_folder import atomic_output_folder, to_json, write_atomic, write_bytes
from bert_tweets.config import Settings
from bert_tweets.data.sampler import SamplerState
from bert_tweets.engine.scalars import Scalars

from .fingerprint import RunFingerprint
from .run_folder import CHECKPOINTS

if TYPE_CHECKING:
    # Torch is slow to import, and `verify` does without it.
    from torch import Tensor

RECORD, LATEST = "checkpoint.json", "latest"
FORMAT_VERSION = 2
_NAME = re.compile(r"step-\d{8,}")
_FILE = re.compile(r"[a-z_]+\.safetensors")
# A checkpoint that is being deleted; removed at the next start if the deletion was interrupted.
_DELETING = ".deleting-"


@dataclass(frozen=True)
class BestState:
    """State of `BestModel`, without its weights; `loss` is None if no validation had a finite loss."""

    step: int
    loss: float | None
    start_loss: float | None
    since: int
    warned: bool


@dataclass(frozen=True)
class MeterState:
    """State of `IntervalMeter`: the sums since the last line of metrics; `sums_by_rank` is [loss sum, masked count]."""

    waits: list[float]
    steps: int
    tokens: int
    tweets: int
    positions: int
    seconds: float
    sums_by_rank: list[list[float]]


@dataclass(frozen=True)
class TotalsState:
    """State of `Totals`: real tokens, tweets and seconds of training, over all launches."""

    tokens: int
    tweets: int
    seconds: float


@dataclass(frozen=True)
class GuardState:
    """State of `GradientGuard`: the skipped steps of the last thousand; whether the last gradient was zero."""

    skipped: list[int]
    last_was_zero: bool


@dataclass(frozen=True)
class Progress:
    """State of the run's own counters."""

    best: BestState
    meter: MeterState
    totals: TotalsState
    guard: GuardState


@dataclass(frozen=True)
class Metadata:
    """Facts for people, which resuming does not read: versions by library, all settings by key."""

    engine: str
    ranks: int
    versions: dict[str, str]
    config: Settings


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and sha256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """The contents of `checkpoint.json`.

    Attributes:
        step: steps taken.
        fingerprint: what must be the same for a run to resume from here.
        sampler: position in the stream of tweets.
        files: the other files of the checkpoint, by name.
    """

    step: int
    fingerprint: RunFingerprint
    sampler: SamplerState
    progress: Progress
    scalars: Scalars
    metadata: Metadata
    files: dict[str, FileEntry] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and compared with its checksums.

    Attributes:
        tensors: tensors on the CPU, by file (`weights`, `moments`; `best`, `generators` if there are any) and name.
    """

    folder: Path
    record: Record
    tensors: dict[str, dict[str, Tensor]]


class Damaged(UserError):
    """A checkpoint that is not as it was written; the message names the file."""


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(folder.name.removeprefix("step-"))


def found_in(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    if not checkpoints.is_dir():
        return []
    named = [path for path in checkpoints.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=step_of, reverse=True)


def named_by(place: Path) -> list[Path]:
    """The checkpoints that a path names: itself, or those of a run or of its `checkpoints`, newest first."""
    if (place / RECORD).is_file():
        return [place]
    return found_in(place / CHECKPOINTS) or found_in(place)


def write_checkpoint(checkpoints: Path, record: Record, tensors: dict[str, dict[str, Tensor]], keep: int) -> Path:
    """Write a checkpoint and check it; only then delete the oldest ones.

    Args:
        record: the record, without its files.
        tensors: see `Checkpoint`; a file without tensors is not written.
        keep: number of newest checkpoints to keep.

    Raises:
        UserError: it cannot be written.
        Damaged: the disk does not return what was written.
    """
    from safetensors.torch import save

    target = checkpoints / name_of(record.step)
    if target.exists():
        # Either this run resumed from it and has taken no step since, or it is damaged.
        with suppress(Damaged):
            check(target)
            return target
        _delete(target)
    with atomic_output_folder(target) as side:
        files = {}
        for name, content in tensors.items():
            if content:
                data = save(content)
                files[f"{name}.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                write_bytes(side / f"{name}.safetensors", data)
        whole = {**asdict(record), "files": files, "format_version": FORMAT_VERSION}
        # The checksum is of the record as JSON returns it: tuples become lists.
        write_bytes(side / RECORD, to_json(add_checksum(json.loads(json.dumps(whole)))))
    check(target)
    write_atomic(checkpoints / LATEST, f"{target.name}\n".encode())
    for old in found_in(checkpoints)[keep:]:
        _delete(old)
    return target


def check(folder: Path) -> Record:
    """Read the record and compare every file with it; raises Damaged, see `read_checkpoint`."""
    record = read_record(folder)
    for name, entry in record.files.items():
        _read(folder, name, entry)
    return record


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; the bytes that are returned are those that were compared with the checksums.

    Raises:
        Damaged: names the first file that is not as it was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    record = read_record(folder)
    tensors = {}
    for name, entry in record.files.items():
        try:
            tensors[name.removesuffix(".safetensors")] = load(_read(folder, name, entry))
        except SafetensorError as error:
            raise Damaged(f"{folder / name}: is damaged ({error})") from None
    return Checkpoint(folder, record, tensors)


def read_record(folder: Path) -> Record:
    """Read the record of a checkpoint.

    Raises:
        Damaged: it is not as it was written.
        UserError: it is undamaged but of another format; it must not be taken for damaged, and deleted.
    """
    path = folder / RECORD
    try:
        found = verify_checksum(path.read_bytes())
        version = found.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: format version {version}, this program reads {FORMAT_VERSION}; resume with the version of "
                "bert_tweets that wrote it, or start from scratch with resume=never"
            )
        record = parse_record(found, Record, "the record")
        for name in record.files:
            if not _FILE.fullmatch(name):
                raise ValueError(f"{name!r} is not a file of a checkpoint")
        return record
    except FileNotFoundError:
        raise Damaged(f"{path}: is missing") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, KeyError) as error:
        raise Damaged(f"{path}: is damaged ({error})") from None


def unexpected_files(folder: Path, record: Record) -> list[Path]:
    """Files in the folder of a checkpoint that do not belong to it."""
    known = {RECORD, *record.files}
    return [path for path in sorted(folder.iterdir()) if path.name not in known]


def delete_after(checkpoints: Path, step: int) -> list[str]:
    """Delete checkpoints of later steps and what interrupted writes and deletions left; returns the former's names."""
    later = [path for path in found_in(checkpoints) if step_of(path) > step]
    for path in later:
        _delete(path)
    if later:
        if left := found_in(checkpoints):
            write_atomic(checkpoints / LATEST, f"{left[0].name}\n".encode())
        else:
            (checkpoints / LATEST).unlink(missing_ok=True)
    for path in [*checkpoints.glob(f"{_DELETING}*"), *checkpoints.glob(".step-*.unfinished")]:
        shutil.rmtree(path)
    return [path.name for path in later]


def _read(folder: Path, name: str, entry: FileEntry) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise Damaged(f"{path}: is missing")
    size = path.stat().st_size
    if size != entry.bytes:
        raise Damaged(f"{path}: has {size:,} bytes, {entry.bytes:,} were written")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise Damaged(f"{path}: its checksum does not match; it has changed since it was written")
    return data


def _unreadable(path: Path, error: OSError) -> UserError:
    # Not `Damaged`: it may be undamaged, so it is neither skipped nor deleted.
    return UserError(f"{path}: cannot be read ({error.strerror}); fix that, or name another checkpoint with resume=")


def _delete(folder: Path) -> None:
    """Delete a checkpoint atomically: rename it, then remove it."""
    renamed = folder.with_name(f"{_DELETING}{folder.name}")
    shutil.rmtree(renamed, ignore_errors=True)
    folder.replace(renamed)
    shutil.rmtree(renamed)
