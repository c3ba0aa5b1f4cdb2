"""Read the folder that embed writes: one model at one layer, and only the columns and words that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bert_tweets.common.arrays import Doubles, Floats, run_starts
from bert_tweets.common.errors import UserError, did_you_mean

from .folder import OCCURRENCES
from .summary import Summary, read_summary
from .vector_space import VectorSpace

# Minimum number of control words whose mean is subtracted; the mean of fewer would be about these words.
_FEWEST_CONTROLS = 20
_SPACE_COLUMNS = ("model", "layer", "correction")
NOT_FINITE = "some vectors contain NaN or infinity: training diverged; use a model with a finite loss"


@dataclass(frozen=True)
class VectorStore:
    """The vectors of one space in a folder written by embed.

    Attributes:
        path: path of occurrences.parquet.
        role: value of the column `model`: model, model.2, base.
        words: all words of the file, in order of appearance; the same for each model.
    """

    path: Path
    role: str
    space: VectorSpace
    summary: Summary
    columns: list[str]
    words: list[str]

    def read(self, columns: Sequence[str], words: Sequence[str] | None = None, found: bool = True) -> pa.Table:
        """Read rows of this space, in the order of the file.

        Args:
            columns: columns to read; those that the file lacks are left out.
            words: words whose rows to read; None: all.
            found: whether to read only rows that have a vector.
        """
        return self._scanner(columns, words, found).to_table()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read the found rows batch by batch."""
        yield from self._scanner(columns, None, True).to_batches()

    def _scanner(self, columns: Sequence[str], words: Sequence[str] | None, found: bool) -> Any:
        kept = pc.field("model") == self.role
        kept &= (pc.field("layer") == self.space.layer) & (pc.field("correction") == self.space.correction)
        if found:
            kept &= pc.field("status") == "found"
        if words is not None:
            kept &= pc.field("word").isin(list(words))
        there = [name for name in dict.fromkeys(columns) if name in self.columns]
        # No read-ahead: vectors are large.
        return ds.dataset(self.path).scanner(columns=there, filter=kept, batch_readahead=2, fragment_readahead=1)


def vectors_of(rows: pa.Table | pa.RecordBatch) -> Floats:
    """The column `vector` of found rows: float32 [rows, width].

    Raises:
        UserError: some values are not finite, which would make every distance and test meaningless, or the widths
            differ.
    """
    column = rows.column("vector")
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    if not np.isfinite(flat).all():
        raise UserError(f"{OCCURRENCES}: {NOT_FINITE}")
    if len(column) and len(flat) % len(column):
        raise UserError(f"{OCCURRENCES}: has vectors of several widths; embed again")
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)


def table_in(folder: str | Path) -> Path:
    """The path of occurrences.parquet in a folder; raises UserError if there is no such file."""
    path = Path(folder) / OCCURRENCES
    if not path.is_file():
        raise UserError(f"{folder}: has no {OCCURRENCES}; give a folder written by embed")
    return path


def open_vectors(
    folder: str | Path, model: str = "model", layer: str | None = None, correction: str | None = None
) -> VectorStore:
    """Open a folder written by embed; reads only names.

    Args:
        model: value of the column `model`: model, base, model.2 for a further training seed.
        layer: value of the column `layer`, `mean(9,10,11,12)` or `12`; None: the only one.
        correction: value of the column `correction`; None: the only one.

    Raises:
        UserError: there is no such folder, model, layer or correction, or there are several and none was given.
    """
    path = table_in(folder)
    try:
        columns = list(pq.read_schema(path).names)
        kinds = ds.dataset(path).to_table(columns=["word", *_SPACE_COLUMNS])
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as written by embed ({str(error).splitlines()[0]})") from None
    summary = read_summary(folder)
    words = kinds.column("word").unique().to_pylist()
    kinds = kinds.group_by(list(_SPACE_COLUMNS)).aggregate([]).to_pylist()
    chosen: dict[str, str] = {}
    for name, value in zip(_SPACE_COLUMNS, (model, layer, correction), strict=True):
        chosen[name] = _one_of(name, value, sorted({kind[name] for kind in kinds}), path)
        kinds = [kind for kind in kinds if kind[name] == chosen[name]]
    space = VectorSpace(
        summary.weights.get(model, ""),
        summary.recipe,
        chosen["layer"],
        summary.pooling,
        chosen["correction"],
        summary.correction_hashes.get(model, ""),
    )
    return VectorStore(path, model, space, summary, columns, words)


def _one_of(name: str, value: str | None, there: list[str], path: Path) -> str:
    if value is None and len(there) > 1:
        raise UserError(f"{path}: has vectors of {name} {', '.join(there)}; give {name}= one of them")
    if value is not None and there and value not in there:
        raise UserError(f"{path}: has no {name} {value}{did_you_mean(value, there)}; it has {', '.join(there)}")
    if not there:
        raise UserError(f"{path}: has no occurrences")
    return value if value is not None else there[0]


def centroids_of(source: VectorStore) -> Floats:
    """Means over each word's found occurrences, float32 [words of the source, width]; NaN for a word without any."""
    sums: Doubles | None = None
    counts = np.zeros(len(source.words), np.int64)
    for batch in source.batches(["word", "vector"]):
        if not len(batch):
            continue
        vectors = vectors_of(batch)
        number = np.asarray(pc.index_in(batch.column("word"), pa.array(source.words, pa.string())), np.int64)
        order = np.argsort(number, kind="stable")
        starts = run_starts(number[order])
        sums = np.zeros((len(counts), vectors.shape[1])) if sums is None else sums
        sums[number[order[starts]]] += np.add.reduceat(vectors[order].astype(np.float64), starts, axis=0)
        counts += np.bincount(number, minlength=len(counts))
    if sums is None:
        # The width is not known: no word has a vector.
        return np.full((len(counts), 1), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).astype(np.float32)


def chosen_words_of(source: VectorStore) -> list[str]:
    """The chosen words of a source, that is, those that are not control words."""
    rows = source.read(["word", "control"], found=False)
    if "control" in rows.column_names:
        rows = rows.filter(pc.invert(pc.fill_null(rows.column("control"), False)))
    return list(rows.column("word").unique().to_pylist())


def control_mean(space: VectorSpace, controls: Floats) -> Doubles | None:
    """The origin to subtract before cosines: the mean of the control words; None for too few, or a corrected space.

    Contextual vectors share a large direction, which makes all cosines similar (Mu and Viswanath 2018,
    "All-but-the-top", section 3). The mean of a few chosen words would be about these words. `controls` are the
    centroids of the control words, float32 [control words, width].
    """
    if space.correction != "none" or len(controls) < _FEWEST_CONTROLS:
        return None
    return np.asarray(controls.mean(axis=0, dtype=np.float64))
