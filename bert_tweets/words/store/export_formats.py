"""Vectors as others read them: word2vec text and binary, npz, safetensors, and occurrences for Embedding Atlas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float32]


def write_word2vec_text(path: Path, names: Sequence[str], vectors: Floats) -> None:
    """Writes word2vec text: `count width`, then a word and its numbers a line.

    A space within a phrase is written `_`; a word without a vector (NaN) is left out.

    Args:
        path: the file.
        names: the words.
        vectors: float32 [words, width].
    """
    found = _known(vectors)
    lines = [f"{len(found)} {vectors.shape[1]}"]
    for row in found.tolist():
        # Nine digits give a float32 back exactly.
        numbers = " ".join(f"{value:.9g}" for value in vectors[row].tolist())
        lines.append(f"{_one_word(names[row])} {numbers}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_word2vec_binary(path: Path, names: Sequence[str], vectors: Floats) -> None:
    """Writes the binary format of word2vec: the same, the numbers as little-endian float32."""
    found = _known(vectors)
    with path.open("wb") as file:
        file.write(f"{len(found)} {vectors.shape[1]}\n".encode())
        for row in found.tolist():
            file.write(f"{_one_word(names[row])} ".encode() + vectors[row].astype("<f4").tobytes() + b"\n")


def write_npz(path: Path, names: Sequence[str], vectors: Floats, space: dict[str, str]) -> None:
    """Writes the arrays `words`, `vectors` and `space`, the latter as JSON; none needs pickle to be read."""
    found = _known(vectors)
    words = np.array([names[row] for row in found.tolist()], np.str_)
    with path.open("wb") as file:
        np.savez(file, words=words, vectors=vectors[found], space=np.array(json.dumps(space)))


def write_safetensors(path: Path, names: Sequence[str], vectors: Floats, space: dict[str, str]) -> None:
    """Writes the tensor `vectors`; its metadata holds `words`, a JSON list, and what the space is."""
    from safetensors.numpy import save_file

    found = _known(vectors)
    words = json.dumps([names[row] for row in found.tolist()], ensure_ascii=False)
    save_file({"vectors": np.ascontiguousarray(vectors[found])}, path, {"words": words, **space})


def flat_table(rows: pa.Table, vectors: Floats) -> pa.Table:
    """Found occurrences as Embedding Atlas and data frames read them.

    Group columns are called `group_NAME`, for a point would ask for quotes in SQL; `projection_x` and `projection_y`
    are the two directions of most variance of these vectors; `vector` is a list of fixed size, `text` is there where
    the rows have it.

    Args:
        rows: with a column `vector`, which is replaced.
        vectors: float32 [rows, width], theirs.
    """
    names = [name for name in rows.column_names if name != "vector"]
    columns = {name.replace("group.", "group_"): rows.column(name) for name in names}
    if "time" in columns:
        # pandas takes no seconds.
        columns["time"] = pc.cast(columns["time"], pa.timestamp("us", tz="UTC"))
    projected = _projected(vectors)
    columns |= {"projection_x": pa.array(projected[:, 0]), "projection_y": pa.array(projected[:, 1])}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), max(vectors.shape[1], 1))
    return pa.table(columns)


def _projected(vectors: Floats) -> Floats:
    """float32 [rows, 2], the first principal components; their signs are those of the largest part."""
    if not len(vectors):
        return np.zeros((0, 2), np.float32)
    points = vectors - vectors.mean(axis=0, dtype=np.float64)
    axes = np.linalg.eigh(points.T @ points)[1][:, ::-1][:, :2]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    projected: Floats = (points @ axes).astype(np.float32)
    return projected


def _known(vectors: Floats) -> npt.NDArray[np.int64]:
    return np.flatnonzero(~np.isnan(vectors).any(axis=1))


def _one_word(name: str) -> str:
    return name.replace(" ", "_")
