"""Read the bytes of a local file or a URL: decompressed, without a byte order mark.

Files that begin like another format are rejected. URLs are opened by fsspec; the user installs its package for the
protocol (s3fs, gcsfs, aiohttp).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from bert_tweets.common.errors import Interrupted, UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# First bytes of compressed data, Arrow's name for it, and its file name ending.
_COMPRESSED = ((b"\x1f\x8b", "gzip", ".gz"), (b"\x28\xb5\x2f\xfd", "zstd", ".zst"), (b"BZh", "bz2", ".bz2"))
# First bytes of other formats, what they are, and what to do.
_ZIP, _SHEET, _SAVE = b"PK\x03\x04", "a spreadsheet (Excel, LibreOffice)", "save it as CSV in UTF-8"
_SHEET_MARKS = (b"[Content_Types].xml", b"xl/", b"opendocument.spreadsheet")
_OTHER_KINDS = (
    (_ZIP, "a zip archive", "unpack it first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _SHEET, _SAVE),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"PAR1", "a Parquet file", "give it a name that ends in .parquet"),
    (b"ARROW1", "an Arrow file", "give it a name that ends in .arrow"),
)

# Tweets decompress to about ten times their size at most; a file made to fill a disk, to a thousand times and more.
MOST_EXPANSION = 100
_UNCHECKED_BYTES = 2**30  # decompressed size up to which the ratio is not checked


class _CountingReader(io.RawIOBase):
    """A file that counts the bytes that are read."""

    def __init__(self, file: Any):
        self._file, self.count = file, 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self.count += len(data)
        return data

    def readable(self) -> bool:
        return True


class ByteStream:
    """The bytes of one file, from its start; a context manager that closes it.

    Raises:
        UserError: from the constructor, if the file is missing or begins like another format.
    """

    def __init__(self, path: str):
        self.path = path
        self._ahead = io.BytesIO()
        with readable(path):
            with open_file(path, from_start_to_end=True) as file:
                magic = file.read(4)
            compression = next((name for start, name, _ in _COMPRESSED if magic.startswith(start)), None)
            promised = next((name for _, name, ending in _COMPRESSED if suffixes(path)[-1:] == [ending]), None)
            if promised and promised != compression and magic:
                raise UserError(f"{path}: is not {promised} data, although its name says so; download it again")
            self._file = open_file(path, from_start_to_end=True)
            self._packed = _CountingReader(self._file) if compression else None
            self._unpacked = 0
            self._stream = pa.input_stream(self._packed, compression=compression) if self._packed else self._file
        start = self.read(4096)
        _require_text(path, start)
        self.unread(start.removeprefix(_BYTE_ORDER_MARK))

    def read(self, size: int) -> bytes:
        """Read the next `size` bytes, fewer only at the end; UserError if that fails or decompresses to too much."""
        pieces = [self._ahead.read(size)]
        missing = size - len(pieces[0])
        while missing:
            with readable(self.path):
                piece = self._stream.read(missing)
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
            self._limit_expansion(len(piece))
        return b"".join(pieces)

    def _limit_expansion(self, more: int) -> None:
        self._unpacked += more
        most = max(_UNCHECKED_BYTES, MOST_EXPANSION * self._packed.count) if self._packed else self._unpacked
        if self._unpacked > most:
            raise UserError(
                f"{self.path}: decompresses to more than {MOST_EXPANSION} times its size, which tweets never do; "
                "if you trust its content, decompress it yourself and give the resulting file"
            )

    def unread(self, data: bytes) -> None:
        """Put bytes back, to be read next."""
        self._ahead = io.BytesIO(data + self._ahead.read())

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def is_url(path: str) -> bool:
    return _URL.match(path) is not None


def file_name(path: str) -> str:
    """Name of a file without its folder, and without the query of a URL, which may contain keys."""
    name = urlsplit(path).path if re.match(r"https?:", path) else path.partition("::")[0]
    return PurePosixPath(name).name


def suffixes(path: str) -> list[str]:
    """Endings of a file name, in lower case, from left to right."""
    return [ending.lower() for ending in PurePosixPath(file_name(path)).suffixes]


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it; UserError if the protocol's package is not installed."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or getattr(error, "name", None)
        advice = f"pip install {missing}" if missing else " ".join(str(error).split())
        raise UserError(f"{url}: a package for this kind of URL is missing; install it: {advice}") from None
    except Exception as error:  # each protocol has its own error classes
        raise _unreadable(url, error) from None
    return system, str(path)


def open_file(path: str, from_start_to_end: bool = False) -> Any:
    """Open a local file or a URL for reading bytes; to be called inside `readable`."""
    if is_url(path):
        system, inside = filesystem(path)
        # Not every web server supports requests for parts of a file.
        is_streamed = from_start_to_end and path.startswith(("http://", "https://"))
        return system.open(inside, "rb", **({"block_size": 0} if is_streamed else {}))
    require_file(path)
    return Path(path).open("rb", buffering=0)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn errors while a file is listed, opened or read into one line."""
    try:
        yield
    except (UserError, MemoryError):  # Arrow's MemoryError is also an ArrowException
        raise
    except Exception as error:
        # The errors of protocols (botocore, aiohttp) have no common class.
        if not is_url(path) and not isinstance(error, OSError | EOFError | pa.ArrowException):
            raise
        # An error of the network or the system may pass; it is not a mistake in the data.
        passing = is_url(path) or (isinstance(error, OSError) and error.errno is not None)
        raise (Interrupted if passing else UserError)(str(_unreadable(path, error))) from None


def require_file(path: str) -> None:
    """Raise UserError if a local path does not exist, or is a folder, a pipe or a device."""
    try:
        if Path(path).is_dir():
            raise UserError(f"{path}: is a folder; give the files in it")
        if not Path(path).exists():
            raise UserError(f"{path}: no such file")
        if not Path(path).is_file():
            # The input is read several times; a pipe can be read only once.
            raise UserError(f"{path}: is a pipe or a device; save it as a file first")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _require_text(path: str, start: bytes) -> None:
    for magic, kind, advice in _OTHER_KINDS:
        if start.startswith(magic):
            is_sheet = magic == _ZIP and any(mark in start for mark in _SHEET_MARKS)
            raise UserError(f"{path}: is {_SHEET if is_sheet else kind}; {_SAVE if is_sheet else advice}")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start.count(0) > len(start) // 4:
        raise UserError(f"{path}: is UTF-16 (or binary), not UTF-8; save the file as UTF-8")


def _unreadable(path: str, error: BaseException) -> UserError:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError):
        # For web addresses, fsspec raises FileNotFoundError for any failure.
        if cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == 404:
            return UserError(f"{path}: no such file")
        error = cause
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return UserError(f"{path}: permission denied; check its permissions{' and your login' if is_url(path) else ''}")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    advice = "try again" if is_url(path) else "download it again"
    return UserError(f"{path}: cannot be read to its end ({reason}); {advice}")
