"""Export formats: word2vec text and binary, npz, safetensors, and a table of occurrences for Embedding Atlas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Floats, Ints
from bert_tweets.words.statistics.principal_components import principal_components


def write_word2vec_text(path: Path, names: Sequence[str], vectors: Floats) -> None:
    """Write word2vec text: `count width`, then a line per word with its vector, float32 [words, width].

    A space within a phrase is written `_`; a word without a vector (NaN) is left out.
    """
    found = _known(vectors)
    lines = [f"{len(found)} {vectors.shape[1]}"]
    for row in found.tolist():
        # Nine digits represent a float32 exactly.
        numbers = " ".join(f"{value:.9g}" for value in vectors[row].tolist())
        lines.append(f"{_one_word(names[row])} {numbers}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_word2vec_binary(path: Path, names: Sequence[str], vectors: Floats) -> None:
    """Write the binary format of word2vec: the same, with numbers as little-endian float32."""
    found = _known(vectors)
    with path.open("wb") as file:
        file.write(f"{len(found)} {vectors.shape[1]}\n".encode())
        for row in found.tolist():
            file.write(f"{_one_word(names[row])} ".encode() + vectors[row].astype("<f4").tobytes() + b"\n")


def write_npz(path: Path, names: Sequence[str], vectors: Floats, space: dict[str, str]) -> None:
    """Write the arrays `words`, `vectors` and `space` (as JSON); reading them needs no pickle."""
    found = _known(vectors)
    words = np.array([names[row] for row in found.tolist()], np.str_)
    with path.open("wb") as file:
        np.savez(file, words=words, vectors=vectors[found], space=np.array(json.dumps(space)))


def write_safetensors(path: Path, names: Sequence[str], vectors: Floats, space: dict[str, str]) -> None:
    """Write the tensor `vectors`; its metadata has `words`, a JSON list, and the properties of the space."""
    from safetensors.numpy import save_file

    found = _known(vectors)
    words = json.dumps([names[row] for row in found.tolist()], ensure_ascii=False)
    save_file({"vectors": np.ascontiguousarray(vectors[found])}, path, {"words": words, **space})


def flat_table(rows: pa.Table, vectors: Floats) -> pa.Table:
    """A table of found occurrences and their vectors, float32 [rows, width], for Embedding Atlas and data frames.

    Group columns are called `group_NAME`, because a point would need quotes in SQL; `projection_x` and `projection_y`
    are the first two principal components of these vectors; `vector`, which is replaced, is a list of fixed size.
    """
    names = [name for name in rows.column_names if name != "vector"]
    columns = {name.replace("group.", "group_"): rows.column(name) for name in names}
    if "time" in columns:
        # pandas has no timestamps in seconds.
        columns["time"] = pc.cast(columns["time"], pa.timestamp("us", tz="UTC"))
    projected, _ = principal_components(vectors)
    columns |= {"projection_x": pa.array(projected[:, 0]), "projection_y": pa.array(projected[:, 1])}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), max(vectors.shape[1], 1))
    return pa.table(columns)


def _known(vectors: Floats) -> Ints:
    return np.flatnonzero(~np.isnan(vectors).any(axis=1))


def _one_word(name: str) -> str:
    return name.replace(" ", "_")
