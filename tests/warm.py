"""A Python that has already imported torch and transformers: a server that forks per command, and a client program.

Most tests of commands, especially of ranks, spend most of their time on these imports. `python_of(folder)` writes the
client program. It accepts `python -m MODULE …` and `python FILE …`, and represents a process of the server that has the
client's standard streams, environment and working folder: it forwards signals to that process and exits as it does. If
the client, or the process that started it, is killed, so is the server's process. With `PYTHON_EXEC`, torchrun starts
its ranks by this program.

No module of bert_tweets is imported before a child starts. Variables that libraries read when they are imported, and
Python's hash seed, are those of the server. Signals other than those named below stop only the client.
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
command = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}}
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
    """Write the client program for the server in this folder.

    It connects by a relative path, because a socket address is limited to about a hundred characters.
    """
    program = folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    return program


def execute(command: dict[str, Any], streams: list[int]) -> int:
    """Run a client's command in this process; return the exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setsid()
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    np.random.seed()
    arguments = command["arguments"][command["arguments"][0] == "-u" :]
    sys.argv = arguments[1:] if arguments[0] == "-m" else arguments
    try:
        if arguments[0] == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(arguments[0]).parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exc()
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def exit_process(code: int) -> None:
    """Exit as the interpreter does; a negative code is the signal to end by."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve_client(connection: socket.socket) -> None:
    """Serve one client: start its process, send its id and later its exit code."""
    streams = socket.recv_fds(connection, 1, 3)[1]
    command = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        try:
            exit_process(execute(command, streams))
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
    """Serve until stdin ends."""
    sys.path[0] = str(Path(__file__).parent.parent)
    import torch.distributed.run  # noqa: F401
    from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM  # noqa: F401

    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == threading.active_count() == 1, "a fork copies only one thread"
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    listener.bind("socket")
    listener.listen(64)
    print("warm", flush=True)
    # Do not leave zombies of processes that serve clients.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([sys.stdin, listener], [], [])[0]:
        connection = listener.accept()[0]
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                serve_client(connection)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
