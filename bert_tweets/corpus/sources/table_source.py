"""Read Parquet and Arrow (Feather) files: only the wanted columns, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.common.errors import UserError

from .byte_stream import is_url, open_file, readable, require_file, suffixes
from .schema import REFERENCES, Columns, Rows, ids_or_null

BATCH_ROWS = 65_536
_BUFFER_BYTES = 4 * 2**20
# Size of a column in a batch: fifty times the longest tweet, in every row.
_MOST_BYTES = 2**30


class RowRange(NamedTuple):
    """A range of rows of a file.

    Attributes:
        group: number of the row group (Parquet) or record batch (Arrow).
        first: first row of the range, counted within the group.
        rows: number of rows.
    """

    group: int
    first: int
    rows: int


class TableSource:
    """A Parquet or Arrow file; its ending says which.

    Raises:
        UserError: from the constructor, if it is neither.
    """

    layout = None

    def __init__(self, path: str):
        self.path = path
        self.kind = "parquet" if ".parquet" in suffixes(path)[-2:] else "arrow"
        with _opened(path) as source:
            schema = _parquet(path, source).schema_arrow if self.kind == "parquet" else _arrow(path, source).schema
        self.names: list[str] = list(schema.names)
        self.readable = {field.name for field in schema if _is_plain(field.type) or _is_references(field)}

    def _one_column(self) -> list[str] | None:
        """A column by which the rows are counted; None if every name occurs twice."""
        return next(([name] for name in self.names if self.names.count(name) == 1), None)

    def pieces(self, unit_bytes: int | None) -> Iterator[RowRange]:
        """Ranges of at most 65,536 rows, in order, each within one group."""
        del unit_bytes
        with _opened(self.path) as source, readable(self.path):
            if self.kind == "parquet":
                metadata = _parquet(self.path, source).metadata
                sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            else:
                file = _arrow(self.path, source, self._one_column())
                sizes = [file.get_batch(group).num_rows for group in range(file.num_record_batches)]
        for group, rows in enumerate(sizes):
            for first in range(0, rows, BATCH_ROWS):
                yield RowRange(group, first, min(BATCH_ROWS, rows - first))


def read_row_range(path: str, kind: str, batch: RowRange, columns: Columns) -> Rows:
    """Read a range of rows.

    Raises:
        UserError: the file is damaged or has changed, or a column is not text.
    """
    wanted = columns.wanted()
    names = list(dict.fromkeys(wanted.values()))
    with _opened(path) as source, readable(path):
        if kind == "parquet":
            batches = _parquet_batches(_parquet(path, source, names), batch, names)
        else:
            batches = [_arrow(path, source, names).get_batch(batch.group).slice(batch.first, batch.rows)]
        texts = {name: _as_text([found.column(name) for found in batches], name, path) for name in names}
    if len(texts[columns.text]) != batch.rows:
        raise UserError(f"{path}: has changed while it was read; leave it alone until prepare is done")
    fields = {role: texts[name].fill_null("") for role, name in wanted.items()}
    if columns.retweet_of is not None:
        fields["retweet_of"] = ids_or_null(fields["retweet_of"], columns.retweet_of)
    return Rows(fields, np.arange(batch.rows, dtype=np.int64))


def _parquet_batches(file: Any, batch: RowRange, names: list[str]) -> list[pa.RecordBatch]:
    """Read a range of rows; Parquet can be read only from the start of a row group."""
    found, row, end = [], 0, batch.first + batch.rows
    for some in file.iter_batches(BATCH_ROWS, row_groups=[batch.group], columns=names, use_threads=False):
        if row + some.num_rows > batch.first:
            found.append(some.slice(max(0, batch.first - row), end - max(row, batch.first)))
        row += some.num_rows
        if row >= end:
            break
    return found


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    if not is_url(path):
        require_file(path)
    with readable(path):
        source = open_file(path) if is_url(path) else pa.memory_map(path)
    try:
        yield source
    finally:
        source.close()


def _parquet(path: str, source: Any, names: list[str] | None = None) -> Any:
    """Open a Parquet file; dictionary-encoded texts of these columns are not decoded yet."""
    with _format_errors(path, "parquet"):
        file = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES)
        if names is None:
            return file
        texts = [name for name in names if pa.types.is_string(file.schema_arrow.field(name).type)]
        return pq.ParquetFile(source, metadata=file.metadata, buffer_size=_BUFFER_BYTES, read_dictionary=texts)


def _arrow(path: str, source: Any, names: list[str] | None = None) -> Any:
    """Open an Arrow file, restricted to these columns."""
    with _format_errors(path, "arrow"):
        file = pa.ipc.open_file(source)
        if names is None:
            return file
        places = [file.schema.get_field_index(name) for name in names]
        return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=places))


@contextmanager
def _format_errors(path: str, kind: str) -> Iterator[None]:
    """Report a file that is not of the format that its name says."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: is not {kind} data ({' '.join(str(error).split())[:120]})") from None


def _numbers_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats as text, whole numbers without a decimal point: pandas makes floats of integers if one is missing.

    From 2^53 on, floats may not be the original integers, and are left as they are written (1e+18).
    """
    wide = column.cast(pa.float64())
    whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), 2.0**53)).fill_null(False)
    integers = pc.if_else(whole, wide, 0.0).cast(pa.int64()).cast(pa.string())
    texts = pc.if_else(whole, integers, column.cast(pa.string()))
    return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.string()), texts)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column is text, numbers, times or booleans."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return not (pa.types.is_nested(inner) or pa.types.is_null(inner))


def _is_references(field: pa.Field) -> bool:
    """Whether a column has lists of {type, id}, the v2 API's form of the tweets that a tweet refers to."""
    is_list = field.name.lower() == REFERENCES and (pa.types.is_list(field.type) or pa.types.is_large_list(field.type))
    inner = field.type.value_type if is_list else None
    return inner is not None and pa.types.is_struct(inner) and {"type", "id"} <= set(inner.names)


def _references_as_text(column: pa.ListArray) -> pa.Array:
    """The retweet entry of each list of {type, id}, as JSON; empty if there is none."""
    rows = pc.list_parent_indices(column)
    entries = column.values.slice(column.offsets[0].as_py(), len(rows))
    retweets = pc.equal(entries.field("type"), "retweeted").fill_null(False)
    ids = entries.field("id").cast(pa.string()).filter(retweets).fill_null("")
    written = pc.binary_join_element_wise('{"type": "retweeted", "id": "', ids, '"}', "")
    rows, first = np.unique(rows.filter(retweets).to_numpy(), return_index=True)
    is_retweet = np.zeros(len(column), np.bool_)
    is_retweet[rows] = True
    return pc.replace_with_mask(pa.repeat("", len(column)), pa.array(is_retweet), written.take(pa.array(first)))


def _limit_expansion(column: pa.ChunkedArray, name: str, path: str) -> None:
    """Reject a dictionary-encoded column that would fill the memory when decoded."""
    values = column.type.value_type if pa.types.is_dictionary(column.type) else None
    if values is None or not (pa.types.is_string(values) or pa.types.is_large_string(values)):
        return
    parts = (pc.sum(pc.binary_length(part.dictionary).take(part.indices)).as_py() or 0 for part in column.chunks)
    if sum(parts) > _MOST_BYTES:
        raise UserError(f"{path}: column '{name}' decodes to more than 1 GB in {len(column):,} rows; is it tweets?")


def _as_text(parts: list[pa.Array], name: str, path: str) -> pa.Array:
    """Convert a column to text, keeping nulls."""
    column = pa.chunked_array(parts)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    try:
        # The offsets and bytes of a foreign file have not been checked.
        column.validate(full=True)
        _limit_expansion(column, name, path)
        if _is_references(pa.field(name, kind)):
            return pa.concat_arrays([_references_as_text(chunk) for chunk in column.chunks])
        column = column.cast(kind)
        texts = _numbers_as_text(column) if pa.types.is_floating(kind) else column.cast(pa.string())
        return pa.concat_arrays(texts.chunks)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if str(kind).removeprefix("large_").removesuffix("_view") in ("string", "binary"):
            raise UserError(f"{path}: column '{name}' has bytes that are not UTF-8; rewrite it as text") from None
        raise UserError(f"{path}: column '{name}' is {kind}, not text") from None
