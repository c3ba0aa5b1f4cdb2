"""Every setting of every stage: typed dataclasses whose fields carry meaning, unit and choices.

`options.py` fills them from YAML files and `key=value` words, and prints them for `--help`. What one field
alone can get wrong (type, choice, bounds) is stated here; what fields get wrong together is said by `problems`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    required: bool = False,
) -> Any:
    """A dataclass field: its default, and what `--help` and validation say of it."""
    metadata = {
        "meaning": meaning,
        "unit": unit,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "required": required,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(kind: type) -> Any:
    """A dataclass field that holds a group of settings, named `group.key`."""
    return dataclasses.field(default_factory=kind)


DEVICE = ("auto", "cpu", "cuda")
ATTENTION = ("auto", "masked", "tweets", "rows", "varlen", "flex")
PRECISION = ("fp32", "tf32", "bf16", "bf16_weights", "fp16")


@dataclass
class NearConfig:
    """Near-duplicates: MinHash over word shingles (Broder 1997), banded (Leskovec et al., chapter 3)."""

    threshold: float = setting(
        0.7, "Jaccard similarity of two tweets' shingles that makes them near-duplicates", at_least=0.3, at_most=1.0
    )
    shingle_words: int = setting(2, "words of a shingle", unit="words", at_least=1, at_most=8)


@dataclass
class FilterConfig:
    """Tweets to leave out, each reason counted in the funnel."""

    retweets: bool = setting(False, "leave retweets out")
    languages: list[str] = setting([], "languages to keep, such as [en,de]; empty: all")
    detect_language: bool = setting(
        False, "tell the language from the text (extra 'language'), not from the column of it"
    )
    min_tokens: int = setting(0, "fewest tokens of a tweet, [CLS] and [SEP] included", unit="tokens", at_least=0)
    max_tokens: int = setting(
        0, "most tokens of a tweet, [CLS] and [SEP] included; 0: max_length cuts, nothing is left out", at_least=0
    )
    max_tweets_per_author: int = setting(
        0, "authors of more tweets than this, copies counted, are left out (bots); 0: none", unit="tweets", at_least=0
    )
    max_tweets_per_day: int = setting(
        0, "seeded sample of this many tweets of a UTC day; 0: all", unit="tweets", at_least=0
    )


@dataclass
class PrepareConfig:
    """prepare: raw tweets to pre-tokenized Arrow shards."""

    input: list[str] = setting(
        [],
        "files, folders, patterns such as tweets-*.csv, or URLs (s3://, gs://, https://): CSV, TSV, JSON Lines "
        "(.gz, .zst, .bz2), Parquet, Arrow",
        required=True,
    )
    output: str = setting("", "folder for the shards; new, empty, or one that prepare made", required=True)
    text_column: str = setting("", "column of the text; empty: found by name and said aloud")
    id_column: str = setting("", "column of the tweet's id; empty: found by name, else the row number")
    time_column: str = setting("", "column of the time, parsed to UTC; empty: found by name, else none")
    time_format: str = setting("auto", "of such as 2/11/2018; auto: not understood", choices=("auto", "mdy", "dmy"))
    author_column: str = setting(
        "", "column of the author, kept only as a salted hash; empty: found by name, else none"
    )
    language_column: str = setting("", "column of the language; empty: found by name, else none")
    retweet_column: str = setting("", "column of the retweeted tweet's id; empty: found by name ('none': no column)")
    group_columns: list[str] = setting([], "further columns to keep for later analysis")
    author_salt: str = setting("", "secret that authors are hashed with; empty: a fresh one that is thrown away")
    tokenizer: str = setting(
        "", "folder or hub name of a tokenizer; 'wordpiece': train one on this input", required=True
    )
    tokenizer_revision: str = setting("main", "revision of a hub tokenizer")
    vocabulary_size: int = setting(8000, "size of a trained WordPiece vocabulary", unit="tokens", at_least=100)
    clean: str = setting(
        "auto",
        "recipe of cleaning; auto picks by tokenizer",
        choices=("auto", "tweets", "timelms", "bertweet", "raw"),
    )
    emoji: str = setting(
        "auto",
        "emoji: set apart from words, spelled out as their names, or set apart and added to the vocabulary; "
        "auto: as the recipe of cleaning does",
        choices=("auto", "apart", "spelled", "added"),
    )
    emoji_vocabulary: int = setting(
        200, "emoji=added: the input's most frequent emoji that become tokens", unit="emoji", at_least=1
    )
    max_length: int = setting(128, "longest tweet, [CLS] and [SEP] included", unit="tokens", at_least=8, at_most=512)
    max_characters: int = setting(
        10_000, "a longer text is no tweet: dropped and counted", unit="characters", at_least=1
    )
    deduplicate: str = setting(
        "exact",
        "exact: the earliest of equal texts stays (links, case, punctuation apart); near: of near-duplicates too",
        choices=("exact", "near", "none"),
    )
    near: NearConfig = group(NearConfig)
    filter: FilterConfig = group(FilterConfig)
    validation_fraction: float = setting(
        0.01, "share of distinct texts held out for validation", at_least=0.0, at_most=0.5
    )
    shard_tweets: int = setting(100_000, "tweets of one shard file", unit="tweets", at_least=1)
    seed: int = setting(0, "seed of the validation split", at_least=0)
    unit_bytes: int = setting(
        0, "input that a worker takes at a time; 0: 2 MB of CSV, 16 MB of JSON", unit="bytes", at_least=0
    )
    num_workers: int = setting(0, "processes that prepare; 0: one a core", unit="processes", at_least=0)
    executor: str = setting(
        "processes", "where units of work run: processes of this machine, or a Dask scheduler, tcp://HOST:PORT"
    )

    def problems(self) -> list[str]:
        """What fields get wrong together, one line each."""
        found = []
        most = self.filter.max_tokens or self.max_length
        if self.filter.min_tokens > most:
            found.append(f"filter.min_tokens={self.filter.min_tokens}: is above the most tokens of a tweet ({most})")
        if self.executor != "processes" and "://" not in self.executor:
            found.append(f"executor={self.executor}: is neither 'processes' nor an address such as tcp://HOST:8786")
        return found


@dataclass
class DataConfig:
    """Shards and how they are read."""

    path: str = setting("", "folder of shards that prepare made", required=True)
    row_length: int = setting(0, "length of a packed row; 0: the shards' max_length", unit="tokens", at_least=0)
    order: str = setting(
        "rows",
        "rows: any tweet may follow any other; blocks: for disks that hate random reads, see block_rows",
        choices=("rows", "blocks"),
    )
    block_rows: int = setting(
        8192, "order=blocks: tweets that are read together; blocks are shuffled", unit="tweets", at_least=1
    )
    window_blocks: int = setting(
        64, "order=blocks: blocks whose tweets are shuffled among each other", unit="blocks", at_least=1
    )
    workers: int = setting(1, "threads that make steps ahead; 0: make each when it is due", unit="threads", at_least=0)
    verify: bool = setting(True, "compare every shard with its checksum before training")


@dataclass
class ScratchConfig:
    """Sizes of a BERT made from scratch (`model.name=scratch`)."""

    hidden_size: int = setting(128, "width", at_least=8)
    num_hidden_layers: int = setting(2, "layers", at_least=1)
    num_attention_heads: int = setting(2, "attention heads", at_least=1)
    intermediate_size: int = setting(512, "width of the feed-forward layer", at_least=8)


@dataclass
class ModelConfig:
    """The encoder that is adapted."""

    name: str = setting("", "folder or hub name of a BERT or RoBERTa; 'scratch': random weights", required=True)
    revision: str = setting("main", "revision of a hub model")
    dropout: float = setting(
        0.0,
        "hidden dropout; above 0, runs of different layout agree in data and masks only",
        at_least=0.0,
        at_most=0.9,
    )
    trainable: str = setting("all", "what is trained", choices=("all", "embeddings"))
    attention: str = setting(
        "auto", "backend of attention; auto: the fastest that works here, said in the log", choices=ATTENTION
    )
    compile: str = setting(
        "auto", "have torch.compile make the kernels; auto: on a GPU", choices=("auto", "true", "false")
    )
    checkpoint_activations: bool = setting(
        False, "forget each layer's activations and compute them again on the way back: less memory, a third slower"
    )
    scratch: ScratchConfig = group(ScratchConfig)


@dataclass
class MaskingConfig:
    """Which tokens the model has to guess (80 % [MASK], 10 % random, 10 % kept; Devlin et al. 2019)."""

    probability: float = setting(0.15, "share of ordinary tokens that is masked", above=0.0, at_most=0.9)
    whole_word: bool = setting(False, "mask all pieces of a word together")


@dataclass
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019); biases and LayerNorms do not decay."""

    learning_rate: float = setting(5e-5, "peak learning rate", above=0.0)
    weight_decay: float = setting(0.01, "decoupled weight decay", at_least=0.0)
    beta1: float = setting(0.9, "decay of the first moment", at_least=0.0, at_most=0.9999)
    beta2: float = setting(0.999, "decay of the second moment", at_least=0.0, at_most=0.999999)
    epsilon: float = setting(1e-8, "AdamW's epsilon", above=0.0)
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm; 0: never", at_least=0.0)
    allow_high_learning_rate: bool = setting(False, "insist on a rate above 1e-3")


@dataclass
class ScheduleConfig:
    """Learning rate over the run."""

    name: str = setting("linear", "shape after warm-up", choices=("linear", "cosine", "constant"))
    warmup_steps: int | None = setting(None, "steps of linear warm-up; null: 6 % of the run", unit="steps", at_least=0)


@dataclass
class ValidationConfig:
    """Periodic validation; the exported model is the best one by it."""

    every_steps: int = setting(
        0,
        "steps between validations; 0: twenty over the run, a tenth of its time at most, one an epoch at least",
        unit="steps",
        at_least=0,
    )
    max_tweets: int = setting(2000, "tweets of the validation split that are used", unit="tweets", at_least=1)
    patience: int = setting(4, "validations without a new best before an early stop; 0: never stop", at_least=0)


@dataclass
class EngineConfig:
    """What turns micro-batches into optimizer steps."""

    name: str = setting("ddp", "engine", choices=("ddp",))
    compress_gradients: bool = setting(False, "ranks exchange gradients in bf16: half the traffic")
    timeout_seconds: int = setting(600, "a collective that takes longer ends the run", unit="s", at_least=1)


@dataclass
class LogConfig:
    """What is written while training."""

    every_steps: int = setting(10, "steps between lines of metrics.jsonl", unit="steps", at_least=1)


@dataclass
class TrainConfig:
    """train: adapt a masked language model to the shards."""

    output: str = setting("", "folder of the run; new, empty, or one that train made", required=True)
    seed: int = setting(0, "seed of order, masks and new weights", at_least=0)
    max_steps: int | None = setting(None, "optimizer steps; null: by epochs", unit="steps", at_least=1)
    epochs: float | None = setting(None, "passes over the training tweets; null and no max_steps: 3", above=0.0)
    batch_size: int = setting(256, "tweets of one optimizer step, over all ranks", unit="tweets", at_least=1)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting(
        "bf16",
        "arithmetic; the weights stay fp32, with bf16_weights as masters that are rounded for each step; "
        "tf32: products of fp32 with 10 bits; fp16: with a dynamic scale of the loss",
        choices=PRECISION,
    )
    deterministic: bool = setting(False, "on a GPU, kernels that give the same bits every time; slower")
    profile: bool = setting(False, "leave a torch.profiler trace of a few steps, and a table of where the time goes")
    device: str = setting("auto", "where to train; auto: the GPU if there is one", choices=DEVICE)
    data: DataConfig = group(DataConfig)
    model: ModelConfig = group(ModelConfig)
    masking: MaskingConfig = group(MaskingConfig)
    optimizer: OptimizerConfig = group(OptimizerConfig)
    schedule: ScheduleConfig = group(ScheduleConfig)
    validation: ValidationConfig = group(ValidationConfig)
    engine: EngineConfig = group(EngineConfig)
    log: LogConfig = group(LogConfig)

    def problems(self) -> list[str]:
        """What fields get wrong together, one line each."""
        found = []
        rate = self.optimizer.learning_rate
        if rate > 1e-3 and not self.optimizer.allow_high_learning_rate:
            found.append(
                f"optimizer.learning_rate={rate:g}: above 1e-3 a pre-trained BERT forgets what it knows; "
                "use 5e-5, or insist with optimizer.allow_high_learning_rate=true"
            )
        if self.max_steps is not None and self.epochs is not None:
            found.append("max_steps and epochs: give one of them, not both")
        if self.model.scratch.hidden_size % self.model.scratch.num_attention_heads:
            found.append("model.scratch.hidden_size: must be a multiple of model.scratch.num_attention_heads")
        return found


@dataclass
class EvaluateConfig:
    """evaluate: masked loss on held-out tweets, beside the model that training began from."""

    model: str = setting("", "folder or hub name of the model", required=True)
    base: str = setting("", "folder or hub name of the model to compare with; empty: none")
    output: str = setting("", "folder for metrics.json", required=True)
    data: DataConfig = group(DataConfig)
    seed: int = setting(0, "seed of the mask set and of the bootstrap", at_least=0)
    max_tweets: int = setting(10_000, "tweets of the validation split that are used", unit="tweets", at_least=1)
    bootstrap_samples: int = setting(2000, "resamples of the bootstrap interval", at_least=100)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting("fp32", "arithmetic", choices=("fp32", "bf16"))
    device: str = setting("auto", "where to run; auto: the GPU if there is one", choices=DEVICE)


@dataclass
class EmbedConfig:
    """embed: vectors of chosen words, an occurrence a row and a centroid a word."""

    model: str = setting("", "folder or hub name of the model", required=True)
    base: str = setting("", "folder or hub name of the model to embed the same occurrences with; empty: none")
    words: list[str] = setting([], "words, hashtags, emoji; matched whole, case aside", required=True)
    output: str = setting("", "folder for the vectors; new, empty, or one that embed made", required=True)
    data: DataConfig = group(DataConfig)
    layers: list[int] = setting(
        [], "layers whose mean is taken; 0: embeddings, 1: the first, -1: the last; empty: the last four"
    )
    max_occurrences: int = setting(0, "seeded sample of a word's occurrences; 0: all", unit="occurrences", at_least=0)
    background_tweets: int = setting(
        5000,
        "seeded sample of tweets whose words are the neighbours to choose from",
        unit="tweets",
        at_least=0,
    )
    background_minimum: int = setting(5, "occurrences that make a word of that sample a neighbour", at_least=1)
    neighbours: int = setting(10, "nearest neighbours of a word", at_least=1)
    include_text: bool = setting(False, "write the tweets' text beside the vectors")
    seed: int = setting(0, "seed of the samples", at_least=0)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting("fp32", "arithmetic", choices=("fp32", "bf16"))
    device: str = setting("auto", "where to run; auto: the GPU if there is one", choices=DEVICE)


@dataclass
class ReportConfig:
    """report: one self-contained page."""

    run: str = setting("", "folder that train left", required=True)
    evaluation: str = setting("", "folder that evaluate left; empty: none")
    words: str = setting("", "folder that embed left; empty: none")
    output: str = setting("report.html", "the page")
    title: str = setting("Words in tweets", "heading of the page")


@dataclass
class RunConfig:
    """run: the whole road, plan first: prepare, train, evaluate, embed, report."""

    input: list[str] = setting([], "files, folders or patterns, see prepare", required=True)
    output: str = setting("", "folder of the study; a stage that is complete there is not repeated", required=True)
    words: list[str] = setting([], "words, hashtags, emoji to embed", required=True)
    text_column: str = setting("", "column of the text; empty: found by name and said aloud")
    model: str = setting("bert-base-uncased", "folder or hub name of the model to adapt")
    max_steps: int | None = setting(None, "optimizer steps; null: by epochs", unit="steps", at_least=1)
    epochs: float | None = setting(None, "passes over the tweets; null and no max_steps: 1", above=0.0)
    batch_size: int = setting(256, "tweets of one optimizer step", unit="tweets", at_least=1)
    precision: str = setting("bf16", "arithmetic of training", choices=("fp32", "bf16"))
    max_occurrences: int = setting(
        1000, "seeded sample of a word's occurrences; 0: all", unit="occurrences", at_least=0
    )
    include_text: bool = setting(False, "write the tweets' text beside the vectors")
    seed: int = setting(0, "seed of everything", at_least=0)
    device: str = setting("auto", "where to run; auto: every GPU there is, else the CPU", choices=DEVICE)
    plan_only: bool = setting(False, "print the plan and stop")


@dataclass
class DemoConfig:
    """demo: the whole road on generated tweets in which some words change their meaning; needs no download."""

    output: str = setting("demo", "folder of the demo; made anew by each run")
    tweets: int = setting(8000, "generated tweets", unit="tweets", at_least=500)
    processes: int = setting(2, "torchrun ranks of the training", at_least=1)
    seed: int = setting(0, "seed of the tweets and of all stages", at_least=0)


@dataclass
class VerifyConfig:
    """verify: every byte of a folder of shards, and what is damaged by file and row."""

    path: str = setting("", "folder of shards that prepare made; may be given alone", required=True)


@dataclass
class InspectConfig:
    """inspect: what a folder of shards holds: sizes, lengths, padding against packing, [UNK], samples."""

    path: str = setting("", "folder of shards that prepare made; may be given alone", required=True)
    samples: int = setting(5, "tweets that are shown as the model sees them; 0: none", unit="tweets", at_least=0)
    batch_size: int = setting(256, "tweets of a step whose padding is compared", unit="tweets", at_least=1)
    max_tweets: int = setting(200_000, "seeded sample that lengths and [UNK] are counted on", unit="tweets", at_least=1)
    seed: int = setting(0, "seed of the samples", at_least=0)
