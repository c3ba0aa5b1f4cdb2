"""Which layers tell apart two uses of one form: pseudo-words, made of two words' occurrences.

    python -m benchmarks.layers model=FOLDER tokenizer=FOLDER tweets=a.csv.gz,b.csv.gz [pairs=24] [occurrences=100]

Two words of like frequency, one token each, are rewritten to one third token in their tweets, so that the form says
nothing and only the context can tell which of them stood there. Of each layer, and of means over the last two, the last
four and all: AUC of the cosine of pairs of the same origin against pairs of different origins, and adjusted Rand index
of 2-means against the origin, over the pseudo-words of each file, with its standard error, and the difference to the
last four with a 95 % bootstrap interval over pseudo-words. Writes benchmarks/results/layers.json and prints a table.
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

from benchmarks.common import command_of, machine, table, usage, words_of, write_rows
from bert_tweets import embed, prepare
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.words.occurrences.find import open_corpus

Array = npt.NDArray[Any]
BLANK = "thing"
RESAMPLES = 2000
_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True)
class PseudoWord:
    """Two words under one form.

    Attributes:
        words: the two.
        texts: as many tweets of each, one after the other, in which the word is BLANK.
    """

    words: tuple[str, str]
    texts: list[str]


def pseudo_words(
    texts: list[str], single: set[str], pairs: int, occurrences: int, random: np.random.Generator
) -> list[PseudoWord]:
    """Words of like frequency in pairs, each in one only, with tweets that hold one of the two once and no BLANK."""
    holders: dict[str, list[int]] = {}
    words_of_texts = [Counter(_WORD.findall(text.lower())) for text in texts]
    for number, counts in enumerate(words_of_texts):
        if BLANK not in counts:
            for word in (word for word, count in counts.items() if count == 1 and word in single):
                holders.setdefault(word, []).append(number)
    enough = [word for word, held in holders.items() if len(held) >= 2 * occurrences]
    # Neighbours by frequency, the most frequent tenth left out: these are words that say little.
    ranked = sorted(enough, key=lambda word: (-len(holders[word]), word))[len(enough) // 10 :]
    starts = random.permutation(len(ranked) // 2)[:pairs]
    made = []
    for start in sorted(starts.tolist()):
        words = (ranked[2 * start], ranked[2 * start + 1])
        chosen = []
        for word, other in (words, words[::-1]):
            alone = [number for number in holders[word] if other not in words_of_texts[number]]
            chosen += [(number, word) for number in random.permutation(alone)[:occurrences].tolist()]
        made.append(PseudoWord(words, [_rewritten(texts[number], word) for number, word in chosen]))
    return [one for one in made if len(one.texts) == 2 * occurrences]


def _rewritten(text: str, word: str) -> str:
    return re.sub(rf"(?i)(?<![a-z]){word}(?![a-z])", BLANK, text)


def embedded(made: list[PseudoWord], model: str, tokenizer: str, folder: Path) -> tuple[list[str], Array]:
    """Layers, and vectors, float32 [pseudo-words, tweets, layers, width]; NaN where one is not found once."""
    ids = [f"{number}-{row}" for number, one in enumerate(made) for row in range(len(one.texts))]
    texts = [text for one in made for text in one.texts]
    pacsv.write_csv(pa.table({"id": ids, "text": texts}), folder / "rewritten.csv")
    prepared = [f"input={folder / 'rewritten.csv'}", f"output={folder / 'rewritten'}", f"tokenizer={tokenizer}"]
    prepare.stage([*prepared, "deduplicate=none", "id_column=id", "text_column=text"])
    layers = len_of(model)
    asked = [
        f"words={BLANK}",
        "background_tweets=0",
        "layer_pooling=none",
        f"layers={','.join(map(str, range(layers + 1)))}",
    ]
    embed.stage([f"model={model}", f"data.path={folder / 'rewritten'}", f"output={folder / 'words'}", *asked])
    rows = pq.read_table(folder / "words" / "occurrences.parquet", columns=["tweet_id", "layer", "status", "vector"])
    found = rows.filter(pa.compute.equal(rows["status"], "found"))
    vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
    count, names = len(made[0].texts), list(map(str, range(layers + 1)))
    result = np.full((len(made), count, len(names), vectors.shape[1]), np.nan, np.float32)
    places = [tuple(map(int, name.split("-"))) for name in found["tweet_id"].to_pylist()]
    pseudo, row = np.array(places).T
    result[pseudo, row, [names.index(name) for name in found["layer"].to_pylist()]] = vectors
    return names, result


def len_of(model: str) -> int:
    """Layers of a model, embeddings not counted."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).num_hidden_layers)


def spaces(names: list[str], vectors: Array) -> dict[str, Array]:
    """Each layer, and means of the last two, the last four, all but the embeddings, and all."""
    each = {name: vectors[..., number, :] for number, name in enumerate(names)}
    means = {"last two": slice(-2, None), "last four": slice(-4, None), "all": slice(1, None)}
    return each | {name: vectors[..., some, :].mean(axis=-2) for name, some in means.items()}


def measures(vectors: Array) -> tuple[float, float]:
    """AUC and adjusted Rand index of a pseudo-word: the first half of its vectors, float32 [tweets, width], is of one
    origin, the second of the other; rows of NaN are left out."""
    origin = (np.arange(len(vectors)) >= len(vectors) // 2)[there := ~np.isnan(vectors).any(axis=1)]
    units = vectors[there] / np.linalg.norm(vectors[there], axis=1, keepdims=True)
    first, second = np.triu_indices(len(units), 1)
    auc = roc_auc_score(origin[first] == origin[second], (units @ units.T)[first, second])
    groups = KMeans(2, n_init=10, random_state=0).fit_predict(vectors[there])
    return float(auc), float(adjusted_rand_score(origin, groups))


def compared(found: Array, names: list[str], random: np.random.Generator) -> list[dict[str, Any]]:
    """A row a space, from measures, float64 [pseudo-words, spaces, 2]."""
    rows = []
    last_four = found[:, names.index("last four")]
    draws = random.integers(0, len(found), (RESAMPLES, len(found)))
    for number, name in enumerate(names):
        row: dict[str, Any] = {"space": name, "pseudo_words": len(found)}
        for place, measure in enumerate(("auc", "adjusted_rand")):
            values = found[:, number, place]
            differences = values - last_four[:, place]
            low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5]).tolist()
            row |= {measure: float(values.mean()), f"{measure}_error": float(values.std(ddof=1) / len(values) ** 0.5)}
            row[f"{measure}_beside_last_four"] = [float(differences.mean()), low, high]
        rows.append(row)
    return rows


def measured(tweets: str, given: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Rows of one file of tweets."""
    made_of = [f"input={tweets}", f"output={folder / 'shards'}", f"tokenizer={given['tokenizer']}"]
    prepare.stage([*made_of, "deduplicate=near"])
    corpus = open_corpus(str(folder / "shards"), Manifest.read(str(folder / "shards")))
    texts = [text for shard in range(len(corpus.shards)) for text in corpus.batch(shard).column("text").to_pylist()]
    vocabulary = AutoTokenizer.from_pretrained(given["tokenizer"]).get_vocab()
    random = np.random.default_rng(given["seed"])
    made = pseudo_words(texts, set(vocabulary), given["pairs"], given["occurrences"], random)
    names, vectors = embedded(made, given["model"], given["tokenizer"], folder)
    every = spaces(names, vectors)
    found = np.array([[measures(space[number]) for space in every.values()] for number in range(len(made))])
    pairs = [" / ".join(one.words) for one in made]
    rows = compared(found, list(every), random)
    return [{"tweets": Path(tweets).name, **row, "pairs": pairs} for row in rows]


def main(words: list[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    usage(words, __doc__)
    given = words_of(
        words,
        model="",
        tokenizer="",
        tweets="",
        pairs=24,
        occurrences=100,
        seed=0,
        output="benchmarks/results/layers.json",
    )
    rows = []
    for tweets in given["tweets"].split(","):
        with tempfile.TemporaryDirectory(prefix="layers-") as folder:
            rows += measured(tweets, given, Path(folder))
    write_rows(given["output"], [{**row, **machine(), "command": command_of("layers", words)} for row in rows])
    show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    def cells(row: dict[str, Any], measure: str) -> tuple[str, str]:
        difference, low, high = row[f"{measure}_beside_last_four"]
        value = f"{row[measure]:.3f} ± {row[f'{measure}_error']:.3f}"
        return value, "" if row["space"] == "last four" else f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"

    header = ("tweets", "layers", "AUC", "beside the last four", "adjusted Rand", "beside the last four")
    shown = [(row["tweets"], row["space"], *cells(row, "auc"), *cells(row, "adjusted_rand")) for row in rows]
    print(table(header, shown))


if __name__ == "__main__":
    main()
