"""Find pairs of rows that may be copies or near-duplicates: rows that share a hash, one range of hashes at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints
from bert_tweets.common.output_folder import temporary_sibling

from .key_file import COPY_TAG, Entries, KeyFile, in_groups, stable_order
from .minhash import is_first

Pairs = npt.NDArray[Any]

PAIR = np.dtype([("later", "<i8"), ("earlier", "<i8")])
UNITS = "units.json"
HASHES = 2**64


def pair_records(later: Ints, earlier: Ints) -> Pairs:
    """Combine two columns of rows into records; PAIR [pairs]."""
    pairs = np.empty(len(later), PAIR)
    pairs["later"], pairs["earlier"] = later, earlier
    return pairs


def write_units(folder: Path, files: Sequence[Path], first_rows: Ints) -> None:
    """Write the list of key files of all units, which the tasks read."""
    record = {"files": [str(file) for file in files], "first_rows": first_rows.tolist()}
    (folder / UNITS).write_text(json.dumps(record), encoding="utf-8")


def pair_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Files for the copies and the candidates that a task finds, PAIR [pairs] each."""
    return folder / f"{number:06d}.copies", folder / f"{number:06d}.candidates"


def find_pairs(folder: Path, number: int, count: int, entries_at_once: int) -> tuple[int, int]:
    """Write the pairs of one of `count` equal ranges of hashes; a task, which can be repeated with the same result.

    Args:
        folder: folder with the list of units, and for the result.
        number, count: number of this range, and of ranges in total.
        entries_at_once: maximum number of entries in memory.

    Returns:
        Number of copies, number of candidates.
    """
    units = json.loads((folder / UNITS).read_text(encoding="utf-8"))
    files = [KeyFile(file, first) for file, first in zip(units["files"], units["first_rows"], strict=True)]
    low, last = HASHES * number // count, HASHES * (number + 1) // count - 1
    targets = pair_files(folder, number)
    attempts = [temporary_sibling(target) for target in targets]
    found = [0, 0]
    with attempts[0].open("wb") as copies, attempts[1].open("wb") as candidates:
        for pairs in _pairs(files, low, last, entries_at_once):
            for kind, sink in enumerate((copies, candidates)):
                sink.write(np.ascontiguousarray(pairs[kind]).data)
                found[kind] += len(pairs[kind])
    for attempt, target in zip(attempts, targets, strict=True):
        attempt.replace(target)
    return found[0], found[1]


def _pairs(files: Sequence[KeyFile], low: int, last: int, entries_at_once: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Copies and candidates among entries with hashes in [low, last]; too large a range is halved, down to one hash.

    If one hash has more entries than fit in memory, later rows need only the heads so far.
    """
    bounds = [file.bounds(low, last) for file in files]
    total = sum(end - begin for begin, end in bounds)
    if total > entries_at_once and low < last:
        middle = (low + last) // 2
        yield from _pairs(files, low, middle, entries_at_once)
        yield from _pairs(files, middle + 1, last, entries_at_once)
        return
    heads, paired = Entries(np.empty(0, np.uint64), np.empty(0, np.uint16), np.empty(0, np.int64)), -1
    for entries in _pieces(files, bounds, entries_at_once):
        copies, candidates, next_heads = pair_equal_hashes(_concatenated([heads, entries]))
        yield copies[copies["later"] > paired], candidates[candidates["later"] > paired]
        if total > entries_at_once:
            heads, paired = next_heads, int(entries.rows[-1])


def _pieces(files: Sequence[KeyFile], bounds: Sequence[tuple[int, int]], entries_at_once: int) -> Iterator[Entries]:
    """Slices of the units' entries, unit by unit, combined to at most `entries_at_once`."""
    waiting: list[Entries] = []
    room = entries_at_once
    for file, (begin, end) in zip(files, bounds, strict=True):
        while begin < end:
            stop = min(end, begin + room)
            waiting.append(file.read_entries(begin, stop))
            room -= stop - begin
            begin = stop
            if not room:
                yield _concatenated(waiting)
                waiting, room = [], entries_at_once
    if waiting:
        yield _concatenated(waiting)


def _concatenated(pieces: Sequence[Entries]) -> Entries:
    return Entries(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def pair_equal_hashes(entries: Entries) -> tuple[Pairs, Pairs, Entries]:
    """Pair entries of equal hash: at most twice as many pairs as entries, however large a group.

    Entries of equal hash and tag are paired with the first of them, their head: they share a band and the next one, so
    they are probably all near-duplicates. A head is paired with the group's first head and with the previous one. More
    copies of a text do not change these pairs, because its earliest row stays the same.

    Args:
        entries: entries; those of equal hash are ordered by row.

    Returns:
        Copies; candidates; heads of all groups of two or more, by hash and row.
    """
    order = stable_order(entries.hashes)
    order = order[in_groups(entries.hashes[order])]
    hashes, tags, rows = entries.hashes[order], entries.tags[order], entries.rows[order]
    begins = is_first(hashes)
    of_group = np.cumsum(begins) - 1
    _, first, head = np.unique((of_group << 16) | tags, return_index=True, return_inverse=True)
    heads = np.sort(first)
    inner = np.flatnonzero(~begins[heads])
    to_group = pair_records(rows[heads[inner]], rows[begins][of_group[heads[inner]]])
    to_previous = pair_records(rows[heads[inner]], rows[heads[inner - 1]])
    to_previous = to_previous[to_previous["earlier"] != to_group["earlier"]]
    to_head = pair_records(rows, rows[first[head]])
    copy, stays = tags == COPY_TAG, rows == to_head["earlier"]
    candidates = np.concatenate([to_head[~copy & ~stays], to_group, to_previous])
    return to_head[copy & ~stays], candidates, Entries(hashes[heads], tags[heads], rows[heads])
