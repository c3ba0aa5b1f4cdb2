"""Checkpoints: folders that a run goes on from, of one form for every engine; written whole, and checked before use.

    checkpoints/latest                          the name of the newest
    checkpoints/step-00000500/checkpoint.json   the record, sealed: what it is of, where the run stood, checksums
                             /weights.safetensors, moments.safetensors, best.safetensors, generators.safetensors

Nothing in them is code: tensors are safetensors, all else is JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum
from bert_tweets.common.output_folder import atomic_output_folder, to_json, write_atomic, write_bytes

if TYPE_CHECKING:
    # Torch is slow to import, and who verifies does without.
    from torch import Tensor

FOLDER, RECORD, LATEST = "checkpoints", "checkpoint.json", "latest"
FORMAT_VERSION = 1
_NAME = re.compile(r"step-\d{8,}")
_FILE = re.compile(r"[a-z_]+\.safetensors")
# Its content is no longer needed; removed when nothing goes on in it.
_GOING = ".going-"


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of itself.

    Attributes:
        step: steps that were done.
        made_from: what must be the same for a run to go on from here: settings, recipe, data, first weights.
        sampler: see `data.sampler.SamplerState`.
        progress: where the run's own counters stood.
        numbers: of the engine, see `EngineState`.
        told: for people: engine, ranks, versions, and all settings.
        files: of each file beside the record, its bytes and sha256.
    """

    step: int
    made_from: dict[str, Any]
    sampler: dict[str, Any]
    progress: dict[str, Any]
    numbers: dict[str, Any]
    told: dict[str, Any]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, every byte of it as it was written.

    Attributes:
        folder: where it lies.
        record: what it says of itself.
        tensors: by file (`weights`, `moments`, and `best`, `generators` where there are any) and name, on the CPU.
    """

    folder: Path
    record: Record
    tensors: dict[str, dict[str, Tensor]]


class Damaged(UserError):
    """A checkpoint that is not as it was written; the line says which file."""


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step that the name of a checkpoint's folder tells."""
    return int(folder.name.removeprefix("step-"))


def found_in(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    if not checkpoints.is_dir():
        return []
    named = [path for path in checkpoints.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=step_of, reverse=True)


def named_by(place: Path) -> list[Path]:
    """The checkpoints that a path names: itself, or those of a run or of its `checkpoints`, the newest first."""
    if (place / RECORD).is_file():
        return [place]
    return found_in(place / FOLDER) or found_in(place)


def write_checkpoint(checkpoints: Path, record: Record, tensors: dict[str, dict[str, Tensor]], keep: int) -> Path:
    """Writes a checkpoint and reads it again; only then older ones are removed.

    Args:
        checkpoints: folder of all checkpoints of the run.
        record: without its files.
        tensors: see `Checkpoint`; a file without tensors is not written.
        keep: so many of the newest stay.

    Returns:
        The folder of the checkpoint.

    Raises:
        UserError: it cannot be written.
        Damaged: the disk does not give back what it was given.
    """
    from safetensors.torch import save

    target = checkpoints / name_of(record.step)
    if target.exists():
        # This run came from there, and has not taken a step since; or it is damaged.
        with suppress(Damaged):
            check(target)
            return target
        _drop(target)
    with atomic_output_folder(target) as side:
        files = {}
        for name, content in tensors.items():
            if content:
                data = save(content)
                files[f"{name}.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                write_bytes(side / f"{name}.safetensors", data)
        write_bytes(side / RECORD, to_json(_sealed(record, files)))
    check(target)
    write_atomic(checkpoints / LATEST, f"{target.name}\n".encode())
    for old in found_in(checkpoints)[keep:]:
        _drop(old)
    return target


def check(folder: Path) -> Record:
    """Reads the record and compares every file with it.

    Raises:
        Damaged: names the first file that is not as it was written.
    """
    record = read_record(folder)
    for name, entry in record.files.items():
        _read(folder, name, entry)
    return record


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint; what is handed out is what was compared with the checksums.

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
    """What a checkpoint says of itself.

    Raises:
        Damaged: it is not as it was written.
        UserError: it is whole, and of another format: nobody shall take it for damaged, and remove it.
    """
    path = folder / RECORD
    try:
        found = verify_checksum(path.read_bytes())
        version = found.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: format version {version}, this program reads {FORMAT_VERSION}; go on with the program that "
                "wrote it, or begin anew with resume=never"
            )
        record = parse_record(found, Record, "the record")
        for name, entry in record.files.items():
            if not _FILE.fullmatch(name) or set(entry) != {"bytes", "sha256"}:
                raise ValueError(f"no file of a checkpoint is called {name!r}")
    except FileNotFoundError:
        raise Damaged(f"{path}: is missing") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, KeyError) as error:
        raise Damaged(f"{path}: is damaged ({error})") from None
    return record


def strangers(folder: Path, record: Record) -> Iterator[Path]:
    """What lies in the folder of a checkpoint and is none of its files."""
    known = {RECORD, *record.files}
    return (path for path in sorted(folder.iterdir()) if path.name not in known)


def forget_after(checkpoints: Path, step: int) -> list[str]:
    """Removes what lies behind a step, and what an interrupted removal left.

    Returns:
        The names of the checkpoints that were removed.
    """
    later = [path for path in found_in(checkpoints) if step_of(path) > step]
    for path in later:
        _drop(path)
    if later:
        left = found_in(checkpoints)
        if left:
            write_atomic(checkpoints / LATEST, f"{left[0].name}\n".encode())
        else:
            (checkpoints / LATEST).unlink(missing_ok=True)
    for path in [*checkpoints.glob(f"{_GOING}*"), *checkpoints.glob(".step-*.unfinished")]:
        shutil.rmtree(path)
    return [path.name for path in later]


def _sealed(record: Record, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    whole = {**asdict(record), "files": files, "format_version": FORMAT_VERSION}
    # As JSON gives it back: keys are text, tuples are lists.
    return add_checksum(json.loads(json.dumps(whole)))


def _read(folder: Path, name: str, entry: dict[str, Any]) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise Damaged(f"{path}: is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise Damaged(f"{path}: has {size:,} bytes, {entry['bytes']:,} were written")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Damaged(f"{path}: its bytes are not those that were written")
    return data


def _unreadable(path: Path, error: OSError) -> UserError:
    # Not damaged: what may be whole is neither passed over nor removed.
    return UserError(f"{path}: cannot be read ({error.strerror}); mend that, or name another checkpoint with resume=")


def _drop(folder: Path) -> None:
    """Removes a checkpoint: in one moment it is none any more, whatever happens meanwhile."""
    if not folder.exists():
        return
    going = folder.with_name(f"{_GOING}{folder.name}")
    shutil.rmtree(going, ignore_errors=True)
    folder.replace(going)
    shutil.rmtree(going)
