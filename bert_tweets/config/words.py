"""Settings of the stages that use a trained model, and of run, demo and doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .fields import DEVICE, device, inference_precision, required, setting, settings_group, tokens_per_device
from .train import DataConfig


@dataclass
class EvaluateConfig:
    """evaluate: compare the masked-LM loss of a model with that of its base model on held-out tweets."""

    model: str = required("", "folder or Hugging Face Hub name of the model")
    base: str = setting("", "folder or Hugging Face Hub name of the base model to compare with; empty: none")
    output: str = required("", "folder for metrics.json; must be new, empty, or created by an earlier evaluate")
    data: DataConfig = settings_group(DataConfig)
    seed: int = setting(0, "random seed of the masks and the bootstrap", at_least=0)
    max_tweets: int = setting(10_000, "maximum number of validation tweets to use", unit="tweets", at_least=1)
    bootstrap_samples: int = setting(2000, "number of bootstrap samples for the confidence interval", at_least=100)
    tokens_per_device: int = tokens_per_device()
    precision: str = inference_precision()
    device: str = device("device to run on")


@dataclass
class EmbedConfig:
    """embed: compute a contextual vector for each occurrence of chosen words, and a mean vector for each word."""

    instead_of: ClassVar[dict[str, tuple[str, ...]]] = {
        "words": ("words_file", "lemmas", "patterns", "occurrences"),
        "data.path": ("occurrences",),
    }

    model: list[str] = required(
        [],
        "folder or Hugging Face Hub name of the model, or a list of models trained with different seeds; vectors.txt "
        "comes from the first",
    )
    base: str = setting(
        "", "folder or Hugging Face Hub name of the base model, which embeds the same occurrences; empty: none"
    )
    words: list[str] = required([], "words, hashtags, emoji or phrases to embed; matched as whole words, ignoring case")
    words_file: str = setting("", "file of words, one per line, in addition to or instead of `words`; empty: none")
    lemmas: dict[str, list[str]] = setting(
        {}, "groups of words that count as one word, for example {virus: [virus, viruses, covid]}"
    )
    patterns: dict[str, str] = setting(
        {},
        "words defined by a regular expression, for example {covid: covid(-?19)?}; matched as whole words, "
        "ignoring case",
    )
    occurrences: str = setting(
        "",
        "CSV, JSON Lines, Parquet or Arrow file with the columns text, start, end and optionally word: the exact spans "
        "to embed, instead of `words` and `data.path`; empty: search the shards for words",
    )
    output: str = required("", "folder for the vectors; must be new, empty, or created by an earlier embed")
    data: DataConfig = settings_group(DataConfig)
    layers: list[int] = setting(
        [], "layers to use; 0: the embeddings, 1: the first layer, -1: the last layer; empty: the last four"
    )
    layer_pooling: str = setting(
        "mean",
        "mean: one vector per occurrence, the mean over layers; none: one vector per occurrence and layer "
        "(vectors.txt holds those of the highest layer)",
        choices=("mean", "none"),
    )
    pooling: str = setting(
        "mean",
        "pooling over the subwords of a word, after layer_pooling; mean: mean of all subwords; first: first "
        "subword only; max: largest value of each dimension",
        choices=("mean", "first", "max"),
    )
    correction: str = setting(
        "none",
        "post-processing of the vectors, fitted for each model and layer on the vectors of background words",
        choices=("none", "center", "standardize", "all-but-the-top"),
    )
    by: str = setting(
        "",
        "day, week, month or year of the tweet (UTC), or a group column: sample each group separately and compare the "
        "groups as analyze does; empty: no groups",
    )
    max_occurrences: int = setting(
        0,
        "maximum number of occurrences of a word (in each group if `by` is set), chosen at random; 0: all",
        unit="occurrences",
        at_least=0,
    )
    controls: int = setting(
        250,
        "number of control words for each chosen word: ordinary words of similar frequency, number of subwords and "
        "part of speech; analyze needs 200 that are frequent enough in every group; 0: no control words",
        unit="words",
        at_least=0,
    )
    control_occurrences: int = setting(
        200, "maximum number of occurrences of a control word, chosen at random; 0: all", unit="occurrences", at_least=0
    )
    background_tweets: int = setting(
        5000,
        "size of the seeded sample of tweets whose words (background words) are candidates for neighbours; "
        "0: no neighbours",
        unit="tweets",
        at_least=0,
    )
    background_minimum: int = setting(
        5, "minimum number of occurrences of a background word in that sample", at_least=1
    )
    neighbours: int = setting(10, "number of nearest neighbours to list for each word", at_least=1)
    substitutes: int = setting(
        5,
        "number of words to predict with the masked-LM head in place of each occurrence of a chosen word; needs a "
        "second pass over these tweets; 0: none",
        unit="words",
        at_least=0,
    )
    include_text: bool = setting(False, "store the text of the tweets in the table of vectors")
    seed: int = setting(0, "random seed of the samples", at_least=0)
    tokens_per_device: int = tokens_per_device()
    precision: str = inference_precision()
    device: str = device("device to run on")

    def problems(self) -> list[str]:
        """Conflicts between settings, one line each."""
        words = ("words", "words_file", "lemmas", "patterns")
        given = [name for name in (*words, "max_occurrences") if getattr(self, name)]
        given += ["data.path"] if self.data.path else []
        if not self.occurrences or not given:
            return []
        return [f"occurrences={self.occurrences}: defines everything to embed; leave out {', '.join(given)}"]


@dataclass
class AnalyzeConfig:
    """analyze: test whether the use of words differs between groups, and by more than that of ordinary words."""

    words: str = required("", "folder written by embed")
    control_words: str = setting(
        "",
        "folder of control words, written by embed with the same model; empty: the control words in the folder `words`",
    )
    by: str = required("", "groups to compare: day, week, month or year of the tweet (UTC), or a group column")
    covariates: list[str] = setting(
        [],
        "covariates of a regression of the vectors: time, day, week, month, year, group columns, links, "
        "retweet, tweet_length, position, casing, subwords (number of subwords); empty: no regression",
    )
    layer: str = setting(
        "",
        "layer whose vectors to compare, as in the output of embed; needed if `words` has several layers; empty: "
        "the only one",
    )
    output: str = required("", "folder for change.json; must be new, empty, or created by an earlier analyze")
    model: str = setting(
        "model",
        "model whose vectors to compare, as in the output of embed: model, base, or model.2, model.3, … for "
        "additional seeds",
    )
    contrasts: str = setting(
        "auto",
        "pairs of groups to compare in addition to the test over all groups; adjacent: consecutive periods; first: "
        "each group against the first; all: every pair; auto: adjacent for periods of time, else all",
        choices=("auto", "adjacent", "first", "all"),
    )
    permutations: int = setting(9999, "number of permutations per test", at_least=99)
    fdr: float = setting(0.05, "level of the false discovery rate", above=0.0, at_most=0.5)
    min_clusters: int = setting(
        20,
        "minimum number of near-duplicate clusters with the word in a group; smaller groups are not compared",
        unit="clusters",
        at_least=4,
    )
    max_occurrences: int = setting(
        2000,
        "maximum number of near-duplicate clusters to compare per word, chosen at random",
        unit="clusters",
        at_least=20,
    )
    max_per_author: int = setting(
        0,
        "maximum number of near-duplicate clusters per word and author, chosen at random; 0: all",
        unit="clusters",
        at_least=0,
    )
    senses: bool = setting(True, "look for senses (clusters of uses) of each word; needs scikit-learn (extra `words`)")
    max_senses: int = setting(5, "maximum number of senses of a word", at_least=1, at_most=20)
    seed: int = setting(0, "random seed of samples and permutations", at_least=0)


@dataclass
class MeaningTestConfig:
    """meaning-test: test how well a model and its base model distinguish word meanings, on labelled pairs of texts."""

    test: list[str] = required(
        [],
        "files of pairs to test on, in the format of WiC, SuperGLUE or TempoWiC; short form for one file: "
        "bert-tweets meaning-test FILE",
    )
    labels: list[str] = setting(
        [],
        "label files for `test`, one for each of its files; empty: labels are read from the pair files, or from "
        "label files next to them with the names used by WiC or TempoWiC",
    )
    train: str = required("", "file of pairs for choosing the layer and the threshold")
    train_labels: str = setting(
        "",
        "label file for `train`; empty: labels are read from `train` or from a label file next to it, as for `labels`",
    )
    model: str = required("", "folder or Hugging Face Hub name of the model")
    base: str = setting("", "folder or Hugging Face Hub name of the base model to compare with; empty: none")
    output: str = required("", "folder for meaning.json; must be new, empty, or created by an earlier meaning-test")
    layers: list[int] = setting([], "layers to choose from; empty: every layer, and the mean of the last four")
    pooling: str = setting(
        "mean",
        "pooling over the subwords of a word; mean: mean of all subwords; first: first subword only; max: "
        "largest value of each dimension",
        choices=("mean", "first", "max"),
    )
    bootstrap_samples: int = setting(
        2000, "number of bootstrap samples (of words) for the confidence intervals", at_least=100
    )
    seed: int = setting(0, "random seed of the bootstrap samples", at_least=0)
    tokens_per_device: int = tokens_per_device()
    precision: str = inference_precision()
    device: str = device("device to run on")


@dataclass
class ExportConfig:
    """export: write vectors to a file that other programs read; the file extension selects the format."""

    words: str = required("", "folder written by embed")
    output: str = required(
        "",
        "file to write; .txt, .bin: word2vec text and binary format; .npz; .safetensors; .parquet: one row per "
        "occurrence, with a 2-D projection, for Embedding Atlas",
    )
    model: str = setting(
        "model",
        "model whose vectors to export, as in the output of embed: model, base, or model.2, model.3, … for "
        "additional seeds",
    )
    layer: str = setting(
        "",
        "layer whose vectors to export, as in the output of embed; needed if `words` has several layers; empty: "
        "the only one",
    )
    senses: bool = setting(
        False,
        "also export a vector for each sense (cluster of uses), named virus#1; in .parquet, a column with the sense; "
        "needs scikit-learn (extra `words`)",
    )


@dataclass
class ReportConfig:
    """report: create a self-contained HTML page with all results."""

    run: str = required("", "folder written by train")
    evaluation: str = setting("", "folder written by evaluate; empty: none")
    words: str = setting("", "folder written by embed; empty: none")
    change: str = setting("", "folder written by analyze; empty: the folder `words`, if it contains change.json")
    output: str = setting("report.html", "HTML file to write; methods, references and figures are written next to it")
    title: str = setting("Words in tweets", "title of the page")
    include_text: bool = setting(
        False, "show the text of tweets on hover; needs vectors made by embed with include_text=true"
    )
    projection: str = setting(
        "pca", "method that projects the occurrences of a word to two dimensions for its map", choices=("pca", "tsne")
    )
    map_points: int = setting(
        2000, "maximum number of occurrences of a word on its map, chosen at random", unit="points", at_least=10
    )
    pictures: bool = setting(True, "also write each figure as PNG, SVG and PDF")
    seed: int = setting(0, "random seed of the samples on maps", at_least=0)


@dataclass
class RunConfig:
    """run: print a plan, then run the full pipeline: prepare, train, evaluate, embed (and compare), report."""

    input: list[str] = required([], "files, folders, glob patterns or URLs of raw tweets; formats as for prepare")
    output: str = required("", "folder for all results; stages that are already complete in it are skipped")
    words: list[str] = required([], "words, hashtags, emoji or phrases to embed; matched as whole words, ignoring case")
    text_column: str = setting("", "column with the text; empty: detected by name and printed")
    by: str = setting(
        "",
        "groups between which to compare the use of each word: day, week, month or year of the tweet (UTC), or a "
        "column of the input; empty: no comparison",
    )
    model: str = setting("bert-base-uncased", "folder or Hugging Face Hub name of the model to adapt")
    max_steps: int | None = setting(
        None, "number of optimizer steps; null: determined by epochs", unit="steps", at_least=1
    )
    epochs: float | None = setting(
        None, "number of passes over the training tweets; null: determined by max_steps if set, else 1", above=0.0
    )
    batch_size: int = setting(256, "number of tweets per optimizer step, over all ranks", unit="tweets", at_least=1)
    precision: str = setting(
        "bf16", "compute precision of training; weights are stored in fp32", choices=("fp32", "bf16")
    )
    max_occurrences: int = setting(
        1000,
        "maximum number of occurrences of a word (in each group if `by` is set), chosen at random; 0: all",
        unit="occurrences",
        at_least=0,
    )
    controls: int = setting(
        250,
        "number of control words (ordinary words for comparison) for each chosen word, as in embed; 0: none",
        unit="words",
        at_least=0,
    )
    include_text: bool = setting(False, "store the text of the tweets in the table of vectors and show it on the page")
    seed: int = setting(0, "random seed of all stages", at_least=0)
    device: str = setting("auto", "device to run on; auto: all GPUs if there are any, else the CPU", choices=DEVICE)
    dry_run: bool = setting(False, "print the plan and exit")


@dataclass
class DemoConfig:
    """demo: run the full pipeline on generated tweets in which some words change their meaning; needs no download."""

    output: str = setting("demo", "folder of the demo; each run deletes and recreates it")
    tweets: int = setting(8000, "number of tweets to generate", unit="tweets", at_least=500)
    max_steps: int | None = setting(
        None,
        "number of optimizer steps of each of the two training runs; null: 16 epochs in the first, 8 in the second. "
        "tweets=500 max_steps=10 checks within a minute that everything works, but finds no changed words",
        unit="steps",
        at_least=1,
    )
    processes: int = setting(2, "number of training processes, started with torchrun", at_least=1)
    seed: int = setting(0, "random seed of the tweets and of all stages", at_least=0)


@dataclass
class DoctorDataConfig:
    """Shards to check."""

    path: str = setting("", "folder of the shards of a planned run; empty: shards are not checked")


@dataclass
class DoctorModelConfig:
    """Model to check."""

    name: str = setting(
        "", "folder or Hugging Face Hub name of the model of a planned run; empty: the model is not checked"
    )
    revision: str = setting("main", "branch, tag or commit of a Hub model")


@dataclass
class DoctorConfig:
    """doctor: check devices, versions and limits of this machine for problems that would stop a run or slow it down."""

    output: str = setting(".", "output folder of a planned run, whose free disk space is checked; need not exist")
    data: DoctorDataConfig = settings_group(DoctorDataConfig)
    model: DoctorModelConfig = settings_group(DoctorModelConfig)
    device: str = device("device of a planned run")
    timeout: int = setting(
        60, "under torchrun: time limit for all ranks to connect and complete an all-reduce", unit="s", at_least=1
    )
