"""What embed left, read again: one model's occurrences at one layer, and no more columns and words than are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bert_tweets.common.errors import UserError, did_you_mean

from .vector_space import Floats, VectorSpace

# Control words whose mean stands for what all words share; of fewer it would be about themselves.
_FEWEST_CONTROLS = 20
OCCURRENCES, SUMMARY = "occurrences.parquet", "summary.json"
_NAMES = ("model", "layer", "correction")
NO_NUMBERS = "some vectors are no numbers (NaN): the model has diverged; embed with one whose loss is sound"


@dataclass(frozen=True)
class VectorStore:
    """One space of a folder that embed left.

    Attributes:
        path: of occurrences.parquet.
        role: what rows call the model: model, model.2, base.
        space: what its vectors have in common.
        summary: summary.json.
        columns: that the file has.
        words: all words of the file, in the order in which they come up; the same for each model.
    """

    path: Path
    role: str
    space: VectorSpace
    summary: dict[str, Any]
    columns: list[str]
    words: list[str]

    def read(self, columns: Sequence[str], words: Sequence[str] | None = None, found: bool = True) -> pa.Table:
        """Rows of this space, in the order of the file.

        Args:
            columns: to read; those that the file lacks are left out.
            words: whose; None: all.
            found: only those that have a vector.
        """
        return self._scanner(columns, words, found).to_table()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The found rows, some at a time."""
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
        UserError: some are no numbers, beside which no distance is larger and every test a finding, or of other widths.
    """
    column = rows.column("vector")
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    if not np.isfinite(flat).all():
        raise UserError(f"{OCCURRENCES}: {NO_NUMBERS}")
    if len(column) and len(flat) % len(column):
        raise UserError(f"{OCCURRENCES}: its vectors are of several widths; embed again")
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)


def table_in(folder: str | Path) -> Path:
    """The table of occurrences in a folder that embed left.

    Raises:
        UserError: there is none.
    """
    path = Path(folder) / OCCURRENCES
    if not path.is_file():
        raise UserError(f"{folder}: holds no {OCCURRENCES}; give the folder that embed left")
    return path


def open_vectors(
    folder: str | Path, model: str = "model", layer: str | None = None, correction: str | None = None
) -> VectorStore:
    """Opens a folder that embed left, of which nothing but names is read.

    Args:
        folder: the folder.
        model: as rows name it: model, base, model.2 for a further training seed.
        layer: as rows name it, `mean(9,10,11,12)` or `12`; None: the only one.
        correction: as rows name it; None: the only one.

    Raises:
        UserError: there is no such folder, model, layer or correction, or there are several and none was named.
    """
    path = table_in(folder)
    try:
        summary = json.loads((Path(folder) / SUMMARY).read_text(encoding="utf-8"))
        if not isinstance(summary, dict):
            raise ValueError(f"{SUMMARY} is no record")
        columns = list(pq.read_schema(path).names)
        kinds = ds.dataset(path).to_table(columns=["word", *_NAMES])
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as what embed leaves ({str(error).splitlines()[0]})") from None
    words = kinds.column("word").unique().to_pylist()
    kinds = kinds.group_by(list(_NAMES)).aggregate([]).to_pylist()
    chosen: dict[str, str] = {}
    for name, asked in zip(_NAMES, (model, layer, correction), strict=True):
        chosen[name] = _one_of(name, asked, sorted({kind[name] for kind in kinds}), path)
        kinds = [kind for kind in kinds if kind[name] == chosen[name]]
    space = VectorSpace(
        str(summary.get("weights", {}).get(model)),
        str(summary.get("recipe")),
        chosen["layer"],
        summary.get("pooling", "mean"),
        chosen["correction"],
        str(summary.get("correction_fitted", {}).get(model, "")),
    )
    return VectorStore(path, model, space, summary, columns, words)


def _one_of(name: str, asked: str | None, there: list[str], path: Path) -> str:
    if asked is None and len(there) > 1:
        raise UserError(f"{path}: holds vectors of {name} {', '.join(there)}; give {name}= one of them")
    if asked is not None and there and asked not in there:
        raise UserError(f"{path}: holds no {name} {asked}{did_you_mean(asked, there)}; it has {', '.join(there)}")
    if not there:
        raise UserError(f"{path}: holds no occurrences")
    return asked if asked is not None else there[0]


def centroids_of(source: VectorStore) -> Floats:
    """float32 [words of the source, width], means over a word's occurrences in one pass; NaN for a word without."""
    sums: npt.NDArray[np.float64] | None = None
    counts = np.zeros(len(source.words), np.int64)
    for batch in source.batches(["word", "vector"]):
        if not len(batch):
            continue
        vectors = vectors_of(batch)
        number = np.asarray(pc.index_in(batch.column("word"), pa.array(source.words, pa.string())), np.int64)
        order = np.argsort(number, kind="stable")
        starts = np.flatnonzero(np.diff(number[order], prepend=-1))
        sums = np.zeros((len(counts), vectors.shape[1])) if sums is None else sums
        sums[number[order[starts]]] += np.add.reduceat(vectors[order].astype(np.float64), starts, axis=0)
        counts += np.bincount(number, minlength=len(counts))
    if sums is None:
        # Of some width: none of the words is known.
        return np.full((len(counts), 1), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).astype(np.float32)


def asked(source: VectorStore) -> list[str]:
    """The words of a source that are no controls."""
    rows = source.read(["word", "control"], found=False)
    if "control" in rows.column_names:
        rows = rows.filter(pc.invert(pc.fill_null(rows.column("control"), False)))
    words: list[str] = rows.column("word").unique().to_pylist()
    return words


def control_mean(space: VectorSpace, controls: Floats) -> npt.NDArray[np.float64] | None:
    """What is taken off before cosines: the mean of the control words; None of few of them, or in a corrected space.

    Contextual vectors share a large direction, beside which all cosines look alike (Mu and Viswanath 2018,
    "All-but-the-top", section 3). The mean of a few asked words would be about these.

    Args:
        space: of the vectors.
        controls: float32 [control words, width], their centroids.
    """
    if space.correction != "none" or len(controls) < _FEWEST_CONTROLS:
        return None
    mean: npt.NDArray[np.float64] = controls.mean(axis=0, dtype=np.float64)
    return mean
