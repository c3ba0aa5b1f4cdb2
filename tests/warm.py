"""A process that has torch and transformers imported, and forks for each command that a test runs.

Most tests of commands spend most of their time on those imports. A child is as good as a process of its own: nothing of
ours is imported before it begins, and it has its own arguments, environment, folder and output. Speaks JSON over its
pipes, a line a command: `{"module", "words", "environment", "cwd", "output"}`, answered by the exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch  # noqa: F401


def become(command: dict[str, Any]) -> int:
    """Runs a module as `python -m` does; the exit code."""
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{command['output']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = [command["module"], *command["words"]]
    try:
        runpy.run_module(command["module"], run_name="__main__", alter_sys=True)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    assert threading.active_count() == 1, "a fork takes one thread along"
    print("warm", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = become(json.loads(line))
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
