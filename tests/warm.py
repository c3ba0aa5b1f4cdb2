"""A Python that has torch and transformers imported: a server that forks for each command, and a program that asks it.

Most tests of commands, and of ranks even more, spend most of their time on those imports. `python_of(folder)` writes
the program: it takes what `python -m MODULE …` and `python FILE …` take, stands for a process of the server's with its
standard streams, environment and folder, passes signals on to it, and ends as it does; where the program or who started
it is killed, so is that process. `PYTHON_EXEC` makes torchrun start its ranks by it.

Nothing of ours is imported before a child begins. What libraries read from the environment when they are imported is
the server's, and so is the seed of Python's hashes; signals but those named below stop the program alone.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np

PROGRAM = r"""#!{python} -IS
import ctypes, json, os, signal, socket, sys

here = os.getcwd()
os.chdir({folder!r})
connection = socket.socket(socket.AF_UNIX)
connection.connect("socket")
os.chdir(here)
socket.send_fds(connection, [b"-"], [0, 1, 2])
command = {{"words": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}}
connection.sendall(json.dumps(command).encode() + b"\n")
answers = connection.makefile()
child = int(answers.readline())

def pass_on(number, _):
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, pass_on)
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
code = int(answers.readline() or -signal.SIGKILL)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def python_of(folder: Path) -> Path:
    """Writes the program for the server that listens in this folder; an address may have a hundred characters only."""
    program = folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    return program


def become(command: dict[str, Any], streams: list[int]) -> int:
    """Runs what `python` was given, in this process; the exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setsid()
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    np.random.seed()
    words = command["words"][command["words"][0] == "-u" :]
    sys.argv = words[1:] if words[0] == "-m" else words
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exc()
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def leave(code: int) -> None:
    """Ends the process as an interpreter ends."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def attend(connection: socket.socket) -> None:
    """Serves one program: starts its process, tells its number, and how it ended."""
    streams = socket.recv_fds(connection, 1, 3)[1]
    command = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        try:
            leave(become(command, streams))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(f"{code}\n".encode())


def main(folder: Path) -> None:
    """Serves until stdin ends."""
    sys.path[0] = str(Path(__file__).parent.parent)
    import torch.distributed.run  # noqa: F401
    from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM  # noqa: F401

    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == threading.active_count() == 1, "a fork takes one thread along"
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    listener.bind("socket")
    listener.listen(64)
    print("warm", flush=True)
    # Nobody waits for the processes that serve.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([sys.stdin, listener], [], [])[0]:
        connection = listener.accept()[0]
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                attend(connection)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
