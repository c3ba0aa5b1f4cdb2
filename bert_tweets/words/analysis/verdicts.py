"""What may be said of a comparison: the only place where findings are put into words.

Two answers, never mixed. (a) Usage differs: labels exchanged at random seldom give as much. (b) More than ordinary
words: it ranks high among matched control words. With real time every word's contexts drift, and (a) comes true of most
words; a change of meaning is said of (b) alone, and only where (a) holds too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIFFERS = "differs"
CHANGED, NO_EVIDENCE, TOO_FEW, NOT_COMPARABLE = "changed", "no evidence", "too few", "not comparable"

# Fewer cannot tell the first twentieth from chance with any certainty.
FEWEST_CONTROLS = 200


@dataclass(frozen=True)
class Answers:
    """The two answers, as figures.

    Attributes:
        usage: DIFFERS, NO_EVIDENCE or TOO_FEW.
        controls: control words that match and could be compared.
        stands_out: the word ranks among the first of them, by the level that was asked for.
    """

    usage: str
    controls: int
    stands_out: bool

    @property
    def verdict(self) -> str:
        """CHANGED only where both answers are yes."""
        if self.usage != DIFFERS:
            return self.usage
        if self.controls < FEWEST_CONTROLS:
            return NOT_COMPARABLE
        return CHANGED if self.stands_out else NO_EVIDENCE


def label(usage: str, verdict: str) -> str:
    """Both answers in a few words, for a table: no word of theirs says more than `statement`."""
    if usage != DIFFERS or verdict == CHANGED:
        return verdict
    if verdict == NOT_COMPARABLE:
        return "differs; not comparable"
    return "differs; no evidence beyond ordinary words"


def statement(answers: Answers, row: dict[str, object]) -> str:
    """Both answers in sentences.

    Args:
        answers: the answers.
        row: of change.json.
    """
    where = f"between {row['group_a']} and {row['group_b']}" if row["group_a"] is not None else "between the groups"
    sizes = f"{row['clusters']:,} clusters of near-duplicates"
    sizes += f", {row['authors']:,} authors" if row["authors"] is not None else ", authors unknown"
    if answers.usage == TOO_FEW:
        return f"Too few occurrences to compare the use of {row['word']} {where} ({sizes})."
    figures = (
        f"energy distance {row['estimate']:.3g} ({row['low']:.3g} to {row['high']:.3g}), p = {row['p_value']:.2g}, "
        f"q = {row['q_value']:.2g} by permutation of {row['unit']}; {sizes}"
    )
    if answers.usage == NO_EVIDENCE:
        seen = "no distance could have been a finding with so few units and permutations"
        if row["smallest_effect"] is not None:
            seen = f"one beyond {row['smallest_effect']:.3g} would have been a finding"
        return f"No evidence that the use of {row['word']} differs {where}: {figures}; {seen}."
    first = f"The use of {row['word']} differs {where}: {figures}."
    rank = f"rank {row['rank_among_controls']} among {answers.controls} control words matched on {row['matched_on']}"
    if answers.verdict == CHANGED:
        return f"{first} It differs by more than that of ordinary words, which speaks for a change of meaning: {rank}."
    if answers.verdict == NOT_COMPARABLE:
        return (
            f"{first} Whether by more than that of ordinary words cannot be told: "
            f"{answers.controls} of {FEWEST_CONTROLS} control words match."
        )
    return f"{first} No evidence that it does by more than that of ordinary words: {rank}."


def rank_told(row: Mapping[str, Any]) -> str | None:
    """A row's rank, `3 of 258`, the word counted; None among fewer controls than an answer takes."""
    enough = row["controls"] >= FEWEST_CONTROLS
    return f"{row['rank_among_controls']} of {row['controls'] + 1}" if enough else None


def association(row: dict[str, object], level: float) -> str:
    """What a term of a regression is found to explain.

    Args:
        row: of regression.json.
        level: the false-discovery rate.
    """
    what, word = row["term"], row["word"]
    if row["p_value"] is None or row["q_value"] is None:
        return f"Whether {what} goes with how {word} is used cannot be told: {row['reason']}."
    q_value, beside = float(str(row["q_value"])), row["beside"]
    assert isinstance(beside, list)
    other = f" beside {', '.join(beside)}" if beside else ""
    sizes = f"{row['clusters']:,} clusters of near-duplicates"
    sizes += f", {row['authors']:,} authors" if row["authors"] is not None else ", authors unknown"
    share = "not estimable" if row["estimate"] is None else f"{row['estimate']:.3g}"
    figures = (
        f"partial R² {share}, p = {row['p_value']:.2g}, q = {q_value:.2g} by permutation of {row['unit']}; {sizes}"
    )
    if row["controls"]:
        figures += f"; rank {row['rank_among_controls']} among {row['controls']} control words"
    if q_value > level:
        return f"No evidence that {what} goes with how {word} is used{other}: {figures}."
    return f"How {word} is used goes with {what}{other}: {figures}."
