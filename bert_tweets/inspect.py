"""inspect: summarize a folder of shards (size, lengths, padding, [UNK], samples), or count occurrences of words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bert_tweets.common.errors import run_entry
from bert_tweets.common.terminal import ProgressBar, console
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest, read_errors

from .config import InspectConfig, parser

if TYPE_CHECKING:
    from bert_tweets.data.inspection import Inspection


def stage(argv: list[str]) -> None:
    """Print a summary of a folder of shards."""
    config = parser.load(InspectConfig, parser.path_first(argv))
    manifest = Manifest.read(config.path)
    folder = Path(config.path)
    if config.words or config.words_file or config.lemmas or config.patterns:
        _show_words(config, manifest, folder)
        return
    from bert_tweets.data.inspection import inspect

    with ProgressBar("inspecting", min(config.max_tweets, manifest.rows("train"))) as advance, read_errors(config.path):
        seen = inspect(folder, manifest, config.max_tweets, config.batch_size, config.samples, config.seed, advance)
    _show(config, manifest, seen)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _show_words(config: InspectConfig, manifest: Manifest, folder: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from bert_tweets.words.occurrences.counts import count_occurrences
    from bert_tweets.words.occurrences.queries import chosen_words, with_words_of_file

    with read_errors(config.path):
        counts = count_occurrences(folder, manifest, chosen_words(with_words_of_file(config)))
    columns = ("matches", "found", "truncated", "lost to [UNK]", "subwords", "tweets", "clusters", "authors")
    table = Table("word", box=None)
    for name in columns:
        table.add_column(Text(name), justify="right")
    table.add_column("found by year")
    for one in counts:
        numbers = (one.matches, *one.statuses.values(), one.subwords, one.tweets, one.clusters)
        authors = "unknown" if one.authors is None else f"{one.authors:,}"
        years = ", ".join(f"{year}: {count:,}" for year, count in one.years.items())
        table.add_row(Text(one.text), *(f"{number:,}" for number in numbers), authors, years or "times unknown")
    console(width=140).print(table)


def _show(config: InspectConfig, manifest: Manifest, seen: Inspection) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    size = Table("split", "shards", "tweets", "tokens", "bytes", box=None)
    for split in SPLITS:
        entries = manifest.splits[split]
        counts = (len(entries), manifest.rows(split), manifest.tokens(split), sum(entry.bytes for entry in entries))
        size.add_row(split, *(f"{count:,}" for count in counts))
    out.print(size)
    lengths = ", ".join(f"{p} % {length}" for p, length in seen.lengths.items())
    out.print(f"\ntokens per tweet, including [CLS] and [SEP], by percentile: {lengths}", markup=False)
    padding = Table(f"batches of {config.batch_size} tweets", "positions wasted", box=None)
    for method, share in seen.padding.items():
        padding.add_row(method, f"{share:.1%}")
    out.print(padding)
    out.print(
        f"\n[UNK]: {seen.unknown_tokens:.2%} of the tokens of both splits (without [CLS] and [SEP]), "
        f"in {seen.unknown_tweets:.1%} of the tweets; in {seen.tweets:,} training tweets it stands for "
        + (", ".join(f"{word} ({count:,})" for word, count in seen.worst_words) or "nothing"),
        markup=False,
    )
    for text, tokens in seen.samples:
        out.print(f"\n{escape(text)}\n[dim]{escape(' '.join(tokens))}[/dim]")
    out.print(f"\nrecipe {manifest.recipe.hash[:12]} ({manifest.recipe.clean}), data {manifest.fingerprint[:12]}")


if __name__ == "__main__":
    main()
