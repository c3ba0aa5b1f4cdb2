"""Maps: the occurrences of a word in two dimensions, with a projection for each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bert_tweets.common.arrays import Floats, Ints
from bert_tweets.common.errors import UserError
from bert_tweets.words.analysis.records import SENSE_TABLE
from bert_tweets.words.statistics.principal_components import principal_components
from bert_tweets.words.store.folder import OCCURRENCES

from .libraries import missing_extra
from .mentions import without_mentions

TIME, SENSE = "time", "cluster"

_MAX_VALUES = 5  # of a column; if there are more, the rarest share one colour
_OTHER = "other"
_MIN_POINTS = 5
# Points of all words together, so that the page stays small.
_ALL_POINTS = 40_000
# Characters of a tweet on either side of the word; fewer if all texts together would exceed this many bytes.
_CONTEXT, _TEXT_BYTES = 60, 3_000_000
_KEYS = ("tweet_id", "start", "end")


@dataclass(frozen=True)
class Column:
    """A column that points can be coloured by.

    Attributes:
        codes: int64 [points], indices into `names`, or days since 1970 if there are no names; -1 if unknown.
    """

    codes: Ints
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Projection:
    """The map of one model.

    Attributes:
        points: float32 [points, 2], centred, the largest coordinate 1.
        explained: share of the variance on the two axes; None for t-SNE.
    """

    title: str
    points: Floats
    explained: float | None


@dataclass(frozen=True)
class WordMap:
    """The maps of a word, with the same occurrences in the same order for each model.

    Attributes:
        total: number of found occurrences, of which the points are a sample.
        spaces: the maps, one per model.
        texts: excerpts of the tweets; empty unless they are asked for.
    """

    word: str
    total: int
    spaces: list[Projection]
    columns: dict[str, Column]
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MapSpec:
    """Settings of the maps.

    Attributes:
        titles: titles of the models in order, by role.
        layer: layer of the vectors; None: the only one, or the last.
        points: maximum number of points of a word.
        projection: pca or tsne.
        include_text: read excerpts of the tweets.
        senses: names of the usage clusters, by word.
        change: folder that may hold `senses.parquet`; None: no folder.
    """

    words: Sequence[str]
    titles: dict[str, str]
    layer: str | None = None
    points: int = 2000
    projection: str = "pca"
    include_text: bool = False
    seed: int = 0
    senses: dict[str, list[str]] = field(default_factory=dict)
    change: Path | None = None


def word_maps(folder: Path, spec: MapSpec) -> list[WordMap]:
    """Make the maps of all words with enough occurrences in a folder written by embed; [] if it has no occurrences.

    Raises:
        UserError: the occurrences cannot be read, or have no text although it is asked for; scikit-learn is missing.
    """
    path = folder / OCCURRENCES
    if not path.is_file():
        return []
    try:
        names = pq.read_schema(path).names
        if spec.include_text and "text" not in names:
            raise UserError(f"{folder}: has no text of tweets; embed with include_text=true, or set it to false here")
        return list(_maps(path, _found_rows(path, names, spec), spec))
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        first = (str(error).splitlines() or [""])[0][:80]
        raise UserError(f"{path}: cannot be read as written by embed ({first}); embed again") from None


def _found_rows(path: Path, names: list[str], spec: MapSpec) -> pa.Table:
    """The found occurrences of the words at one layer, without vectors and texts, with their row in the file."""
    table = pq.read_table(path, columns=[name for name in names if name not in ("vector", "text")])
    table = table.append_column("row", pa.array(np.arange(len(table))))
    kept = pc.and_(pc.equal(table["status"], "found"), pc.is_in(table["word"], pa.array(list(spec.words), pa.string())))
    if "control" in names:
        kept = pc.and_(kept, pc.invert(pc.fill_null(table["control"], False)))
    table = table.filter(kept)
    layers = table["layer"].unique().to_pylist()
    if len(layers) > 1:
        layer = spec.layer if spec.layer in layers else max(layers, key=_depth)
        table = table.filter(pc.equal(table["layer"], layer))
    return table


def _depth(layer: str) -> tuple[bool, int]:
    return layer.isdigit(), int(layer) if layer.isdigit() else 0


def _maps(path: Path, table: pa.Table, spec: MapSpec) -> Iterator[WordMap]:
    roles = [role for role in spec.titles if pc.any(pc.equal(table["model"], role)).as_py()]
    samples = list(_samples(table, roles, spec))
    rows = np.concatenate([part["row"].to_numpy() for _, _, parts in samples for part in parts] or [np.zeros(0, int)])
    # No read-ahead, because vectors are large.
    columns = ["vector", *(["text"] if spec.include_text else [])]
    scanner = ds.dataset(path).scanner(columns=columns, batch_size=4096, batch_readahead=2, fragment_readahead=1)
    read = scanner.take(pa.array(rows))
    senses_file = spec.change / SENSE_TABLE if spec.change else None
    senses = pq.read_table(senses_file) if senses_file and senses_file.is_file() else None
    context = _context(read, samples) if spec.include_text else 0
    first = 0
    for word, total, parts in samples:
        count = len(parts[0])
        spaces = []
        for number, role in enumerate(roles):
            vectors = read["vector"].slice(first + number * count, count).combine_chunks()
            points = vectors.flatten().to_numpy(zero_copy_only=False).reshape(count, -1)
            spaces.append(Projection(spec.titles[role], *_projected(points, spec)))
        texts = _excerpts(parts[0], read["text"].slice(first, count), context) if spec.include_text else []
        yield WordMap(word, total, spaces, _columns(parts[0], word, senses, spec), texts)
        first += count * len(roles)


def _samples(table: pa.Table, roles: list[str], spec: MapSpec) -> Iterator[tuple[str, int, list[pa.Table]]]:
    """Each word, its number of occurrences, and a sample of them: the same rows for each model."""
    most = max(_MIN_POINTS, min(spec.points, _ALL_POINTS // max(1, len(spec.words))))
    for number, word in enumerate(spec.words):
        of_word = table.filter(pc.equal(table["word"], word))
        parts = [of_word.filter(pc.equal(of_word["model"], role)) for role in roles]
        if not parts or len(parts[0]) < _MIN_POINTS:
            continue
        if any(part.select(_KEYS) != parts[0].select(_KEYS) for part in parts[1:]):
            raise ValueError(f"occurrences of {word} differ between models")
        total = len(parts[0])
        rows = np.arange(total)
        if total > most:
            rows = np.sort(np.random.default_rng([spec.seed, number]).choice(total, most, replace=False))
        yield word, total, [part.take(pa.array(rows)) for part in parts]


def _context(read: pa.Table, samples: list[tuple[str, int, list[pa.Table]]]) -> int:
    """Characters of context that keep all excerpts within the limit."""
    size = first = 0
    for _, _, parts in samples:
        excerpts = _excerpts(parts[0], read["text"].slice(first, len(parts[0])), _CONTEXT)
        size += sum(len(excerpt.encode()) for excerpt in excerpts)
        first += len(parts[0]) * len(parts)
    return min(_CONTEXT, _CONTEXT * _TEXT_BYTES // max(1, size))


def _projected(vectors: Floats, spec: MapSpec) -> tuple[Floats, float | None]:
    """Project one model's vectors, float32 [points, width], to two dimensions; deterministic."""
    explained = None
    if spec.projection == "pca":
        points, explained = principal_components(vectors)
    else:
        try:
            from sklearn.manifold import TSNE
        except ImportError:
            raise missing_extra("scikit-learn") from None
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        points = TSNE(init="pca", perplexity=perplexity, random_state=spec.seed).fit_transform(vectors)
        points = points - points.mean(axis=0)
    reach = float(np.abs(points).max()) or 1.0
    return (points / reach).astype(np.float32), explained


def _columns(table: pa.Table, word: str, senses: pa.Table | None, spec: MapSpec) -> dict[str, Column]:
    """The columns that the points of a word can be coloured by."""
    columns = {}
    if "time" in table.column_names and table["time"].null_count < len(table):
        seconds = table["time"].cast(pa.timestamp("s")).cast(pa.int64())
        days = pc.fill_null(pc.divide(seconds, 86_400), -1)
        columns[TIME] = Column(np.asarray(days.to_numpy(), np.int64))
    for name in table.column_names:
        if name.startswith("group."):
            columns[name] = _group_column(table[name].to_pylist())
    if senses is not None and spec.senses.get(word):
        columns[SENSE] = _sense_column(table, senses.filter(pc.equal(senses["word"], word)), spec.senses[word])
    return columns


def _group_column(values: list[str | None]) -> Column:
    counts = Counter(value for value in values if value is not None)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    if len(names) > _MAX_VALUES:
        names = [*names[: _MAX_VALUES - 1], _OTHER]
    codes = {name: index for index, name in enumerate(names)}
    other = codes.get(_OTHER, -1)
    return Column(np.array([-1 if value is None else codes.get(value, other) for value in values], np.int64), names)


def _sense_column(table: pa.Table, senses: pa.Table, names: list[str]) -> Column:
    """Usage clusters of the points; -1 if an occurrence is in no cluster."""
    if "model" in senses.column_names and len(senses):
        senses = senses.filter(pc.equal(senses["model"], senses["model"][0]))
    clusters = dict(zip(_keys(senses), senses["sense"].to_pylist(), strict=True))
    codes = np.array([clusters.get(key, -1) for key in _keys(table)], np.int64)
    return Column(np.where(codes < len(names), codes, -1), list(names))


def _keys(table: pa.Table) -> Iterator[tuple[object, ...]]:
    return zip(*(table[name].to_pylist() for name in _KEYS), strict=True)


def _excerpts(table: pa.Table, texts: pa.ChunkedArray, context: int) -> list[str]:
    """Tweets with so many characters around the word; mentions are masked before a cut could hide their `@`."""
    excerpts = []
    places = (texts.to_pylist(), table["start"].to_pylist(), table["end"].to_pylist())
    for text, start, end in zip(*places, strict=True):
        before, after = without_mentions(text[:start]), without_mentions(text[end:])
        first = max(0, len(before) - context)
        excerpt = f"{before[first:]}{text[start:end]}{after[:context]}".strip()
        excerpts.append(f"{'…' if first else ''}{excerpt}{'…' if context < len(after) else ''}")
    return excerpts
