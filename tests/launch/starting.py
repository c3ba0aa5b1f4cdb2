"""Starting launchers as on a machine where the package is installed nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.processes import ROOT, free_port

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def start(command: list[str], cwd: Path = ROOT, **more: str) -> subprocess.Popen[str]:
    """Starts a command; no launcher has been before it. Both its outputs are one pipe."""
    lost = {"PYTHONPATH", "RANK", "LOCAL_RANK", "WORLD_SIZE"}
    kept = {name: value for name, value in os.environ.items() if name not in lost}
    environment = {**kept, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PATH": PATH, **more}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def clone_with(folder: Path, stand_ins: Mapping[str, str]) -> Path:
    """A clone of launch/ alone, with these texts as modules beside it: name of a file to its text."""
    for name, text in stand_ins.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "launch", folder / "launch")
    return folder


def slurm_script(folder: Path) -> str:
    """launch/slurm.sbatch, copied away from the clone, as Slurm does."""
    script = folder / "slurm_script"
    script.write_text((ROOT / "launch/slurm.sbatch").read_text(encoding="utf-8"), encoding="utf-8")
    return str(script)


def slurm_job() -> dict[str, str]:
    """The variables of a job of two nodes, a rank on each. The number of the job gives the port where they meet."""
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "localhost,localhost"}
    return {**job, "NPROC_PER_NODE": "1"}
