"""A study to report on: folders with every file that the stages may leave, of generated words."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.analysis import records
from bert_tweets.words.analysis.records import (
    Association,
    AssociationMeasure,
    ChangeRow,
    Contrast,
    ControlRow,
    ExchangeUnit,
    MatchedOn,
    Measure,
    RegressionRow,
    Sense,
    WordSenses,
)
from bert_tweets.words.analysis.verdicts import Answers, change_statement
from bert_tweets.words.statistics.mixture_clusters import Criterion
from bert_tweets.words.store.folder import read_embed_record, write_embed_record
from tests.test_report import EVALUATION, RUN, WORDS, word, write_lines
from tests.test_report import study as plain_study

YEARS = ["2018", "2019", "2020", "2021"]
NAMES = ["mask", "virus", "zoom", "coffee", "goal", "rain", "corona", "tube", "cloud", "viral"]
TEXT = "@some_body thinks that the {word} is all that one needs & more <b>of it</b>, number {number} of many"


def write(folder: Path, words: int = 4, points: int = 60, text: bool = False, authors: bool = True) -> list[str]:
    """Writes run, evaluation, words and change; returns the report's arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [NAMES[n] if n < len(NAMES) else f"word{n}" for n in range(words)]
    random = np.random.default_rng(0)
    arguments = plain_study(folder, EVALUATION, summary(names, points), {**RUN, "best_step": 400, "steps": 500})
    training = [1.9 + 1.6 * 0.9**n + 0.04 * random.standard_normal() for n in range(1, 51)]
    write_lines(folder, training, [2.2 + 1.5 * 0.95**n for n in range(51)])
    write_embed_record(folder / "words", {"settings": {"words": names, "seed": 3}, "data": "", "weights": {}})
    write_occurrences(folder / "words/occurrences.parquet", names, points, text)
    write_change(folder, names, points, authors)
    return [*arguments, f"change={folder / 'change'}"]


def summary(names: list[str], points: int) -> dict[str, Any]:
    """summary.json with drift, control words and three training seeds; the last word is rare."""
    random = np.random.default_rng(1)
    words = {}
    for number, name in enumerate(names):
        kept = [round(0.2 + 0.1 * (number % 7) + 0.02 * seed, 3) for seed in range(3)]
        overlap = {"by_seed": kept, "control_quantiles": [0.5, 0.7, 0.9], "rank": 3 + number, "num_ranked": 201}
        correlation = {
            "by_seed": [round(0.4 + share / 2, 3) for share in kept],
            "control_quantiles": [0.6, 0.8, 0.95],
            "rank": 5,
            "num_ranked": 201,
        }
        near, before = (
            [[f"near{n}", round(0.9 - n / 20, 2)] for n in random.permutation(12)[:10].tolist()] for _ in range(2)
        )
        words[name] = word(
            points if number < len(names) - 1 else 12,
            neighbours=near,
            base_neighbours=before,
            drift={"neighbour_overlap": overlap, "distance_correlation": correlation},
        )
    models = ["run/model", "run2/model", "run3/model"]
    layer = "mean(9,10,11,12)"
    more = {"models": models, "correction": "all-but-the-top", "layers": [layer], "vectors_layer": layer}
    return {**WORDS, "words": words, **more}


def write_occurrences(path: Path, names: list[str], points: int, text: bool) -> None:
    """occurrences.parquet: two uses a word, the second only of the later years; three models, one layer."""
    random, parts = np.random.default_rng(2), []
    for number, name in enumerate(names):
        count = points if number < len(names) - 1 else 12
        year = np.sort(random.integers(0, len(YEARS), count))
        use = (random.random(count) < np.where(year > 1, 0.7, 0.1)).astype(int)
        time = [f"{YEARS[one]}-{1 + place % 12:02}-03T10:00:00" for place, one in enumerate(year.tolist())]
        start = [len("@some_body thinks that the ")] * count
        for model in ("model", "model.2", "base"):
            vectors = random.standard_normal((count, 16)) * 0.6 + 3 * use[:, None] * (model != "base")
            columns = {
                "word": [name] * count,
                "tweet_id": [f"{number}-{place}" for place in range(count)],
                "cluster": list(range(count)),
                "author": [f"a{place % 9}" for place in range(count)],
                "time": pa.array(np.array(time, "datetime64[s]"), pa.timestamp("s", "UTC")),
                "group.party": [["red", "blue", None][place % 3] for place in range(count)],
                "start": pa.array(start, pa.int32()),
                "end": pa.array([one + len(name) for one in start], pa.int32()),
                "status": ["found"] * count,
                "model": [model] * count,
                "layer": ["mean(9,10,11,12)"] * count,
                "control": [False] * count,
                "vector": pa.array(vectors.astype(np.float32).tolist(), pa.list_(pa.float32())),
            }
            if text:
                columns["text"] = [TEXT.format(word=name, number=place) for place in range(count)]
            parts.append(pa.table(columns))
    pq.write_table(pa.concat_tables(parts), path)


def write_change(folder: Path, names: list[str], points: int, authors: bool) -> None:
    """Write all files of analyze, with control words, senses and a regression."""
    change, random = folder / "change", np.random.default_rng(4)
    change.mkdir()
    pairs = list(pairwise(YEARS))
    rows: list[ChangeRow] = []
    controls: list[ControlRow] = []
    for number, name in enumerate(names):
        size = 0.9 if number < 3 else 0.04
        for contrast, groups in ((Contrast.OMNIBUS, YEARS), *((Contrast.ADJACENT, list(pair)) for pair in pairs)):
            rows.append(row(name, contrast, groups, size * (1 + 0.3 * random.random()), number, points, authors))
    for number in range(220):
        for groups in (YEARS, *map(list, pairs)):
            estimate = 0.05 + 0.08 * float(random.standard_gamma(1))
            figures: ControlRow = {
                "word": f"c{number}",
                "groups": groups,
                "estimate": estimate,
                "clusters": 50,
                "subwords": 1,
                "frequency": 50,
            }
            controls.append(figures)
    records.write_change(change, rows)
    records.write_controls(change, controls)
    records.write_senses(change, {name: sense(name, 2 if number < 3 else 1) for number, name in enumerate(names[:-1])})
    records.write_regression(
        change, [regression(name, term) for name in names[:-1] for term in ("party", "year", "links")]
    )
    made_from = read_embed_record(folder / "words")
    records.write_settings(change, records.AnalyzeRecord(AnalyzeConfig(by="year"), dict(made_from)))
    table = pq.read_table(folder / "words/occurrences.parquet", columns=["word", "tweet_id", "start", "end", "model"])
    table = table.filter(pa.compute.equal(table["model"], "model"))
    numbers = [place % 2 for place in range(len(table))]
    pq.write_table(table.append_column("sense", pa.array(numbers, pa.int32())), change / records.SENSE_TABLE)


def row(
    name: str, contrast: Contrast, groups: list[str], size: float, number: int, points: int, authors: bool
) -> ChangeRow:
    """A row of change.json; the first three words have changed."""
    answers = Answers(number < 3, 214, number < 3)
    group_a, group_b = groups if contrast != Contrast.OMNIBUS else (None, None)
    record: ChangeRow = {
        "word": name,
        "contrast": contrast,
        "group_a": group_a,
        "group_b": group_b,
        "groups": groups,
        "measure": Measure.ENERGY,
        "estimate": size,
        "low": size * 0.7 - 0.03,
        "high": size * 1.35 + 0.03,
        "p_value": 0.0001 if number < 3 else 0.31,
        "q_value": 0.0004 if number < 3 else 0.38,
        "min_attainable_p": 0.0001,
        "detectable_effect": 0.11,
        "rank_among_controls": 1 + number * 13,
        "controls": 214,
        "matched_on": [MatchedOn.FREQUENCY, MatchedOn.SUBWORDS],
        "difference": answers.difference,
        "beyond_ordinary": answers.beyond_ordinary,
        "verdict": answers.verdict,
        "n": points,
        "n_a": None,
        "n_b": None,
        "clusters": points - 3,
        "authors": points - 9 if authors else None,
        "cross_group_duplicates": 1,
        "exchange_unit": ExchangeUnit.AUTHORS if authors else ExchangeUnit.CLUSTERS,
        "statement": None,
    }
    return {**record, "statement": change_statement(record)}


def sense(name: str, count: int) -> WordSenses:
    """Senses of a word whose shares change over the years."""
    senses: list[Sense] = []
    for number in range(count):
        share = [0.1, 0.15, 0.6, 0.7] if number else [0.9, 0.85, 0.4, 0.3]
        association: Association = {
            "covariate": "links",
            "measure": AssociationMeasure.RANK_BISERIAL,
            "statistic": 0.31,
            "p_value": 0.001,
            "q_value": 0.004,
        }
        senses.append(
            {
                "name": f"{name}#{number + 1}",
                "size": 300 - 100 * number,
                "authors": None,
                "share": 0.6 if count == 2 and not number else 0.4 if number else 1.0,
                "words": ["hospital", "nurse", "distance"] if number else ["party", "wig", "halloween"],
                "substitutes": [("visor", 31), ("glove", 12)] if number else [("costume", 40), ("cape", 9)],
                "typical": [("0-1", 3, 7)],
                "associations": [association],
                "shares": [
                    {"group": year, "share": one, "low": one - 0.06, "high": one + 0.06, "n": 90}
                    for year, one in zip(YEARS, share, strict=True)
                ],
            }
        )
    return {
        "count": count,
        "criterion": Criterion.VALLEYS,
        "max_senses": 5,
        "p_values": {"2": 0.001},
        "stability": 0.97,
        "n": 300,
        "authors": None,
        "senses": senses,
    }


def regression(name: str, term: str) -> RegressionRow:
    return {
        "word": name,
        "term": term,
        "adjusted_for": [],
        "statistic": "partial R²",
        "estimate": 0.0312,
        "raw": 0.04,
        "coefficients": None,
        "p_value": 0.002,
        "q_value": 0.01,
        "min_attainable_p": 0.0001,
        "permutations": 9999,
        "reason": None,
        "rank_among_controls": None,
        "controls": 0,
        "n": 300,
        "clusters": 290,
        "authors": None,
        "exchange_unit": ExchangeUnit.CLUSTERS,
        "left_out": {"unknown": 0, "rare_level": 0, "author_surplus": 0},
        "statement": "",
    }
