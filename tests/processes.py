"""Running commands the way a user does, with a time-out on each."""

from __future__ import annotations

import atexit
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from bert_tweets.common import subprocesses
from tests import warm

ROOT = Path(__file__).parent.parent
_AT_START = dict(os.environ)
# Others import no torch.
_WITH_TORCH = ("bert_tweets.train", "bert_tweets.evaluate", "bert_tweets.embed", "bert_tweets.doctor")
# What Python and libraries read when they start.
_READ_AT_START = ("PYTHON", "HF_", "OMP_", "TRITON_", "DS_", "CUDA_")


def run(
    arguments: Sequence[str], processes: int = 0, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments, under torchrun where `processes` are given; output is captured.

    It and its ranks are processes of their own, forked from one that has torch and transformers imported (see warm.py)
    where that can be, and nothing in the environment has changed that those read when they are imported.
    """
    python, settings = sys.executable, _environment(environment)
    imports = Path(arguments[0]).is_file() or (arguments[0] == "-m" and arguments[1] in _WITH_TORCH)
    # Libraries that the tests themselves import change their own variables; of the hub, tests do.
    hub = {name for name, _ in os.environ.items() ^ _AT_START.items() if name.startswith("HF_")}
    if imports and not any(name.startswith(_READ_AT_START) for name in {*environment, *hub}):
        python = settings["PYTHON_EXEC"] = warm_python()
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    return subprocess.run(
        [python, *torchrun, *arguments], capture_output=True, text=True, timeout=timeout, env=settings, check=False
    )


def _environment(more: Mapping[str, str], of: Mapping[str, str] = os.environ) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [of.get("PYTHONPATH")])]
    settings = {**of, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **more}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        settings.pop(name, None)
    return settings


@cache
def warm_python() -> str:
    """The program of warm.py, whose server lives as long as the tests; where it does not work, the usual Python.

    As PYTHON_EXEC it makes a torchrun that a test starts by itself begin its ranks in a moment.
    """
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    process = subprocess.Popen(
        [sys.executable, warm.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment({"OPENBLAS_NUM_THREADS": "1"}, _AT_START),
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.stdin.close)
    program = str(warm.python_of(folder))
    try:
        works = process.stdout.readline() and subprocess.run([program, "-m", "platform"], capture_output=True).stdout
    except OSError:  # no program may be run in that folder
        works = b""
    return program if works else sys.executable


def warm_commands(patch: pytest.MonkeyPatch) -> None:
    """Stages that a command walks through, such as those of the demo, then run as `stage` runs them."""

    def quietly(arguments: Sequence[str]) -> str:
        ranks = next((word.partition("=")[2] for word in arguments if word.startswith("--nproc_per_node=")), "0")
        name = subprocesses.stage_of(arguments)
        words = arguments[arguments.index(f"bert_tweets.{name}") + 1 :]
        return stage(name, *words, processes=int(ranks)).stdout

    patch.setattr(
        subprocesses,
        "run_command",
        lambda arguments: print(f"\n$ {subprocesses.shell_line(arguments)}\n{quietly(arguments)}", flush=True),
    )
    patch.setattr(subprocesses, "run_quietly", quietly)


def stage(name: str, *words: str, processes: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a stage; it must succeed."""
    done = run(["-m", f"bert_tweets.{name}", *words], processes, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def failure(name: str, *words: str, processes: int = 0) -> str:
    """Runs a stage that must fail as a user's mistake does: exit code 2 and one line. Returns the line."""
    done = run(["-m", f"bert_tweets.{name}", *words], processes)
    # torchrun prints a traceback of its own; none may lead through our code.
    assert f'File "{ROOT}/bert_tweets' not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.returncode == (1 if processes else 2)
    return lines[0]


@cache
def transformers_imports_torch() -> bool:
    """Whether tokenizers of `transformers` import torch by themselves, as in 5.17."""
    code = "import sys; from transformers import PreTrainedTokenizerFast; sys.exit('torch' in sys.modules)"
    return bool(subprocess.run([sys.executable, "-c", code], check=False).returncode)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers of one thread: its address, and the processes."""
    started: list[subprocess.Popen[bytes]] = []
    plain = ("--no-dashboard", "--host", "127.0.0.1")

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *plain, *words]
        with (folder / "dask.log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT))
        return started[-1]

    try:
        scheduler = start("scheduler", "--port", "0", "--scheduler-file", f"{folder}/s.json")
        # It is there before it is written.
        wait_for(lambda: (folder / "s.json").is_file() and (folder / "s.json").read_bytes().strip().endswith(b"}"))
        address = json.loads((folder / "s.json").read_text())["address"]
        place = ("--local-directory", f"{folder}/d")
        workers = [start("worker", address, "--nthreads", "1", "--no-nanny", *place) for _ in range(2)]
        wait_for(lambda: _workers_of(address) == 2)
        yield address, scheduler, workers
    finally:
        for process in started:
            process.kill()
            process.wait()


def _workers_of(address: str) -> int:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.nthreads())


@contextmanager
def web_server(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server on this machine for as long as the block lasts; its host and port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
