"""A resumed run equals an uninterrupted one: at any step, number of ranks and engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.processes import run
from tests.training.runs import assert_same, lines_of, model_of, short_tweets, words_of

pytestmark = [pytest.mark.dist, pytest.mark.xdist_group("ranks")]

LAUNCHES = str(Path(__file__).parent / "launches.py")
# An epoch has about 45 tweets: it ends within step 8 or 7.
STEPS = 12
SETTINGS = [f"max_steps={STEPS}", "log.every_steps=3", "validation.every_steps=4"]
ENGINES = {"ddp": ["engine.name=ddp"]} | {
    f"zero{stage}": ["engine.name=deepspeed", f"engine.zero_stage={stage}"] for stage in range(4)
}
# Steps after which launches stop: within an interval of the log, or at its end.
STOPS = {"ddp": [1, 6], "zero": [5]}
KINDS = {
    "plain": ["batch_size=6"],
    "parts": ["batch_size=7", "tokens_per_device=24"],
    "dropout": ["batch_size=7", "tokens_per_device=24", "model.dropout=0.1"],
}
# By number of ranks; make soak runs all of them.
CASES = {
    1: [("ddp", "plain"), ("ddp", "dropout")],
    2: [("ddp", "dropout"), *((engine, "plain") for engine in ENGINES if engine != "ddp")],
    3: [("ddp", "parts")],
    4: [],
}
ALL_CASES = {ranks: [(engine, kind) for engine in ENGINES for kind in KINDS] for ranks in (1, 2, 3)}
# Runs that change ranks and engines: three steps, or the rest, with each of these.
SEQUENCES = {
    "ddp": [(1, "ddp"), (2, "ddp"), (4, "ddp"), (1, "ddp")],
    "zero1": [(2, "zero1"), (3, "zero1"), (1, "zero1")],
    "zero2": [(2, "zero2"), (3, "zero2"), (1, "zero2")],
    "zero3": [(2, "zero3"), (3, "zero3"), (1, "zero3")],
    "mixed": [(1, "ddp"), (2, "zero2"), (3, "zero3"), (1, "zero0")],
}


class Launcher:
    """Starts ranks once for many launches."""

    def __init__(self, folder: Path, shards: Path):
        self.folder, self.shards = folder, shards

    def words(self, name: str, *more: str) -> list[str]:
        return words_of(self.shards, self.folder / name, *SETTINGS, *more)

    def launch(self, processes: int, launches: Iterable[list[str]]) -> None:
        file = self.folder / "launches.json"
        file.write_text(json.dumps(list(launches)))
        done = run([LAUNCHES, str(file)], processes=processes if processes > 1 else 0, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    folder = tmp_path_factory.mktemp("going_on")
    (folder / "runs").mkdir()
    return Launcher(folder / "runs", short_tweets(folder / "data"))


def name_of(ranks: int, engine: str, kind: str) -> str:
    return f"{ranks}-{engine}-{kind}"


def launches_of(launcher: Launcher, ranks: int, engine: str, kind: str) -> list[list[str]]:
    """A run in one launch, and in several."""
    more, name = [*ENGINES[engine], *KINDS[kind]], name_of(ranks, engine, kind)
    resumed = launcher.words(f"{name}-resumed", *more)
    stops = [[*resumed, f"stop_after_steps={stop}"] for stop in STOPS[engine.rstrip("0123")]]
    return [launcher.words(name, *more), *stops, resumed]


@pytest.fixture(scope="module")
def runs(launcher: Launcher) -> Path:
    """All runs: in one launch and in several at each number of ranks, and with each sequence of engines."""
    cases, ahead = dict(CASES), {sequence: list(places) for sequence, places in SEQUENCES.items()}
    # 1 comes a second time, for the end of the sequences.
    for ranks in (1, 2, 3, 4, 1):
        launches = [words for case in cases.pop(ranks, []) for words in launches_of(launcher, ranks, *case)]
        for sequence, places in ahead.items():
            if places and places[0][0] == ranks:
                _, engine = places.pop(0)
                stop = ["stop_after_steps=3"] if places else []
                launches.append(launcher.words(f"sequence-{sequence}", *KINDS["plain"], *ENGINES[engine], *stop))
        launcher.launch(ranks, launches)
    return launcher.folder


@pytest.mark.parametrize(
    ("ranks", "engine", "kind"), [(ranks, *case) for ranks, cases in CASES.items() for case in cases]
)
def test_a_run_in_several_launches_is_bit_identical(runs: Path, ranks: int, engine: str, kind: str) -> None:
    whole = runs / name_of(ranks, engine, kind)
    assert_same(whole, whole.with_name(f"{whole.name}-resumed"))
    assert [line["step"] for line in lines_of(whole)] == [3, 6, 9, 12]


@pytest.mark.soak
@pytest.mark.parametrize("ranks", ALL_CASES)
def test_all_runs_in_several_launches_are_bit_identical(tmp_path: Path, ranks: int) -> None:
    launcher = Launcher(tmp_path, short_tweets(tmp_path / "data"))
    launcher.launch(ranks, [words for case in ALL_CASES[ranks] for words in launches_of(launcher, ranks, *case)])
    for case in ALL_CASES[ranks]:
        whole = tmp_path / name_of(ranks, *case)
        assert_same(whole, whole.with_name(f"{whole.name}-resumed"))
    print(f"\n{len(ALL_CASES[ranks])} runs at {ranks} rank(s), stopped and resumed, bit-identical to one launch")


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_ranks_and_engines_may_change_between_launches(runs: Path, sequence: str) -> None:
    whole, other = runs / name_of(1, "ddp", "plain"), runs / f"sequence-{sequence}"
    for mine, theirs in zip(lines_of(whole), lines_of(other), strict=True):
        assert mine["step"] == theirs["step"] and mine["epoch"] == theirs["epoch"]
        for loss in ("loss", "loss_mean"):
            assert mine[loss] == pytest.approx(theirs[loss], abs=1e-5)
    for name, weight in model_of(whole).items():
        # The gradient of the key's bias is zero except for rounding, from which Adam makes steps.
        bound = 2e-3 * STEPS if name.endswith("key.bias") else 2e-5
        assert np.abs(model_of(other)[name] - weight).max() < bound, name
