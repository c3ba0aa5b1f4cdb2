"""The files of launch/: each is read by a parser of its kind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = ("run.sh", "network.sh", "slurm.sbatch")


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_reads_the_scripts_and_shellcheck_finds_nothing(name: str) -> None:
    subprocess.run(["bash", "-n", LAUNCH / name], check=True, timeout=60)
    shellcheck = [str(Path(sys.executable).parent / "shellcheck"), "--external-sources", name]
    done = subprocess.run(shellcheck, cwd=LAUNCH, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_python_reads_what_bash_reads() -> None:
    """One string, and then no more than what hands the file to bash."""
    text = (LAUNCH / "run.sh").read_text(encoding="utf-8")
    _, bash, python = text.split("'''")
    assert "\\" not in bash
    assert "'" not in python.removesuffix(" '\n") and python.endswith("'\n")


@pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed is installed on Linux alone")
def test_deepspeed_reads_the_hostfile() -> None:
    from deepspeed.launcher.runner import fetch_hostfile

    assert fetch_hostfile(str(LAUNCH / "hostfile")) == {"node-1": 8, "node-2": 8}


def commands(text: str) -> Iterator[str]:
    """What a page gives as code: indented lines, and spans with a command in them."""
    for line in text.splitlines():
        if line.startswith("    "):
            yield line.strip()
    yield from re.findall(r"`([^`]+ SETTINGS)`", text)


def test_the_commands_of_the_page_can_be_typed_and_name_files_that_exist() -> None:
    found = list(commands((LAUNCH / "README.md").read_text(encoding="utf-8")))
    assert len(found) >= 9
    for command in found:
        subprocess.run(["bash", "-n", "-c", command], check=True, timeout=60)
        for file in re.findall(r"(?:launch|configs)/[\w.]+", command):
            assert (ROOT / file).is_file(), file
