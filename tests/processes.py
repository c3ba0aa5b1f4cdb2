"""Running commands as a user does, each with a timeout."""

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
# Stages that import torch.
_WITH_TORCH = ("bert_tweets.train", "bert_tweets.evaluate", "bert_tweets.embed", "bert_tweets.doctor")
# Prefixes of environment variables that Python and libraries read when they are imported.
_READ_AT_START = ("PYTHON", "HF_", "OMP_", "TRITON_", "DS_", "CUDA_")


def run(
    arguments: Sequence[str], processes: int = 0, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, under torchrun if `processes` is given, and capture the output.

    If possible, processes are forked from one that has already imported torch and transformers (see warm.py); not if
    a variable has changed that these libraries read when they are imported.
    """
    python, settings = sys.executable, _environment(environment)
    imports = Path(arguments[0]).is_file() or (arguments[0] == "-m" and arguments[1] in _WITH_TORCH)
    # Libraries imported by the tests change their own variables, but only tests change those of the hub.
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
    """The program of warm.py, whose server lives as long as the tests; the usual Python if it does not work.

    Set as PYTHON_EXEC, it lets a torchrun that a test starts by itself start its ranks quickly.
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
    except OSError:  # the folder does not allow executables
        works = b""
    return program if works else sys.executable


def warm_commands(patch: pytest.MonkeyPatch) -> None:
    """Run the stages of a command, such as the demo, as `stage` runs them."""

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
    """Run a stage, which must succeed."""
    completed = run(["-m", f"bert_tweets.{name}", *words], processes, **environment)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed


def failure(name: str, *words: str, processes: int = 0) -> str:
    """Run a stage that must fail with a user error, exit code 2 and one line; return that line."""
    completed = run(["-m", f"bert_tweets.{name}", *words], processes)
    # torchrun prints its own traceback; ours must not appear.
    assert f'File "{ROOT}/bert_tweets' not in completed.stderr, completed.stderr
    lines = [line for line in completed.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, completed.stderr
    assert completed.returncode == (1 if processes else 2)
    return lines[0]


@cache
def transformers_imports_torch() -> bool:
    """Whether the tokenizers of `transformers` import torch, as in version 5.17."""
    code = "import sys; from transformers import PreTrainedTokenizerFast; sys.exit('torch' in sys.modules)"
    return bool(subprocess.run([sys.executable, "-c", code], check=False).returncode)


def free_port() -> int:
    """An unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds, at most this many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], list[subprocess.Popen[bytes]]]]:
    """Run a Dask scheduler and two single-threaded workers; yield its address and the processes."""
    started: list[subprocess.Popen[bytes]] = []
    plain = ("--no-dashboard", "--host", "127.0.0.1")

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *plain, *words]
        with (folder / "dask.log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT))
        return started[-1]

    try:
        scheduler = start("scheduler", "--port", "0", "--scheduler-file", f"{folder}/s.json")
        # The file exists before it is written completely.
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
    """Run a web server on this machine during the block; yield its host and port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
