"""Launchers' environment variables, translated to torchrun's."""

from __future__ import annotations

import re
from collections.abc import MutableMapping

# Below the ports that Linux assigns by itself (32,768 and up).
_PORTS = range(20_000, 30_000)


def set_torchrun_variables(environment: MutableMapping[str, str]) -> None:
    """Set torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE, ..., MASTER_PORT) from those of another launcher.

    DeepSpeed's launcher sets them, but with another name for LOCAL_WORLD_SIZE. Slurm's `srun` with a task per rank
    (`deepspeed --launcher slurm`, or by hand) sets none. Variables that are set already are kept.
    """
    is_task = "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if is_task and "RANK" not in environment:
        for name, value in _from_slurm(environment).items():
            environment.setdefault(name, value)
    if "LOCAL_SIZE" in environment:
        environment.setdefault("LOCAL_WORLD_SIZE", environment["LOCAL_SIZE"])


def _from_slurm(environment: MutableMapping[str, str]) -> dict[str, str]:
    # From the step, not from the job: SLURM_NTASKS and SLURM_PROCID are also set in a batch script, a single process.
    found = {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
    }
    tasks = tasks_of_nodes(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    node = int(environment.get("SLURM_NODEID", "0"))
    if node < len(tasks):
        found["LOCAL_WORLD_SIZE"] = str(tasks[node])
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    if nodes:
        # Task 0 runs on the first node; SLURM_LAUNCH_NODE_IPADDR is often the login node.
        found["MASTER_ADDR"] = first_node(nodes)
    # The same on every node, and another one for other jobs and steps.
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    found["MASTER_PORT"] = str(_PORTS[(job + step) % len(_PORTS)])
    return found


def first_node(nodes: str) -> str:
    """First node of a list in Slurm's notation: gpu007 of `gpu[007-010,12],login1`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


def tasks_of_nodes(tasks: str) -> list[int]:
    """Number of tasks of each node, from Slurm's notation: 2, 2, 2, 1 for `2(x3),1`."""
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", tasks)
    return [int(count) for count, times in runs for _ in range(int(times or 1))]
