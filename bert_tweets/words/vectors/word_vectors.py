"""`WordVectors`: vectors of words and of occurrences, neighbours, senses and change, from a folder of embed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_tweets.common.arrays import Bools, Doubles, Floats
from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.common.output_folder import output_errors, unfinished_path
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.analysis.records import ChangeRow, WordSenses
from bert_tweets.words.analysis.sense_files import groups_of_rows
from bert_tweets.words.analysis.sense_report import COLUMNS, SenseModel, add_q_values, describe_senses, fit_senses
from bert_tweets.words.occurrences.groups import group_by_column, group_column, groups_among
from bert_tweets.words.store import export_formats
from bert_tweets.words.store.folder import EMBED_RECORD
from bert_tweets.words.store.reader import (
    VectorStore,
    centroids_of,
    chosen_words_of,
    control_mean,
    open_vectors,
    vectors_of,
)
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

_SUFFIXES = (".txt", ".bin", ".npz", ".safetensors", ".parquet")


class UnknownWord(UserError, KeyError):
    """A word without a vector in the folder."""

    def __str__(self) -> str:
        # A KeyError would show its message in quotes.
        return str(self.args[0])


class WordVectors:
    """Vectors of words in one space: of one model, at one layer, with one correction.

    `wv["mask"]` is the mean of the word's found occurrences; `len`, `in` and iteration are over the words that have
    any, chosen words and control words. Data are read when they are needed.

    Cosines are computed within this space only. Contextual vectors share a large component, which makes all cosines
    similar (Mu and Viswanath 2018), so the mean of the control words is subtracted first, if there are at least 20 of
    them. Nothing is subtracted without control words, because the mean of a few chosen words would mostly reflect these
    words, or if embed corrected the vectors already. `origin` holds what is subtracted.
    """

    def __repr__(self) -> str:
        return (
            f"<WordVectors of {len(self):,} words, {len(self.chosen_words):,} of them chosen; layer {self.space.layer}>"
        )

    def __init__(self, source: VectorStore):
        self._source = source
        self._changes: dict[str, list[ChangeRow]] = {}

    @classmethod
    def load(
        cls, folder: str | Path, model: str = "model", layer: str | None = None, correction: str | None = None
    ) -> WordVectors:
        """Open a folder written by embed.

        Args:
            model: model, base, or model.2 for a further training seed.
            layer: name of the layer in the table, `mean(9,10,11,12)` or `12`; None: the only one.
            correction: name of the correction in the table; None: the only one.

        Raises:
            UserError: there is no such folder or space, or several spaces match.
        """
        return cls(open_vectors(folder, model, None if layer is None else str(layer), correction))

    @property
    def space(self) -> VectorSpace:
        """The space of the vectors; a cosine with a vector of another space is refused."""
        return self._source.space

    @cached_property
    def words(self) -> list[str]:
        """The words that have a vector, in the order of the file."""
        return [word for word, found in zip(self._source.words, self._found.tolist(), strict=True) if found]

    @cached_property
    def chosen_words(self) -> list[str]:
        """The words that are not control words."""
        available = set(self.words)
        return [word for word in chosen_words_of(self._source) if word in available]

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and word in self._numbers

    def __getitem__(self, word: str) -> Floats:
        """The word's centroid, float32 [width]; raises UnknownWord for a word that has none."""
        return np.asarray(self.centroids[self._number(word)])

    @cached_property
    def centroids(self) -> Floats:
        """float32 [words, width], in the order of `words`."""
        means = self._means[self._found]
        means.flags.writeable = False
        return means

    @cached_property
    def origin(self) -> str:
        """The vector that is subtracted before cosines: `mean of N control words`, or `nothing`."""
        return "nothing" if self._origin is None else f"mean of {len(self._controls)} control words"

    def similarity(self, first: str, second: str) -> float:
        """The cosine of two words, after `origin` is subtracted.

        Raises:
            UnknownWord: a word has no vector here.
            UserError: an argument is not a word. A vector may be of another space, in which a cosine means nothing.
        """
        one, other = (self._vectors.take(np.array([self._number(word)])) for word in (first, second))
        return float(one.cosines(other, self._origin)[0, 0])

    def most_similar(self, word: str, n: int = 10) -> list[tuple[str, float]]:
        """The n words of the folder with the largest cosines with a word, control words included.

        They are few words, chosen by whoever ran embed; for neighbours among all words of the tweets see `neighbours`.
        """
        number = self._number(word)
        cosines = self._vectors.take(np.array([number])).cosines(self._vectors, self._origin)[0]
        ranked = [place for place in np.argsort(-cosines, kind="stable").tolist() if place != number]
        return [(self.words[place], float(cosines[place])) for place in ranked[:n]]

    def neighbours(self, word: str) -> list[tuple[str, float]]:
        """The nearest words among all words of the tweets, with their cosines, found by embed at its highest layer.

        Raises:
            UnknownWord: the word is not one of the chosen words.
            UserError: embed keeps no neighbours for this model or layer.
        """
        self._number(word)
        role, summary = self._source.role, self._source.summary
        if role not in ("model", "base") or summary.vectors_layer != self.space.layer:
            raise UserError(f"{self._folder}: embed stores neighbours for model and base, at its highest layer only")
        record = summary.words.get(word)
        if record is None:
            raise UnknownWord(f"'{word}': is a control word; embed stores no neighbours of control words")
        return list(record.neighbours if role == "model" else record.base_neighbours)

    def occurrences(self, word: str, found: bool = True) -> pa.Table:
        """The word's rows of occurrences.parquet in this space, without their vectors.

        By default only occurrences that have a vector, in the order of `vectors`; `found=False` adds truncated ones and
        those lost to [UNK].
        """
        self._require(word)
        columns = [name for name in self._source.columns if name != "vector"]
        return self._source.read(columns, [word], found)

    def vectors(self, word: str) -> Floats:
        """The vectors of the word's found occurrences, float32 [occurrences, width]."""
        self._number(word)
        return vectors_of(self._source.read(["vector"], [word]))

    def senses(self, word: str, by: str = "", max_senses: int = 5, seed: int = 0) -> WordSenses:
        """The word's senses, as in senses.json of analyze; q-values are over the tests of this word alone.

        `by` is day, week, month, year or a group column, for shares by group; empty: no shares.

        Raises:
            UserError: scikit-learn is not installed, or there is no such group column.
        """
        if by:
            group_column(by, groups_among(self._source.columns), self._folder)
        model = self._sense_model(word, max_senses, seed, by)
        groups = groups_of_rows(model.rows, by) if by else [None] * len(model.rows)
        names = sorted({group for group in groups if group is not None})
        record = describe_senses(model, groups, names, 999, seed)
        add_q_values([record])
        return record

    def change(self, word: str, by: str = "month", **settings: Any) -> list[ChangeRow]:
        """The word's rows of change.json; q-values are over all words, as in analyze.

        Args:
            by: day, week, month, year or a group column.
            settings: further settings of analyze.

        Raises:
            UserError: there is nothing to compare, or no such setting.
        """
        self._require(word)
        key = repr((by, sorted(settings.items())))
        if key not in self._changes:
            self._changes[key] = self._analyze(by, settings)
        return [row for row in self._changes[key] if row["word"] == word]

    def export(self, path: str | Path, senses: bool = False) -> None:
        """Export the vectors in the format of the file's suffix.

        .txt and .bin are the formats of word2vec, which gensim's KeyedVectors reads (a space is written `_`); .npz and
        .safetensors keep the words as they are; .parquet has a row for each occurrence, for Embedding Atlas or data
        frames.

        Args:
            senses: also write the senses of each chosen word: `virus#1`; in .parquet a column `sense`.

        Raises:
            UserError: the suffix is unknown, or the file is in a folder of embed or cannot be written.
        """
        file = Path(path)
        if file.suffix not in _SUFFIXES:
            raise UserError(f"{path}: unknown format; use a file name that ends in {', '.join(_SUFFIXES)}")
        if file.parent.resolve() == self._source.path.parent.resolve() or (file.parent / EMBED_RECORD).is_file():
            # The files of embed have such names.
            raise UserError(f"{path}: is in a folder written by embed, which must not change; choose another folder")
        if file.is_dir():
            raise UserError(f"{path}: is a folder; give the path of a file")
        models = [self._sense_model(word) for word in self.chosen_words] if senses else []
        with output_errors(path):
            side = unfinished_path(file)
            side.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._export(side, file.suffix, models)
                side.replace(file)
            finally:
                side.unlink(missing_ok=True)

    def _export(self, path: Path, suffix: str, models: list[SenseModel]) -> None:
        if suffix == ".parquet":
            self._export_occurrences(path, models)
            return
        names = [*self.words, *(name for model in models for name in model.names)]
        vectors = np.concatenate([self.centroids, *(model.centroids for model in models)])
        if suffix == ".txt":
            export_formats.write_word2vec_text(path, names, vectors)
        elif suffix == ".bin":
            export_formats.write_word2vec_binary(path, names, vectors)
        elif suffix == ".npz":
            export_formats.write_npz(path, names, vectors, asdict(self.space))
        else:
            export_formats.write_safetensors(path, names, vectors, asdict(self.space))

    def _export_occurrences(self, path: Path, models: list[SenseModel]) -> None:
        import pyarrow.parquet as pq

        rows = self._source.read(self._source.columns)
        if models:
            sense = np.full(len(rows), "", object)
            word = np.array(rows.column("word").to_pylist(), object)
            for model in models:
                names = np.array(model.names, object)
                sense[word == model.word] = names[model.all_labels]
            rows = rows.append_column("sense", pa.array(sense.tolist(), pa.string()))
        pq.write_table(export_formats.flat_table(rows, vectors_of(rows)), path, compression="zstd")

    def _sense_model(self, word: str, max_senses: int = 5, seed: int = 0, by: str = "") -> SenseModel:
        self._number(word)
        rows = self._source.read([*COLUMNS, group_by_column(by), "vector"], [word])
        return fit_senses(word, rows.drop_columns("vector"), vectors_of(rows), max_senses, seed)

    def _analyze(self, by: str, settings: dict[str, Any]) -> list[ChangeRow]:
        from bert_tweets.words.analysis.pipeline import analyze

        role, layer = self._source.role, self.space.layer
        known = {one.name for one in fields(AnalyzeConfig)} - {"words", "by", "model", "layer", "output", "senses"}
        if wrong := sorted(settings.keys() - known):
            raise UserError(f"{wrong[0]}: is not a setting of change{did_you_mean(wrong[0], known)}")
        config = AnalyzeConfig(words=self._folder, by=by, model=role, layer=layer, output="-", **settings)
        return analyze(config).change

    @property
    def _folder(self) -> str:
        return str(self._source.path.parent)

    @cached_property
    def _means(self) -> Floats:
        return centroids_of(self._source)

    @cached_property
    def _found(self) -> Bools:
        """bool [words of the source], whether a word has a mean."""
        return np.asarray(~np.isnan(self._means).any(axis=1))

    @cached_property
    def _vectors(self) -> Vectors:
        return Vectors(self.space, self.centroids)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def _controls(self) -> list[int]:
        own = set(self.chosen_words)
        return [number for word, number in self._numbers.items() if word not in own]

    @cached_property
    def _origin(self) -> Doubles | None:
        return control_mean(self.space, self.centroids[self._controls])

    def _require(self, word: str) -> None:
        if not isinstance(word, str):
            raise UserError(f"give words as strings, not {type(word).__name__}: an array does not record its space")
        if word not in self._source.words:
            raise UnknownWord(f"'{word}': is not in {self._folder}{did_you_mean(word, self._source.words)}")

    def _number(self, word: str) -> int:
        self._require(word)
        if word not in self._numbers:
            raise UnknownWord(f"'{word}': no occurrence with a vector was found in the tweets")
        return self._numbers[word]
