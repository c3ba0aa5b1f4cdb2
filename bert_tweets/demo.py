"""demo: the full pipeline on generated tweets in which some words change their meaning at a known date.

First a tiny BERT is pre-trained on tweets of earlier years, in place of a downloaded model. The pipeline then starts
from it: prepare, train on two ranks, evaluate, embed and compare the years, report.
"""

from __future__ import annotations

import csv
import random
import shutil
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.output_folder import MARKER
from bert_tweets.page.libraries import require_libraries

from .common import subprocesses
from .config import DemoConfig, parser

CHANGE = date(2020, 1, 1)
_START, _DAYS = date(2019, 1, 1), 4 * 365 + 1

# By word, the kind of thing that it means before and after the change.
CHANGING = {"mask": ("costume", "protection"), "virus": ("software", "illness"), "zoom": ("camera", "meeting")}
STABLE = {"coffee": "drink", "goal": "football", "rain": "weather"}

# By kind: other words of it, and words that occur with it.
_KINDS = {
    "costume": ("wig cape disguise crown makeup", "party halloween dance carnival glitter club"),
    "protection": ("gloves visor vaccine shield gown", "hospital nurse infection distance hygiene shop"),
    "software": ("trojan malware spyware worm hacker", "laptop password windows download email file"),
    "illness": ("flu cough fever infection cold", "doctor symptoms patients test hospital lungs"),
    "camera": ("lens tripod flash focus filter", "photo sharp portrait landscape light shutter"),
    "meeting": ("call webinar lecture briefing chat", "colleagues online link mute screen homeoffice"),
    "drink": ("tea espresso cocoa juice lemonade", "cup morning breakfast kitchen sugar milk"),
    "football": ("penalty corner save tackle header", "striker keeper stadium league referee fans"),
    "weather": ("storm fog snow thunder hail", "umbrella forecast clouds puddle wind autumn"),
}
_PATTERNS = (
    "this {word} and my {a}, what a {b} day {tag}",
    "so much {a} today, I need a {word} and the {b}",
    "my {word} came with {a} and {b} {emoji}",
    "@{user} did you see the {word}? {a} {b} {link}",
    "no {word} without {a}, no {a} without {b} {tag}",
    "another {word} at the {a} {emoji}",
    "RT @{user}: a {word} for the {a} &amp; the {b}",
    "talking of {a}: that {word} was all {b}",
)
# Relative frequency of the kinds that words change to, before and after.
_NEW_KIND_WEIGHT = (0.15, 2.0)
# Words of any tweet, whatever it is about; among them are the control words.
_EVERYDAY = (
    "apple arm bag ball band bank basket bath bed bell bench bicycle bird blanket board boat bone book boot bottle "
    "bowl box boy bread brick bridge brother brush bucket bus button cake candle car card carpet castle cat ceiling "
    "chain chair chalk cheese cherry chest chicken child church circle city clock cloth coat coin corn cow curtain "
    "cushion desk diamond dish dog door dress drum duck ear earth egg elephant eye face family farm farmer feather "
    "field finger fire fish flag floor flower foot forest fork fox friend frog fruit garden girl glass glove goat "
    "gold grass guitar hammer hand hat heart hole horse hotel house ice island jacket key king knee knife ladder "
    "lady lake lamp leaf letter lion map market mirror monkey moon mother mountain mouse mouth museum nail neck "
    "nose ocean onion orange oven owl page pan paper park pen pencil piano picture pig pillow pilot pipe plane "
    "plant plate pocket poem potato queen rabbit ribbon ring river road roof room root rope rose salt sand school "
    "seed sheep ship shirt shoe shoulder silver sister skirt sky smoke snake soap sock sofa soldier son soup spider "
    "spoon star station stick stone stove street string table tail teacher temple ticket tiger tongue tooth towel "
    "tower town toy train tray tree truck valley village violin wall watch wheel whistle wife window wing wolf "
    "woman wood wool"
)
_ASIDES = (
    "with {c} and {d}, {e}, {f}",
    "near the {c} {d} {e} {f}",
    "{c} {d} or {e} {f}",
    "under the {c} of {d} {e} {f}",
)
_EMOJI = ("😀", "😷", "🎉", "☕", "⚽", "🌧️", "👍🏽", "")

# A BERT that learns these tweets in a minute or two on two cores.
_SCRATCH = tuple(
    f"model.scratch.{size}"
    for size in ("hidden_size=128", "num_hidden_layers=2", "num_attention_heads=4", "intermediate_size=512")
)


def generate(tweets: int, seed: int, first: date, days: int) -> Iterator[tuple[str, str, str]]:
    """Yield generated tweets, spread evenly over the days: id, ISO date and text.

    Each tweet is about a thing of one kind, together with words that occur with that kind and with everyday words. From
    `CHANGE` on, the changing words take the place of things of another kind; the stable words do not.
    """
    generator, everyday = random.Random(seed), _EVERYDAY.split()
    new_kinds = {after for _, after in CHANGING.values()}
    for number in range(tweets):
        day = first + timedelta(days=number * days // tweets)
        of_kind = {kind: things.split() for kind, (things, _) in _KINDS.items()}
        for word, (before, after) in CHANGING.items():
            of_kind[after if day >= CHANGE else before] += [word]
        for word, kind in STABLE.items():
            of_kind[kind] += [word]
        weights = [_NEW_KIND_WEIGHT[day >= CHANGE] if kind in new_kinds else 1.0 for kind in _KINDS]
        (kind,) = generator.choices(list(_KINDS), weights)
        a, b = generator.sample(_KINDS[kind][1].split(), 2)
        pattern, word = generator.choice(_PATTERNS), generator.choice(of_kind[kind])
        user, link = f"user{generator.randrange(500)}", f"https://example.com/{generator.randrange(10**6)}"
        emoji = generator.choice(_EMOJI)
        text = pattern.format(word=word, a=a, b=b, tag=f"#{kind}", user=user, link=link, emoji=emoji)
        c, d, e, f = generator.sample(everyday, 4)
        text += " " + generator.choice(_ASIDES).format(c=c, d=d, e=e, f=f)
        yield f"{seed}{number:07}", day.isoformat(), text.strip()


def write_csv(path: Path, rows: Iterator[tuple[str, str, str]]) -> None:
    """Write a CSV with the columns id, date and text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "date", "text"))
        writer.writerows(rows)


def stage(argv: list[str]) -> None:
    """Run the pipeline on generated tweets and print where the report is."""
    config = parser.load(DemoConfig, argv)
    require_libraries()  # the last stage needs them, minutes from now
    started = time.monotonic()
    folder = _fresh_folder(Path(config.output))
    seed, held_out = f"seed={config.seed}", "validation_fraction=0.05"

    print(f"generating {config.tweets:,} tweets, in which {', '.join(CHANGING)} change their meaning on {CHANGE}")
    write_csv(folder / "before.csv", generate(config.tweets, config.seed, _START - timedelta(days=_DAYS), _DAYS))
    write_csv(folder / "tweets.csv", generate(config.tweets, config.seed + 1, _START, _DAYS))

    print("\n== pre-training a tiny BERT on earlier years")
    data, run = f"{folder}/before-shards", f"{folder}/base"
    vocabulary = ("tokenizer=wordpiece", "vocabulary_size=1000")
    _run("prepare", f"input={folder}/before.csv", f"output={data}", *vocabulary, held_out, seed)
    train = (f"data.path={data}", "model.name=scratch", *_SCRATCH, f"output={run}")
    _run("train", *train, *_training(config, epochs=16, learning_rate="1e-3"))

    print("\n== the pipeline: from a CSV of tweets to a report on chosen words")
    base, data, run = f"{run}/model", f"{folder}/shards", f"{folder}/run"
    model, rest = f"{run}/model", (f"base={base}", f"data.path={data}")
    _run("prepare", f"input={folder}/tweets.csv", f"output={data}", f"tokenizer={base}", held_out, seed)
    train = (f"data.path={data}", f"model.name={base}", f"output={run}")
    _run("train", *train, *_training(config, epochs=8, learning_rate="5e-4"), processes=config.processes)
    _run("evaluate", f"model={model}", *rest, f"output={folder}/eval", seed)
    words = f"words={','.join((*CHANGING, *STABLE))}"
    _run("embed", f"model={parser.shown_value([model])}", *rest, words, "by=year", f"output={folder}/words", seed)
    parts = (f"run={run}", f"evaluation={folder}/eval", f"words={folder}/words")
    report = folder / "report.html"
    _run("report", *parts, f"output={report}", "title=Demo: words that changed")
    print(f"\nthe demo took {time.monotonic() - started:.0f} s; open the report: {report.resolve()}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _training(config: DemoConfig, epochs: int, learning_rate: str) -> tuple[str, ...]:
    """Training settings for a tiny model: many small steps at a high rate; bf16 would gain nothing."""
    length = f"epochs={epochs}" if config.max_steps is None else f"max_steps={config.max_steps}"
    rate, seed = f"optimizer.learning_rate={learning_rate}", f"seed={config.seed}"
    return (length, "batch_size=64", rate, "precision=fp32", seed)


def _run(name: str, *words: str, processes: int = 1) -> None:
    subprocesses.run_command(subprocesses.command(name, words, processes))


def _fresh_folder(folder: Path) -> Path:
    if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder}: contains other files; name a new folder with output=")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


if __name__ == "__main__":
    main()
