"""Slurm's `srun` for tests, on this machine alone: tasks with the variables, signals and exit code of the real one.

Nodes are SLURM_JOB_NUM_NODES, all of them localhost.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-n", "--ntasks", type=int)
    parser.add_argument("--export", default="ALL")
    for option in ("--nodes", "--gpus-per-node", "--cpus-per-task", "--kill-on-bad-exit"):
        parser.add_argument(option, type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    tasks = asked.ntasks or nodes
    every, *more = asked.export.split(",")
    assert every == "ALL"
    environment = {
        **os.environ,
        **dict(word.split("=", 1) for word in more),
        "SLURM_JOB_ID": os.environ.get("SLURM_JOB_ID", "1234"),
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": str(tasks),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_STEP_NODELIST": ",".join(["localhost"] * nodes),
        "SLURM_STEP_TASKS_PER_NODE": f"{tasks // nodes}(x{nodes})",
    }
    started = []
    for task in range(tasks):
        mine = {
            "SLURM_PROCID": str(task),
            "SLURM_NODEID": str(task * nodes // tasks),
            "SLURM_LOCALID": str(task % (tasks // nodes)),
        }
        started.append(subprocess.Popen(asked.command, env={**environment, **mine}))

    def hand_on(number: int, _: object) -> None:
        for process in started:
            # The real one's way: it kills on SIGTERM, and hands on the signals of users.
            process.send_signal(signal.SIGKILL if number == signal.SIGTERM else number)

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hand_on)
    killed = False
    while any(process.poll() is None for process in started):
        if asked.kill_on_bad_exit and not killed and any(process.poll() for process in started):
            killed = True
            for process in started:
                process.terminate()
        time.sleep(0.05)
    return max(code if code >= 0 else 128 - code for code in (process.wait() for process in started))


if __name__ == "__main__":
    sys.exit(main())
