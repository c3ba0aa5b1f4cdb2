"""summary.json: how often embed found each word, its neighbours, and how far training moved it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from bert_tweets.common.output_folder import write_json_atomic

from .folder import SUMMARY, read_file

Neighbour = tuple[str, float]


@dataclass(frozen=True)
class MeasureDrift:
    """One measure of a word's drift between base and model; 1 means no change.

    Attributes:
        by_seed: value in each model, that is, training seed; None: not defined.
        control_quantiles: 2.5 % quantile, median and 97.5 % quantile over control words of their means over seeds;
            None without control words.
        rank: rank of the word's mean over seeds among control words, 1 if it changed more than every one of them (equal
            ones rank before it); None if it is not defined.
        num_ranked: number of ranked words, including the word itself; 0 without control words.
    """

    by_seed: list[float | None]
    control_quantiles: tuple[float, float, float] | None
    rank: int | None
    num_ranked: int


@dataclass(frozen=True)
class WordDrift:
    """Drift between base and model; see `embedding.drift` for the measures."""

    neighbour_overlap: MeasureDrift
    distance_correlation: MeasureDrift


@dataclass(frozen=True)
class WordSummary:
    """A chosen word.

    Attributes:
        found, truncated, unknown: number of embedded occurrences by status.
        matches: number of places in all tweets, before `max_occurrences`.
        subwords: median number of tokens of its found occurrences; 0 if none is found.
        part_of_speech: from the lexicon; None if it is not known.
        tweets, clusters: number of tweets and of near-duplicate clusters with a found occurrence.
        neighbours, base_neighbours: (word, cosine), nearest first, in the first model and in the base.
        drift: None without a base.
    """

    found: int
    truncated: int
    unknown: int
    matches: int
    subwords: int
    part_of_speech: str | None
    tweets: int
    clusters: int
    neighbours: list[Neighbour]
    base_neighbours: list[Neighbour]
    drift: WordDrift | None

    @property
    def sampled(self) -> int:
        """Number of embedded occurrences."""
        return self.found + self.truncated + self.unknown

    @property
    def neighbour_overlap(self) -> float | None:
        """Share of neighbours that base and first model have in common."""
        return self.drift.neighbour_overlap.by_seed[0] if self.drift else None


@dataclass(frozen=True)
class ControlWordSummary:
    """A control word; the measures of drift are means over training seeds, None without a base or if not defined."""

    matches: int
    subwords: int
    part_of_speech: str | None
    neighbour_overlap: float | None
    distance_correlation: float | None


@dataclass(frozen=True)
class Summary:
    """summary.json.

    Attributes:
        words: the chosen words, in the given order.
        models: name of each model, one per training seed.
        layers, base_layers: values of the column `layer`.
        vectors_layer: layer of the files of vectors, of neighbours and of drift.
        correction_hashes, weights: hash of the fitted correction (empty without one) and identity of the weights, by
            role: model, model.2, base.
        recipe, data: hash of the recipe and fingerprint of the tweets.
        background_tweets, background_words: number of sampled tweets, and of words in them to choose neighbours from.
        notes: what a reader should know, in sentences.
    """

    words: dict[str, WordSummary]
    control_words: dict[str, ControlWordSummary]
    models: list[str]
    base: str | None
    layers: list[str]
    base_layers: list[str] | None
    vectors_layer: str
    layer_pooling: str
    pooling: str
    correction: str
    correction_hashes: dict[str, str]
    weights: dict[str, str]
    recipe: str
    data: str
    background_tweets: int
    background_words: int
    seed: int
    notes: list[str]


def write_summary(folder: Path, summary: Summary) -> None:
    write_json_atomic(folder / SUMMARY, asdict(summary))


def read_summary(folder: str | Path) -> Summary:
    """Read summary.json; raises UserError if it is missing or damaged."""
    return read_file(folder, SUMMARY, Summary)
