"""A file's bytes: unzipped on the way, without a byte order mark; what begins like another kind of file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from ..errors import UserError

CHUNK_BYTES = 4 * 2**20

# How compressed data begins, what Arrow calls it, and the name that says so.
_COMPRESSED = ((b"\x1f\x8b", "gzip", ".gz"), (b"\x28\xb5\x2f\xfd", "zstd", ".zst"), (b"BZh", "bz2", ".bz2"))


def reader(path: Path, chunk_bytes: int) -> Callable[[], bytes]:
    """A function that gives a file's next bytes, unzipped and without a byte order mark."""
    require_file(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        compression = next((name for start, name, _ in _COMPRESSED if magic.startswith(start)), None)
        promised = next((name for _, name, ending in _COMPRESSED if path.suffix == ending), None)
        if promised and promised != compression and magic:
            raise UserError(f"{path}: is not {promised} data, though its name says so; fetch it again")
        stream = pa.input_stream(str(path), compression=compression)
        start: bytes = stream.read(4096)
    except OSError as error:
        raise _unreadable(path, error) from None
    _require_text(path, start)
    waiting = [start.removeprefix(b"\xef\xbb\xbf")]

    def read_chunk() -> bytes:
        if waiting and (first := waiting.pop()):
            return first
        try:
            chunk: bytes = stream.read(chunk_bytes)
        except OSError as error:
            raise _unreadable(path, error) from None
        return chunk

    return read_chunk


def require_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the files in it")
    if not path.exists():
        raise UserError(f"{path}: no such file")


def _require_text(path: Path, start: bytes) -> None:
    """Refuses what begins like a file of another kind."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start.count(0) > len(start) // 4:
        raise UserError(f"{path}: is UTF-16 (or binary), not UTF-8; save the file as UTF-8")
    for magic, kind in ((b"PK\x03\x04", "a zip or Excel file"), (b"PAR1", "a Parquet file")):
        if start.startswith(magic):
            raise UserError(f"{path}: is {kind}, not CSV; save the file as CSV in UTF-8")


def _unreadable(path: Path, error: OSError) -> UserError:
    if isinstance(error, PermissionError):
        return UserError(f"{path}: may not be read; check its permissions")
    return UserError(f"{path}: cannot be read to its end ({' '.join(str(error).split())}); fetch it again")
