"""A run that was stopped goes on as if it had not been: at any step, at any number of ranks, by any engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers import generated_tweets, make_shards
from tests.processes import run

pytestmark = pytest.mark.dist

LAUNCHES = str(Path(__file__).parent / "launches.py")
STEPS, EVERY = 16, 3
# An epoch has some 45 tweets: it ends within step 8 or 7.
SETTINGS = [
    "model.name=scratch",
    "model.scratch.hidden_size=32",
    "model.scratch.intermediate_size=64",
    f"max_steps={STEPS}",
    "precision=fp32",
    "device=cpu",
    f"log.every_steps={EVERY}",
    "validation.every_steps=4",
    "optimizer.learning_rate=1e-3",
]
ENGINES = {"ddp": ["engine.name=ddp"]} | {
    f"zero{stage}": ["engine.name=deepspeed", f"engine.zero_stage={stage}"] for stage in range(4)
}
# Inside of an interval of the log and behind the first step; at the end of one.
STOPS = [1, 6]
KINDS = {
    "plain": ["batch_size=6"],
    "parts": ["batch_size=7", "tokens_per_device=24"],
    "dropout": ["batch_size=6", "model.dropout=0.1"],
}
# By ranks.
CASES = {
    1: [("ddp", "plain"), ("ddp", "parts"), ("ddp", "dropout")],
    2: [("ddp", "parts"), ("ddp", "dropout"), *((engine, "plain") for engine in ENGINES if engine != "ddp")],
    3: [("ddp", "plain"), ("ddp", "parts"), ("zero3", "plain")],
}
TIMES = {"tokens_per_second", "tweets_per_second", "mfu", "data_wait_fraction", "step_seconds"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [" ".join(text.split()[: 2 + number % 5]) for number, text in enumerate(generated_tweets(90))]
    return make_shards(tmp_path_factory.mktemp("data"), texts, max_length=12, validation_fraction=0.5)


class Launcher:
    """Starts ranks once for many launches."""

    def __init__(self, folder: Path, shards: Path):
        self.folder, self.shards = folder, shards

    def words(self, name: str, *more: str) -> list[str]:
        return [f"data.path={self.shards}", f"output={self.folder / name}", *SETTINGS, *more]

    def launch(self, processes: int, launches: Iterable[list[str]]) -> list[str]:
        """What each launch ended with: `done`, or its line."""
        file = self.folder / f"launches-{processes}.json"
        file.write_text(json.dumps(list(launches)))
        done = run([LAUNCHES, str(file)], processes=processes if processes > 1 else 0)
        assert done.returncode == 0, done.stdout + done.stderr
        return list(json.loads(file.with_suffix(".outcomes").read_text()))


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Launcher:
    return Launcher(tmp_path_factory.mktemp("runs"), shards)


def lines_of(run: Path, name: str = "metrics.jsonl") -> list[dict[str, float]]:
    """Without what is a time."""
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def model_of(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model/model.safetensors")


def name_of(ranks: int, engine: str, kind: str) -> str:
    return f"{ranks}-{engine}-{kind}"


@pytest.fixture(scope="module")
def exact(launcher: Launcher) -> Path:
    """Runs in one go, and the same in three launches, at each number of ranks."""
    for ranks, cases in CASES.items():
        launches = []
        for engine, kind in cases:
            more, name = [*ENGINES[engine], *KINDS[kind]], name_of(ranks, engine, kind)
            parted = launcher.words(f"{name}-parted", *more)
            launches += [
                launcher.words(name, *more),
                *([*parted, f"stop_after_steps={stop}"] for stop in STOPS),
                parted,
            ]
        assert set(launcher.launch(ranks, launches)) == {"done"}
    return launcher.folder


@pytest.mark.parametrize(
    ("ranks", "engine", "kind"), [(ranks, *case) for ranks, cases in CASES.items() for case in cases]
)
def test_a_run_in_launches_is_bit_identical(exact: Path, ranks: int, engine: str, kind: str) -> None:
    whole = exact / name_of(ranks, engine, kind)
    parted = whole.with_name(f"{whole.name}-parted")
    assert lines_of(whole) == lines_of(parted)
    assert [line["step"] for line in lines_of(whole)] == [3, 6, 9, 12, 15, 16]
    assert lines_of(whole, "validation.jsonl") == lines_of(parted, "validation.jsonl")
    one, other = model_of(whole), model_of(parted)
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    records = [json.loads((folder / "run.json").read_text()) for folder in (whole, parted)]
    assert all(record["steps"] == STEPS and record["tokens"] == records[0]["tokens"] for record in records)
