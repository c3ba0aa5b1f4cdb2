"""Every way to start a run, really started: two ranks on the CPU, and the same run whichever it is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.launch.starting import slurm_job, slurm_script, start
from tests.processes import ROOT, free_port, warm_python
from tests.test_train import lines_of, words_of

STEPS = ("max_steps=3", "log.every_steps=1", "validation.every_steps=3", "validation.max_tweets=20")
pytestmark = [pytest.mark.dist, pytest.mark.xdist_group("ranks")]


def trained(folder: Path, *processes: subprocess.Popen[str]) -> list[float]:
    """Waits for a run; it must leave its completion marker. The losses of its steps."""
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    summary = json.loads((folder / "run.json").read_text())
    assert (summary["ranks"], summary["steps"]) == (2, 3)
    return [line["loss"] for line in lines_of(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def losses(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Of the run that launch/README.md's command makes, typed on two machines: two agents of a rank each."""
    page = (ROOT / "launch/README.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("    torchrun --nnodes=2"))
    line = line.replace("--nproc_per_node=8", "--nproc_per_node=1").replace("node-1:29400", f"127.0.0.1:{free_port()}")
    folder = tmp_path_factory.mktemp("two machines") / "run"
    torchrun = ["torchrun", *shlex.split(line)[1:-3]]
    agents = [start([*torchrun, *words_of(shards, folder, *STEPS)], PYTHON_EXEC=warm_python()) for _ in range(2)]
    return trained(folder, *agents)


@pytest.mark.parametrize(
    ("command", "more"),
    [
        # As a file of its own, ./launch/run.sh, it is started by the job of Slurm below.
        (["bash", "launch/run.sh"], {"NPROC_PER_NODE": "2"}),
        # Two devices, to DeepSpeed's accelerator of CPUs.
        (["deepspeed", "launch/run.sh"], {"LOCAL_SIZE": "2"}),
        pytest.param(["deepspeed", "--num_gpus", "2", "--no_python", "launch/run.sh"], {}, marks=pytest.mark.soak),
    ],
    ids=["bash", "deepspeed", "deepspeed --no_python"],
)
def test_a_launcher_makes_the_same_run(
    command: list[str], more: dict[str, str], losses: list[float], shards: Path, tmp_path: Path
) -> None:
    run = start([*command, *words_of(shards, tmp_path / "run", *STEPS)], **more)
    assert trained(tmp_path / "run", run) == pytest.approx(losses, abs=1e-5)


@pytest.mark.soak
def test_deepspeeds_slurm_makes_the_same_run(
    losses: list[float], shards: Path, tmp_path: Path, slurm: dict[str, str]
) -> None:
    """`srun` is started in place of DeepSpeed's launcher of ranks: they know themselves by Slurm's variables alone."""
    hosts = tmp_path / "hostfile"
    hosts.write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    page = (ROOT / "launch/README.md").read_text(encoding="utf-8")
    (line,) = re.findall("`(deepspeed --launcher slurm .*) SETTINGS`", page)
    line = line.replace("launch/hostfile", str(hosts)).replace("--num_gpus 8", "--num_gpus 1")
    run = start([*shlex.split(line), *words_of(shards, tmp_path / "run", *STEPS)], **slurm, SLURM_JOB_NUM_NODES="2")
    assert trained(tmp_path / "run", run) == pytest.approx(losses, abs=1e-5)


def test_a_job_of_slurm_makes_the_same_run(
    losses: list[float], shards: Path, tmp_path: Path, slurm: dict[str, str]
) -> None:
    words = words_of(shards, tmp_path / "run", *STEPS)
    run = start(["bash", slurm_script(tmp_path), *words], **slurm_job(), **slurm, PYTHON_EXEC=warm_python())
    assert trained(tmp_path / "run", run) == pytest.approx(losses, abs=1e-5)
    assert Path(slurm["SCONTROL_LOG"]).read_text() == "show hostnames localhost,localhost\n"
