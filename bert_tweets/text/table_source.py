"""Parquet and Arrow (Feather) files: the wanted columns alone, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UserError
from .rows import Columns, Rows

_ROWS_AT_ONCE = 65_536


class TableSource:
    """A file that knows its columns.

    Raises:
        UserError: at once when it is neither Parquet nor Arrow; while reading when a column is no text.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file: Any = pq.ParquetFile(path) if path.suffix.lower() == ".parquet" else _ipc(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: is not {path.suffix[1:]} data ({' '.join(str(error).split())[:120]})") from None
        self.schema: pa.Schema = getattr(self._file, "schema_arrow", None) or self._file.schema
        self.names: list[str] = list(self.schema.names)

    def rows(self, columns: Columns, first_number: int) -> Iterator[Rows]:
        wanted = columns.wanted()
        for batch in self._batches(list(dict.fromkeys(wanted.values()))):
            fields = {role: self._as_text(batch.column(name), name) for role, name in wanted.items()}
            numbers = np.arange(first_number, first_number + batch.num_rows, dtype=np.int64)
            first_number += batch.num_rows
            yield Rows(fields["text"], fields.get("id"), fields.get("time"), fields.get("author"), numbers, 0, 0)

    def _batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            if isinstance(self._file, pq.ParquetFile):
                yield from self._file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names)
            else:
                for number in range(self._file.num_record_batches):
                    whole = self._file.get_batch(number).select(names)
                    yield from (whole.slice(row, _ROWS_AT_ONCE) for row in range(0, whole.num_rows, _ROWS_AT_ONCE))
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{self.path}: cannot be read to its end ({' '.join(str(error).split())[:120]})") from None

    def _as_text(self, column: pa.Array, name: str) -> pa.Array:
        try:
            plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            return pc.fill_null(plain.cast(pa.string()), "")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{self.path}: column '{name}' is {column.type}, not text") from None


def _ipc(path: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(path)))
