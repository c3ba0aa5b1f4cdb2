"""prepare killed, out of disk, on any number of workers, on a cluster that loses one: the same bytes in the end."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.pipeline import pipeline
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import verify
from bert_tweets.prepare import prepare
from tests.helpers import generated_tweets, write_csv
from tests.processes import dask_cluster, wait_for

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["bert_tweets.prepare", "bert_tweets.corpus.pipeline.pipeline", "transformers", "rich.console"]
)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A CSV of some twenty units of 4 KB, with copies and near-copies across them."""
    texts = generated_tweets(700)
    texts += [text.upper() for text in texts[::7]] + [f"RT @you: {text}" for text in texts[::5]]
    rows = [
        (str(number), f"2020-01-{number % 28 + 1:02d}", f"author {number % 40}", text)
        for number, text in enumerate(texts)
    ]
    return write_csv(tmp_path_factory.mktemp("source") / "tweets.csv", ["id", "created_at", "author", "text"], rows)


def settings(source: Path, tokenizer_folder: Path, output: Path, **overrides) -> PrepareConfig:
    return PrepareConfig(
        input=[str(source)],
        output=str(output),
        tokenizer=str(tokenizer_folder),
        unit_bytes=4096,
        shard_tweets=150,
        validation_fraction=0.1,
        author_salt="salt",
        deduplicate="near",
        **overrides,
    )


@pytest.fixture(scope="module")
def whole(source, tokenizer_folder, tmp_path_factory) -> dict[str, str]:
    """The output of an undisturbed run in one process."""
    output = tmp_path_factory.mktemp("whole") / "out"
    manifest = prepare(settings(source, tokenizer_folder, output, num_workers=1))
    assert len(manifest.splits["train"]) > 3 and manifest.rows("validation")
    return contents(output)


@pytest.mark.dist
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_no_byte(workers, source, whole, tokenizer_folder, tmp_path, monkeypatch):
    counts = []
    real = pipeline.open_workers

    @contextmanager
    def counted(*arguments, **named):
        with real(*arguments, **named) as found:
            counts.append(found.count)
            yield found

    monkeypatch.setattr(pipeline, "open_workers", counted)
    prepare(settings(source, tokenizer_folder, tmp_path / "out", num_workers=workers))
    assert contents(tmp_path / "out") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert counts == [workers]


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.soak)])
def test_kills_at_random_moments_do_not_change_the_result(source, whole, tokenizer_folder, tmp_path, kills):
    draw = random.Random(7)
    config = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1)
    side, output = tmp_path / ".out.unfinished", tmp_path / "out"
    parts = source.stat().st_size // 4096 + 5  # units, and shards
    went_on = 0
    for _ in range(kills):
        running = CONTEXT.Process(target=prepare, args=(config,))
        running.start()
        # Anywhere in the run, however fast the machine is at the moment.
        due = draw.randint(0, parts)
        wait_for(lambda due=due, running=running: _parts_done(side) >= due or output.exists() or not running.is_alive())
        time.sleep(draw.uniform(0, 0.03))
        running.kill()
        running.join()
        if not output.exists():
            went_on += any(side.glob("work/run-*/units/[0-9]*"))
            prepare(config)
        assert contents(output) == whole
        _remove(output)
        assert not side.exists()
    assert went_on >= kills // 4


def _parts_done(side: Path) -> int:
    return len([*side.glob("work/run-*/units/[0-9]*/report.json"), *side.glob("work/run-*/shards/*.json")])


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.dist
def test_finished_units_are_not_done_again(source, whole, tokenizer_folder, tmp_path, capsys):
    config = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1)
    side = tmp_path / ".out.unfinished"
    _killed_when(lambda: len(list(side.glob("work/run-*/units/[0-9]*/report.json"))) > 4, config)
    done = {path.name for path in side.glob("work/run-*/units/[0-9]*")}
    opened = _count_units(config)
    assert contents(tmp_path / "out") == whole
    assert not done & opened and len(done) > 4 and opened
    assert "resuming the unfinished work in" in capsys.readouterr().out


def _count_units(config: PrepareConfig) -> set[str]:
    """Run prepare in this process; return the names of the units that were encoded."""
    begun: set[str] = set()
    real = pipeline.do_unit

    def counted(job, unit):
        begun.add(f"{unit.number:06d}")
        return real(job, unit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "do_unit", counted)
        prepare(config)
    return begun


def _killed_when(condition, config: PrepareConfig) -> None:
    """Prepares in a process that is killed as soon as the condition holds."""
    running = CONTEXT.Process(target=prepare, args=(config,))
    running.start()
    wait_for(condition)
    running.kill()
    running.join()


@pytest.mark.dist
def test_other_settings_do_not_go_on_with_what_is_there(source, tokenizer_folder, tmp_path, capsys):
    config = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1)
    _killed_when(lambda: list((tmp_path / ".out.unfinished").glob("work/run-*/units/[0-9]*/report.json")), config)
    other = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1, max_length=16)
    prepare(other)
    assert (
        "run that was stopped, made with other settings: settings.max_length (128 there, 16 now)"
        in capsys.readouterr().out
    )
    assert Manifest.read(tmp_path / "out").max_length == 16
    assert max(n for n, count in enumerate(Manifest.read(tmp_path / "out").lengths["train"]) if count) <= 16


@pytest.mark.dist
def test_a_random_salt_is_kept_while_the_run_goes_on_and_no_longer(source, tokenizer_folder, tmp_path):
    config = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1)
    config.author_salt = ""
    side = tmp_path / ".out.unfinished"
    _killed_when(lambda: len(list(side.glob("work/run-*/units/[0-9]*/report.json"))) > 2, config)
    salt = (side / "work" / "salt").read_bytes()
    assert (side / "work" / "salt").stat().st_mode & 0o077 == 0
    prepare(config)
    hashes = set()
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert salt not in path.read_bytes()
    import pyarrow as pa

    for split in SPLITS:
        for entry in Manifest.read(tmp_path / "out").splits[split]:
            batch = pa.ipc.open_file(pa.memory_map(str(tmp_path / "out" / entry.file))).get_batch(0)
            hashes |= set(batch.column("author").to_pylist())
    assert len(hashes) == 40, "one salt for all units, before and after the kill"


@pytest.mark.dist
@pytest.mark.parametrize("kilobytes", [2, 8, 20])
def test_a_full_disk_ends_in_one_line_and_no_half_shard(kilobytes, source, whole, tokenizer_folder, tmp_path):
    """A limit on the file size simulates a full disk; then there is room again."""
    words = [
        f"input={source}",
        f"output={tmp_path / 'out'}",
        f"tokenizer={tokenizer_folder}",
        *("unit_bytes=4096", "shard_tweets=150", "validation_fraction=0.1", "author_salt=salt", "deduplicate=near"),
        "num_workers=1",
    ]
    command = [sys.executable, "-m", "bert_tweets.prepare", *words]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    failed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limited)
    assert failed.returncode == 2, failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    for path in tmp_path.rglob("*.arrow"):
        if path.parent.name in SPLITS:
            assert path.stat().st_size <= kilobytes * 1024
    prepare(settings(source, tokenizer_folder, tmp_path / "out", num_workers=1))
    assert contents(tmp_path / "out") == whole


@pytest.mark.dist
@pytest.mark.soak
def test_a_cluster_that_loses_a_worker_ends_in_the_same_bytes(source, whole, tokenizer_folder, tmp_path):
    pytest.importorskip("distributed")
    with dask_cluster(tmp_path) as (address, _, workers):
        config = settings(source, tokenizer_folder, tmp_path / "out", executor=address)
        running = CONTEXT.Process(target=prepare, args=(config,))
        running.start()
        side = tmp_path / ".out.unfinished"
        wait_for(lambda: len(list(side.glob("work/run-*/units/[0-9]*/report.json"))) > 3)
        workers[0].kill()
        running.join(120)
    assert running.exitcode == 0
    assert contents(tmp_path / "out") == whole
    verify(tmp_path / "out", Manifest.read(tmp_path / "out").splits["train"])
