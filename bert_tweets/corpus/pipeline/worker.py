"""The task of a worker: clean, hash and encode one unit of the input, and leave the result in a folder of its own.

A unit can be done again, at the same time or on another machine, with the same result: each attempt works under a
temporary name, and the first complete one takes the place.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common import output_folder
from bert_tweets.common.arrays import Bools
from bert_tweets.common.errors import Interrupted, without_secrets
from bert_tweets.common.json_records import parse_record
from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.dedup import minhash
from bert_tweets.corpus.dedup.key_file import write_keys
from bert_tweets.corpus.shards.funnel import DropReason
from bert_tweets.corpus.shards.reader import Tweets, shard_schema
from bert_tweets.corpus.shards.writer import to_batch, to_ipc
from bert_tweets.corpus.sources import timestamps
from bert_tweets.corpus.sources.discovery import Unit, read_unit
from bert_tweets.corpus.sources.schema import ROUNDED_ID, Columns, Rows
from bert_tweets.corpus.text import cleaning, language
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, Encoded

ROWS, KEYS, FACTS, COPIES, REPORT = "rows.arrow", "keys.npy", "facts.bin", "copies.bin", "report.json"
RETWEET = r"^\s*(?i:RT) +[@＠]\w"

# Everything about a row that decides whether it is kept, except its text.
FACT = np.dtype(
    [
        ("tokens", "<i4"),
        ("unknown", "<i4"),  # number of [UNK] tokens
        ("bytes", "<i4"),  # size of tokens and text columns
        ("day", "<i4"),  # since 1970 in UTC; NO_DAY without a time
        ("author", "<u8"),  # 64 bits of the hash; 0 without an author
        ("truncated", "?"),
        ("time_lost", "?"),  # there is a time, but it cannot be parsed
        ("other_order", "?"),  # and could be parsed with day and month swapped
        ("id_rounded", "?"),  # see `ROUNDED_ID`
    ]
)
# Values that may be shown: they begin with a digit and have no more letters than a month and AM or PM.
_TIME_OR_ID = r"(?!(?:[^A-Za-z]*[A-Za-z]){6})\s*[0-9][0-9A-Za-z:+.,/ -]{0,39}\s*"
NO_DAY = np.iinfo(np.int32).min

DropCounts = Counter[str]
"""Number of dropped rows by `DropReason`."""


@dataclass(frozen=True)
class UnitJob:
    """Everything that the units of a preparation have in common; small, and sent along with each.

    Attributes:
        folder: parent of the units' folders.
        config: settings, without the author salt.
        preset: cleaning preset.
        tokenizer_file: file of the Rust tokenizer.
        author_key: key for hashing authors, at most 64 bytes.
        one_thread: leave the other CPU cores to other workers.
    """

    folder: str
    config: PrepareConfig
    columns: Columns
    preset: str
    tokenizer_file: str
    vocabulary_size: int
    unknown_id: int
    author_key: bytes = field(repr=False)
    one_thread: bool

    def schema(self) -> pa.Schema:
        """Columns of a unit's rows: those of a shard, without the cluster (not known yet), with the row number."""
        columns = shard_schema(self.vocabulary_size, self.columns.groups)
        return columns.remove(columns.get_field_index("cluster")).append(pa.field("number", pa.int64(), nullable=False))


@dataclass(frozen=True)
class UnitReport:
    """Counts of one unit: rows read, rows left, rows dropped by reason.

    Attributes:
        unreadable, several_lines, most_lines, long_records: see `Rows`.
        odd_time: first time that could not be parsed; empty: none, or it does not look like a time at all.
        odd_id: first id that was rounded to a float; empty: none.
    """

    number: int
    read: int
    rows: int
    dropped: dict[str, int]
    file: str = ""
    unreadable: tuple[int, ...] = ()
    several_lines: int = 0
    most_lines: int = 0
    long_records: tuple[tuple[int, int], ...] = ()
    odd_time: str = ""
    odd_id: str = ""


def unit_folder(folder: str | Path, number: int) -> Path:
    return Path(folder) / f"{number:06d}"


def report_of(folder: str | Path, number: int) -> UnitReport | None:
    """Report of a finished unit; None if it is not finished."""
    path = unit_folder(folder, number) / REPORT
    if not path.is_file():
        return None
    return parse_record(output_folder.from_json(path.read_bytes()), UnitReport, "the report")


def do_unit(job: UnitJob, unit: Unit) -> UnitReport:
    """Write the unit's folder: rows, keys, facts, the authors of dropped copies, and last the report.

    Raises:
        UserError: the unit cannot be read.
        Interrupted: the folder of the units does not exist.
    """
    if not Path(job.folder).is_dir():
        # Or this task is left over from a run that has ended.
        raise Interrupted(
            f"{job.folder}: is not found on {platform.node()}; the output must be on a disk that all workers can reach"
        )
    if done := report_of(job.folder, unit.number):
        return done
    if job.one_thread:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    config, dropped = job.config, DropCounts()
    rows = read_unit(unit, job.columns)
    batch = clean_rows(rows, job.columns, config, job.preset, dropped)
    key = cleaning.duplicate_key(batch.column("text"))
    exact = minhash.hash_keys(key)
    copies = np.zeros(len(exact), dtype=np.bool_)
    if config.deduplicate != "none":
        copies[:] = True
        copies[np.unique(exact, return_index=True)[1]] = False
    _, copied_by = _hash_authors(batch.column("author").filter(pa.array(copies)), job.author_key)
    batch = _drop(batch, pa.array(copies), DropReason.DUPLICATE, dropped)
    key, exact = key.filter(pa.array(~copies)), exact[~copies]
    keys = minhash.MinHash(config.near.jaccard, config.near.shingle_words)(key, exact)
    encoded = _encoder(job.tokenizer_file, config.max_length)(batch.column("text"))
    unit_rows, facts = _rows_and_facts(batch, encoded, job)
    report = UnitReport(
        unit.number,
        rows.read,
        batch.num_rows,
        dict(dropped),
        without_secrets(unit.file),
        rows.unreadable,
        rows.several_lines,
        rows.most_lines,
        rows.long_records,
        odd_time=_example(batch.column("time"), facts["time_lost"]),
        odd_id=_example(batch.column("id"), facts["id_rounded"]),
    )
    target = unit_folder(job.folder, unit.number)
    attempt = output_folder.temporary_sibling(target)
    attempt.mkdir()
    output_folder.write_bytes(attempt / ROWS, to_ipc(unit_rows))
    write_keys(attempt / KEYS, keys)
    output_folder.write_bytes(attempt / FACTS, facts)
    output_folder.write_bytes(attempt / COPIES, copied_by)
    output_folder.write_bytes(attempt / REPORT, output_folder.to_json(asdict(report)))
    try:
        attempt.replace(target)
    except OSError:
        # Another attempt was faster; if there is none, the error is the disk's.
        shutil.rmtree(attempt, ignore_errors=True)
        if report_of(job.folder, unit.number) is None:
            raise
    return report


@lru_cache(maxsize=2)
def _encoder(tokenizer_file: str, max_length: int) -> BatchTokenizer:
    return BatchTokenizer.from_file(Path(tokenizer_file), max_length)


def clean_rows(rows: Rows, columns: Columns, config: PrepareConfig, preset: str, dropped: DropCounts) -> pa.RecordBatch:
    """Clean the rows of a unit, apply the filters that look at one row alone, and add to the counts of dropped rows.

    Returns:
        Columns text, id, time, author, language, retweet_of, number, and `group.NAME`; text without nulls.
    """
    dropped[DropReason.MALFORMED_ROW] += rows.malformed
    dropped[DropReason.NOT_UTF8] += rows.not_utf8
    dropped[DropReason.NO_TWEET] += rows.notices
    missing = pa.nulls(len(rows.numbers), pa.string())
    arrays = {role: rows.fields.get(role, missing) for role in ("text", "id", "time", "author", "language")}
    arrays["retweet_of"] = _retweet_of(rows.fields["text"], rows.fields.get("retweet_of", missing))
    arrays["number"] = pa.array(rows.numbers, pa.int64())
    groups = [f"group.{group}" for group in columns.groups]
    arrays |= {name: rows.fields[name] for name in groups}
    for name in ("language", *groups):
        arrays[name] = pc.if_else(_is_blank(arrays[name]), pa.scalar(None, pa.string()), arrays[name])
    batch = pa.RecordBatch.from_pydict(arrays)
    batch = _drop(batch, _is_blank(batch.column("text")), DropReason.EMPTY_TEXT, dropped)
    too_long = pc.greater(pc.utf8_length(batch.column("text")), config.max_characters)
    batch = _drop(batch, too_long, DropReason.TOO_MANY_CHARACTERS, dropped)
    if config.filter.retweets:
        batch = _drop(batch, pc.is_valid(batch.column("retweet_of")), DropReason.RETWEET, dropped)
    batch = _with(batch, "text", cleaning.clean(batch.column("text"), preset))
    batch = _drop(batch, pc.equal(batch.column("text"), ""), DropReason.EMPTY_AFTER_CLEANING, dropped)
    if config.filter.detect_language:
        batch = _with(batch, "language", language.detect(batch.column("text")))
    if config.filter.languages:
        others = pc.invert(language.is_among(batch.column("language"), config.filter.languages))
        batch = _drop(batch, others, DropReason.OTHER_LANGUAGE, dropped)
    return batch


def _retweet_of(texts: pa.Array, known: pa.Array) -> pa.Array:
    """Ids of the original tweets; empty where only the text shows that it is a retweet."""
    # The pattern is slow, and few texts begin like this.
    may_be = pc.equal(pc.utf8_lower(pc.utf8_slice_codeunits(pc.utf8_ltrim_whitespace(texts), 0, 3)), "rt ")
    marked = pc.match_substring_regex(texts.filter(may_be), RETWEET)
    marked = pc.replace_with_mask(may_be, may_be, marked)
    return pc.if_else(pc.and_(pc.is_null(known), marked), "", known)


def _rows_and_facts(batch: pa.RecordBatch, encoded: Encoded, job: UnitJob) -> tuple[pa.RecordBatch, npt.NDArray[Any]]:
    """Rows of the unit with the columns of `job.schema()`, and their facts, FACT [rows]."""
    time_format = job.config.time_format
    parsed = timestamps.parse_times(batch.column("time"), time_format)
    hashes, numbers = _hash_authors(batch.column("author"), job.author_key)
    known = {name: batch.column(name) for name in batch.schema.names}
    rows = to_batch(
        Tweets(encoded.lengths, encoded.input_ids, encoded.word_starts),
        {**known, "time": parsed, "author": hashes, "id": pc.fill_null(known["id"], "")},
        job.schema(),
    )
    tweets = np.repeat(np.arange(batch.num_rows), encoded.lengths)
    facts = np.zeros(batch.num_rows, FACT)
    facts["tokens"] = encoded.lengths
    facts["unknown"] = np.bincount(tweets[encoded.input_ids == job.unknown_id], minlength=batch.num_rows)
    texts = (column for column in rows.columns if pa.types.is_string(column.type))
    facts["bytes"] = 4 * encoded.lengths + sum(pc.fill_null(pc.binary_length(text), 0).to_numpy() for text in texts)
    days = pc.fill_null(parsed.cast(pa.int64()), 0).to_numpy() // 86_400
    facts["day"] = np.where(parsed.is_valid(), days, NO_DAY)
    facts["author"] = numbers
    facts["truncated"] = encoded.truncated
    lost = timestamps.not_parsed(batch.column("time"), parsed)
    facts["time_lost"] = lost
    if (other := timestamps.other_order(time_format)) and lost.true_count:
        facts["other_order"][facts["time_lost"]] = timestamps.parse_times(
            batch.column("time").filter(lost), other
        ).is_valid()
    facts["id_rounded"] = pc.match_substring_regex(batch.column("id"), ROUNDED_ID).fill_null(False)
    return rows, facts


def _example(texts: pa.Array, which: Bools) -> str:
    """The first of these times or ids; empty if it may be something else, which must not be shown."""
    first = next(iter(texts.filter(pa.array(which)).slice(0, 1).to_pylist()), "")
    return first.strip() if re.fullmatch(_TIME_OR_ID, first) else ""


def _hash_authors(authors: pa.Array, key: bytes) -> tuple[pa.Array, npt.NDArray[np.uint64]]:
    """Salted hashes of authors as hex strings, null where the author is empty, and their first 64 bits as numbers.

    Case, surrounding space and a leading `@` make no difference.
    """

    def digest(author: str) -> bytes | None:
        return hashlib.blake2b(author.encode(), key=key, digest_size=16).digest() if author else None

    coded = authors.dictionary_encode()
    plain = pc.utf8_lower(pc.utf8_ltrim(pc.utf8_trim_whitespace(coded.dictionary), "@＠"))
    digests = [digest(author) for author in plain.to_pylist()]
    names = pa.array([found and found.hex() for found in digests], pa.string())
    # Odd, because 0 means that there is no author.
    values = pa.array([int.from_bytes(found[:8], "little") | 1 if found else 0 for found in digests], pa.uint64())
    return names.take(coded.indices), pc.fill_null(values.take(coded.indices), 0).to_numpy()


def _with(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, column)


def _is_blank(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_trim_whitespace(texts), "")


def _drop(batch: pa.RecordBatch, which: pa.Array, reason: DropReason, dropped: DropCounts) -> pa.RecordBatch:
    kept = batch.filter(pc.invert(which))
    dropped[reason] += batch.num_rows - kept.num_rows
    return kept
