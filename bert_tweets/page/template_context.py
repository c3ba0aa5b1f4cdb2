"""Template context: the texts of the page besides tables and charts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bert_tweets.words.analysis.records import MatchedOn, Verdict
from bert_tweets.words.analysis.verdicts import matched_on_text, verdict_label
from bert_tweets.words.store.summary import Neighbour, Summary, WordSummary

from .inputs import Change, StudyRecords
from .tables import Table

MIN_FOUND = 20
# Order of the findings: changes first.
_ORDER = [Verdict.CHANGED, Verdict.NOT_COMPARABLE, Verdict.DIFFERS_AS_ORDINARY, Verdict.NO_DIFFERENCE, Verdict.TOO_FEW]


class Flag(StrEnum):
    """Why there are no reliable figures of a word."""

    NOT_FOUND = "not in the tweets"
    UNKNOWN = "lost to [UNK]"
    RARE = "too rare"


@dataclass(frozen=True)
class Fact:
    """A number of the first screen, and its meaning."""

    number: str
    meaning: str


@dataclass(frozen=True)
class WordFinding:
    """The omnibus test of a word: its verdict, the sentences on it, and the numbers of tweets and groups."""

    word: str
    label: str
    has_changed: bool
    statement: str
    size: str


@dataclass(frozen=True)
class WordCard:
    """The neighbours of a word before and after, and those that both models have."""

    name: str
    flag: str
    counts: str
    before: list[Neighbour]
    after: list[Neighbour]
    shared: list[str]


def word_findings(change: Change | None) -> list[WordFinding]:
    """The answers about each word, from the tests over all groups."""
    rows = sorted(change.omnibus if change else [], key=lambda row: _ORDER.index(row["verdict"]))
    return [
        WordFinding(
            word=row["word"],
            label=verdict_label(row["verdict"]),
            has_changed=row["verdict"] == Verdict.CHANGED,
            # No line break within "p = 0.01".
            statement=(row["statement"] or "").replace(" = ", "\u00a0=\u00a0"),
            size=f"{row['n']:,} tweets of {_groups(row['groups'])}.",
        )
        for row in rows
    ]


def _groups(groups: list[str]) -> str:
    return ", ".join(groups) if len(groups) < 9 else f"{len(groups)} groups, {groups[0]} to {groups[-1]}"


def facts(study: StudyRecords) -> list[Fact]:
    """The numbers of the first screen."""
    run, evaluation, words = study.run, study.evaluation, study.words
    shown = []
    if study.funnel:
        shown.append(Fact(f"{study.funnel.kept:,}", f"tweets kept of {study.funnel.read:,} rows"))
    shown.append(Fact(f"{run.steps:,}", "training steps" + (", stopped early" if run.stopped_early else "")))
    shown.append(Fact(f"{run.tokens:,}", "training tokens"))
    if evaluation:
        after = f"{evaluation.model.accuracy:.1%}"
        if evaluation.base:
            number = f"{100 * evaluation.base.accuracy:.1f} → {after}"
            shown.append(Fact(number, "masked tokens predicted correctly, before and after"))
        else:
            shown.append(Fact(after, "masked tokens predicted correctly by the adapted model"))
    if words:
        found, count = sum(word.found for word in words.words.values()), len(words.words)
        shown.append(Fact(f"{found:,}", f"occurrences of {count} {'word' if count == 1 else 'words'} embedded"))
    return shown


def flag(word: WordSummary) -> Flag | None:
    if not word.matches:
        return Flag.NOT_FOUND
    if word.unknown and not word.found:
        return Flag.UNKNOWN
    return Flag.RARE if word.found < MIN_FOUND else None


def rare_words(summary: Summary | None) -> list[str]:
    """Words without reliable figures, each with the reason."""
    flagged = [(name, word, flag(word)) for name, word in (summary.words if summary else {}).items()]
    return [f"{name} ({f'{word.found:,} found' if why == Flag.RARE else why})" for name, word, why in flagged if why]


def occurrence_table(summary: Summary) -> Table:
    rows = []
    for name, word in summary.words.items():
        found = f"{word.found:,}" + (f" of {word.matches:,}" if word.matches > word.sampled else "")
        counts = [f"{count:,}" for count in (word.truncated, word.unknown, word.tweets, word.clusters)]
        kept = [_kept(word) or "–"] if summary.base else []
        rows.append([name, found, *counts, *kept, flag(word) or ""])
    columns = ["word", "found", "truncated", "lost to [UNK]", "tweets", "near-duplicate clusters"]
    columns += ["neighbours kept"] if summary.base else []
    return Table(
        caption="Occurrences of each word",
        columns=[*columns, "note"],
        numeric=range(1, len(columns)),
        rows=rows,
        note="Truncated: the word is beyond the maximum length of a tweet in the shards. Lost to [UNK]: the tokenizer "
        f"cannot represent it. Too rare: found fewer than {MIN_FOUND} times, so that its neighbours are unreliable."
        + (" Neighbours kept: share of neighbours that are the same before and after." if summary.base else ""),
    )


def word_cards(summary: Summary) -> list[WordCard]:
    return [_card(name, word) for name, word in summary.words.items() if word.found]


def _card(name: str, word: WordSummary) -> WordCard:
    counts = f"{word.found:,} found"
    if word.matches > word.sampled:
        counts += f", a sample of {word.matches:,}"
    if kept := _kept(word):
        counts += f", {kept} of the neighbours kept"
    overlap = word.drift.neighbour_overlap if word.drift else None
    if overlap and overlap.control_quantiles and overlap.rank is not None:
        low, median, high = overlap.control_quantiles
        counts += f"; control words keep {median:.0%} ({low:.0%} to {high:.0%})"
        counts += f"; rank {overlap.rank} of {overlap.num_ranked}"
    after = {neighbour for neighbour, _ in word.neighbours}
    shared = [neighbour for neighbour, _ in word.base_neighbours if neighbour in after]
    return WordCard(name, flag(word) or "", counts, word.base_neighbours, word.neighbours, shared)


def _kept(word: WordSummary) -> str | None:
    return None if word.neighbour_overlap is None else f"{word.neighbour_overlap:.0%}"


def matched_on(change: Change) -> str:
    """The properties in which control words match a word; of several answers the one that claims least."""
    matches = [row["matched_on"] for row in change.rows if row["controls"]]
    return matched_on_text(min(matches, key=len, default=[MatchedOn.FREQUENCY]))
