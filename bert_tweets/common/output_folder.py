"""Outputs that are whole or absent: written to an unfinished folder, flushed to disk, then renamed.

The unfinished folder of the output NAME is `.NAME.unfinished` next to it; a marker file in it shows that we made it. A
stage that can resume leaves its unfinished folder, with a fingerprint of its settings and input.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .errors import Interrupted, UserError

logger = logging.getLogger(__name__)

MARKER = ".made-by-bert-tweets"
FINGERPRINT = ".fingerprint.json"
_SHOWN_DIFFERENCES = 6

_WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full; make room or choose another output",
    errno.EDQUOT: "your disk quota is used up; make room or choose another output",
    errno.EFBIG: "a file there may not grow any larger (ulimit -f); raise the limit or choose another output",
    errno.EACCES: "is not writable; check its permissions or choose another output",
    errno.EPERM: "is not writable; check its permissions or choose another output",
    errno.EROFS: "is on a read-only disk; choose another output",
    errno.ENOTEMPTY: "another program wrote files there; choose another output",
    errno.EIO: "the disk reports an error; choose another output",
    errno.EBUSY: "is a mount point, or in use; choose a folder inside it",
    errno.EXDEV: "is on another disk than the folder above it; choose another output",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ELOOP: "a link in this path leads to itself; choose another output",
    errno.ENOENT: "a folder of this path cannot be created, or has vanished; choose another output",
}


class Difference(NamedTuple):
    """A difference between an existing output and the one that would be made now.

    It is fixable if the text says how to remove it, so that the existing output fits again.
    """

    text: str
    key: str = ""
    is_fixable: bool = False


# All that decides the content of an output, as JSON can write it.
Fingerprint = Mapping[str, object]
Compare = Callable[[Any, Any], list[Difference]]


def to_json(record: Any) -> bytes:
    """A record as indented JSON in UTF-8, with its keys in their own order."""
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def from_json(data: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: `data` is not JSON, is not UTF-8, or is nested deeper than any of our records.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def write_bytes(path: Path, data: Any, mode: int = 0o666) -> None:
    """Write bytes, or an object with a buffer, to a file and flush it to disk; `mode` is that of a new file."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def temporary_sibling(path: Path) -> Path:
    """A random hidden name next to a path, which no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def write_json_atomic(path: Path, record: Any) -> None:
    """Replace a JSON file atomically: a reader sees the old one or the new one."""
    write_atomic(path, to_json(record))


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file atomically: a reader sees the old one or the new one."""
    side = path.with_name(f".{path.name}.unfinished")
    side.unlink(missing_ok=True)
    write_bytes(side, data, mode)
    side.replace(path)
    sync_folder(path.parent)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Mark a folder as ours and lock it during the block, or until this process ends.

    Raises:
        UserError: another run is writing there.
    """
    lock = _locked(folder / MARKER)
    try:
        yield
    finally:
        os.close(lock)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of files to disk, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_up_to_date(
    output: str | Path, record_file: str, record: Fingerprint, stage: str, compare: Compare | None = None
) -> bool:
    """Whether the output exists, made from the same settings and input; False if it is absent or an empty folder.

    Args:
        record_file: name of the file in the output with its fingerprint.
        record: fingerprint of the output that would be made now.
        compare: function that lists the differences of two fingerprints; by default `differences`.

    Raises:
        UserError: the output is a file, holds something else, or was made from other settings or input.
    """
    folder = Path(output)
    with output_errors(output):
        if _is_absent(folder):
            return False
        if not folder.is_dir():
            raise UserError(f"{output}: is a file; name a folder")
        if not any(folder.iterdir()):
            return False
        path = folder / record_file
        if not path.is_file():
            raise UserError(f"{output}: contains files that {stage} did not make; choose a new or an empty folder")
        try:
            made = from_json(path.read_bytes())
        except ValueError:
            raise UserError(f"{path}: is damaged; choose another output, or remove {output}") from None
    different = (compare or differences)(made, json.loads(to_json(record)))
    if different:
        why = f"was made with other settings: {_listed(different)}"
        raise UserError(f"{output}: {why}; choose another output, or remove it first")
    return True


def _is_absent(path: Path) -> bool:
    """Whether nothing exists there; unlike Path.exists(), False for a link that leads to itself."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    return False


def differences(existing: Fingerprint, new: Fingerprint) -> list[Difference]:
    """The keys in which two fingerprints differ; nested keys are joined by a full stop."""
    before, after = dict(_flat(existing)), dict(_flat(new))
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [Difference(f"{key} ({_shown(before.get(key))} there, {_shown(after.get(key))} now)", key) for key in keys]


def _listed(different: list[Difference]) -> str:
    more = len(different) - _SHOWN_DIFFERENCES
    named = [one.text for one in different[:_SHOWN_DIFFERENCES]]
    return ", ".join([*named, f"and {more:,} more"] if more > 0 else named)


def unfinished_path(output: str | Path) -> Path:
    target = Path(os.path.realpath(output))
    return target.with_name(f".{target.name}.unfinished")


@contextmanager
def atomic_output_folder(
    output: str | Path, fingerprint: Fingerprint | None = None, compare: Compare | None = None
) -> Iterator[Path]:
    """Yield an unfinished folder, which becomes the output when the block succeeds.

    If the block fails, the folder is removed. With a fingerprint it is kept instead, unless the failure was a mistake
    in the input (a `UserError` other than `Interrupted`), and the next call with an equal fingerprint gets it back with
    its content. An unfinished folder of other settings is removed, and the log names the differences, unless all of
    them are fixable. The folder of a run that is still active is never touched.

    Args:
        fingerprint: all that decides the output's content; None: the stage cannot resume.
        compare: see `is_up_to_date`.

    Raises:
        UserError: the output is not writable, a folder that we did not make is in the way, another run is writing
            there, or unfinished work can be resumed once something is fixed.
    """
    with output_errors(output):
        side = unfinished_path(output)
        target = Path(os.path.realpath(output))
        if target.is_mount():
            raise OSError(errno.EBUSY, "is a mount point")
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _begin(side, fingerprint, compare or differences)
    try:
        with output_errors(output, side, stays=fingerprint is not None):
            yield side
            _finish(side, target)
    except BaseException as error:
        if fingerprint is None or (isinstance(error, UserError) and not isinstance(error, Interrupted)):
            with suppress(OSError):
                _remove(side)
        raise
    finally:
        os.close(lock)


@contextmanager
def output_errors(output: str | Path, side: Path | None = None, stays: bool = False) -> Iterator[None]:
    """Turn an OSError of reading or writing an output into a one-line error.

    Args:
        side: unfinished folder that is being written; None: nothing is written yet.
        stays: whether the same command resumes from `side`.

    Raises:
        UserError: the output cannot be read or written; `Interrupted` if `side` is given.
    """
    try:
        yield
    except OSError as error:
        # A file that is missing although the unfinished folder exists is not the output's fault.
        if isinstance(error, FileNotFoundError) and side is not None and side.is_dir():
            raise
        kind = UserError if side is None else Interrupted
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise kind(f"{output}: a part of this path is a file; choose another output") from None
        if error.errno not in _WRITE_ERRORS:
            raise
        resume = f"; the same command resumes the work in {side}" if stays and side and side.is_dir() else ""
        raise kind(f"{output}: {_WRITE_ERRORS[error.errno]}{resume}") from None


def _begin(side: Path, fingerprint: Fingerprint | None, compare: Compare) -> int:
    """Create the unfinished folder, or take over the one that an equal run left; return its lock."""
    note, why = None if fingerprint is None else to_json(fingerprint), ""
    if note is not None and (side / MARKER).is_file() and not side.is_symlink():
        lock = _locked(side / MARKER)
        there = _note_in(side)
        different = [] if there is None else compare(there, json.loads(note))
        if there is not None and not different:
            logger.info(f"resuming the unfinished work in {side}")
            return lock
        os.close(lock)
        why = f", made with other settings: {_listed(different)}" if different else ""
        if different and all(one.is_fixable for one in different):
            raise UserError(f"{side}: is unfinished work{why}; fix that to resume it, or remove it")
    _remove_leftover(side, why)
    side.mkdir()
    # The marker comes first: a folder without it does not count as ours.
    lock = _locked(side / MARKER)
    try:
        if note is not None:
            write_atomic(side / FINGERPRINT, note, mode=0o600)
    except BaseException:
        with suppress(OSError):
            _remove(side)
        os.close(lock)
        raise
    return lock


def _note_in(side: Path) -> Fingerprint | None:
    """The fingerprint of an unfinished folder; None if it has none."""
    try:
        note = from_json((side / FINGERPRINT).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _finish(side: Path, target: Path) -> None:
    for path in [*side.rglob("*"), side]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    if target.is_dir():
        # Not every system renames over an empty folder.
        target.rmdir()
    # The fingerprint may hold paths of this machine: it never becomes part of the output.
    (side / FINGERPRINT).unlink(missing_ok=True)
    side.replace(target)
    # Only now: an unfinished folder without its marker would never be removed.
    (target / MARKER).unlink()
    sync_folder(target.parent)


def _remove_leftover(side: Path, why: str) -> None:
    if not side.exists() and not side.is_symlink():
        return
    if side.is_dir() and not side.is_symlink() and not any(side.iterdir()):
        side.rmdir()
        return
    if side.is_symlink() or not (side / MARKER).is_file():
        raise UserError(f"{side}: was not created by bert_tweets; move it away")
    # A run that is still writing holds the lock.
    handle = _locked(side / MARKER)
    try:
        logger.info(f"removing {side}, left by an earlier run that was stopped{why}")
        _remove(side)
    finally:
        os.close(handle)


def _remove(side: Path) -> None:
    """Remove an unfinished folder, its marker last, so that an interrupted removal can be repeated."""
    for path in side.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    shutil.rmtree(side)


def _locked(marker: Path) -> int:
    """Open the marker and lock it until the returned handle is closed, where the system can."""
    handle = os.open(marker, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"{marker.parent}: another run is writing there now; wait for it") from None
    except OSError:
        # Some network file systems have no locks.
        pass
    return handle


def _flat(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(record, dict):
        for key, value in record.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, record


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
