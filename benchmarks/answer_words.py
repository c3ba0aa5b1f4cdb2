"""What `benchmarks.answer` measures of words: the spread of a word's occurrences, and what moved and what did not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.spatial.distance import pdist

from benchmarks.answer_measures import load
from benchmarks.answer_tweets import PROBES, USES, use_of
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.words.embedding.neighbours import nearest, overlap, words_in
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
_NEIGHBOURS = 10


def common_words(shards: Path, limit: int, minimum: int) -> list[str]:
    """The most frequent words of four letters or more in the training tweets; no hashtags, and none of `USES`."""
    split = open_split(shards, Manifest.read(shards), "train")
    texts = split.texts(np.arange(len(split)))
    counts = Counter(word for text in texts for word, *_ in words_in(text) if len(word) > 3 and word[0] != "#")
    found = [word for word, count in counts.most_common() if count >= minimum and word not in USES]
    return sorted(found[:limit])


def occurrences(folder: Path, model: Path) -> list[Row]:
    """Of each word of `USES`: how its occurrences spread, whether its uses are told apart, and what each is near to.

    Args:
        folder: that embed left, of these words and of others to be their neighbours, with texts.
        model: that it was made with.
    """
    read = pq.read_table(folder / "occurrences.parquet")
    read = read.filter(pc.equal(read["status"], "found"))
    words, texts, starts = (read[name].to_pylist() for name in ("word", "text", "start"))
    vectors = np.stack(read["vector"].to_numpy()).astype(np.float64)
    names = np.array(words)
    others = sorted(set(words) - set(USES))
    centroids = np.stack([vectors[names == word].mean(axis=0) for word in others])
    vectors, centroids = vectors - centroids.mean(axis=0), centroids - centroids.mean(axis=0)
    static = static_vectors(model, [*USES, *others])
    static -= static[len(USES) :].mean(axis=0)
    rows = []
    for number, word in enumerate(USES):
        here = np.flatnonzero(names == word)
        if len(here) < 4:
            continue
        uses = [use_of(word, texts[row], starts[row]) for row in here.tolist()]
        row = {"part": "occurrences", "word": word, **_spread(vectors[here], uses, list(USES[word]))}
        row["cosine_other_words"] = _mean_cosine(vectors[here], vectors[~np.isin(names, list(USES))])
        means = {use: vectors[here[[found == use for found in uses]]] for use in USES[word]}
        probes = [probe for probe in PROBES[word] if probe in others]
        row["probes"] = {
            "input matrix": _cosines(static[number], static[len(USES) :], others, probes),
            **{use: _cosines(some.mean(axis=0), centroids, others, probes) for use, some in means.items() if len(some)},
        }
        rows.append(row)
    return rows


def _cosines(vector: Floats, others: Floats, names: list[str], chosen: list[str]) -> dict[str, float]:
    """Of a vector with those of chosen words of the same space, the background's mean taken off."""
    rows = others[[names.index(word) for word in chosen]]
    cosines = rows @ vector / (np.linalg.norm(rows, axis=1) * np.linalg.norm(vector))
    return dict(zip(chosen, cosines.tolist(), strict=True))


def _spread(vectors: Floats, uses: list[str | None], names: list[str]) -> Row:
    """Cosines of pairs (background's mean taken off), and how well the nearer of two means tells the use."""
    labels = np.array([names.index(use) if use else -1 for use in uses])
    first, second = (vectors[labels == number] for number in (0, 1))
    row: Row = {"n": len(vectors), "n_by_use": {name: int((labels == i).sum()) for i, name in enumerate(names)}}
    row["cosine_all_pairs"] = _mean_cosine(vectors, vectors, itself=True)
    if min(len(first), len(second)) < 2:
        return row
    row["cosine_same_use"] = [_mean_cosine(part, part, itself=True) for part in (first, second)]
    row["cosine_other_use"] = _mean_cosine(first, second)
    row["use_told_right"] = [_told(first, second), _told(second, first)]
    plane = _plane(np.concatenate([first, second]))
    row["plane"] = {
        name: part.round(3).tolist() for name, part in zip(names, np.split(plane, [len(first)]), strict=True)
    }
    return row


def _told(mine: Floats, others: Floats) -> float:
    """Share of occurrences nearer to the mean of their own use, without themselves, than to that of the other."""
    own = (mine.sum(axis=0) - mine) / (len(mine) - 1)
    nearer = np.linalg.norm(mine - own, axis=1) < np.linalg.norm(mine - others.mean(axis=0), axis=1)
    return float(nearer.mean())


def _plane(vectors: Floats) -> Floats:
    """The first two principal components; float64 [rows, 2]. They do not know of uses."""
    centred = vectors - vectors.mean(axis=0)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T)


def _mean_cosine(some: Floats, others: Floats, itself: bool = False) -> float:
    """Of all pairs; where both are the same rows, no row is paired with itself."""
    one, two = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (some, others))
    total, pairs = float(one.sum(axis=0) @ two.sum(axis=0)), len(one) * len(two)
    return (total - len(one)) / (pairs - len(one)) if itself else total / pairs


def static_vectors(model: Path, words: list[str]) -> Floats:
    """The mean of the input matrix's rows of each word's pieces; float64 [words, width]."""
    tokenizer = load_tokenizer(str(model))
    matrix = load(model).get_input_embeddings().weight.detach().numpy().astype(np.float64)
    pieces = tokenizer(words, add_special_tokens=False)["input_ids"]
    return np.stack([matrix[ids].mean(axis=0) for ids in pieces])


def movement(folder: Path, words: list[str], model: Path, base: Path) -> Row:
    """What changed between base and model, each within its own space: neighbours of words, and distances between them.

    The same for the contextual means of the words' occurrences and for their rows in the input matrix: the overlap of
    the ten nearest among these words, and the correlation of all pairwise distances.

    Args:
        folder: that embed left, of both models.
        words: the words.
        model, base: the models.
    """
    found = [_read_word2vec(folder / name) for name in ("base_vectors.txt", "vectors.txt")]
    kept = [word for word in words if all(word in vectors for vectors in found)]
    contextual = [np.stack([vectors[word] for word in kept]) for vectors in found]
    static = [static_vectors(place, kept) for place in (base, model)]
    row: Row = {"part": "movement", "words": len(kept), "neighbours": _NEIGHBOURS}
    for name, (before, after) in (("contextual", contextual), ("static", static)):
        overlaps = [overlap(*pair) for pair in zip(_mutual(before, kept), _mutual(after, kept), strict=True)]
        row[f"{name}_overlap"] = float(np.mean([share for share in overlaps if share is not None]))
        row[f"{name}_unchanged"] = float(np.mean([share == 1 for share in overlaps]))
        row[f"{name}_correlation"] = float(np.corrcoef(pdist(before), pdist(after))[0, 1])
    return row


def _mutual(vectors: Floats, words: list[str]) -> list[list[str]]:
    """The nearest of the same words, each without itself."""
    own = Vectors(VectorSpace(weights="one model", recipe="", layer=""), vectors.astype(np.float32))
    ranked = nearest(own, own, _NEIGHBOURS + 1)
    return [[words[row] for row, _ in near if row != self][:_NEIGHBOURS] for self, near in enumerate(ranked)]


def _read_word2vec(path: Path) -> dict[str, Floats]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    parts = (line.split(" ") for line in lines)
    return {word: np.array(values, np.float64) for word, *values in parts}
