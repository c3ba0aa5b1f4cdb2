"""Slurm's commands for the tests of launching: stand-ins on the PATH."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.launch.starting import PATH


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment in which `srun`, `scontrol` and `sinfo` are stand-ins; SCONTROL_LOG names what scontrol heard."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    commands = {
        "srun": f'exec "{sys.executable}" "{Path(__file__).parent}/fake_srun.py" "$@"',
        # Node lists are plain here: host,host
        "scontrol": 'echo "$@" >> "$SCONTROL_LOG"; if [ "$2" = hostnames ]; then echo "$3" | tr , "\\n"; fi',
        "sinfo": "",
    }
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{PATH}", "SCONTROL_LOG": str(tmp_path / "scontrol.log")}
