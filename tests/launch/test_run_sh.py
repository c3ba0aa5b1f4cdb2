"""launch/run.sh: what it becomes, by whom it is started. Torch and the package are stand-ins here that say so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch.starting import clone_with
from tests.processes import ROOT

ECHO = """
import json, os, sys
print(json.dumps({"name": __name__, "file": __file__, "words": sys.argv[1:], "pid": os.getpid(), **os.environ}))
"""
STAND_INS = {
    "bert_tweets/__init__.py": "",
    "bert_tweets/train.py": ECHO,
    "torch/__init__.py": "from . import cuda",
    "torch/cuda.py": "def device_count(): return int(__import__('os').environ.get('GPUS', '0'))",
    "torch/distributed/__init__.py": "",
    "torch/distributed/run.py": ECHO,
}
# Values that a shell, or Python's strings, could spoil.
WORDS = ["words=[mask, virus]", 'title=it\'s "so" \\n $HOME', "output=run/"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with stand-ins, at a path with a space."""
    return clone_with(tmp_path_factory.mktemp("a clone"), STAND_INS)


def started(command: list[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    plain = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/"}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**plain, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def became(command: list[str], cwd: Path, **environment: str) -> dict[str, Any]:
    """What the module that was started in the end says of itself; it must be the very process."""
    process = started(command, cwd, **environment)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and not errors, errors
    said: dict[str, Any] = json.loads(out)
    assert said["name"] == "__main__" and said["pid"] == process.pid
    return said


def ranks_of(said: dict[str, Any]) -> str:
    """Checks the options of torchrun; the value of --nproc_per_node."""
    ranks, *rest = said["words"]
    assert said["file"].endswith("torch/distributed/run.py") and rest == ["-m", "bert_tweets.train", *WORDS]
    name, _, value = ranks.partition("=")
    assert name == "--nproc_per_node"
    return str(value)


@pytest.mark.parametrize(
    "program", [["bash"], [], [sys.executable, "-u", "-W", "error"]], ids=["bash", "file", "python"]
)
def test_it_becomes_torchrun_from_any_folder(program: list[str], clone: Path, tmp_path: Path) -> None:
    said = became([*program, f"{clone}/launch/run.sh", *WORDS], tmp_path)
    assert ranks_of(said) == "1" and said["PET_STANDALONE"] == "1"
    assert said["file"].startswith(str(clone)) and said["PYTHONPATH"] == str(clone)


def test_the_name_may_be_relative_and_a_python_path_is_kept(clone: Path) -> None:
    said = became(["bash", "run.sh", *WORDS], clone / "launch", PYTHONPATH="/elsewhere")
    assert said["PYTHONPATH"] == f"{clone}:/elsewhere"


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({"GPUS": "3"}, "3"),
        ({"GPUS": "3", "NPROC_PER_NODE": "2"}, "2"),
        ({"GPUS": "3", "PET_NPROC_PER_NODE": "auto"}, "auto"),
        ({"PET_NPROC_PER_NODE": "8", "NPROC_PER_NODE": "2"}, "2"),
    ],
)
def test_ranks_are_as_asked_else_one_a_gpu(environment: dict[str, str], ranks: str, clone: Path) -> None:
    assert ranks_of(became(["bash", "launch/run.sh", *WORDS], clone, **environment)) == ranks


def test_several_nodes_are_torchruns_affair(clone: Path) -> None:
    # As the sbatch script starts it, a task a node, and as Kubernetes' operator does, with the ranks of pods.
    task = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "RANK": "1", "WORLD_SIZE": "16"}
    said = became(["bash", "launch/run.sh", *WORDS], clone, PET_NNODES="2", PET_NPROC_PER_NODE="8", **task)
    assert ranks_of(said) == "8" and "PET_STANDALONE" not in said


@pytest.mark.parametrize(
    "program", [["bash"], [], [sys.executable, "-u", "-W", "error"]], ids=["bash", "file", "python"]
)
@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        ({"LOCAL_RANK": "1", "RANK": "1", "LOCAL_SIZE": "2"}, "1"),
        ({"LOCAL_RANK": "0", "RANK": "0", "LOCAL_SIZE": "1"}, None),
        ({"LOCAL_RANK": "1", "RANK": "1", "LOCAL_SIZE": "2", "OMP_NUM_THREADS": "4"}, "4"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_CPUS_PER_TASK": "6"}, "6"),
    ],
    ids=["deepspeed", "alone", "bound", "slurm"],
)
def test_what_is_a_rank_already_trains(
    program: list[str], launcher: dict[str, str], threads: str | None, clone: Path, tmp_path: Path
) -> None:
    said = became([*program, f"{clone}/launch/run.sh", "--local_rank=1", *WORDS], tmp_path, **launcher)
    assert said["file"] == f"{clone}/bert_tweets/train.py"
    assert said["words"] == ["--local_rank=1", *WORDS]
    assert said.get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"PYTHON": "/usr/bin/false"}, "error: /usr/bin/false has no torch or no bert_tweets; activate their"),
        ({"PATH": "/nowhere"}, "error: there is no python; name one with PYTHON="),
    ],
)
def test_without_python_or_the_package_it_is_one_line(environment: dict[str, str], line: str, clone: Path) -> None:
    (clone / "bin").mkdir(exist_ok=True)
    for tool in ("dirname", "bash"):
        link = clone / "bin" / tool
        link.unlink(missing_ok=True)
        link.symlink_to(shutil.which(tool) or "")
    if environment.get("PATH"):
        environment = {"PATH": f"{clone}/bin"}
    process = started([f"{clone}/bin/bash", "launch/run.sh"], clone, **environment)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and not out
    assert errors.startswith(line) and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("nodes", "address", "expected"),
    [
        ({"PET_NNODES": "2"}, "127.0.1.1 node-1", "of the default route"),
        ({"CROSS_SIZE": "2"}, "", "of the default route"),
        ({"SLURM_STEP_NUM_NODES": "2"}, "10.0.0.4 node-1", None),
        ({}, "127.0.1.1 node-1", None),
        ({"PET_NNODES": "2", "GLOO_SOCKET_IFNAME": "ib0"}, "127.0.1.1 node-1", "ib0"),
    ],
)
def test_gloo_listens_where_other_nodes_get_through(
    nodes: dict[str, str], address: str, expected: str | None, tmp_path: Path
) -> None:
    if expected == "of the default route":
        routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()]
        expected = next((route[0] for route in routes if route[1] == "00000000"), None)
    (tmp_path / "getent").write_text(f"#!/bin/sh\necho {address}\n")
    (tmp_path / "getent").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", 'source "$0"; env', f"{ROOT}/launch/network.sh"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **nodes},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert said.get("GLOO_SOCKET_IFNAME") == expected
    assert said["NCCL_DEBUG"] == "WARN" and "nodes" not in said
