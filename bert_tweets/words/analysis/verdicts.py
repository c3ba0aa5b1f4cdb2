"""Verdicts on comparisons, and every sentence about a finding: the only place where findings are put into words.

There are two questions, and they are never mixed. (a) Does the use differ? If labels are exchanged at random, a
difference as large is rare. (b) Does it differ by more than that of ordinary words? The word ranks high among matched
control words. Over time the contexts of every word drift, so that (a) is true of most words; a change of meaning is
claimed only where both answers are yes.
"""

from __future__ import annotations

from dataclasses import dataclass

from bert_tweets.words.statistics.mixture_clusters import MIN_STABILITY, Criterion, level_of_each_count, min_occurrences

from .records import ChangeRow, ExchangeUnit, MatchedOn, Reason, RegressionRow, Verdict, WordSenses

# With fewer, the first twentieth cannot be distinguished from chance with any certainty.
MIN_CONTROLS = 200

_LABELS = {
    Verdict.CHANGED: "changed",
    Verdict.DIFFERS_AS_ORDINARY: "differs; no evidence beyond ordinary words",
    Verdict.NOT_COMPARABLE: "differs; not comparable",
    Verdict.NO_DIFFERENCE: "no evidence",
    Verdict.TOO_FEW: "too few",
}
_EXCHANGE_UNITS = {
    ExchangeUnit.AUTHORS: "whole authors",
    ExchangeUnit.CLUSTERS: "whole near-duplicate clusters",
    ExchangeUnit.AUTHORS_OR_CLUSTERS: "whole authors, and near-duplicate clusters where the author is unknown",
}
_PROPERTIES = {
    MatchedOn.FREQUENCY: "frequency",
    MatchedOn.SUBWORDS: "number of subwords",
    MatchedOn.PART_OF_SPEECH: "part of speech",
}
_REASONS = {
    Reason.TOO_FEW: "too few occurrences",
    Reason.TOO_FEW_UNITS: "too few units to exchange",
    Reason.CONSTANT: "the same for all occurrences",
    Reason.COLLINEAR: "determined by the other covariates",
    Reason.SINGLE_UNIT: "depends on a single unit: no debiased estimate",
}


@dataclass(frozen=True)
class Answers:
    """The answers to both questions about one comparison.

    Attributes:
        difference: whether the use differs; None: too few occurrences.
        controls: number of control words that match and could be compared.
        stands_out: whether the word ranks among the first of them, at the level of the settings.
    """

    difference: bool | None
    controls: int
    stands_out: bool

    @property
    def beyond_ordinary(self) -> bool | None:
        """Whether the use differs by more than that of ordinary words; None without a difference or enough controls."""
        return self.stands_out if self.difference and self.controls >= MIN_CONTROLS else None

    @property
    def verdict(self) -> Verdict:
        if self.difference is None:
            return Verdict.TOO_FEW
        if not self.difference:
            return Verdict.NO_DIFFERENCE
        if self.beyond_ordinary is None:
            return Verdict.NOT_COMPARABLE
        return Verdict.CHANGED if self.beyond_ordinary else Verdict.DIFFERS_AS_ORDINARY


def verdict_label(verdict: Verdict) -> str:
    """A verdict in a few words, for a table; it claims no more than `change_statement`."""
    return _LABELS[verdict]


def exchange_unit_text(unit: ExchangeUnit) -> str:
    """`whole authors`, to follow "by permutation of"."""
    return _EXCHANGE_UNITS[unit]


def matched_on_text(matched_on: list[MatchedOn]) -> str:
    """`frequency, number of subwords and part of speech`."""
    *names, last = (_PROPERTIES[each] for each in matched_on)
    return f"{', '.join(names)} and {last}" if names else last


def reason_text(reason: Reason) -> str:
    return _REASONS[reason]


def rank_text(row: ChangeRow | RegressionRow) -> str | None:
    """The rank of a row among its control words, `3 of 258` with the word counted; None with too few of them."""
    return f"{row['rank_among_controls']} of {row['controls'] + 1}" if row["controls"] >= MIN_CONTROLS else None


def groups_text(row: ChangeRow) -> str:
    """The groups of a comparison: `2019 – 2020`, or `all` where there are more than two."""
    return "all" if row["group_a"] is None else f"{row['group_a']} – {row['group_b']}"


def change_statement(row: ChangeRow) -> str:
    """Both answers about a row of the energy distance, in sentences."""
    word, verdict = row["word"], row["verdict"]
    where = "between the groups" if row["group_a"] is None else f"between {row['group_a']} and {row['group_b']}"
    if verdict == Verdict.TOO_FEW:
        return f"Too few occurrences to compare the use of {word} {where} ({_sizes(row)})."
    figures = (
        f"energy distance {row['estimate']:.3g} ({row['low']:.3g} to {row['high']:.3g}), p = {row['p_value']:.2g}, "
        f"q = {row['q_value']:.2g} by permutation of {exchange_unit_text(row['exchange_unit'])}; {_sizes(row)}"
    )
    if verdict == Verdict.NO_DIFFERENCE:
        detectable = row["detectable_effect"]
        power = "with so few units and permutations, no distance could have been a finding"
        if detectable is not None:
            power = f"a distance above {detectable:.3g} would have been a finding"
        return f"No evidence that the use of {word} differs {where}: {figures}; {power}."
    first = f"The use of {word} differs {where}: {figures}."
    if verdict == Verdict.NOT_COMPARABLE:
        return (
            f"{first} It cannot be compared with ordinary words: {row['controls']} control words match, and "
            f"{MIN_CONTROLS} are needed."
        )
    matched_on = matched_on_text(row["matched_on"])
    rank = f"rank {row['rank_among_controls']} among {row['controls']} control words matched on {matched_on}"
    if verdict == Verdict.CHANGED:
        return f"{first} It differs by more than that of ordinary words, which suggests a change of meaning: {rank}."
    return f"{first} No evidence that it differs by more than that of ordinary words: {rank}."


def regression_statement(row: RegressionRow, fdr: float) -> str:
    """The association of a covariate with a word's use, in a sentence, from a row with its q-value and rank."""
    term, word = row["term"], row["word"]
    if row["p_value"] is None or row["q_value"] is None:
        assert row["reason"] is not None
        return f"Whether {term} is associated with the use of {word} is unknown: {reason_text(row['reason'])}."
    others = f", adjusted for {', '.join(row['adjusted_for'])}" if row["adjusted_for"] else ""
    estimate = "not estimable" if row["estimate"] is None else f"{row['estimate']:.3g}"
    figures = (
        f"partial R² {estimate}, p = {row['p_value']:.2g}, q = {row['q_value']:.2g} by permutation of "
        f"{exchange_unit_text(row['exchange_unit'])}; {_sizes(row)}"
    )
    if row["controls"]:
        figures += f"; rank {row['rank_among_controls']} among {row['controls']} control words"
    if row["q_value"] > fdr:
        return f"No evidence that the use of {word} is associated with {term}{others}: {figures}."
    return f"The use of {word} is associated with {term}{others}: {figures}."


def criterion_text(record: WordSenses) -> str:
    """How the number of senses of a word was chosen."""
    most = record["max_senses"]
    if record["criterion"] == Criterion.TOO_FEW:
        return f"fewer than {min_occurrences(most)} occurrences: several senses could not be distinguished"
    if record["criterion"] == Criterion.IDENTICAL:
        return "all vectors are the same"
    return (
        f"the largest number, up to {most}, of clusters with a valley between every two of them on held-out "
        f"occurrences (p ≤ {level_of_each_count(most):.3g}) that resamples reproduce "
        f"(adjusted Rand index ≥ {MIN_STABILITY:g})"
    )


def senses_text(word: str, record: WordSenses) -> str:
    """`mask: 2 senses (60%, 40%), stability 0.97`."""
    shares = ", ".join(f"{sense['share']:.0%}" for sense in record["senses"])
    return f"{word}: {record['count']} senses ({shares}), stability {record['stability']:.2f}"


def _sizes(row: ChangeRow | RegressionRow) -> str:
    authors = "authors unknown" if row["authors"] is None else f"{row['authors']:,} authors"
    return f"{row['clusters']:,} near-duplicate clusters, {authors}"
