"""Warnings that prepare prints at the end about its input, one line each, with what to do."""

from __future__ import annotations

from collections.abc import Iterator

from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.shards.funnel import DropReason, Funnel, Note
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.sources.discovery import reading_advice
from bert_tweets.corpus.sources.timestamps import other_order

# Share of tweets with [UNK] that a few foreign words do not explain.
MUCH_UNKNOWN = 0.05


def warnings(config: PrepareConfig, paths: list[str], manifest: Manifest, funnel: Funnel) -> Iterator[str]:
    """Warnings about a finished preparation of these input files."""
    if config.validation_fraction and not funnel.splits["validation"].tweets:
        yield "no tweet was held out for validation; raise validation_fraction if you want to validate or evaluate"
    yield from _row_warnings(paths, funnel)
    if config.filter.max_tweets_per_author and funnel.notes[Note.NO_AUTHOR]:
        yield f"filter.max_tweets_per_author: {_tweets(funnel.notes[Note.NO_AUTHOR])} no author and are kept"
    yield from _time_warnings(config, funnel)
    if funnel.notes[Note.ROUNDED_ID]:
        yield (
            f"{_tweets(funnel.notes[Note.ROUNDED_ID])} an id that was written as a float "
            f"(such as {funnel.examples[Note.ROUNDED_ID]}) and may be another tweet's; write ids as text (pandas: "
            "dtype=str), or name another id_column"
        )
    yield from _token_warnings(config, manifest, funnel)


def _row_warnings(paths: list[str], funnel: Funnel) -> Iterator[str]:
    if funnel.unreadable:
        malformed = funnel.dropped[DropReason.MALFORMED_ROW] + funnel.dropped[DropReason.NOT_UTF8]
        advice = f"; {reading_advice(paths)}" if malformed > funnel.read // 100 else ""
        places = ", ".join(funnel.unreadable)
        lines = f"; {funnel.several_lines:,} lines are in multi-line rows" if funnel.several_lines else ""
        yield f"{malformed:,} of {funnel.read:,} rows could not be read, the first ones at {places}{lines}{advice}"
    if funnel.long_records:
        yield (
            f"{', '.join(funnel.long_records)}: is there a quote that is never closed? Everything up to the next quote "
            f"is read as one tweet; {funnel.several_lines:,} lines of the input are in multi-line rows"
        )


def _time_warnings(config: PrepareConfig, funnel: Funnel) -> Iterator[str]:
    lost, others = funnel.notes[Note.UNPARSED_TIME], funnel.notes[Note.UNPARSED_TIME_OTHER_ORDER]
    example = funnel.examples.get(Note.UNPARSED_TIME)
    such = f" (such as {example})" if example else ""
    if others:
        yield (
            f"time_format={config.time_format}: {lost:,} times cannot be parsed{such}; {others:,} of them could be "
            f"with time_format={other_order(config.time_format)}; if that is the order of all, then days and months "
            "of the others are swapped now"
        )
    elif lost:
        advice = ", or set time_format=mdy or dmy if they look like 2/11/2018" if config.time_format == "auto" else ""
        yield (
            f"times that cannot be parsed{such} are treated as missing; write them like 2018-10-10T20:19:24Z{advice}"
        )
    if funnel.notes[Note.NO_TIME]:
        yield f"{_tweets(funnel.notes[Note.NO_TIME])} no time, though there is a time column"


def _token_warnings(config: PrepareConfig, manifest: Manifest, funnel: Funnel) -> Iterator[str]:
    added, share = len(manifest.recipe.added), funnel.unknown_tweet_share
    if config.emoji == "tokens" and not added:
        yield "emoji=tokens: the tokenizer knows all emoji of the input; none was added"
    if share > MUCH_UNKNOWN:
        are_named = manifest.recipe.clean == "bertweet" or manifest.recipe.clean.endswith("+names")
        advice = "; if it is emoji, emoji=names writes their names, and emoji=tokens adds them"
        yield (
            f"{share:.1%} of the tweets contain [UNK] (text that the tokenizer does not know); "
            f"bert-tweets inspect {config.output} shows what it stands for{'' if added or are_named else advice}"
        )


def _tweets(count: int) -> str:
    return f"{count:,} tweet{' has' if count == 1 else 's have'}"
