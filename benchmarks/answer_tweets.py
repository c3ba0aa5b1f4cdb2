"""The tweets of `benchmarks.answer`: those to adapt to, those for training the head, and those with a query word."""

from __future__ import annotations

import csv
import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Words with two uses each, recognised by rough patterns: `before` is matched against the text directly before the word,
# `anywhere` against the whole tweet. An occurrence that matches both uses, or neither, is left out.
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

# Words to compare the uses with: the first two are closer in meaning to the first use, the others to the second.
PROBES = {"talk": ("speak", "tell", "interview", "speech"), "apple": ("iphone", "google", "juice", "pizza")}


def use_of(word: str, text: str, start: int) -> str | None:
    """The use of a word at one occurrence, by the patterns; None if neither or both match.

    Args:
        word: one of `USES`.
        text: text of the tweet.
        start: offset of the word in the text, in characters.
    """
    lowered = text.lower()
    contexts = {"before": lowered[:start], "anywhere": lowered}
    uses = [use for use, (where, pattern) in USES[word].items() if re.search(pattern, contexts[where])]
    return uses[0] if len(uses) == 1 else None


def write_tweets(settings: dict[str, Any], work: Path) -> None:
    """Write study.csv, general.csv and words.csv (one column, `text`); no row of study is in the other two.

    study: the first `tweets` + `held_out` rows whose column `column` is `topic`, in file order; without a topic, a
    seeded sample of all rows. general: a seeded sample of the other rows. words: the other rows that contain a word of
    `USES`, `background` more, and up to `background` that contain one of `PROBES`.
    """
    rows = list(_rows(Path(settings["data"]), settings["column"]))
    generator, size = random.Random(0), settings["tweets"] + settings["held_out"]
    if settings["topic"]:
        study = [number for number, (topic, _) in enumerate(rows) if topic == settings["topic"]][:size]
    else:
        study = sorted(generator.sample(range(len(rows)), min(size, len(rows) // 2)))
    if not study:
        raise SystemExit(f"error: {settings['data']}: no row has {settings['column']}={settings['topic']}")
    in_study = set(study)
    off_topic = (
        number for number, (topic, _) in enumerate(rows) if not settings["topic"] or topic != settings["topic"]
    )
    others = [number for number in off_topic if number not in in_study]
    generator.shuffle(others)
    probes = [probe for probes_of_word in PROBES.values() for probe in probes_of_word]
    has_use, has_probe = (re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE) for words in (USES, probes))
    rows_of_words = [number for number in others if has_use.search(rows[number][1])] + others[: settings["background"]]
    rows_of_words += [number for number in others if has_probe.search(rows[number][1])][: settings["background"]]
    files = {"study": study, "general": others[: settings["general"]], "words": dict.fromkeys(rows_of_words)}
    for name, numbers in files.items():
        with (work / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text",))
            writer.writerows((rows[number][1],) for number in numbers)


def _rows(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """Yield the topic (empty without such a column) and the text of each row."""
    open_file = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row.get(column) or "", row["text"]
