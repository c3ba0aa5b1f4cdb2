"""The tweets of `benchmarks.answer`: those to adapt to, others for the head, and those with a word."""

from __future__ import annotations

import csv
import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A word, and two uses of it, told by a rough pattern: `before` is matched against what stands directly before the word,
# `anywhere` against the whole tweet. An occurrence that fits both uses, or none, is in neither.
USES: dict[str, dict[str, tuple[str, str]]] = {
    "talk": {
        "to talk": ("before", r"\b(to|we|i|you|they|can|don.t|please|let.s|lets|gotta|wanna|never)\s$"),
        "a talk": ("before", r"\b(a|the|this|my|your|his|her|our|ted|small|trash|good|great|real)\s$"),
    },
    "apple": {
        "the company": ("anywhere", r"\b(iphone|ipad|ios|mac|macbook|ipod|itunes|siri|samsung|google|app store)s?\b"),
        "the fruit": ("anywhere", r"\b(pies?|juice|cider|eat|eating|sauce|cinnamon|fruit|baked|caramel|crisp)\b"),
    },
}

# Words to hold the uses against: the first two are nearer to the one use in sense, the others to the other.
PROBES = {"talk": ("speak", "tell", "interview", "speech"), "apple": ("iphone", "google", "juice", "pizza")}


def use_of(word: str, text: str, start: int) -> str | None:
    """Which use of a word an occurrence is, by the patterns; None: neither, or both.

    Args:
        word: one of `USES`.
        text: of the tweet.
        start: where the word begins in it, in characters.
    """
    lowered = text.lower()
    places = {"before": lowered[:start], "anywhere": lowered}
    found = [use for use, (where, pattern) in USES[word].items() if re.search(pattern, places[where])]
    return found[0] if len(found) == 1 else None


def write_tweets(given: dict[str, Any], work: Path) -> None:
    """Writes study.csv, general.csv and words.csv (a column, text); no tweet to adapt to is in the other two.

    study: the first `tweets` + `held_out` rows whose column `column` is `topic`, in their order; of all rows a seeded
    sample where no topic is given. general: a seeded sample of the others. words: the others that hold a word of
    `USES`, some that hold one of `PROBES`, and some thousand more.
    """
    rows = list(_rows(Path(given["data"]), given["column"]))
    draw, size = random.Random(0), given["tweets"] + given["held_out"]
    if given["topic"]:
        study = [number for number, (topic, _) in enumerate(rows) if topic == given["topic"]][:size]
    else:
        study = sorted(draw.sample(range(len(rows)), min(size, len(rows) // 2)))
    if not study:
        raise SystemExit(f"error: {given['data']}: no row's {given['column']} is {given['topic']}")
    chosen = set(study)
    off_topic = (number for number, (topic, _) in enumerate(rows) if not given["topic"] or topic != given["topic"])
    others = [number for number in off_topic if number not in chosen]
    draw.shuffle(others)
    probes = [probe for some in PROBES.values() for probe in some]
    asked, beside = (re.compile(rf"\b({'|'.join(some)})\b", re.IGNORECASE) for some in (USES, probes))
    words = [number for number in others if asked.search(rows[number][1])] + others[: given["background"]]
    words += [number for number in others if beside.search(rows[number][1])][: given["background"]]
    parts = {"study": study, "general": others[: given["general"]], "words": dict.fromkeys(words)}
    for name, numbers in parts.items():
        with (work / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text",))
            writer.writerows((rows[number][1],) for number in numbers)


def _rows(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """Topic (empty without such a column) and text of each row."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row.get(column) or "", row["text"]
