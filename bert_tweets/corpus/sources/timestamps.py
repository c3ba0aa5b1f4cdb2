"""Parse times of tweets, a column at a time, to seconds in UTC."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

TYPE = pa.timestamp("s", tz="UTC")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_ZONE = r"(?P<zone>Z|z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})?"
_END = rf"(?::(?P<second>[0-9]{{2}}))?(?:[.,][0-9]+)?\s*(?P<half>[AaPp][Mm])?\s*{_ZONE}"
_CLOCK = rf"(?:[Tt, ]+(?P<hour>[0-9]{{1,2}}):(?P<minute>[0-9]{{2}}){_END})?\s*$"
# 2018-10-10, 2018-10-10 20:19, 2018/10/10 8:19 PM, 2018-10-10T20:19:24.000Z, 2018-10-10T22:19:24+02:00
ISO = rf"^\s*(?P<year>[0-9]{{4}})[-/](?P<month>[0-9]{{1,2}})[-/](?P<day>[0-9]{{1,2}}){_CLOCK}"
# Wed Oct 10 20:19:24 +0000 2018
TWITTER = (
    r"^\s*[A-Z][a-z]{2} (?P<name>[A-Z][a-z]{2}) (?P<day>[0-9]{2}) "
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) (?P<zone>[+-][0-9]{4}) (?P<year>[0-9]{4})\s*$"
)
# Since 1970 in seconds or milliseconds, 2001 to 2033: 1539202764, 1539202764.0, 1539202764123
EPOCH = r"^\s*(?P<seconds>1[0-9]{9})(?:[0-9]{3})?(?:\.[0-9]+)?\s*$"
# Only with the setting `time_format`, because 10/11/2018 may be in October or November: 10/31/2018, 31.10.18 8:19
_NUMBERS = r"^\s*(?P<{}>[0-9]{{1,2}})[-/.](?P<{}>[0-9]{{1,2}})[-/.](?:20)?(?P<short_year>[0-9]{{2}})"
NAMED = {"mdy": _NUMBERS.format("month", "day") + _CLOCK, "dmy": _NUMBERS.format("day", "month") + _CLOCK}


def parse_times(texts: pa.Array, time_format: str = "auto") -> pa.Array:
    """Parse times; a time without a zone is taken as UTC.

    Args:
        texts: string [rows].
        time_format: order of month and day in dates such as 10/11/2018, mdy or dmy; auto: such dates are not parsed.

    Returns:
        timestamp[s, UTC] [rows]; null where the text is empty, null or cannot be parsed.
    """
    times = _of_parts(pc.extract_regex(texts, ISO))
    for pattern in (TWITTER, EPOCH, *([NAMED[time_format]] if time_format in NAMED else ())):
        if not not_parsed(texts, times).true_count:
            break
        found = pc.extract_regex(texts, pattern)
        if found.null_count < len(found):
            times = pc.coalesce(times, _of_epoch(found) if pattern is EPOCH else _of_parts(found))
    return times


def other_order(time_format: str) -> str | None:
    """The other order of days and months; None for `time_format=auto`."""
    return {"mdy": "dmy", "dmy": "mdy"}.get(time_format)


def not_parsed(texts: pa.Array, times: pa.Array) -> pa.Array:
    """Where a text is not blank but could not be parsed; bool [rows]."""
    written = pc.not_equal(pc.utf8_trim_whitespace(texts), "").fill_null(False)
    return pc.and_(written, pc.is_null(times))


def _of_epoch(found: pa.StructArray) -> pa.Array:
    return pc.struct_field(found, "seconds").cast(pa.int64()).cast(TYPE)


def _of_parts(found: pa.StructArray) -> pa.Array:
    """Combine year, month, day, hour, minute and so on; null where the result is not a valid time."""
    part = {field.name: pc.struct_field(found, field.name) for field in found.type}
    year = part["year"] if "year" in part else pc.binary_join_element_wise("20", part["short_year"], "")
    names = pa.array(MONTHS)
    month = pc.add(pc.index_in(part["name"], names), 1).cast(pa.string()) if "name" in part else part["month"]
    hour = _hour(part["hour"], part["half"]) if "half" in part else part["hour"]
    date = pc.binary_join_element_wise(year, *map(_two_digits, (month, part["day"])), "-")
    clock = pc.binary_join_element_wise(*map(_two_digits, (hour, part["minute"], part["second"])), ":")
    written = pc.binary_join_element_wise(date, clock, "T")
    parsed = pc.strptime(written, format="%Y-%m-%dT%H:%M:%S", unit="s", error_is_null=True)
    # strptime reads the 30th of February as the 2nd of March.
    same = pc.equal(pc.strftime(parsed, format="%Y-%m-%dT%H:%M:%S"), written)
    local = pc.if_else(same, parsed, pa.scalar(None, pa.timestamp("s")))
    shifted = pc.subtract(local.cast(pa.int64()), _offset_seconds(part["zone"]))
    return shifted.cast(TYPE)


def _two_digits(numbers: pa.Array) -> pa.Array:
    return pc.utf8_lpad(numbers, 2, "0")


def _hour(hours: pa.Array, halves: pa.Array) -> pa.Array:
    """Hours of the day, from 24-hour and 12-hour clocks."""
    halves = pc.utf8_lower(halves)
    if not pc.any(pc.not_equal(halves, "")).as_py():
        return hours
    number = pc.if_else(pc.equal(hours, ""), "0", hours).cast(pa.int64())
    morning = pc.if_else(pc.equal(number, 12), 0, number)
    whole = pc.if_else(pc.equal(halves, "pm"), pc.add(morning, 12), morning)
    # 13:00 PM does not exist: an invalid hour.
    of_half = pc.if_else(pc.is_in(number, pa.array(range(1, 13))), whole.cast(pa.string()), "99")
    return pc.if_else(pc.equal(halves, ""), hours, of_half)


def _offset_seconds(zones: pa.Array) -> pa.Array:
    """Offset from UTC in seconds, positive to the east; 0 where none is written; int64 [rows]."""
    digits = pc.replace_substring_regex(zones, r"[^0-9]", "")
    digits = pc.if_else(pc.match_substring_regex(zones, "^[+-]"), digits, "0000")
    hours = pc.utf8_slice_codeunits(digits, 0, 2).cast(pa.int64())
    minutes = pc.utf8_slice_codeunits(digits, 2, 4)
    minutes = pc.if_else(pc.equal(minutes, ""), "0", minutes).cast(pa.int64())
    size = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    return pc.if_else(pc.starts_with(zones, "-"), pc.negate(size), size)
