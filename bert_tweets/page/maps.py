"""Maps: a word's occurrences in two dimensions, each model's in a projection of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.common.errors import UserError
from bert_tweets.words.analysis.records import SENSE_TABLE
from bert_tweets.words.store.folder import OCCURRENCES

from .charts import without_mentions
from .libraries import missing_extra

TIME, SENSE = "time", "cluster"

# Of more values the first by count have a colour, and the rest share one.
_MOST_VALUES = 5
_OTHER = "other"
# A map of fewer says nothing.
_FEWEST = 5
# Points of all words together, so that a page of many words stays a page.
_ALL_POINTS = 40_000
# Characters of a tweet on either side of the word; fewer where all texts together would take more bytes than this.
_AROUND, _TEXT_BYTES = 60, 3_000_000
# Rows of the file that are in memory at a time.
_BATCH = 4096
_KEYS = ("word", "tweet_id", "start", "end")

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """What the points are coloured by.

    Attributes:
        codes: int64 [points]: number in `names`, or days since 1970 where there are none; -1 where not known.
        names: of the values.
    """

    codes: Ints
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Projection:
    """One model's map.

    Attributes:
        title: of the model.
        points: float32 [points, 2], centred, the farthest coordinate at 1.
        explained: share of the variance that the two axes hold; None for a projection that has no such thing.
    """

    title: str
    points: Floats
    explained: float | None


@dataclass(frozen=True)
class WordMap:
    """Maps of a word: the same occurrences in the same order in each.

    Attributes:
        word: as it was asked for.
        total: occurrences found, of which the points are a sample.
        spaces: one a model.
        columns: by name, what the points may be coloured by.
        texts: of the tweets around the word; empty: not to be shown.
    """

    word: str
    total: int
    spaces: list[Projection]
    columns: dict[str, Column]
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MapSpec:
    """What to draw.

    Attributes:
        words: in order.
        titles: of the models, by role, in order.
        layer: of the vectors; None: the only one, or the last.
        points: of a word, at most.
        projection: pca or tsne.
        include_text: tweets' text is read, too.
        seed: of the samples.
        senses: names of a word's usage clusters.
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


def word_maps(folder: Path, wanted: MapSpec) -> list[WordMap]:
    """Maps of the words that were found often enough; none where the folder holds no occurrences.

    Args:
        folder: of embed.
        wanted: what to draw.

    Raises:
        UserError: the occurrences cannot be read, or hold no text where it is asked for; scikit-learn is not installed.
    """
    path = folder / OCCURRENCES
    if not path.is_file():
        return []
    try:
        names = pq.read_schema(path).names
        if wanted.include_text and "text" not in names:
            raise UserError(f"{folder}: holds no text of tweets; embed with include_text=true, or leave it off here")
        table = _table(path, names, wanted)
        return list(_maps(path, table, wanted))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as what embed leaves ({str(error).splitlines()[0][:80]})") from None


def _table(path: Path, names: list[str], wanted: MapSpec) -> pa.Table:
    """The found occurrences of the asked words: all columns but the vectors, and each one's row in the file."""
    columns = [name for name in names if name not in ("vector", "text")]
    table = pq.read_table(path, columns=columns)
    table = table.append_column("row", pa.array(np.arange(len(table))))
    kept = pc.and_(
        pc.equal(table["status"], "found"), pc.is_in(table["word"], pa.array(list(wanted.words), pa.string()))
    )
    if "control" in names:
        kept = pc.and_(kept, pc.invert(pc.fill_null(table["control"], False)))
    table = table.filter(kept)
    layers = table["layer"].unique().to_pylist()
    if len(layers) > 1:
        layer = wanted.layer if wanted.layer in layers else max(layers, key=_depth)
        table = table.filter(pc.equal(table["layer"], layer))
    return table


def _depth(layer: str) -> tuple[bool, int]:
    return layer.isdigit(), int(layer) if layer.isdigit() else 0


def _maps(path: Path, table: pa.Table, wanted: MapSpec) -> Iterator[WordMap]:
    roles = [role for role in wanted.titles if pc.any(pc.equal(table["model"], role)).as_py()]
    senses = _senses(wanted)
    most = max(_FEWEST, min(wanted.points, _ALL_POINTS // max(1, len(wanted.words))))
    chosen: list[tuple[str, int, list[pa.Table]]] = []
    for number, word in enumerate(wanted.words):
        of_word = table.filter(pc.equal(table["word"], word))
        parts = [of_word.filter(pc.equal(of_word["model"], role)) for role in roles]
        if not parts or len(parts[0]) < _FEWEST:
            continue
        # Rows of two models pair up, or each would show other occurrences.
        if any(part.select(_KEYS[1:]) != parts[0].select(_KEYS[1:]) for part in parts[1:]):
            raise ValueError(f"occurrences of {word} differ between models")
        total = len(parts[0])
        rows = np.arange(total)
        if total > most:
            random = np.random.default_rng([wanted.seed, number])
            rows = np.sort(random.choice(total, most, replace=False))
        chosen.append((word, total, [part.take(pa.array(rows)) for part in parts]))
    rows_of_file = [np.asarray(part["row"].to_numpy(), np.int64) for _, _, parts in chosen for part in parts]
    vectors = _read(path, rows_of_file, wanted.include_text)
    models = len(roles)
    spans = [(texts, parts[0]) for (_, texts), (_, _, parts) in zip(vectors[::models], chosen, strict=True)]
    size = sum(len(extract.encode()) for texts, table in spans for extract in _extracts(table, texts, _AROUND))
    around = min(_AROUND, _AROUND * _TEXT_BYTES // max(1, size))
    for number, (word, total, parts) in enumerate(chosen):
        read = vectors[number * models : (number + 1) * models]
        spaces = [
            Projection(wanted.titles[role], *_projected(values, wanted))
            for role, (values, _) in zip(roles, read, strict=True)
        ]
        yield WordMap(
            word, total, spaces, _columns(parts[0], word, senses, wanted), _extracts(parts[0], read[0][1], around)
        )


def _read(path: Path, wanted: list[Ints], with_text: bool) -> list[tuple[Floats, list[str]]]:
    """Vectors, and texts, of rows of the file: for each list of rows those in its order, in one pass over the file."""
    every = np.concatenate(wanted) if wanted else np.empty(0, np.int64)
    order = np.argsort(every, kind="stable")
    vectors: list[Any] = [None] * len(every)
    texts: list[str] = [""] * len(every)
    seen = 0
    for batch in pq.ParquetFile(path).iter_batches(_BATCH, columns=["vector", *(["text"] if with_text else [])]):
        first, last = np.searchsorted(every[order], [seen, seen + len(batch)])
        here = order[first:last]
        if len(here):
            rows = batch.take(pa.array(every[here] - seen))
            values = rows.column(0).flatten().to_numpy(zero_copy_only=False).reshape(len(here), -1)
            for place, row in enumerate(here.tolist()):
                vectors[row] = values[place]
            if with_text:
                for row, text in zip(here.tolist(), rows.column(1).to_pylist(), strict=True):
                    texts[row] = text
        seen += len(batch)
    ends = np.cumsum([0, *map(len, wanted)]).tolist()
    return [(np.stack(vectors[first:last]), texts[first:last] if with_text else []) for first, last in pairwise(ends)]


def _projected(vectors: Floats, wanted: MapSpec) -> tuple[Floats, float | None]:
    """Two dimensions of one model's vectors, float32 [points, width]; the same vectors give the same points."""
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError:
        raise missing_extra("scikit-learn") from None
    explained = None
    if wanted.projection == "tsne":
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        points = TSNE(init="pca", perplexity=perplexity, random_state=wanted.seed).fit_transform(vectors)
        points = points - points.mean(axis=0)
    else:
        # Where all vectors are equal there is no variance to share out.
        with np.errstate(invalid="ignore"):
            fit = PCA(2, svd_solver="full" if min(vectors.shape) < 500 else "covariance_eigh").fit(vectors)
        points = fit.transform(vectors)
        explained = float(np.nan_to_num(fit.explained_variance_ratio_.sum()))
    reach = float(np.abs(points).max()) or 1.0
    return (points / reach).astype(np.float32), explained


def _columns(table: pa.Table, word: str, senses: pa.Table | None, wanted: MapSpec) -> dict[str, Column]:
    """What is known of the points, by name."""
    columns = {}
    if "time" in table.column_names and table["time"].null_count < len(table):
        seconds = table["time"].cast(pa.timestamp("s")).cast(pa.int64())
        days = pc.fill_null(pc.divide(seconds, 86_400), -1)
        columns[TIME] = Column(np.asarray(days.to_numpy(), np.int64))
    for name in table.column_names:
        if name.startswith("group."):
            columns[name] = _named(table[name].to_pylist())
    if senses is not None and wanted.senses.get(word):
        columns[SENSE] = _sense_column(table, word, senses, wanted.senses[word])
    return columns


def _named(values: list[str | None]) -> Column:
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    names = sorted(counts, key=lambda name: (-counts[name], name))
    if len(names) > _MOST_VALUES:
        names = [*names[: _MOST_VALUES - 1], _OTHER]
    number = {name: index for index, name in enumerate(names)}
    other = number.get(_OTHER, -1)
    return Column(np.array([-1 if value is None else number.get(value, other) for value in values], np.int64), names)


def _senses(wanted: MapSpec) -> pa.Table | None:
    path = wanted.change / SENSE_TABLE if wanted.change else None
    return pq.read_table(path) if path and path.is_file() else None


def _sense_column(table: pa.Table, word: str, senses: pa.Table, names: list[str]) -> Column:
    """Usage clusters of the points; -1 where an occurrence was not clustered."""
    mine = senses.filter(pc.equal(senses["word"], word))
    if "model" in mine.column_names and len(mine):
        mine = mine.filter(pc.equal(mine["model"], mine["model"][0]))
    numbers = np.asarray(mine["sense"].to_numpy(), np.int64)
    keys = zip(*(mine[name].to_pylist() for name in _KEYS[1:]), strict=True)
    known = dict(zip(keys, numbers.tolist(), strict=True))
    asked = zip(*(table[name].to_pylist() for name in _KEYS[1:]), strict=True)
    codes = np.array([known.get(key, -1) for key in asked], np.int64)
    return Column(np.where(codes < len(names), codes, -1), list(names))


def _extracts(table: pa.Table, texts: list[str], around: int) -> list[str]:
    """The tweets, so many characters around the word; accounts are masked before a cut parts them from their `@`."""
    result = []
    for text, start, end in zip(texts, table["start"].to_pylist(), table["end"].to_pylist(), strict=bool(texts)):
        before, behind = without_mentions(text[:start]), without_mentions(text[end:])
        first = max(0, len(before) - around)
        extract = f"{before[first:]}{text[start:end]}{behind[:around]}".strip()
        result.append(f"{'…' if first else ''}{extract}{'…' if around < len(behind) else ''}")
    return result
