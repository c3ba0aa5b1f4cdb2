"""Times of tweets as text, parsed to seconds in UTC a column at a time."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

TYPE = pa.timestamp("s", tz="UTC")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_CLOCK = r"(?P<clock>[0-9]{2}:[0-9]{2})(?P<seconds>:[0-9]{2})?(?:[.,][0-9]+)?"
_ZONE = r"(?P<zone>Z|z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})?"
# 2018-10-10, 2018-10-10 20:19, 2018-10-10T20:19:24.000Z, 2018-10-10T22:19:24+02:00
ISO = rf"^\s*(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]+{_CLOCK}\s*{_ZONE})?\s*$"
# Wed Oct 10 20:19:24 +0000 2018
TWITTER = (
    r"^\s*[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[0-9]{2}) "
    r"(?P<clock>[0-9]{2}:[0-9]{2})(?P<seconds>:[0-9]{2}) (?P<zone>[+-][0-9]{4}) (?P<year>[0-9]{4})\s*$"
)


def parse(texts: pa.Array) -> pa.Array:
    """Times in UTC; a time without a zone is taken for UTC.

    Args:
        texts: string [rows].

    Returns:
        timestamp[s, UTC] [rows]; null where the text is empty, null, or no time that is understood.
    """
    iso = pc.extract_regex(texts, ISO)
    dates, clocks, seconds, zones = (pc.struct_field(iso, name) for name in ("date", "clock", "seconds", "zone"))
    twitter = pc.extract_regex(texts, TWITTER)
    if twitter.null_count < len(twitter):
        found = pc.is_valid(twitter)
        dates = pc.if_else(found, _twitter_dates(twitter), dates)
        clocks, seconds, zones = (
            pc.if_else(found, pc.struct_field(twitter, name), other)
            for name, other in (("clock", clocks), ("seconds", seconds), ("zone", zones))
        )
    clocks = pc.if_else(pc.equal(clocks, ""), "00:00", clocks)
    seconds = pc.if_else(pc.equal(seconds, ""), ":00", seconds)
    written = pc.binary_join_element_wise(pc.binary_join_element_wise(dates, clocks, "T"), seconds, "")
    parsed = pc.strptime(written, format="%Y-%m-%dT%H:%M:%S", unit="s", error_is_null=True)
    # strptime takes the 30th of February for the 2nd of March.
    same = pc.equal(pc.strftime(parsed, format="%Y-%m-%dT%H:%M:%S"), written)
    local = pc.if_else(same, parsed, pa.scalar(None, pa.timestamp("s")))
    shifted = pc.subtract(local.cast(pa.int64()), _offset_seconds(zones))
    return shifted.cast(TYPE)


def not_understood(texts: pa.Array, times: pa.Array) -> pa.Array:
    """bool [rows]: there is a text, and it became no time."""
    written = pc.not_equal(pc.utf8_trim_whitespace(texts), "").fill_null(False)
    return pc.and_(written, pc.is_null(times))


def _twitter_dates(parts: pa.StructArray) -> pa.Array:
    numbers = pa.array([f"{number:02d}" for number in range(1, 13)])
    months = numbers.take(pc.index_in(pc.struct_field(parts, "month"), value_set=pa.array(MONTHS)))
    return pc.binary_join_element_wise(pc.struct_field(parts, "year"), months, pc.struct_field(parts, "day"), "-")


def _offset_seconds(zones: pa.Array) -> pa.Array:
    """int64 [rows]: how far east of UTC, in seconds; 0 where no offset is written."""
    digits = pc.replace_substring_regex(zones, r"[^0-9]", "")
    digits = pc.if_else(pc.match_substring_regex(zones, "^[+-]"), digits, "0000")
    hours = pc.utf8_slice_codeunits(digits, 0, 2).cast(pa.int64())
    minutes = pc.utf8_slice_codeunits(digits, 2, 4)
    minutes = pc.if_else(pc.equal(minutes, ""), "0", minutes).cast(pa.int64())
    size = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    return pc.if_else(pc.starts_with(zones, "-"), pc.negate(size), size)
