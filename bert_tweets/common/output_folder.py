"""Output that is whole or absent: made in a side folder, flushed, then renamed to its place.

A side folder is `.NAME.unfinished` beside the output NAME; a marker file in it says that it is ours to remove. A stage
that can go on where it was stopped leaves its side folder, with a note of what it is made from.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .errors import Interrupted, UserError

logger = logging.getLogger(__name__)

MARKER = ".made-by-bert-tweets"
MADE_FROM = ".made-from.json"
_SHOWN_DIFFERENCES = 6

_WRITE_TROUBLE = {
    errno.ENOSPC: "the disk is full; make room or choose another output",
    errno.EDQUOT: "your quota of the disk is used up; make room or choose another output",
    errno.EFBIG: "a file there may not grow any larger (ulimit -f); lift the limit or choose another output",
    errno.EACCES: "may not be written; check its permissions or choose another output",
    errno.EPERM: "may not be written; check its permissions or choose another output",
    errno.EROFS: "lies on a disk that cannot be written; choose another output",
    errno.ENOTEMPTY: "was filled by something else meanwhile; choose another output",
    errno.EIO: "the disk reports an error; choose another output",
    errno.EBUSY: "is a mount point, or in use; choose a folder inside of it",
    errno.EXDEV: "cannot be put in its place, on another disk; choose another output",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ELOOP: "a link in this path leads to itself; choose another output",
    errno.ENOENT: "a folder of this path cannot be made, or vanished; choose another output",
}


class Difference(NamedTuple):
    """In what an output that is there differs from what would be made now.

    Attributes:
        text: for people.
        key: of the record.
        can_be_put_right: the text says how, so that what is there is the same after all.
    """

    text: str
    key: str = ""
    can_be_put_right: bool = False


Compare = Callable[[dict[str, Any], dict[str, Any]], list[Difference]]


def to_json(record: Any) -> bytes:
    """A record as JSON in UTF-8, keys in their own order."""
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def from_json(data: bytes | str) -> Any:
    """What JSON holds.

    Raises:
        ValueError: it is none, is not UTF-8, or lies deeper inside of each other than any record of ours.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def write_bytes(path: Path, data: Any, mode: int = 0o666) -> None:
    """Writes a file and has the disk keep it.

    Args:
        data: anything with a buffer of bytes.
        mode: who may read a file that is made new, as far as the umask lets them.
    """
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def temporary_sibling(path: Path) -> Path:
    """Beside a path, a name that no other attempt at making it has, at the same time or elsewhere."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def write_json_atomic(path: Path, record: Any) -> None:
    """Replaces a JSON file; a reader sees the old one or the new one, never a part."""
    write_atomic(path, to_json(record))


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replaces a file; a reader sees the old one or the new one, never a part."""
    side = path.with_name(f".{path.name}.unfinished")
    side.unlink(missing_ok=True)
    write_bytes(side, data, mode)
    side.replace(path)
    sync_folder(path.parent)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Marks a folder as ours, and keeps other runs out of it while the block lasts, or this process.

    Raises:
        UserError: another run is writing there.
    """
    lock = _locked(folder / MARKER)
    try:
        yield
    finally:
        os.close(lock)


def sync_folder(folder: Path) -> None:
    """Has the disk keep a folder's list of files, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_up_to_date(
    output: str | Path,
    record_file: str,
    record: dict[str, Any],
    stage: str,
    compare: Compare | None = None,
) -> bool:
    """Whether the output is there already, made by the same stage from the same settings and input.

    Args:
        output: folder.
        record_file: name of the file in it that holds the record of its making.
        record: what the record would be now.
        stage: name of the stage, for messages.
        compare: tells in what the record there and the record now differ; `differences` where it is not given.

    Returns:
        False when the output is absent or an empty folder.

    Raises:
        UserError: it is a file, holds something else, or was made from other settings or input.
    """
    folder = Path(output)
    with output_errors(output):
        if _is_absent(folder):
            return False
        if not folder.is_dir():
            raise UserError(f"{output}: is a file; the output is a folder")
        if not any(folder.iterdir()):
            return False
        path = folder / record_file
        if not path.is_file():
            raise UserError(f"{output}: holds files that {stage} did not make; choose a new or an empty folder")
        try:
            made = from_json(path.read_bytes())
        except ValueError:
            raise UserError(f"{path}: is damaged; choose another output, or remove {output}") from None
    different = (compare or differences)(made, json.loads(to_json(record)))
    if different:
        raise UserError(
            f"{output}: was made with other settings: {_listed(different)}; choose another output, or remove it first"
        )
    return True


def _is_absent(path: Path) -> bool:
    """Whether nothing is there. Path.exists() says so of links that lead to themselves, too."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    return False


def differences(there: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    """The keys in which two records differ, those of records inside of them with a full stop."""
    before, after = dict(_flat(there)), dict(_flat(now))
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [Difference(f"{key} ({_shown(before.get(key))} there, {_shown(after.get(key))} now)", key) for key in keys]


def _listed(different: list[Difference]) -> str:
    more = len(different) - _SHOWN_DIFFERENCES
    named = [one.text for one in different[:_SHOWN_DIFFERENCES]]
    return ", ".join([*named, f"and {more:,} more"] if more > 0 else named)


def unfinished_path(output: str | Path) -> Path:
    """Where the side folder of an output is, once somebody has made it."""
    target = Path(os.path.realpath(output))
    return target.with_name(f".{target.name}.unfinished")


@contextmanager
def atomic_output_folder(
    output: str | Path, made_from: dict[str, Any] | None = None, compare: Compare | None = None
) -> Iterator[Path]:
    """A folder to write in, which becomes the output when the block ends well.

    When the block fails the folder vanishes; but with `made_from` given, it stays unless the failure was a mistake in
    what the stage was given (a `UserError` that is no `Interrupted`), and is handed out again, with what is in it, to
    whoever comes with an equal `made_from`. What a killed run left otherwise is removed first, with a word on what
    differs, unless all of that can be put right; the folder of a run that still goes on is left alone.

    Args:
        output: absent, or an empty folder.
        made_from: all that decides the output's content, as JSON can write it.
        compare: as in `is_up_to_date`.

    Raises:
        UserError: it cannot be written there, somebody else's folder is in the way, another run writes there, or
            what is there can be gone on with when something is put right.
    """
    with output_errors(output):
        side = unfinished_path(output)
        target = Path(os.path.realpath(output))
        if target.is_mount():
            raise OSError(errno.EBUSY, "is a mount point")
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _begin(side, made_from, compare or differences)
    try:
        with output_errors(output, side, stays=made_from is not None):
            yield side
            _finish(side, target)
    except BaseException as error:
        if made_from is None or (isinstance(error, UserError) and not isinstance(error, Interrupted)):
            with suppress(OSError):
                _remove(side)
        raise
    finally:
        os.close(lock)


@contextmanager
def output_errors(output: str | Path, side: Path | None = None, stays: bool = False) -> Iterator[None]:
    """Tells in one line what keeps the output from being looked at or written.

    Args:
        side: the folder in which it is being written; None: nothing is written yet.
        stays: the same command goes on from that folder.
    """
    try:
        yield
    except OSError as error:
        # What is not found while the folder stands is no matter of the output.
        if isinstance(error, FileNotFoundError) and side is not None and side.is_dir():
            raise
        kind = UserError if side is None else Interrupted
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise kind(f"{output}: a part of this path is a file; choose another output") from None
        if error.errno not in _WRITE_TROUBLE:
            raise
        goes_on = f"; the same command then goes on from {side}" if stays and side and side.is_dir() else ""
        raise kind(f"{output}: {_WRITE_TROUBLE[error.errno]}{goes_on}") from None


def _begin(side: Path, made_from: dict[str, Any] | None, compare: Compare) -> int:
    """Makes the side folder, or takes the one that an equal run left; gives the lock on it."""
    note, why = None if made_from is None else to_json(made_from), ""
    if note is not None and (side / MARKER).is_file() and not side.is_symlink():
        lock = _locked(side / MARKER)
        there = _note_in(side)
        different = [] if there is None else compare(there, json.loads(note))
        if there is not None and not different:
            logger.info(f"resuming the unfinished work in {side}")
            return lock
        os.close(lock)
        why = f", made with other settings: {_listed(different)}" if different else ""
        if different and all(one.can_be_put_right for one in different):
            raise UserError(f"{side}: is unfinished work{why}; put that right to go on with it, or remove it")
    _remove_leftover(side, why)
    side.mkdir()
    # The marker comes first: without it the folder is nobody's.
    lock = _locked(side / MARKER)
    try:
        if note is not None:
            write_atomic(side / MADE_FROM, note, mode=0o600)
    except BaseException:
        with suppress(OSError):
            _remove(side)
        os.close(lock)
        raise
    return lock


def _note_in(side: Path) -> dict[str, Any] | None:
    """What a side folder is made from; None where that is not told."""
    try:
        note = from_json((side / MADE_FROM).read_bytes())
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
        # Not every system renames over an empty folder; over one that is not empty none may.
        target.rmdir()
    # What it is made from is not for those who get the output, not even after a kill.
    (side / MADE_FROM).unlink(missing_ok=True)
    side.replace(target)
    # Only now: a side folder without its marker would be nobody's, and never removed.
    (target / MARKER).unlink()
    sync_folder(target.parent)


def _remove_leftover(side: Path, why: str) -> None:
    if not side.exists() and not side.is_symlink():
        return
    marker = side / MARKER
    if side.is_dir() and not side.is_symlink() and not any(side.iterdir()):
        side.rmdir()
        return
    if side.is_symlink() or not marker.is_file():
        raise UserError(f"{side}: is in the way and was not made by this program; move it away")
    # Held until the leftover is gone: whoever holds the lock is still writing.
    handle = _locked(marker)
    try:
        logger.info(f"removing {side}, left by an earlier run that was stopped{why}")
        _remove(side)
    finally:
        os.close(handle)


def _remove(side: Path) -> None:
    """Removes a side folder, its marker last: what is left when that is cut short is still known as ours."""
    for path in side.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    shutil.rmtree(side)


def _locked(marker: Path) -> int:
    """Opens the marker and locks it for as long as this process lives, where the system can."""
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
