"""Settings of the stages that use a model, of `run` over all stages, of the demo and of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .fields import DEVICE, setting, settings_group
from .train import DataConfig


@dataclass
class EvaluateConfig:
    """evaluate: masked loss on held-out tweets, beside the model that training began from."""

    model: str = setting("", "folder or hub name of the model", required=True)
    base: str = setting("", "folder or hub name of the model to compare with; empty: none")
    output: str = setting("", "folder for metrics.json", required=True)
    data: DataConfig = settings_group(DataConfig)
    seed: int = setting(0, "seed of the mask set and of the bootstrap", at_least=0)
    max_tweets: int = setting(10_000, "tweets of the validation split that are used", unit="tweets", at_least=1)
    bootstrap_samples: int = setting(2000, "resamples of the bootstrap interval", at_least=100)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting("fp32", "arithmetic", choices=("fp32", "bf16"))
    device: str = setting("auto", "where to run; auto: the GPU if there is one", choices=DEVICE)


@dataclass
class EmbedConfig:
    """embed: vectors of chosen words, an occurrence a row and a centroid a word."""

    instead_of: ClassVar[dict[str, tuple[str, ...]]] = {
        "words": ("words_file", "lemmas", "patterns", "occurrences"),
        "data.path": ("occurrences",),
    }

    model: list[str] = setting(
        [], "folder or hub name of the model; several: training seeds of it, the first makes vectors.txt", required=True
    )
    base: str = setting("", "folder or hub name of the model to embed the same occurrences with; empty: none")
    words: list[str] = setting([], "words, hashtags, emoji, phrases; matched whole, case aside", required=True)
    words_file: str = setting("", "file of further words, one a line")
    lemmas: dict[str, list[str]] = setting({}, "words that count as one: {virus: [virus, viruses, covid]}")
    patterns: dict[str, str] = setting(
        {}, "words by regular expression: {covid: covid(-?19)?}; matched whole, case aside"
    )
    occurrences: str = setting(
        "", "file of text, start, end and perhaps word: embed exactly these spans; CSV, JSON Lines, Parquet; no shards"
    )
    output: str = setting("", "folder for the vectors; new, empty, or one that embed made", required=True)
    data: DataConfig = settings_group(DataConfig)
    layers: list[int] = setting(
        [], "layers that are read; 0: embeddings, 1: the first, -1: the last; empty: the last four"
    )
    layer_pooling: str = setting(
        "mean",
        "mean: one vector of all layers; none: a row a layer, and vectors.txt of the highest",
        choices=("mean", "none"),
    )
    pooling: str = setting(
        "mean",
        "of a word's pieces, after the layers' mean: mean, first, largest values",
        choices=("mean", "first", "max"),
    )
    correction: str = setting(
        "none",
        "fitted on the background's occurrences, for each model and layer",
        choices=("none", "center", "standardize", "all-but-the-top"),
    )
    by: str = setting(
        "",
        "day, week, month or year of the tweet (UTC), or a group column: sample each group by itself, and compare them "
        "as analyze does",
    )
    max_occurrences: int = setting(
        0, "seeded sample of a word's occurrences, of each group with by; 0: all", unit="occurrences", at_least=0
    )
    controls: int = setting(
        250,
        "ordinary words of like frequency, pieces and part of speech to compare each word with; analyze needs 200 "
        "that are frequent enough in all groups; 0: none",
        unit="words",
        at_least=0,
    )
    control_occurrences: int = setting(
        200, "seeded sample of a control word's occurrences; 0: all", unit="occurrences", at_least=0
    )
    background_tweets: int = setting(
        5000,
        "seeded sample of tweets whose words are the neighbours to choose from",
        unit="tweets",
        at_least=0,
    )
    background_minimum: int = setting(5, "occurrences that make a word of that sample a neighbour", at_least=1)
    neighbours: int = setting(10, "nearest neighbours of a word", at_least=1)
    substitutes: int = setting(
        5,
        "words that the model's masked-LM head would put in the place of each occurrence of an asked word; another "
        "pass over their tweets; 0: none",
        unit="words",
        at_least=0,
    )
    include_text: bool = setting(False, "write the tweets' text beside the vectors")
    seed: int = setting(0, "seed of the samples", at_least=0)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting("fp32", "arithmetic", choices=("fp32", "bf16"))
    device: str = setting("auto", "where to run; auto: the GPU if there is one", choices=DEVICE)

    def problems(self) -> list[str]:
        """What fields get wrong together, one line each."""
        words = ("words", "words_file", "lemmas", "patterns")
        given = [name for name in (*words, "max_occurrences") if getattr(self, name)]
        given += ["data.path"] if self.data.path else []
        if not self.occurrences or not given:
            return []
        return [f"occurrences={self.occurrences}: says all that is embedded; leave out {', '.join(given)}"]


@dataclass
class AnalyzeConfig:
    """analyze: does a word's use differ between groups or over time, and by more than ordinary words' does?"""

    words: str = setting("", "folder that embed left", required=True)
    control_words: str = setting(
        "", "folder that embed left of ordinary words, by the same model; empty: those that `words` marks as controls"
    )
    by: str = setting("", "day, week, month or year of the tweet (UTC), or a group column", required=True)
    covariates: list[str] = setting(
        [],
        "what vectors are regressed on, each beside the others: time, day, week, month, year, group columns, "
        "links, retweet, tweet_length, position, casing, pieces; empty: no regression",
    )
    layer: str = setting("", "whose vectors, of a folder with several layers, as embed names it")
    output: str = setting("", "folder for change.json; new, empty, or one that analyze made", required=True)
    model: str = setting("model", "whose vectors, as embed names it: model, base, or model.2 for a further seed")
    contrasts: str = setting(
        "auto",
        "pairs of groups beside the one test over all; auto: adjacent for times, else all",
        choices=("auto", "adjacent", "first", "all"),
    )
    permutations: int = setting(9999, "permutations of a test", at_least=99)
    fdr: float = setting(0.05, "false-discovery rate", above=0.0, at_most=0.5)
    min_clusters: int = setting(
        20, "clusters of near-duplicates of a word that a group needs to be compared", unit="clusters", at_least=4
    )
    max_occurrences: int = setting(
        2000, "seeded sample of a word's clusters that are compared", unit="clusters", at_least=20
    )
    max_per_author: int = setting(
        0, "seeded sample of a word's clusters of one author; 0: all", unit="clusters", at_least=0
    )
    senses: bool = setting(True, "look for usage clusters of each word; needs scikit-learn, of the extra `words`")
    max_senses: int = setting(5, "usage clusters of a word at most", at_least=1, at_most=20)
    seed: int = setting(0, "seed of samples and permutations", at_least=0)


@dataclass
class MeaningTestConfig:
    """meaning-test: does a model tell meanings of a word apart? Pairs of texts with judgements, beside its base."""

    test: list[str] = setting(
        [], "files of pairs, as WiC, SuperGLUE or TempoWiC have them; `meaning-test FILE` gives one", required=True
    )
    labels: list[str] = setting([], "their labels, a file each; empty: in them, or beside them by the makers' names")
    train: str = setting("", "pairs that layer and threshold are chosen on", required=True)
    train_labels: str = setting("", "their labels; empty: as `labels`")
    model: str = setting("", "folder or hub name of the model", required=True)
    base: str = setting("", "folder or hub name of the model to compare with; empty: none")
    output: str = setting("", "folder for meaning.json; new, empty, or one that meaning-test made", required=True)
    layers: list[int] = setting([], "layers to choose from; empty: each, and the mean of the last four")
    pooling: str = setting("mean", "of a word's pieces: mean, first, largest values", choices=("mean", "first", "max"))
    bootstrap_samples: int = setting(2000, "resamples of the words for the intervals", at_least=100)
    seed: int = setting(0, "seed of the resamples", at_least=0)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting("fp32", "arithmetic", choices=("fp32", "bf16"))
    device: str = setting("auto", "where to run; auto: the GPU if there is one", choices=DEVICE)


@dataclass
class ExportConfig:
    """export: vectors as other programs read them, by the file's suffix."""

    words: str = setting("", "folder that embed left", required=True)
    output: str = setting(
        "",
        "the file: .txt and .bin are word2vec's formats, .npz, .safetensors; .parquet is a row an occurrence, with a "
        "projection, for Embedding Atlas",
        required=True,
    )
    model: str = setting("model", "whose vectors, as embed names it: model, base, or model.2 for a further seed")
    layer: str = setting("", "at which layer, of a folder with several, as embed names it; empty: the only one")
    senses: bool = setting(
        False, "usage clusters too, `virus#1`; in .parquet a column; needs scikit-learn, of the extra `words`"
    )


@dataclass
class ReportConfig:
    """report: one self-contained page."""

    run: str = setting("", "folder that train left", required=True)
    evaluation: str = setting("", "folder that evaluate left; empty: none")
    words: str = setting("", "folder that embed left; empty: none")
    change: str = setting("", "folder that analyze left; empty: the words' folder, where it holds change.json")
    output: str = setting("report.html", "the page; methods, references and pictures are written beside it")
    title: str = setting("Words in tweets", "heading of the page")
    include_text: bool = setting(False, "show tweets' text on hover; embed must have kept it")
    projection: str = setting("pca", "two dimensions of a word's occurrences", choices=("pca", "tsne"))
    map_points: int = setting(2000, "seeded sample of a word's occurrences on its map", unit="points", at_least=10)
    pictures: bool = setting(True, "draw each picture as PNG and SVG, too")
    seed: int = setting(0, "seed of the samples on maps", at_least=0)


@dataclass
class RunConfig:
    """run: the whole road, plan first: prepare, train, evaluate, embed and compare, report."""

    input: list[str] = setting([], "files, folders or patterns, see prepare", required=True)
    output: str = setting("", "folder of the study; a stage that is complete there is not repeated", required=True)
    words: list[str] = setting([], "words, hashtags, emoji to embed", required=True)
    text_column: str = setting("", "column of the text; empty: found by name and said aloud")
    by: str = setting(
        "",
        "day, week, month or year of the tweet (UTC), or a column: what the use of each word is compared between; "
        "empty: nothing",
    )
    model: str = setting("bert-base-uncased", "folder or hub name of the model to adapt")
    max_steps: int | None = setting(None, "optimizer steps; null: by epochs", unit="steps", at_least=1)
    epochs: float | None = setting(None, "passes over the tweets; null and no max_steps: 1", above=0.0)
    batch_size: int = setting(256, "tweets of one optimizer step", unit="tweets", at_least=1)
    precision: str = setting("bf16", "arithmetic of training", choices=("fp32", "bf16"))
    max_occurrences: int = setting(
        1000, "seeded sample of a word's occurrences, of each group with by; 0: all", unit="occurrences", at_least=0
    )
    controls: int = setting(
        250, "ordinary words to compare each word with, see embed; 0: none", unit="words", at_least=0
    )
    include_text: bool = setting(False, "write the tweets' text beside the vectors, and show it on the page")
    seed: int = setting(0, "seed of everything", at_least=0)
    device: str = setting("auto", "where to run; auto: every GPU there is, else the CPU", choices=DEVICE)
    dry_run: bool = setting(False, "print the plan and stop")


@dataclass
class DemoConfig:
    """demo: the whole road on generated tweets in which some words change their meaning; needs no download."""

    output: str = setting("demo", "folder of the demo; made anew by each run")
    tweets: int = setting(8000, "generated tweets", unit="tweets", at_least=500)
    max_steps: int | None = setting(
        None,
        "optimizer steps of each of the two trainings; null: 16 and 8 epochs. `tweets=500 max_steps=10` shows within a "
        "minute that everything works, and finds nothing",
        unit="steps",
        at_least=1,
    )
    processes: int = setting(2, "torchrun ranks of the training", at_least=1)
    seed: int = setting(0, "seed of the tweets and of all stages", at_least=0)


@dataclass
class DoctorDataConfig:
    """Shards that a run would read."""

    path: str = setting("", "folder of shards; it is looked into where it is given")


@dataclass
class DoctorModelConfig:
    """The model that a run would begin from."""

    name: str = setting("", "folder or hub name; whether it can be had is checked where it is given")
    revision: str = setting("main", "revision of a hub model")


@dataclass
class DoctorConfig:
    """doctor: devices, versions and limits of this machine, what would stop a run and what would slow it."""

    output: str = setting(".", "folder that a run would write to; need not be there")
    data: DoctorDataConfig = settings_group(DoctorDataConfig)
    model: DoctorModelConfig = settings_group(DoctorModelConfig)
    device: str = setting("auto", "where a run would train; auto: the GPU if there is one", choices=DEVICE)
    timeout: int = setting(60, "under torchrun: all ranks must have met and added up within it", unit="s", at_least=1)
