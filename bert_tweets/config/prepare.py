"""Settings of prepare, verify and inspect."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import setting, settings_group

SMALLEST_UNIT = 4096


@dataclass
class NearConfig:
    """Near-duplicates: MinHash over word shingles (Broder 1997), banded (Leskovec et al., chapter 3)."""

    jaccard: float = setting(
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
    tokenizer_revision: str = setting(
        "main", "revision of a hub tokenizer; a commit pins it, as NAME@COMMIT does in tokenizer"
    )
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
        choices=("auto", "separate", "names", "tokens"),
    )
    emoji_vocabulary: int = setting(
        200, "emoji=tokens: the input's most frequent emoji that become tokens", unit="emoji", at_least=1
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
    near: NearConfig = settings_group(NearConfig)
    filter: FilterConfig = settings_group(FilterConfig)
    validation_fraction: float = setting(
        0.01, "share of distinct texts held out for validation", at_least=0.0, at_most=0.5
    )
    shard_tweets: int = setting(100_000, "tweets of one shard file", unit="tweets", at_least=1)
    seed: int = setting(0, "seed of the validation split", at_least=0)
    unit_bytes: int = setting(
        0, "input that a worker takes at a time, 4096 or more; 0: 4 MB of CSV, 16 MB of JSON", unit="bytes", at_least=0
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
        if 0 < self.unit_bytes < SMALLEST_UNIT:
            found.append(
                f"unit_bytes={self.unit_bytes}: each unit is a folder of its own; at least {SMALLEST_UNIT}, or 0"
            )
        if self.executor != "processes" and "://" not in self.executor:
            found.append(f"executor={self.executor}: is neither 'processes' nor an address such as tcp://HOST:8786")
        return found


@dataclass
class VerifyConfig:
    """verify: every byte of a folder of shards, and what is damaged by file and row; or of checkpoints."""

    path: str = setting(
        "", "folder of shards, of a run with its checkpoints, or of one checkpoint; may be given alone", required=True
    )


@dataclass
class InspectConfig:
    """inspect: what a folder of shards holds: sizes, lengths, padding against packing, [UNK], samples; or words."""

    path: str = setting("", "folder of shards that prepare made; may be given alone", required=True)
    words: list[str] = setting([], "tell of these words alone what embed would find of each; as embed takes them")
    words_file: str = setting("", "file of further words, one a line")
    lemmas: dict[str, list[str]] = setting({}, "words that count as one: {virus: [virus, viruses, covid]}")
    patterns: dict[str, str] = setting({}, "words by regular expression: {covid: covid(-?19)?}")
    samples: int = setting(5, "tweets that are shown as the model sees them; 0: none", unit="tweets", at_least=0)
    batch_size: int = setting(256, "tweets of a step whose padding is compared", unit="tweets", at_least=1)
    max_tweets: int = setting(200_000, "seeded sample that lengths and [UNK] are counted on", unit="tweets", at_least=1)
    seed: int = setting(0, "seed of the samples", at_least=0)
