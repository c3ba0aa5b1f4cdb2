"""Tasks run here, in processes, or on a cluster: the same results, few in flight, and no worker left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

from bert_tweets.common import executors
from bert_tweets.common.errors import Interrupted, UserError
from bert_tweets.common.executors import Inline, Workers, open_workers
from tests.processes import dask_cluster


def square(number: int) -> int:
    return number * number


def process_of(_: int) -> int:
    time.sleep(0.1)
    return os.getpid()


def die(_: int) -> None:
    os._exit(9)


def fail(number: int) -> int:
    raise ValueError(number)


def test_without_a_number_of_workers_there_is_one_per_usable_core(monkeypatch):
    monkeypatch.setattr(executors, "cores", lambda: 1)
    with open_workers("processes", 0, tasks=9) as workers:
        assert workers.count == 1 and isinstance(workers.executor, Inline)


def test_one_task_alone_starts_no_process():
    with open_workers("processes", 0, tasks=1) as workers:
        assert list(workers.run(process_of, [(0,)])) == [os.getpid()]
    with open_workers("processes", 1, tasks=9) as workers:
        assert list(workers.run(process_of, [(0,), (1,)])) == [os.getpid()] * 2


@pytest.mark.dist
def test_two_processes_share_the_tasks_and_are_gone_afterwards():
    with open_workers("processes", 2, tasks=9) as workers:
        assert workers.count == 2
        assert sorted(workers.run(square, ((number,) for number in range(20)))) == [n * n for n in range(20)]
        found = set(workers.run(process_of, ((number,) for number in range(8))))
    assert len(found) == 2 and os.getpid() not in found
    for process in found:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.dist
def test_a_worker_that_dies_ends_in_one_line():
    with pytest.raises(Interrupted, match="a worker process died"), open_workers("processes", 2, tasks=9) as workers:
        list(workers.run(die, ((number,) for number in range(9))))


def test_what_a_task_raises_comes_out_and_the_rest_is_not_begun():
    begun = []

    def tasks():
        for number in range(100):
            begun.append(number)
            yield (number,)

    with pytest.raises(ValueError):
        list(Workers(Inline(), 1).run(fail, tasks()))
    assert len(begun) < 5


class Deaf(Executor):
    """Takes tasks, and does none."""

    def submit(self, fn, /, *args, **kwargs):
        return Future()


def test_without_any_worker_waiting_ends_and_with_one_it_does_not(monkeypatch):
    monkeypatch.setattr(executors, "NO_WORKER_SECONDS", 0.03)
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.01)
    looks = iter([*[False, False, True] * 4, False, False, False])
    with pytest.raises(Interrupted, match=r"no worker for .* seconds; start some"):
        list(Workers(Deaf(), 1, lambda: next(looks)).run(square, [(1,)]))
    assert not list(looks)


@pytest.mark.dist
@pytest.mark.parametrize(("lost", "words"), [("workers", "no worker for"), ("scheduler", "scheduler is gone")])
def test_a_cluster_that_is_lost_ends_in_one_line(lost, words, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "NO_WORKER_SECONDS", 0.4)
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.2)
    ends = pytest.raises(Interrupted, match=words)
    with dask_cluster(tmp_path) as (address, scheduler, processes), ends, open_workers(address, 0, 9) as workers:
        assert workers.count == 2
        results = workers.run(process_of, ((number,) for number in range(200)))
        next(results)
        for process in processes if lost == "workers" else [scheduler]:
            process.kill()
        list(results)


def out_of_memory(_: int) -> None:
    raise MemoryError


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.dist)])
def test_a_task_without_memory_ends_in_one_line(count):
    with pytest.raises(Interrupted, match="out of memory"), open_workers("processes", count, tasks=9) as workers:
        list(workers.run(out_of_memory, [(0,)]))


def test_tasks_are_taken_as_workers_need_them():
    taken = []

    def tasks():
        for number in range(50):
            taken.append(number)
            yield (number,)

    results = Workers(Inline(), 2).run(square, tasks())
    next(results)
    assert len(taken) <= 4


@pytest.mark.dist
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(Path.cwd())!r})
from bert_tweets.common.executors import open_workers
from tests.common.test_executors import process_of
if __name__ == "__main__":
    with open_workers("processes", 2, tasks=9) as workers:
        print(*set(workers.run(process_of, ((n,) for n in range(6)))), flush=True)
        list(workers.run(process_of, ((n,) for n in range(10_000))))
"""
    file = tmp_path / "parent.py"
    file.write_text(script)
    parent = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(is_alive, workers)):
        time.sleep(0.1)
    assert not any(map(is_alive, workers))


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_scheduler_that_is_not_there_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.2)
    pytest.importorskip("distributed")
    with pytest.raises(UserError, match="no Dask scheduler answers there"), open_workers("tcp://127.0.0.1:9", 0, 1):
        pass


def test_without_dask_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'bert_tweets\[dask\]'"), executors._dask("tcp://x:1"):
        pass
