"""Faults from outside: signals, kills, a full disk, a rank that hangs. Real processes."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bert_tweets.training import checkpoint, run_folder
from tests.processes import ROOT, run, wait_for, warm_python
from tests.training.runs import assert_same, lines_of, short_tweets, words_of

pytestmark = [pytest.mark.dist, pytest.mark.xdist_group("ranks"), pytest.mark.timeout(200)]

SLOW = str(Path(__file__).parent / "slow_train.py")
KILLED = str(Path(__file__).parent / "killed_at.py")
MORE = ["batch_size=6", "max_steps=40", "log.every_steps=4", "validation.every_steps=8", "checkpoint.every_steps=5"]
STEP_SECONDS = 0.05


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_tweets(tmp_path_factory.mktemp("data"))


def start(
    words: list[str], ranks: int = 1, restarts: int = 0, warm: bool = False, **more: str
) -> subprocess.Popen[str]:
    """Start a slow training in its own session. `warm` ranks (see tests/warm.py) start in a moment; they handle
    SIGKILL, SIGTERM, SIGINT and SIGUSR1 as others do, but not SIGSTOP."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    torchrun += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}
    if warm:
        environment["PYTHON_EXEC"] = warm_python()
    return subprocess.Popen(
        [sys.executable, *(torchrun if ranks > 1 else []), SLOW, str(STEP_SECONDS), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def steps_of(run: Path) -> int:
    """The last step in its metrics."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes of the ranks, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(
                part.split("=", 1) for part in (folder / "environ").read_text().split("\0") if "=" in part
            )
            parent = int(re.findall(r"PPid:\t(\d+)", (folder / "status").read_text())[0])
        except (OSError, ValueError, IndexError):
            continue
        if parent == process.pid and "LOCAL_RANK" in environment:
            found[int(environment["LOCAL_RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """An undisturbed run, by number of ranks."""
    folder, made = tmp_path_factory.mktemp("whole"), set()

    def at(ranks: int) -> Path:
        output = folder / f"run-{ranks}"
        if ranks not in made:
            done = run(["-m", "bert_tweets.train", *words_of(shards, output, *MORE)], processes=ranks * (ranks > 1))
            assert done.returncode == 0, done.stderr
            made.add(ranks)
        return output

    return at


@pytest.mark.soak
def test_each_signal_saves_and_stops_and_the_same_command_resumes(
    shards: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    words, output = words_of(shards, tmp_path / "run", *MORE), tmp_path / "run"
    for at, number in ((8, signal.SIGTERM), (20, signal.SIGINT)):
        process = start(words)
        wait_for(lambda at=at: steps_of(output) >= at)  # type: ignore[misc]
        process.send_signal(number)
        printed = process.communicate(timeout=60)[0]
        assert process.returncode == 75, printed
        assert f"{number.name}: saving a checkpoint after the next step" in printed
        step = int(re.findall(r"asked to stop: checkpoint saved after step (\d+) of 40", printed)[0])
        # The counts of a step are exchanged ahead of it: the run stops after the next step but one at the latest.
        assert at <= step <= at + 6 and (output / f"checkpoints/{checkpoint.name_of(step)}").is_dir()
    process = start(words)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and f"resuming after step {step}" in printed, printed
    assert_same(output, whole(1))


def test_ctrl_c_twice_stops_at_once(shards: Path, tmp_path: Path) -> None:
    process = start(words_of(shards, tmp_path / "run", *MORE, "max_steps=4000"))
    wait_for(lambda: steps_of(tmp_path / "run") >= 4)
    # Simulates a long step.
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    printed = process.communicate(timeout=30)[0]
    assert process.returncode in (130, 75) and "Traceback" not in printed, printed


def test_all_ranks_stop_after_the_same_step_if_one_is_asked(
    shards: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    words, output = words_of(shards, tmp_path / "run", *MORE), tmp_path / "run"
    process = start(words, ranks=2, warm=True)
    wait_for(lambda: steps_of(output) >= 8)
    os.kill(ranks_of(process)[1], signal.SIGUSR1)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "asked to stop: checkpoint saved after step" in printed, printed
    process = start(words, ranks=2, warm=True)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "resuming after step" in printed, printed
    assert_same(output, whole(2))


@pytest.mark.soak
def test_the_ranks_of_a_killed_launcher_save_and_exit(shards: Path, tmp_path: Path) -> None:
    # Ranks that are stopped by their launcher are in tests/launch.
    words, output = words_of(shards, tmp_path / "run", *MORE), tmp_path / "run"
    process = start(words, ranks=2)
    wait_for(lambda: steps_of(output) >= 20)
    process.kill()
    printed = process.communicate(timeout=60)[0]
    assert (
        "SIGTERM: saving a checkpoint after the next step" in printed
        and "asked to stop: checkpoint saved after step" in printed
    ), printed


def killed_at_random(shards: Path, output: Path, kills: int, seed: int, warm: bool = False) -> int:
    """Kill a random rank of two at random moments; the launch must succeed. Returns the number of kills."""
    draw = random.Random(seed)
    process, killed = start(words_of(shards, output, *MORE), ranks=2, restarts=kills, warm=warm), 0
    # The steps take two seconds; ranks that are not warm need several more to start.
    latest = 2.0 if warm else 6.0
    for _ in range(kills):
        wait_for(lambda: len(ranks_of(process)) == 2 or process.poll() is not None)
        try:
            process.wait(timeout=draw.uniform(0.0, latest))
            break
        except subprocess.TimeoutExpired:
            alive = ranks_of(process)
        os.kill(draw.choice(alive), signal.SIGKILL)
        killed += 1
        wait_for(lambda alive=alive: process.poll() is not None or not set(alive) & set(ranks_of(process)))  # type: ignore[misc]
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    return killed


def test_killed_ranks_restart_and_finish_with_the_same_result(
    shards: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    assert killed_at_random(shards, tmp_path / "run", kills=2, seed=1, warm=True) == 2
    assert_same(tmp_path / "run", whole(2))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_fifty_kills_change_nothing(shards: Path, tmp_path: Path, whole: Callable[[int], Path]) -> None:
    killed = runs = 0
    while killed < 50:
        output = tmp_path / f"run-{runs}"
        # A run may finish before its tenth kill.
        killed += killed_at_random(shards, output, kills=min(10, 50 - killed), seed=runs)
        runs += 1
        assert_same(output, whole(2))
    print(f"\n{killed} ranks killed in {runs} runs, all finished like an undisturbed one")


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_kills_at_every_write_change_nothing(shards: Path, tmp_path: Path, whole: Callable[[int], Path]) -> None:
    for first in (1, 2, 3, 4):
        killed = killed_at_writes(shards, tmp_path / f"run-{first}", first, 4)
        assert_same(tmp_path / f"run-{first}", whole(1))
        print(f"\nkilled at {killed} writes: every fourth, from number {first} on")


def test_a_hanging_rank_ends_the_run_and_all_stacks_are_written(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(words_of(shards, output, *MORE, "engine.timeout_seconds=4"), ranks=2)
    wait_for(lambda: steps_of(output) >= 8)
    os.kill(ranks_of(process)[1], signal.SIGSTOP)
    printed = process.communicate(timeout=90)[0]
    assert process.returncode == 1 and "no step finished in 4 s after step" in printed, printed
    for rank in (0, 1):
        stack = (output / run_folder.STACKS / f"rank-{rank:05d}.txt").read_text()
        assert re.match(rf"rank {rank}, (8|9|1\d) steps done at \d\d:\d\d:\d\d\s+\n", stack), stack
        assert "most recent call first" in stack and "training/trainer.py" in stack


def killed_at_writes(shards: Path, output: Path, first: int, step: int) -> int:
    """Kill one process after the other at its writes, see killed_at.py; returns the number of kills."""
    done = run([KILLED, str(first), str(step), *words_of(shards, output, *MORE)], timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.findall(r"killed (\d+) times", done.stdout)[0])


def test_a_full_disk_is_one_error_line_and_leaves_no_partial_checkpoint(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    limit = 60_000

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "bert_tweets.train", *words_of(shards, output, *MORE)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limited,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "warning: the last checkpoint was not written" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    assert checkpoint.found_in(output / run_folder.CHECKPOINTS) == []
    # The disk has space again.
    done = run(["-m", "bert_tweets.train", *words_of(shards, output, *MORE)])
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_the_slowest_rank_is_named(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(words_of(shards, output, *MORE, "max_steps=8"), ranks=2, SLOW_RANK="1")
    assert process.wait(timeout=60) == 0
    for line in (json.loads(text) for text in (output / "metrics.jsonl").read_text().splitlines()):
        assert line["slowest_rank"] == 1
        (one, _), (other, p95) = line["rank_compute_seconds"]
        assert other > one + 0.04 and p95 >= other
        assert len(line["rank_data_wait_seconds"]) == 2
    assert len(lines_of(output)) == 2
