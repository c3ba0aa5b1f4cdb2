"""meaning.json: the results of the meaning test, and the notes about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from bert_tweets.common.output_folder import write_json_atomic
from bert_tweets.words.statistics.pair_metrics import FEW_WORDS, ChosenThreshold

MEANING = "meaning.json"

# Value, lower and upper bound of the 95 % interval, by measure (macro_f1, accuracy, auc); None: not defined.
Scores = dict[str, list[float | None]]


@dataclass(frozen=True)
class PairTest:
    """The result on one file of test pairs: numbers of pairs and words, and scores.

    Attributes:
        in_train: number of pairs that are training pairs too.
        scored: number of pairs whose words have tokens in both texts; `words` and `same_fraction` are of these.
        base, difference: None without a base.
        notes: what a reader should know, in sentences.
    """

    file: str
    pairs: int
    unlabelled: int
    in_train: int
    scored: int
    words: int
    same_fraction: float
    model: Scores
    base: Scores | None
    difference: Scores | None
    notes: list[str]


@dataclass(frozen=True)
class MeaningTest:
    """meaning.json: the settings, layer and threshold chosen on the training pairs, by role, and the tests."""

    model: str
    base: str | None
    train: str
    thresholds: dict[str, ChosenThreshold]
    pooling: str
    seed: int
    bootstrap_samples: int
    tests: list[PairTest]


def write_meaning_test(folder: Path, result: MeaningTest) -> None:
    write_json_atomic(folder / MEANING, asdict(result))


def test_notes(test: PairTest) -> list[str]:
    """Word the notes about a result."""
    notes = []
    if test.unlabelled:
        notes.append(f"{test.unlabelled:,} more pairs have no label and are left out")
    if test.in_train:
        notes.append(
            f"{test.in_train:,} of its pairs are training pairs too, on which layer and threshold were chosen: its "
            "scores are too optimistic"
        )
    if test.scored < test.pairs:
        notes.append(
            f"{test.pairs - test.scored:,} of {test.pairs:,} pairs are not scored, because a word is lost to [UNK]"
        )
    if test.words < FEW_WORDS:
        notes.append(f"its pairs are of {test.words} word(s), too few to trust the intervals")
    for role, scores in (("model", test.model), ("base", test.base)):
        auc = scores["auc"][0] if scores else 1.0
        if auc is None:
            notes.append("all scored pairs have the same label, so there is no AUC")
            break
        if auc < 0.5:
            notes.append(
                f"AUC of the {role} is {auc:.3f}, below 0.5: words with the same meaning are less similar than others; "
                "the sign is not flipped"
            )
    return [f"{test.file}: {note}" for note in notes]
