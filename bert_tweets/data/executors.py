"""Where units of work run: in this process, in processes of this machine, or on a Dask cluster.

The only seam is `concurrent.futures.Executor`; a task is a module-level function with small results.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from ..errors import Interrupted, UserError

Result = TypeVar("Result")


class Inline(Executor):
    """Runs each task at once, in the process that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Workers:
    """An executor, and how many tasks it can work on at a time."""

    executor: Executor
    count: int

    def run(self, function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """The results of `function(*task)` as they come, in any order; few tasks are taken ahead of the workers.

        Raises:
            what a task raised.
        """
        running: set[Future[Result]] = set()
        try:
            for task in tasks:
                running.add(self.executor.submit(function, *task))
                if len(running) > self.count + 1:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in running:
                future.cancel()


@contextmanager
def open_workers(where: str, count: int, tasks: int) -> Iterator[Workers]:
    """Workers for as long as the block lasts.

    Args:
        where: `processes`, or the address of a Dask scheduler (tcp://HOST:PORT).
        count: processes; 0: one a core.
        tasks: how many tasks there will be, as far as that is known; for one alone no process is started.

    Raises:
        Interrupted: a worker died.
        UserError: the scheduler cannot be reached, has no worker, or Dask is not installed.
    """
    if where != "processes":
        with _dask(where) as workers:
            yield workers
        return
    count = min(count or os.cpu_count() or 1, tasks)
    if count <= 1:
        yield Workers(Inline(), 1)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)
    try:
        # They start with their first task, and have much to import: the caller is not ready either.
        for _ in range(count):
            pool.submit(os.getpid)
        yield Workers(pool, count)
    except BrokenProcessPool:
        raise Interrupted(
            "a worker process died (out of memory?); give the same command again, perhaps with a smaller "
            "num_workers: it goes on where it was"
        ) from None
    except BaseException:
        # Whoever is told of the failure may remove what workers would go on to write.
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def _begin_worker() -> None:
    """Ctrl-C is for the process that started it, which no worker outlives, however it ended."""
    from . import unit_work  # noqa: F401 - what the tasks need

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


@contextmanager
def _dask(address: str) -> Iterator[Workers]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            f"executor={address}: needs Dask; install it with: pip install 'bert_tweets[dask]', or leave executor out"
        ) from None
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"executor={address}: no Dask scheduler answers there ({reason}); start one, or leave executor out"
        ) from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UserError(f"executor={address}: the Dask scheduler has no worker; start some (dask worker {address})")
        yield Workers(client.get_executor(retries=3), threads)
