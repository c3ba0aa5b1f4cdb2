"""Where units of work run: in this process, in processes of this machine, or on a Dask cluster.

The only seam is `concurrent.futures.Executor`; a task is a module-level function with small results.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from .errors import Interrupted

Result = TypeVar("Result")

# A cluster may take a while to start workers in place of dead ones.
NO_WORKER_SECONDS = 60.0
LOOK_SECONDS = 5.0
CONNECT_SECONDS = 10.0
_AGAIN = "give the same command again: it goes on where it was"


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
    """An executor, how many tasks it can work on at a time, and whether anybody is there to do it."""

    executor: Executor
    count: int
    anybody: Callable[[], bool] = lambda: True

    def run(self, function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """The results of `function(*task)` as they come, in any order; few tasks are taken ahead of the workers.

        Raises:
            what a task raised; Interrupted: all workers are gone.
        """
        running: set[Future[Result]] = set()
        try:
            for task in tasks:
                running.add(self.executor.submit(function, *task))
                if len(running) > self.count + 1:
                    done, running = self._some_done(running)
                    yield from (future.result() for future in done)
            while running:
                done, running = self._some_done(running)
                yield from (future.result() for future in done)
        finally:
            for future in running:
                future.cancel()

    def _some_done(self, running: set[Future[Result]]) -> tuple[set[Future[Result]], set[Future[Result]]]:
        """Waits for the first of them; those that are done, and the others."""
        alone = 0.0
        while True:
            done, others = wait(running, LOOK_SECONDS, return_when=FIRST_COMPLETED)
            if done:
                return done, others
            alone = 0.0 if self.anybody() else alone + LOOK_SECONDS
            if alone >= NO_WORKER_SECONDS:
                raise Interrupted(f"for {alone:.0f} seconds there was no worker; start some and {_AGAIN}")


@contextmanager
def open_workers(where: str, count: int, tasks: int, module: str = "") -> Iterator[Workers]:
    """Workers for as long as the block lasts.

    Args:
        where: `processes`, or the address of a Dask scheduler (tcp://HOST:PORT).
        count: processes; 0: one a core.
        tasks: how many tasks there will be, as far as that is known; for one alone no process is started.
        module: the module that each process imports before its first task; empty: none.

    Raises:
        Interrupted: a worker died, memory ran out, or the scheduler cannot be reached, has no worker, or is gone; or
            Dask is not installed.
    """
    try:
        with _processes(count, tasks, module) if where == "processes" else _dask(where) as workers:
            yield workers
    except MemoryError:
        raise Interrupted(f"there is too little memory; with a smaller num_workers or unit_bytes, {_AGAIN}") from None


@contextmanager
def _processes(count: int, tasks: int, module: str) -> Iterator[Workers]:
    count = min(count or os.cpu_count() or 1, tasks)
    if count <= 1:
        yield Workers(Inline(), 1)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker, initargs=(module,))
    try:
        # They start with their first task, and have much to import: the caller is not ready either.
        with _interrupts_held():
            for _ in range(count):
                pool.submit(os.getpid)
        yield Workers(pool, count)
    except BrokenProcessPool:
        raise Interrupted(
            f"a worker process died (out of memory?); perhaps with a smaller num_workers, {_AGAIN}"
        ) from None
    except BaseException:
        # Whoever is told of the failure may remove what workers would go on to write.
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started meanwhile never hear of Ctrl-C, not even while they import; this one does later."""
    if os.name == "nt":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(module: str) -> None:
    """Ctrl-C is for the process that started it, which no worker outlives, however it ended."""
    if module:
        importlib.import_module(module)
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
        from distributed import Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError:
        raise Interrupted(
            f"executor={address}: needs Dask; install it with: pip install 'bert_tweets[dask]', or leave executor out"
        ) from None
    for name in ("distributed", "distributed.client", "tornado.application"):
        # A lost connection is told in one line of ours, not in tracebacks of theirs.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise Interrupted(
            f"executor={address}: no Dask scheduler answers there ({reason}); start one, or leave executor out"
        ) from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise Interrupted(
                f"executor={address}: the Dask scheduler has no worker; start some (dask worker {address})"
            )
        try:
            yield Workers(client.get_executor(retries=3), threads, lambda: _has_workers(client))
        except KilledWorker:
            raise Interrupted(f"executor={address}: a task killed its workers (out of memory?); {_AGAIN}") from None
        except (CancelledError, CommClosedError):
            raise Interrupted(f"executor={address}: the Dask scheduler is gone; start it and {_AGAIN}") from None


def _has_workers(client: Any) -> bool:
    try:
        return bool(client.nthreads(callback_timeout=LOOK_SECONDS))
    except OSError:
        # The scheduler does not answer; it may come back.
        return False
