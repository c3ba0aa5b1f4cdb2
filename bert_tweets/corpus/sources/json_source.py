"""Read JSON Lines: one object per line, of any shape with a text, or as Twitter's APIs (v1.1 and v2) returned them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa

from bert_tweets.common.errors import UserError

from .byte_stream import ByteStream
from .schema import FEW, NAMES, NO_RETWEET, REFERENCES, Columns, Rows, ids_or_null

UNIT_BYTES = 16 * 2**20
_LONGEST_LINE = 64 * 2**20
_HEAD_BYTES = 2**20  # part of the file in which column names are looked for
_HEAD_LINES = 100  # and number of its lines
# Keys by which the API version of an object is recognised; the first tweets need not include a retweet.
_V1_KEYS, _V2_KEYS = {"id_str", "user"}, {"author_id", "edit_history_tweet_ids"}
# Notices of Twitter's stream between the tweets: objects with only such keys.
_NOTICES = {"connected", "control", "delete", "disconnect", "event", "friends", "limit", "scrub_geo"}
_NOTICES |= {"status_withheld", "user_withheld", "warning"}
# Keys of a v2 page without a tweet: nothing was found, or the request was refused.
_PAGE_KEYS, _MORE_PAGE_KEYS = {"data", "meta", "errors"}, {"includes", "title", "detail", "type", "status"}
# An object with one of these keys is a tweet itself.
_TEXTS = frozenset(NAMES["text"])
_SURROGATE = re.compile(r"[\ud800-\udfff]")

Object = dict[str, Any]


class JsonSource:
    """A file of JSON objects, one per line; a line may also be a page of the v2 API (`{"data": [...]}`).

    Keys of nested objects are named with a dot: `user.screen_name`.

    Raises:
        UserError: from the constructor, if the file is empty or begins like another format.
    """

    kind, layout = "json", None

    def __init__(self, path: str):
        self.path = path
        with ByteStream(path) as stream:
            lines = next(_line_blocks(stream, _HEAD_BYTES), b"").strip().split(b"\n")
        if not lines[0]:
            raise UserError(f"{path}: is empty; JSON Lines have one object per line")
        if lines[0].lstrip()[:1] == b"[":
            raise UserError(f"{path}: is a JSON array; convert it to one object per line (jq -c '.[]')")
        objects = [found for line in lines[:_HEAD_LINES] for found in _objects(line) or [] if not _is_notice(found)]
        self.names = list(dict.fromkeys(name for found in objects for name in _names(found)))
        self.readable = set(self.names)
        if not self.names:
            advice = "; does an object span several lines? (jq -c .)" if lines[0].lstrip()[:1] == b"{" else ""
            raise UserError(f"{path}: does not begin with JSON objects; JSON Lines have one object per line{advice}")

    def pieces(self, unit_bytes: int | None) -> Iterator[bytes]:
        """Whole lines, several megabytes at a time, in order."""
        with ByteStream(self.path) as stream:
            yield from _line_blocks(stream, unit_bytes or UNIT_BYTES)


def _line_blocks(stream: ByteStream, size: int) -> Iterator[bytes]:
    """Non-empty blocks of whole lines, of about `size` bytes each."""
    data, at_end = b"", False
    while not at_end:
        wanted = max(size, len(data))
        more = stream.read(wanted)
        at_end = len(more) < wanted
        data += more
        end = len(data) if at_end else data.rfind(b"\n") + 1
        block, data = data[:end], data[end:]
        if not block.isspace() and block:
            yield block
        if len(data) > _LONGEST_LINE:
            raise UserError(f"{stream.path}: has a line longer than 64 MB; JSON Lines have one object per line")


def parse_json(block: bytes, columns: Columns, path: str = "") -> Rows:
    """Parse the tweets of whole lines; `path` is for messages.

    Raises:
        UserError: one of `columns.groups` is an object or a list.
    """
    wanted = columns.wanted()
    fields: dict[str, list[str | None]] = {role: [] for role in wanted}
    numbers: list[int] = []
    malformed: list[int] = []
    not_utf8: list[int] = []
    number = notices = 0
    for line in block.split(b"\n"):
        if not line.strip():
            continue
        try:
            line.decode()
        except UnicodeDecodeError:
            not_utf8.append(number)
            number += 1
            continue
        tweets = _objects(line)
        for tweet in [{}] if tweets is None else tweets:
            text = _text(tweet, wanted["text"])
            if text is None and _is_notice(tweet):
                notices += 1
            elif text is None:
                malformed.append(number)
            else:
                numbers.append(number)
                for role, name in wanted.items():
                    if role.startswith("group."):
                        _require_plain(tweet, name, path)
                    fields[role].append(text if role == "text" else _field(tweet, role, name))
            number += 1
    arrays = {role: pa.array(values, pa.string()) for role, values in fields.items()}
    unreadable = tuple(sorted([*malformed[:FEW], *not_utf8[:FEW]])[:FEW])
    return Rows(arrays, np.array(numbers, dtype=np.int64), len(malformed), len(not_utf8), notices, unreadable)


def _objects(line: bytes) -> list[Object] | None:
    """The tweets of a line; None if it is not a JSON object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    page = found.get("data")
    if not page or found.keys() & _TEXTS:
        # Not only pages have a key called data.
        return [found]
    if isinstance(page, list):
        # An entry that is not an object counts as a malformed row.
        tweets = [tweet if isinstance(tweet, dict) else {} for tweet in page]
    elif isinstance(page, dict) and "text" in page:
        tweets = [page]
    else:
        return [found]
    _attach_originals(tweets, _value(found, "includes.tweets"))
    return tweets


def _is_notice(found: Object) -> bool:
    is_page = bool(found.keys() & _PAGE_KEYS) and found.keys() <= _PAGE_KEYS | _MORE_PAGE_KEYS
    is_empty_page = is_page and not found.get("data")
    return is_empty_page or (bool(found) and found.keys() <= _NOTICES)


def _attach_originals(tweets: list[Object], included: Any) -> None:
    """Put the retweeted tweets that a page includes where v1.1 has them, in `retweeted_status`."""
    if not isinstance(included, list):
        return
    originals = {str(tweet.get("id")): tweet for tweet in included if isinstance(tweet, dict)}
    for tweet in tweets:
        original = originals.get(_referenced(tweet) or "")
        if original is not None and "retweeted_status" not in tweet:
            tweet["retweeted_status"] = original


def _names(found: Object) -> Iterator[str]:
    """Columns of an object, and that of the original of a retweet in the object's API version."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner, deep in value.items() if not isinstance(deep, dict | list))
        elif not isinstance(value, list):
            yield key
    if found.keys() >= _V1_KEYS:
        yield "retweeted_status.id_str"
    elif found.keys() & _V2_KEYS or "referenced_tweets" in found:
        yield "referenced_tweets"


def _value(tweet: Object, name: str) -> Any:
    if name in tweet:
        return tweet[name]
    outer, _, inner = name.partition(".")
    inside = tweet.get(outer)
    return inside.get(inner) if isinstance(inside, dict) else None


def whole_text(tweet: Object, name: str) -> Any:
    """The full text of a tweet: `text` may be truncated, with the rest elsewhere in the object.

    A retweet's own text ends in an ellipsis; the retweeted status has all of it.
    """
    own, original = _full_text(tweet, name), tweet.get("retweeted_status")
    if name not in ("text", "full_text") or not isinstance(original, dict):
        return own
    text, author = _full_text(original, name), _value(original, "user.screen_name")
    if not isinstance(text, str):
        return own
    if isinstance(author, str):
        return f"RT @{author}: {text}"
    # v2 names the author only in the retweet's own text.
    mark = own.partition(": ")[0] if isinstance(own, str) else ""
    return f"{mark}: {text}" if mark.startswith("RT @") else text


def _full_text(tweet: Object, name: str) -> Any:
    """The tweet's own text, without that of a retweeted tweet."""
    if name == "text":
        for place in ("extended_tweet.full_text", "full_text", "note_tweet.text"):
            longer = _value(tweet, place)
            if isinstance(longer, str):
                return longer
    return _value(tweet, name)


def _field(tweet: Object, role: str, name: str) -> str | None:
    return _retweet_of(tweet, name) if role == "retweet_of" else _as_text(_value(tweet, name)) or ""


def _retweet_of(tweet: Object, name: str) -> str | None:
    """Id of the original, empty if it is unknown; None if the tweet is not a retweet."""
    named = (_as_text(_value(tweet, name)) or "").strip()
    if named.lower() not in NO_RETWEET and name.lower() != REFERENCES:
        return named
    if named and name.lower() == REFERENCES:
        return cast("str | None", ids_or_null(pa.array([named]), name)[0].as_py())
    original = tweet.get("retweeted_status")
    if isinstance(original, dict):
        return _as_text(original.get("id_str")) or _as_text(original.get("id")) or ""
    return _referenced(tweet)


def _referenced(tweet: Object) -> str | None:
    """Id of the tweet that a v2 tweet retweets; None if it is not a retweet."""
    references = tweet.get("referenced_tweets")
    for reference in references if isinstance(references, list) else []:
        if isinstance(reference, dict) and reference.get("type") == "retweeted":
            return _as_text(reference.get("id")) or ""
    return None


def _require_plain(tweet: Object, name: str, path: str) -> None:
    value = _value(tweet, name)
    if isinstance(value, dict | list):
        kind, inside = ("a list", "") if isinstance(value, list) else ("an object", next(iter(value), ""))
        advice = f"; name a key inside it, such as {name}.{inside}" if inside else ""
        raise UserError(f"{path}: column '{name}' is {kind}, not text{advice}")


def _text(tweet: Object, name: str) -> str | None:
    """The text; empty if it is null, None if it is missing or not a string."""
    text = whole_text(tweet, name)
    if text is None:
        outer, _, inner = name.partition(".")
        inside = tweet.get(outer)
        return "" if name in tweet or (isinstance(inside, dict) and inner in inside) else None
    return _as_text(text) if isinstance(text, str) else None


def _as_text(value: Any) -> str | None:
    """A value as text, as tables write it; None for null, objects and lists, and text with half a surrogate pair."""
    if value is None or isinstance(value, dict | list):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 2**53
        return None if math.isnan(value) else str(int(value) if whole else value)
    text = str(value)
    return text if text.isascii() or not _SURROGATE.search(text) else None
