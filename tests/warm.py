"""A Python that has torch and transformers imported: a server that forks for each command, and a program that asks it.

Most tests of commands, and of ranks even more, spend most of their time on those imports. `python_of(folder)` writes
the program: it takes what `python -m MODULE …` and `python FILE …` take, stands for a process of the server's with its
standard streams, environment and folder, passes signals on to it, and ends as it does; where the program is killed, so
is that process. `PYTHON_EXEC` makes torchrun start its ranks by it.

A child is as good as a process of its own, but that all share the seed of Python's hashes: nothing of ours is imported
before it begins. What libraries read from the environment when they are imported is the server's.
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

PROGRAM = r"""#!{python} -IS
import json, os, signal, socket, sys

connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [b"-"], [0, 1, 2])
command = {{"words": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}}
connection.sendall(json.dumps(command).encode() + b"\n")
answers = connection.makefile()
child = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, _: os.kill(child, number))
code = int(answers.readline() or -signal.SIGKILL)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def python_of(folder: Path) -> Path:
    """Writes the program for a server that listens in this folder."""
    program = folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, address=str(folder / "socket")))
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
    words = [word for word in command["words"] if word != "-u"]
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
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> None:
    """Ends the process as an interpreter ends."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def attend(connection: socket.socket) -> None:
    """Serves one program: starts its process, tells its number, and how it ended."""
    streams = socket.recv_fds(connection, 1, 3)[1]
    command = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        leave(become(command, streams))
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
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import torch.distributed.run  # noqa: F401
    from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM  # noqa: F401

    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == threading.active_count() == 1, "a fork takes one thread along"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
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
