"""Units of work: pieces of the input that can be read by themselves, twice, in any process, on any machine."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from bert_tweets.common.errors import UserError

from . import csv_source, json_source, table_source
from .csv_source import CsvDialect
from .schema import Columns, Rows
from .table_source import RowRange


@dataclass(frozen=True)
class Unit:
    """A piece of the input, cut between two rows.

    Attributes:
        number: of the unit, from 0 over the whole input.
        file: that it comes from.
        kind: csv, json, parquet or arrow.
        payload: whole records of CSV or lines of JSON, unzipped; of a table, which of its rows.
        layout: of the records of CSV.
    """

    number: int
    file: str
    kind: str
    payload: bytes | RowRange
    layout: CsvDialect | None = None


def read_unit(unit: Unit, columns: Columns) -> Rows:
    """The rows of a unit: the same ones whenever and wherever it is read.

    Raises:
        UserError: it cannot be read as what it should be.
    """
    if isinstance(unit.payload, RowRange):
        return table_source.read_row_range(unit.file, unit.kind, unit.payload, columns)
    if unit.layout is None:
        return json_source.parse_json(unit.payload, columns, unit.file)
    try:
        return csv_source.parse_csv(unit.payload, unit.layout, columns)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{unit.file}: cannot be read as CSV ({reason}); save the file as CSV in UTF-8") from None
