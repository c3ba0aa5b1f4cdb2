"""A unit of work: some rows of the input, cleaned, told apart, encoded, and left in a folder of their own.

Doing a unit again, at the same time or on another machine, ends in the same folder: each attempt works under a
name of its own, and the first that is whole takes the place.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common import output_folder
from bert_tweets.common.errors import Interrupted, without_secrets
from bert_tweets.config import FilterConfig, NearConfig
from bert_tweets.corpus.dedup import minhash
from bert_tweets.corpus.dedup.key_file import write_keys
from bert_tweets.corpus.shards.reader import Tweets, shard_schema
from bert_tweets.corpus.shards.writer import to_batch, to_ipc
from bert_tweets.corpus.sources import timestamps, work_unit
from bert_tweets.corpus.sources.schema import ROUNDED_ID, Columns, Rows
from bert_tweets.corpus.sources.work_unit import Unit
from bert_tweets.corpus.text import cleaning, language
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, Encoded

from .unit_report import Report

ROWS, KEYS, FACTS, COPIES, REPORT = "rows.arrow", "keys.npy", "facts.bin", "copies.bin", "report.json"
RETWEET = r"^\s*(?i:RT) +[@＠]\w"

# What deciding over a row takes, without its text.
FACT = np.dtype(
    [
        ("tokens", "<i4"),
        ("unknown", "<i4"),  # [UNK]s among them
        ("bytes", "<i4"),  # of tokens and all columns of text
        ("day", "<i4"),  # since 1970 in UTC; NO_DAY without a time
        ("author", "<u8"),  # a part of the hash; 0 without an author
        ("truncated", "?"),
        ("time_lost", "?"),  # there was a time, and it was not understood
        ("other_order", "?"),  # and it would be with the other order of days and months
        ("id_rounded", "?"),  # see `rows.ROUNDED_ID`
    ]
)
# What may be shown: what begins with a digit, and has no more letters than a month and a half of the day.
_TIME_OR_ID = r"(?!(?:[^A-Za-z]*[A-Za-z]){6})\s*[0-9][0-9A-Za-z:+.,/ -]{0,39}\s*"
NO_DAY = np.iinfo(np.int32).min


@dataclass(frozen=True)
class Job:
    """What every unit of a preparation has in common; small, and sent along with each.

    Attributes:
        folder: takes a folder for each unit.
        columns: to read.
        preset: of cleaning.
        tokenizer: the file of the Rust tokenizer.
        vocabulary_size, unknown_id: of the tokenizer.
        max_length: longest tweet in tokens.
        max_characters: of a longest text.
        drop_copies: leave out copies of an earlier row of the same unit before they are encoded.
        near, filter: see `config`.
        one_thread: leave the other cores to other workers.
        author_key: what authors are hashed with, 64 bytes at most.
        time_format: of days and months that are numbers, see `times.parse`.
    """

    folder: str
    columns: Columns
    preset: str
    tokenizer: str
    vocabulary_size: int
    unknown_id: int
    max_length: int
    max_characters: int
    drop_copies: bool
    near: NearConfig
    filter: FilterConfig
    author_key: bytes = field(repr=False)
    one_thread: bool = True
    time_format: str = "auto"

    def place(self, number: int) -> Path:
        """The folder of a unit."""
        return Path(self.folder) / f"{number:06d}"

    def schema(self) -> pa.Schema:
        """The rows of a unit: those of a shard, but for the cluster, which no unit can know, and with their number."""
        columns = shard_schema(self.vocabulary_size, self.columns.groups)
        return columns.remove(columns.get_field_index("cluster")).append(pa.field("number", pa.int64(), nullable=False))


def report_of(job: Job, number: int) -> Report | None:
    """The report of a unit that is done, else None."""
    path = job.place(number) / REPORT
    return Report(**json.loads(path.read_bytes())) if path.is_file() else None


def do_unit(job: Job, unit: Unit) -> Report:
    """Leaves the unit's folder: rows, keys, facts, the authors of copies left out, and last the report.

    Raises:
        UserError: the unit cannot be read.
        Interrupted: the folder is not there.
    """
    if not Path(job.folder).is_dir():
        # Or of a run that is over, of which this task alone is left.
        raise Interrupted(
            f"{job.folder}: is not found on {platform.node()}; the output must lie where each worker sees it"
        )
    done = report_of(job, unit.number)
    if done:
        return done
    if job.one_thread:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    dropped: dict[str, int] = {}
    rows = work_unit.read_unit(unit, job.columns)
    batch = cleaned(rows, job, dropped)
    key = cleaning.duplicate_key(batch.column("text"))
    exact = minhash.hash_keys(key)
    copies = np.zeros(len(exact), dtype=np.bool_)
    if job.drop_copies:
        copies[:] = True
        copies[np.unique(exact, return_index=True)[1]] = False
    _, copied_by = _hide_authors(batch.column("author").filter(pa.array(copies)), job.author_key)
    batch = _drop(batch, pa.array(copies), "duplicate", dropped)
    key, exact = key.filter(pa.array(~copies)), exact[~copies]
    keys = minhash.MinHash(job.near.jaccard, job.near.shingle_words)(key, exact)
    encoded = _encoder(job.tokenizer, job.max_length)(batch.column("text"))
    found, facts = _finished(batch, encoded, job)
    report = Report(
        unit.number,
        rows.read,
        batch.num_rows,
        dropped,
        without_secrets(unit.file),
        rows.unreadable,
        rows.several_lines,
        rows.most_lines,
        rows.long_records,
        odd_time=_example(batch.column("time"), facts["time_lost"]),
        odd_id=_example(batch.column("id"), facts["id_rounded"]),
    )
    target = job.place(unit.number)
    attempt = output_folder.temporary_sibling(target)
    attempt.mkdir()
    output_folder.write_bytes(attempt / ROWS, to_ipc(found))
    write_keys(attempt / KEYS, keys)
    output_folder.write_bytes(attempt / FACTS, facts)
    output_folder.write_bytes(attempt / COPIES, copied_by)
    output_folder.write_bytes(attempt / REPORT, output_folder.to_json(asdict(report)))
    try:
        attempt.replace(target)
    except OSError:
        # Another attempt was faster; where nothing stands, the disk has a reason to be told.
        shutil.rmtree(attempt, ignore_errors=True)
        if report_of(job, unit.number) is None:
            raise
    return report


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, max_length: int) -> BatchTokenizer:
    return BatchTokenizer.from_file(Path(tokenizer), max_length)


def cleaned(rows: Rows, job: Job, dropped: dict[str, int]) -> pa.RecordBatch:
    """The rows whose text is left after cleaning and the filters that look at one row alone.

    Args:
        dropped: takes the count of each reason.

    Returns:
        Columns text, id, time, author, language, retweet_of, number, and `group.NAME`; text without nulls.
    """
    dropped["malformed row"], dropped["not UTF-8"], dropped["no tweet"] = rows.malformed, rows.not_utf8, rows.notices
    nothing = pa.nulls(len(rows.numbers), pa.string())
    columns = {role: rows.fields.get(role, nothing) for role in ("text", "id", "time", "author", "language")}
    columns["retweet_of"] = _retweet_of(rows.fields["text"], rows.fields.get("retweet_of", nothing))
    columns["number"] = pa.array(rows.numbers, pa.int64())
    columns |= {name: rows.fields[name] for name in (f"group.{group}" for group in job.columns.groups)}
    for name in ("language", *(f"group.{group}" for group in job.columns.groups)):
        columns[name] = _null_where_blank(columns[name])
    batch = pa.RecordBatch.from_pydict(columns)
    batch = _drop(batch, _is_empty(pc.utf8_trim_whitespace(batch.column("text"))), "empty", dropped)
    too_long = pc.greater(pc.utf8_length(batch.column("text")), job.max_characters)
    batch = _drop(batch, too_long, "longer than max_characters", dropped)
    if job.filter.retweets:
        batch = _drop(batch, pc.is_valid(batch.column("retweet_of")), "retweet", dropped)
    batch = _with(batch, "text", cleaning.clean(batch.column("text"), job.preset))
    batch = _drop(batch, _is_empty(batch.column("text")), "empty after cleaning", dropped)
    if job.filter.detect_language:
        batch = _with(batch, "language", language.detect(batch.column("text")))
    if job.filter.languages:
        others = pc.invert(language.is_among(batch.column("language"), job.filter.languages))
        batch = _drop(batch, others, "other language", dropped)
    return batch


def _retweet_of(texts: pa.Array, known: pa.Array) -> pa.Array:
    """The original's id; empty where only the text tells that it is a retweet."""
    # The pattern is slow, and few texts begin like it.
    may_be = pc.equal(pc.utf8_lower(pc.utf8_slice_codeunits(pc.utf8_ltrim_whitespace(texts), 0, 3)), "rt ")
    marked = pc.match_substring_regex(texts.filter(may_be), RETWEET)
    marked = pc.replace_with_mask(may_be, may_be, marked)
    return pc.if_else(pc.and_(pc.is_null(known), marked), "", known)


def _finished(batch: pa.RecordBatch, encoded: Encoded, job: Job) -> tuple[pa.RecordBatch, npt.NDArray[Any]]:
    """The rows of the unit as `job.schema()` has them, and their facts, FACT [rows]."""
    parsed = timestamps.parse_times(batch.column("time"), job.time_format)
    hashes, numbers = _hide_authors(batch.column("author"), job.author_key)
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
    facts["day"] = np.where(parsed.is_valid(), _days(parsed), NO_DAY)
    facts["author"] = numbers
    facts["truncated"] = encoded.truncated
    lost = timestamps.not_understood(batch.column("time"), parsed)
    facts["time_lost"] = lost
    if (other := timestamps.other_order(job.time_format)) and lost.true_count:
        facts["other_order"][facts["time_lost"]] = timestamps.parse_times(
            batch.column("time").filter(lost), other
        ).is_valid()
    facts["id_rounded"] = pc.match_substring_regex(batch.column("id"), ROUNDED_ID).fill_null(False)
    return rows, facts


def _example(texts: pa.Array, which: npt.NDArray[np.bool_]) -> str:
    """The first of some times or ids; empty where that may be something else, which is nobody's to see."""
    first = next(iter(texts.filter(pa.array(which)).slice(0, 1).to_pylist()), "")
    return first.strip() if re.fullmatch(_TIME_OR_ID, first) else ""


def _days(moments: pa.Array) -> npt.NDArray[np.int64]:
    seconds: npt.NDArray[np.int64] = pc.fill_null(moments.cast(pa.int64()), 0).to_numpy()
    return seconds // 86_400


def _hide_authors(authors: pa.Array, key: bytes) -> tuple[pa.Array, npt.NDArray[np.uint64]]:
    """Authors as salted hashes in hex, null where the author is empty; and the first 64 bits of each as a number.

    The case of letters, space around them and an `@` in front make no other author.
    """

    def digest(author: str) -> bytes | None:
        return hashlib.blake2b(author.encode(), key=key, digest_size=16).digest() if author else None

    coded = authors.dictionary_encode()
    plain = pc.utf8_lower(pc.utf8_ltrim(pc.utf8_trim_whitespace(coded.dictionary), "@＠"))
    digests = [digest(author) for author in plain.to_pylist()]
    names = pa.array([found and found.hex() for found in digests], pa.string())
    # An odd number: 0 is for nobody.
    values = pa.array([int.from_bytes(found[:8], "little") | 1 if found else 0 for found in digests], pa.uint64())
    return names.take(coded.indices), pc.fill_null(values.take(coded.indices), 0).to_numpy()


def _with(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, column)


def _null_where_blank(texts: pa.Array) -> pa.Array:
    return pc.if_else(_is_empty(pc.utf8_trim_whitespace(texts)), pa.scalar(None, pa.string()), texts)


def _is_empty(texts: pa.Array) -> pa.Array:
    return pc.equal(texts, "")


def _drop(batch: pa.RecordBatch, which: pa.Array, reason: str, dropped: dict[str, int]) -> pa.RecordBatch:
    kept = batch.filter(pc.invert(which))
    dropped[reason] = dropped.get(reason, 0) + batch.num_rows - kept.num_rows
    return kept
