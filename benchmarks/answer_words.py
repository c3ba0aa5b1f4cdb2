"""What `benchmarks.answer` measures about words: how their occurrences spread, and what training changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.spatial.distance import pdist

from benchmarks.answer_measures import load
from benchmarks.answer_tweets import PROBES, USES, use_of
from benchmarks.common import Row
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.words.embedding.neighbours import nearest, overlap, words_in
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

Floats = npt.NDArray[np.float64]
_NEIGHBOURS = 10


def common_words(shards: Path, limit: int, minimum: int) -> list[str]:
    """The most frequent words of four or more letters in the training tweets, without hashtags and words of `USES`."""
    split = open_split(shards, Manifest.read(shards), "train")
    texts = split.texts(np.arange(len(split)))
    counts = Counter(word for text in texts for word, *_ in words_in(text) if len(word) > 3 and word[0] != "#")
    frequent = [word for word, count in counts.most_common() if count >= minimum and word not in USES]
    return sorted(frequent[:limit])


def occurrences(folder: Path, model: Path) -> list[Row]:
    """For each word of `USES`: spread of its occurrences, separability of its uses, and cosines of uses with probes.

    Args:
        folder: output of embed for these words and for others as their neighbours, with texts.
        model: folder of the model that embed used.
    """
    table = pq.read_table(folder / "occurrences.parquet")
    table = table.filter(pc.equal(table["status"], "found"))
    words, texts, starts = (table[name].to_pylist() for name in ("word", "text", "start"))
    vectors = np.stack(table["vector"].to_numpy()).astype(np.float64)
    names = np.array(words)
    others = sorted(set(words) - set(USES))
    centroids = np.stack([vectors[names == word].mean(axis=0) for word in others])
    vectors, centroids = vectors - centroids.mean(axis=0), centroids - centroids.mean(axis=0)
    static = static_vectors(model, [*USES, *others])
    static -= static[len(USES) :].mean(axis=0)
    rows = []
    for number, word in enumerate(USES):
        own = np.flatnonzero(names == word)
        if len(own) < 4:
            continue
        uses = [use_of(word, texts[row], starts[row]) for row in own.tolist()]
        row = {"kind": "occurrences", "word": word, **_spread(vectors[own], uses, list(USES[word]))}
        row["cosine_other_words"] = _mean_cosine(vectors[own], vectors[~np.isin(names, list(USES))])
        by_use = {use: vectors[own[[use_here == use for use_here in uses]]] for use in USES[word]}
        probes = [probe for probe in PROBES[word] if probe in others]
        row["probes"] = {
            "input matrix": _cosines(static[number], static[len(USES) :], others, probes),
            **{
                use: _cosines(vectors_of_use.mean(axis=0), centroids, others, probes)
                for use, vectors_of_use in by_use.items()
                if len(vectors_of_use)
            },
        }
        rows.append(row)
    return rows


def _cosines(vector: Floats, others: Floats, names: list[str], probes: list[str]) -> dict[str, float]:
    """Cosines of a vector with the probes' vectors; all are of one space and centred on the background's mean."""
    rows = others[[names.index(word) for word in probes]]
    cosines = rows @ vector / (np.linalg.norm(rows, axis=1) * np.linalg.norm(vector))
    return dict(zip(probes, cosines.tolist(), strict=True))


def _spread(vectors: Floats, uses: list[str | None], names: list[str]) -> Row:
    """Mean cosines of pairs of centred vectors, and the accuracy of classifying a use by the nearest mean."""
    labels = np.array([names.index(use) if use else -1 for use in uses])
    first, second = (vectors[labels == number] for number in (0, 1))
    row: Row = {"n": len(vectors), "n_by_use": {name: int((labels == i).sum()) for i, name in enumerate(names)}}
    row["cosine_all_pairs"] = _mean_cosine(vectors, vectors, same=True)
    if min(len(first), len(second)) < 2:
        return row
    row["cosine_within_use"] = [_mean_cosine(part, part, same=True) for part in (first, second)]
    row["cosine_between_uses"] = _mean_cosine(first, second)
    row["nearest_mean_accuracy"] = [_accuracy(first, second), _accuracy(second, first)]
    parts = np.split(_principal_components(np.concatenate([first, second])), [len(first)])
    row["projection"] = {name: part.round(3).tolist() for name, part in zip(names, parts, strict=True)}
    return row


def _accuracy(vectors: Floats, others: Floats) -> float:
    """Share of a use's occurrences nearer to its own mean (leaving each itself out) than to the other use's mean."""
    leave_one_out = (vectors.sum(axis=0) - vectors) / (len(vectors) - 1)
    to_other = np.linalg.norm(vectors - others.mean(axis=0), axis=1)
    nearer = np.linalg.norm(vectors - leave_one_out, axis=1) < to_other
    return float(nearer.mean())


def _principal_components(vectors: Floats) -> Floats:
    """Projection on the first two principal components, which are computed without the uses; float64 [rows, 2]."""
    centred = vectors - vectors.mean(axis=0)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T)


def _mean_cosine(first: Floats, second: Floats, same: bool = False) -> float:
    """Mean cosine over all pairs; if both are the `same` rows, without the pairs of a row with itself."""
    first, second = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second))
    total, pairs = float(first.sum(axis=0) @ second.sum(axis=0)), len(first) * len(second)
    return (total - len(first)) / (pairs - len(first)) if same else total / pairs


def static_vectors(model: Path, words: list[str]) -> Floats:
    """Mean of the input matrix's rows over each word's subwords; float64 [words, width]."""
    tokenizer = load_tokenizer(str(model))
    matrix = load(model).get_input_embeddings().weight.detach().numpy().astype(np.float64)
    subwords = tokenizer(words, add_special_tokens=False)["input_ids"]
    return np.stack([matrix[ids].mean(axis=0) for ids in subwords])


def movement(folder: Path, words: list[str], model: Path, base: Path) -> Row:
    """Changes from base to model, each measured within its own space: words' neighbours and pairwise distances.

    Both for the means of the words' occurrences (contextual) and for their rows of the input matrix (static): the
    overlap of the ten nearest among these words, and the correlation of all pairwise distances.

    Args:
        folder: output of embed for both models.
        words: the words.
        model: folder of the adapted model.
        base: folder of the base model.
    """
    centroids = [_read_word2vec(folder / name) for name in ("base_vectors.txt", "vectors.txt")]
    common = [word for word in words if all(word in vectors for vectors in centroids)]
    contextual = [np.stack([vectors[word] for word in common]) for vectors in centroids]
    static = [static_vectors(path, common) for path in (base, model)]
    row: Row = {"kind": "movement", "words": len(common), "neighbours": _NEIGHBOURS}
    for name, (before, after) in (("contextual", contextual), ("static", static)):
        neighbours = zip(_neighbours(before, common), _neighbours(after, common), strict=True)
        overlaps = [overlap(*pair) for pair in neighbours]
        row[f"{name}_overlap"] = float(np.mean([share for share in overlaps if share is not None]))
        row[f"{name}_unchanged"] = float(np.mean([share == 1 for share in overlaps]))
        row[f"{name}_correlation"] = float(np.corrcoef(pdist(before), pdist(after))[0, 1])
    return row


def _neighbours(vectors: Floats, words: list[str]) -> list[list[str]]:
    """Each word's nearest neighbours among the same words, without itself."""
    own = Vectors(VectorSpace(weights="one model", recipe="", layer=""), vectors.astype(np.float32))
    ranked = nearest(own, own, _NEIGHBOURS + 1)
    return [[words[row] for row, _ in near if row != self][:_NEIGHBOURS] for self, near in enumerate(ranked)]


def _read_word2vec(path: Path) -> dict[str, Floats]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    parts = (line.split(" ") for line in lines)
    return {word: np.array(values, np.float64) for word, *values in parts}
