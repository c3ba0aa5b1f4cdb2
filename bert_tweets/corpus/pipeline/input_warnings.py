"""What prepare says at its end of what it met with: each a line, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bert_tweets.config import PrepareConfig

if TYPE_CHECKING:
    from bert_tweets.corpus.shards.funnel import Funnel
    from bert_tweets.corpus.shards.manifest import Manifest

# A share of tweets with [UNK] that stands for more than a few foreign words.
MUCH_UNKNOWN = 0.05


def warnings(config: PrepareConfig, paths: list[str], manifest: Manifest, funnel: Funnel) -> Iterator[str]:
    """One line each.

    Args:
        config, paths: what was prepared.
        manifest, funnel: what became of it.
    """
    if config.validation_fraction and not funnel.splits["validation"]["tweets"]:
        yield "no tweet was held out for validation; raise validation_fraction if you want to validate or evaluate"
    yield from _of_rows(paths, funnel)
    if config.filter.max_tweets_per_author and funnel.notes["no author"]:
        yield f"filter.max_tweets_per_author: {_tweets(funnel.notes['no author'])} no author and stay"
    yield from _of_times(config, funnel)
    yield from _of_ids(funnel)
    yield from _of_tokens(config, manifest, funnel)


def _of_rows(paths: list[str], funnel: Funnel) -> Iterator[str]:
    from bert_tweets.corpus.sources.discovery import reading_advice

    if funnel.unreadable:
        malformed = funnel.dropped["malformed row"] + funnel.dropped["not UTF-8"]
        advice = f"; {reading_advice(paths)}" if malformed > funnel.read // 100 else ""
        places = ", ".join(funnel.unreadable)
        lines = f"; {funnel.several_lines:,} lines are in rows of several lines" if funnel.several_lines else ""
        yield f"{malformed:,} of {funnel.read:,} rows could not be read, the first ones at {places}{lines}{advice}"
    if funnel.long_records:
        yield (
            f"{', '.join(funnel.long_records)}: is a quote not closed there? What follows it is read as one tweet, up "
            f"to the next quote; {funnel.several_lines:,} lines of the input are in rows of several lines"
        )


def _of_times(config: PrepareConfig, funnel: Funnel) -> Iterator[str]:
    from bert_tweets.corpus.shards.funnel import OTHER_ORDER
    from bert_tweets.corpus.sources.timestamps import other_order

    lost, others = funnel.notes["time not understood"], funnel.notes[OTHER_ORDER]
    example = funnel.examples.get("time not understood")
    such = f" (such as {example})" if example else ""
    if others:
        yield (
            f"time_format={config.time_format}: {lost:,} times are not understood{such}, of which {others:,} would be "
            f"with time_format={other_order(config.time_format)}; if that is the order of all, then days and months "
            "of the others are swapped now"
        )
    elif lost:
        advice = ", or set time_format=mdy or dmy if they are like 2/11/2018" if config.time_format == "auto" else ""
        yield f"times that were not understood{such} are left out; write them like 2018-10-10T20:19:24Z{advice}"
    if funnel.notes["no time"]:
        yield f"{_tweets(funnel.notes['no time'])} no time, though there is a column of it"


def _of_ids(funnel: Funnel) -> Iterator[str]:
    from bert_tweets.corpus.shards.funnel import ROUNDED

    if funnel.notes[ROUNDED]:
        yield (
            f"{_tweets(funnel.notes[ROUNDED])} an id that was written as a float (such as {funnel.examples[ROUNDED]}) "
            "and may be another tweet's; write ids as text (pandas: dtype=str), or name another id_column"
        )


def _of_tokens(config: PrepareConfig, manifest: Manifest, funnel: Funnel) -> Iterator[str]:
    added, share = len(manifest.recipe.added), funnel.notes["tweets with [UNK]"] / max(1, funnel.kept)
    if config.emoji == "tokens" and not added:
        yield "emoji=tokens: there is no emoji in the input that the tokenizer does not know; none was added"
    if share > MUCH_UNKNOWN:
        spelled = manifest.recipe.clean == "bertweet" or manifest.recipe.clean.endswith("+spelled")
        emoji = (
            "" if added or spelled else "; if it is emoji, emoji=names writes their names, and emoji=tokens adds them"
        )
        yield (
            f"{share:.1%} of the tweets hold [UNK], what the tokenizer does not know; "
            f"bert-tweets inspect {config.output} tells what that is{emoji}"
        )


def _tweets(count: int) -> str:
    return f"{count:,} tweet{' has' if count == 1 else 's have'}"
