"""The wheel, installed in a new environment away from the checkout: every command, and the demo."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bert_tweets.cli import STAGES
from tests.processes import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT))
    (file,) = folder.glob("bert_tweets-*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that holds the wheel, and finds the libraries of this environment."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    _pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = environment.glob("lib/python*/site-packages")
    # Only now, else pip would take the package here for the one there. The .pth file of an editable package has no
    # effect from a folder that is itself named by such a file.
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return python


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working folder away from the checkout."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bert_tweets").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in files if not name.endswith(".pyc")}


def test_the_package_of_the_wheel_is_the_one_that_runs(python: Path, work: Path) -> None:
    file = _output(work, str(python), "-c", "import bert_tweets; print(bert_tweets.__file__)")
    assert Path(file.strip()).is_relative_to(python.parents[1])


def test_each_command_prints_its_help(python: Path, work: Path) -> None:
    command = str(python.with_name("bert-tweets"))
    assert "usage: bert-tweets STAGE" in _output(work, command, "--help")
    for name in STAGES:
        assert f"usage: bert-tweets {name} " in _output(work, command, name, "--help")


@pytest.mark.dist
@pytest.mark.timeout(600)  # under a minute on two cores that nobody else uses
def test_the_demo(python: Path, work: Path) -> None:
    # Files of the working folder are not imported.
    (work / "random.py").write_text("raise ImportError('not this one')\n")
    output = _output(work, str(python.with_name("bert-tweets")), "demo", "tweets=500", "max_steps=10")
    assert output.rstrip().endswith(str(work / "demo" / "report.html"))
    assert {"report.html", "methods.md", "references.bib", "pictures"} <= {
        path.name for path in (work / "demo").iterdir()
    }


def _output(work: Path, *command: str) -> str:
    """Runs a command in the working folder, with no more than a path and an empty home; returns what it prints."""
    home = work.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _pip(*arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
