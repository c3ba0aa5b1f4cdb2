"""Which layers separate two uses of one form, measured on pseudo-words made of two words' occurrences.

    python -m benchmarks.layers model=FOLDER tokenizer=FOLDER tweets=a.csv.gz,b.csv.gz [pairs=24] [occurrences=100]

Two words of similar frequency, one token each, are replaced by one third token in their tweets, so that only the
context shows which of them stood there. For each layer, and for means over the last two, the last four and all layers,
two measures over the pseudo-words of each file: the AUC of the cosine at separating pairs of the same origin from pairs
of different origins, and the adjusted Rand index of 2-means clusters against the origin. Each comes with its standard
error and its difference from the last four layers, with a 95 % bootstrap interval over pseudo-words. Writes
benchmarks/results/layers.json and prints a table.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from transformers import AutoTokenizer

from benchmarks.common import Row, markdown_table, provenance, read_settings, write_rows
from bert_tweets import embed, prepare
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.words.occurrences.find import open_corpus

Array = npt.NDArray[Any]
PLACEHOLDER = "thing"
RESAMPLES = 2000
_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True)
class PseudoWord:
    """Two words under one form.

    Attributes:
        words: the two words.
        texts: equally many tweets of the first and then of the second word, with PLACEHOLDER in its place.
    """

    words: tuple[str, str]
    texts: list[str]


def pseudo_words(
    texts: list[str], vocabulary: set[str], pairs: int, occurrences: int, random: np.random.Generator
) -> list[PseudoWord]:
    """Pair words of similar frequency; use tweets with exactly one of the two, once, and without PLACEHOLDER."""
    tweets_of: dict[str, list[int]] = {}
    word_counts = [Counter(_WORD.findall(text.lower())) for text in texts]
    for number, counts in enumerate(word_counts):
        if PLACEHOLDER not in counts:
            for word in (word for word, count in counts.items() if count == 1 and word in vocabulary):
                tweets_of.setdefault(word, []).append(number)
    frequent = [word for word, tweets in tweets_of.items() if len(tweets) >= 2 * occurrences]
    # Without the most frequent tenth, which are mostly function words.
    ranked = sorted(frequent, key=lambda word: (-len(tweets_of[word]), word))[len(frequent) // 10 :]
    starts = random.permutation(len(ranked) // 2)[:pairs]
    result = []
    for start in sorted(starts.tolist()):
        words = (ranked[2 * start], ranked[2 * start + 1])
        sample = []
        for word, other in (words, words[::-1]):
            without_other = [number for number in tweets_of[word] if other not in word_counts[number]]
            sample += [(number, word) for number in random.permutation(without_other)[:occurrences].tolist()]
        result.append(PseudoWord(words, [_replace_word(texts[number], word) for number, word in sample]))
    return [pseudo_word for pseudo_word in result if len(pseudo_word.texts) == 2 * occurrences]


def _replace_word(text: str, word: str) -> str:
    return re.sub(rf"(?i)(?<![a-z]){word}(?![a-z])", PLACEHOLDER, text)


def embed_pseudo_words(
    pseudo: list[PseudoWord], model: str, tokenizer: str, folder: Path
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Embed the placeholder in all tweets.

    Returns:
        The names of the layers, and vectors, float32 [pseudo-words, tweets, layers, width]; NaN if a tweet does not
        have the placeholder exactly once.
    """
    ids = [f"{number}-{row}" for number, pseudo_word in enumerate(pseudo) for row in range(len(pseudo_word.texts))]
    texts = [text for pseudo_word in pseudo for text in pseudo_word.texts]
    pacsv.write_csv(pa.table({"id": ids, "text": texts}), folder / "rewritten.csv")
    paths = [f"input={folder / 'rewritten.csv'}", f"output={folder / 'rewritten'}", f"tokenizer={tokenizer}"]
    prepare.stage([*paths, "deduplicate=none", "id_column=id", "text_column=text"])
    layers = layer_count(model)
    options = [
        f"words={PLACEHOLDER}",
        "background_tweets=0",
        "layer_pooling=none",
        f"layers={','.join(map(str, range(layers + 1)))}",
    ]
    embed.stage([f"model={model}", f"data.path={folder / 'rewritten'}", f"output={folder / 'words'}", *options])
    table = pq.read_table(folder / "words" / "occurrences.parquet", columns=["tweet_id", "layer", "status", "vector"])
    table = table.filter(pa.compute.equal(table["status"], "found"))
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    count, names = len(pseudo[0].texts), list(map(str, range(layers + 1)))
    result = np.full((len(pseudo), count, len(names), vectors.shape[1]), np.nan, np.float32)
    indices = [tuple(map(int, name.split("-"))) for name in table["tweet_id"].to_pylist()]
    word, tweet = np.array(indices).T
    result[word, tweet, [names.index(name) for name in table["layer"].to_pylist()]] = vectors
    return names, result


def layer_count(model: str) -> int:
    """Number of layers of a model, without the embeddings."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).num_hidden_layers)


def spaces(names: list[str], vectors: Array) -> dict[str, Array]:
    """Vectors of each layer, and their means over the last two, the last four, and all layers but the embeddings."""
    layers = {name: vectors[..., number, :] for number, name in enumerate(names)}
    means = {"last two": slice(-2, None), "last four": slice(-4, None), "all": slice(1, None)}
    return layers | {name: vectors[..., selection, :].mean(axis=-2) for name, selection in means.items()}


def measures(vectors: Array) -> tuple[float, float]:
    """AUC and adjusted Rand index of a pseudo-word.

    Args:
        vectors: float32 [tweets, width]; the first half is of one origin, the second of the other. Rows with NaN are
            ignored.
    """
    valid = ~np.isnan(vectors).any(axis=1)
    origin = (np.arange(len(vectors)) >= len(vectors) // 2)[valid]
    vectors = vectors[valid]
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(units), 1)
    auc = roc_auc_score(origin[first] == origin[second], (units @ units.T)[first, second])
    clusters = KMeans(2, n_init=10, random_state=0).fit_predict(vectors)
    return float(auc), float(adjusted_rand_score(origin, clusters))


def compare_spaces(scores: Array, names: list[str], random: np.random.Generator) -> list[Row]:
    """A row per space, from its measures, float64 [pseudo-words, spaces, 2]."""
    rows = []
    last_four = scores[:, names.index("last four")]
    draws = random.integers(0, len(scores), (RESAMPLES, len(scores)))
    for number, name in enumerate(names):
        row: Row = {"space": name, "pseudo_words": len(scores)}
        for column, measure in enumerate(("auc", "adjusted_rand")):
            values = scores[:, number, column]
            differences = values - last_four[:, column]
            low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5]).tolist()
            standard_error = float(values.std(ddof=1) / len(values) ** 0.5)
            row |= {measure: float(values.mean()), f"{measure}_standard_error": standard_error}
            row[f"{measure}_difference_from_last_four"] = [float(differences.mean()), low, high]
        rows.append(row)
    return rows


def measure_file(tweets: str, settings: dict[str, Any], folder: Path) -> list[Row]:
    """The rows of one file of tweets."""
    paths = [f"input={tweets}", f"output={folder / 'shards'}", f"tokenizer={settings['tokenizer']}"]
    prepare.stage([*paths, "deduplicate=near"])
    corpus = open_corpus(str(folder / "shards"), Manifest.read(str(folder / "shards")))
    texts = [text for shard in range(len(corpus.shards)) for text in corpus.batch(shard).column("text").to_pylist()]
    vocabulary = AutoTokenizer.from_pretrained(settings["tokenizer"]).get_vocab()
    random = np.random.default_rng(settings["seed"])
    pseudo = pseudo_words(texts, set(vocabulary), settings["pairs"], settings["occurrences"], random)
    names, vectors = embed_pseudo_words(pseudo, settings["model"], settings["tokenizer"], folder)
    by_space = spaces(names, vectors)
    values = np.array([[measures(space[number]) for space in by_space.values()] for number in range(len(pseudo))])
    pairs = [" / ".join(pseudo_word.words) for pseudo_word in pseudo]
    rows = compare_spaces(values, list(by_space), random)
    return [{"tweets": Path(tweets).name, **row, "pairs": pairs} for row in rows]


def main(arguments: list[str]) -> None:
    settings = read_settings(
        arguments,
        __doc__,
        model="",
        tokenizer="",
        tweets="",
        pairs=24,
        occurrences=100,
        seed=0,
        output="benchmarks/results/layers.json",
    )
    rows = []
    for tweets in settings["tweets"].split(","):
        with tempfile.TemporaryDirectory(prefix="layers-") as folder:
            rows += measure_file(tweets, settings, Path(folder))
    columns = provenance("layers", arguments)
    write_rows(settings["output"], [{**row, **columns} for row in rows])
    show(rows)


def show(rows: list[Row]) -> None:
    def cells(row: Row, measure: str) -> tuple[str, str]:
        difference, low, high = row[f"{measure}_difference_from_last_four"]
        value = f"{row[measure]:.3f} ± {row[f'{measure}_standard_error']:.3f}"
        return value, "" if row["space"] == "last four" else f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"

    header = ("tweets", "layers", "AUC", "minus last four", "adjusted Rand", "minus last four")
    table = [(row["tweets"], row["space"], *cells(row, "auc"), *cells(row, "adjusted_rand")) for row in rows]
    print(markdown_table(header, table))


if __name__ == "__main__":
    main(sys.argv[1:])
