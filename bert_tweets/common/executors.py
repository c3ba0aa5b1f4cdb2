"""Executors for units of work: this process, processes of this machine, or a Dask cluster.

All of them are `concurrent.futures.Executor`s; a task is a module-level function with small results.
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
from .system import cores

Result = TypeVar("Result")

# A cluster may take a while to start workers in place of dead ones.
NO_WORKER_SECONDS = 60.0
LOOK_SECONDS = 5.0
CONNECT_SECONDS = 10.0
_RESUME = "rerun the same command to resume"


class Inline(Executor):
    """An executor that runs each task at once, in the process that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Workers:
    """An executor, the number of tasks that it runs at a time, and whether it has any worker left."""

    executor: Executor
    count: int
    is_alive: Callable[[], bool] = lambda: True

    def run(self, function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """Yield the results of `function(*task)` as they come, in any order; few tasks wait for a worker.

        Raises:
            Exception: any that a task raised.
            Interrupted: all workers are gone.
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
        """Wait for the first results; return the futures that are done, and the others."""
        idle = 0.0
        while True:
            done, others = wait(running, LOOK_SECONDS, return_when=FIRST_COMPLETED)
            if done:
                return done, others
            idle = 0.0 if self.is_alive() else idle + LOOK_SECONDS
            if idle >= NO_WORKER_SECONDS:
                raise Interrupted(f"no worker for {idle:.0f} seconds; start some and {_RESUME}")


@contextmanager
def open_workers(where: str, count: int, tasks: int, module: str = "") -> Iterator[Workers]:
    """Yield workers, which end with the block.

    Args:
        where: `processes`, or the address of a Dask scheduler (tcp://HOST:PORT).
        count: number of processes; 0: the number of cores that this process may use.
        tasks: expected number of tasks; a single task runs in this process.
        module: module that each process imports before its first task; empty: none.

    Raises:
        Interrupted: a worker died, memory ran out, Dask is not installed, or its scheduler cannot be reached, has no
            worker, or is gone.
    """
    try:
        with _processes(count, tasks, module) if where == "processes" else _dask(where) as workers:
            yield workers
    except MemoryError:
        raise Interrupted(f"out of memory; {_RESUME}, with a smaller num_workers or unit_bytes") from None


@contextmanager
def _processes(count: int, tasks: int, module: str) -> Iterator[Workers]:
    count = min(count or cores(), tasks)
    if count <= 1:
        yield Workers(Inline(), 1)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker, initargs=(module,))
    try:
        # Processes start with their first task; their imports then overlap with the caller's.
        with _interrupts_held():
            for _ in range(count):
                pool.submit(os.getpid)
        yield Workers(pool, count)
    except BrokenProcessPool:
        what = "a worker process died (out of memory?)"
        raise Interrupted(f"{what}; {_RESUME}, perhaps with a smaller num_workers") from None
    except BaseException:
        # The caller may remove files that a running worker would still write.
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block Ctrl-C in processes started in the block, even while they import; this process receives it afterwards."""
    if os.name == "nt":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(module: str) -> None:
    """Ignore Ctrl-C, and end with the parent process, however that ends."""
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
    where = f"executor={address}"
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError:
        raise Interrupted(f"{where}: needs Dask; pip install 'bert_tweets[dask]', or omit executor") from None
    for name in ("distributed", "distributed.client", "tornado.application"):
        # A lost connection is one line of ours, not their tracebacks.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise Interrupted(f"{where}: no Dask scheduler answers there ({reason}); start one, or omit executor") from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise Interrupted(f"{where}: the Dask scheduler has no worker; start some (dask worker {address})")
        try:
            yield Workers(client.get_executor(retries=3), threads, lambda: _has_workers(client))
        except KilledWorker:
            raise Interrupted(f"{where}: a task killed its workers (out of memory?); {_RESUME}") from None
        except (CancelledError, CommClosedError):
            raise Interrupted(f"{where}: the Dask scheduler is gone; start it and {_RESUME}") from None


def _has_workers(client: Any) -> bool:
    try:
        return bool(client.nthreads(callback_timeout=LOOK_SECONDS))
    except OSError:
        # The scheduler does not answer; it may come back.
        return False
