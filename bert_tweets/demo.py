"""demo: the whole road on generated tweets in which some words change their meaning at a known date.

First a tiny BERT is pre-trained on tweets of the years before, as a stand-in for the model that one would download;
then the road is walked with it: prepare, train on two ranks, evaluate, embed, report.
"""

from __future__ import annotations

import csv
import random
import shutil
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from . import commands, options
from .config import DemoConfig
from .errors import UserError, run_entry
from .files import MARKER

CHANGE = date(2020, 3, 1)
_START, _DAYS = date(2019, 3, 1), 730

# A word, the company that it keeps before the change, and after it.
CHANGING = {
    "mask": ("party", "health"),
    "virus": ("computer", "health"),
    "zoom": ("camera", "meeting"),
}
STABLE = {"coffee": "breakfast", "goal": "football", "rain": "weather"}

_TOPICS = {
    "party": "costume halloween dance glitter disguise carnival music friends club night",
    "computer": "laptop software password windows download antivirus hacker screen email file",
    "camera": "lens photo picture focus tripod sharp wide shot light portrait",
    "health": "hospital doctor vaccine infection cough nurse hygiene distance symptoms patients",
    "meeting": "call class colleagues online lecture mute background teacher link join",
    "breakfast": "cup morning toast milk sugar espresso croissant kitchen hot bakery",
    "football": "striker keeper match league penalty stadium fans referee season coach",
    "weather": "umbrella cloud storm wind forecast puddle sky cold autumn thunder",
}
_PATTERNS = (
    "{a} and {b} with my {word} {tag}",
    "so much {a} today, the {word} and the {b} again",
    "my {word} is all about {a} and {b} {emoji}",
    "@{user} did you see the {word}? {a} {b} {link}",
    "no {word} without {a}, no {a} without {b} {tag}",
    "why is every {word} about {a} now {emoji}",
    "{a}, {b}, {c}: another day with the {word}",
    "RT @{user}: the {word} needs {a} &amp; {b}",
    "talking of {a}: that {word} has {b} and {c}",
)
_EMOJI = ("😀", "😷", "🎉", "☕", "⚽", "🌧️", "👍🏽", "")


def generate(tweets: int, seed: int, first: date, days: int) -> Iterator[tuple[str, str, str]]:
    """Generated tweets: id, ISO date and text, spread evenly over the days."""
    generator = random.Random(seed)
    words = [*CHANGING, *STABLE]
    for number in range(tweets):
        day = first + timedelta(days=number * days // tweets)
        word = generator.choice(words)
        before, after = CHANGING.get(word, (STABLE.get(word, ""),) * 2)
        topic = after if day >= CHANGE else before
        a, b, c = generator.sample(_TOPICS[topic].split(), 3)
        text = generator.choice(_PATTERNS).format(
            word=word,
            a=a,
            b=b,
            c=c,
            tag=f"#{topic}",
            user=f"user{generator.randrange(500)}",
            link=f"https://example.com/{generator.randrange(10**6)}",
            emoji=generator.choice(_EMOJI),
        )
        yield f"{seed}{number:07}", day.isoformat(), text.strip()


def write_csv(path: Path, rows: Iterator[tuple[str, str, str]]) -> None:
    """A CSV such as a person would have: id, date, text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "date", "text"))
        writer.writerows(rows)


def stage(argv: list[str]) -> None:
    """Walks the road; ends by printing where the report is."""
    config = options.load(DemoConfig, argv)
    started = time.monotonic()
    folder = _fresh_folder(Path(config.output))
    settings = _settings_file()
    seed = f"seed={config.seed}"

    print(f"generating {config.tweets:,} tweets; from {CHANGE} on, {', '.join(CHANGING)} mean something else")
    write_csv(folder / "before.csv", generate(config.tweets, config.seed, _START - timedelta(days=730), 730))
    write_csv(folder / "tweets.csv", generate(config.tweets, config.seed + 1, _START, _DAYS))

    print("\n== a tiny BERT, pre-trained on the years before")
    shards, base = f"{folder}/before-shards", f"{folder}/base"
    _run(
        "prepare", f"input={folder}/before.csv", f"output={shards}", "tokenizer=wordpiece", "vocabulary_size=1000", seed
    )
    pretraining = ("model.name=scratch", "optimizer.learning_rate=1e-3", "epochs=8", seed)
    _run("train", "--config", settings, f"data.path={shards}", f"output={base}", *pretraining)

    print("\n== the road: from a CSV of tweets to vectors of chosen words")
    shards, run, base = f"{folder}/shards", f"{folder}/run", f"{base}/model"
    at = f"data.path={shards}"
    _run(
        "prepare",
        f"input={folder}/tweets.csv",
        f"output={shards}",
        f"tokenizer={base}",
        "validation_fraction=0.05",
        seed,
    )
    train = ("--config", settings, at, f"model.name={base}", f"output={run}", seed)
    commands.run(commands.command("train", train, config.processes))
    _run("evaluate", f"model={run}/model", f"base={base}", at, f"output={folder}/eval", seed)
    words = f"words=[{','.join((*CHANGING, *STABLE))}]"
    _run(
        "embed",
        f"model={run}/model",
        f"base={base}",
        at,
        words,
        f"output={folder}/words",
        "background_tweets=2000",
        seed,
    )
    report = f"{folder}/report.html"
    parts = (f"run={run}", f"evaluation={folder}/eval", f"words={folder}/words")
    _run("report", *parts, f"output={report}", "title=Demo: words that changed")
    print(f"\nthe demo took {time.monotonic() - started:.0f} s; open the report: {Path(report).resolve()}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _run(name: str, *words: str) -> None:
    commands.run(commands.command(name, words))


def _fresh_folder(folder: Path) -> Path:
    if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds other files; name a new folder with output=")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def _settings_file() -> str:
    here = Path(__file__).parent
    packaged = here / "demo.yaml"
    return str(packaged if packaged.is_file() else here.parent / "configs" / "demo.yaml")


if __name__ == "__main__":
    main()
