"""Settings of prepare, verify and inspect."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import required, setting, settings_group

SMALLEST_UNIT = 4096


@dataclass
class NearConfig:
    """Near-duplicate detection: MinHash over word shingles (Broder 1997) with banding (Leskovec et al., chapter 3)."""

    jaccard: float = setting(
        0.7, "minimum Jaccard similarity of the shingle sets of two near-duplicates", at_least=0.3, at_most=1.0
    )
    shingle_words: int = setting(2, "number of words in a shingle", unit="words", at_least=1, at_most=8)


@dataclass
class FilterConfig:
    """Filters that drop tweets; the funnel counts what each filter drops."""

    retweets: bool = setting(False, "drop retweets")
    languages: list[str] = setting([], "languages to keep, for example en,de; empty: all")
    detect_language: bool = setting(
        False, "detect the language from the text (needs the extra `language`) instead of reading the language column"
    )
    min_tokens: int = setting(
        0,
        "minimum length of a tweet, including [CLS] and [SEP]; shorter tweets are dropped; 0: no minimum",
        unit="tokens",
        at_least=0,
    )
    max_tokens: int = setting(
        0,
        "maximum length of a tweet, including [CLS] and [SEP]; longer tweets are dropped; 0: longer tweets are "
        "truncated to max_length instead",
        unit="tokens",
        at_least=0,
    )
    max_tweets_per_author: int = setting(
        0,
        "maximum number of tweets by one author, including duplicates; all tweets by authors with more (often bots) "
        "are dropped; 0: no limit",
        unit="tweets",
        at_least=0,
    )
    max_tweets_per_day: int = setting(
        0, "size of the seeded sample of tweets kept per UTC day; 0: all", unit="tweets", at_least=0
    )


@dataclass
class PrepareConfig:
    """prepare: convert raw tweets to tokenized Arrow shards."""

    input: list[str] = required(
        [],
        "files, folders, glob patterns such as tweets-*.csv, or URLs (s3://, gs://, https://); formats: CSV, TSV, "
        "JSON Lines (also .gz, .zst, .bz2), Parquet, Arrow",
    )
    output: str = required("", "folder for the shards; must be new, empty, or created by an earlier prepare")
    text_column: str = setting("", "column with the text; empty: detected by name and printed")
    id_column: str = setting("", "column with the tweet ID; empty: detected by name, else the row number")
    time_column: str = setting("", "column with the time, converted to UTC; empty: detected by name, else none")
    time_format: str = setting(
        "auto",
        "order of day and month in dates such as 2/11/2018; mdy: month first; dmy: day first; auto: such dates "
        "are treated as missing",
        choices=("auto", "mdy", "dmy"),
    )
    author_column: str = setting(
        "", "column with the author, stored only as a salted hash; empty: detected by name, else none"
    )
    language_column: str = setting("", "column with the language; empty: detected by name, else none")
    retweet_column: str = setting(
        "", "column with the ID of the retweeted tweet; empty: detected by name; none: no such column"
    )
    group_columns: list[str] = setting([], "additional columns to keep for later analysis; empty: none")
    author_salt: str = setting("", "secret salt for hashing authors; empty: a random salt that is not stored")
    tokenizer: str = required(
        "", "folder or Hugging Face Hub name of a tokenizer; wordpiece: train a new one on the input"
    )
    tokenizer_revision: str = setting(
        "main", "branch, tag or commit of a Hub tokenizer; a commit pins it, as does tokenizer=NAME@COMMIT"
    )
    vocabulary_size: int = setting(
        8000, "tokenizer=wordpiece: size of the trained vocabulary", unit="tokens", at_least=100
    )
    clean: str = setting(
        "auto",
        "cleaning preset; auto: the one that matches the tokenizer",
        choices=("auto", "tweets", "timelms", "bertweet", "raw"),
    )
    emoji: str = setting(
        "auto",
        "handling of emoji; separate: put spaces around them; names: replace them with their names; tokens: separate "
        "them and add the most frequent ones to the vocabulary; auto: as the cleaning preset does",
        choices=("auto", "separate", "names", "tokens"),
    )
    emoji_vocabulary: int = setting(
        200, "emoji=tokens: number of emoji to add to the vocabulary, most frequent first", unit="emoji", at_least=1
    )
    max_length: int = setting(
        128,
        "maximum length of a tweet, including [CLS] and [SEP]; longer tweets are truncated",
        unit="tokens",
        at_least=8,
        at_most=512,
    )
    max_characters: int = setting(
        10_000, "maximum length of a text; longer texts are dropped and counted", unit="characters", at_least=1
    )
    deduplicate: str = setting(
        "exact",
        "exact: of tweets with equal text (ignoring links, case and punctuation), keep only the earliest; near: also "
        "keep only the earliest of near-duplicates; none: keep all tweets",
        choices=("exact", "near", "none"),
    )
    near: NearConfig = settings_group(NearConfig)
    filter: FilterConfig = settings_group(FilterConfig)
    validation_fraction: float = setting(
        0.01, "fraction of distinct texts to hold out for validation", at_least=0.0, at_most=0.5
    )
    shard_tweets: int = setting(100_000, "number of tweets per shard file", unit="tweets", at_least=1)
    seed: int = setting(0, "random seed of the validation split and of samples", at_least=0)
    unit_bytes: int = setting(
        0,
        "amount of input that a worker processes at a time, at least 4096; 0: 4 MB of CSV, 16 MB of JSON",
        unit="bytes",
        at_least=0,
    )
    num_workers: int = setting(
        0, "number of worker processes; 0: one per CPU core that the process may use", unit="processes", at_least=0
    )
    executor: str = setting(
        "processes",
        "where the work runs; processes: on this machine; tcp://HOST:PORT: on the Dask scheduler at this address",
    )

    def problems(self) -> list[str]:
        """Conflicts between settings, one line each."""
        found = []
        most = self.filter.max_tokens or self.max_length
        if self.filter.min_tokens > most:
            limit = f"the maximum length of a tweet ({most} tokens, set by filter.max_tokens or max_length)"
            found.append(f"filter.min_tokens={self.filter.min_tokens}: must not exceed {limit}")
        if 0 < self.unit_bytes < SMALLEST_UNIT:
            why = "because each unit gets a folder of its own; 0 selects the default"
            found.append(f"unit_bytes={self.unit_bytes}: must be at least {SMALLEST_UNIT}, {why}")
        if self.executor != "processes" and "://" not in self.executor:
            allowed = "'processes' or the address of a Dask scheduler, such as tcp://HOST:8786"
            found.append(f"executor={self.executor}: must be {allowed}")
        return found


@dataclass
class VerifyConfig:
    """verify: check every byte of a folder of shards or of a run's checkpoints, and report damage by file and row."""

    path: str = required(
        "",
        "folder of shards, run folder with checkpoints, or folder of one checkpoint; short form: "
        "bert-tweets verify FOLDER",
    )


@dataclass
class InspectConfig:
    """inspect: summarize a folder of shards (size, tweet lengths, padding, [UNK], samples), or count words in it."""

    path: str = required("", "folder of shards written by prepare; short form: bert-tweets inspect FOLDER")
    words: list[str] = setting(
        [],
        "words to count, written as for embed; the tweets are then not summarized; empty: summarize the tweets",
    )
    words_file: str = setting("", "file of words, one per line, in addition to or instead of `words`; empty: none")
    lemmas: dict[str, list[str]] = setting(
        {}, "groups of words that count as one word, for example {virus: [virus, viruses, covid]}"
    )
    patterns: dict[str, str] = setting({}, "words defined by a regular expression, for example {covid: covid(-?19)?}")
    samples: int = setting(
        5, "number of sample tweets to show as the model sees them; 0: none", unit="tweets", at_least=0
    )
    batch_size: int = setting(
        256, "number of tweets per batch in the comparison of padding methods", unit="tweets", at_least=1
    )
    max_tweets: int = setting(
        200_000,
        "size of the seeded sample of tweets whose lengths and [UNK] tokens are counted",
        unit="tweets",
        at_least=1,
    )
    seed: int = setting(0, "random seed of the samples", at_least=0)
