"""The wheel, installed in a new environment outside the checkout: every command, and the demo."""

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
    """The wheel, built without network access."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT))
    (file,) = folder.glob("bert_tweets-*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has the wheel and uses the libraries of this environment."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    _pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = environment.glob("lib/python*/site-packages")
    # Only after the installation, because pip would otherwise find this environment's package already installed. A .pth
    # file in a folder that is itself added by a .pth file has no effect, so the editable package here is not imported.
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return python


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working folder outside the checkout."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_the_wheel_contains_every_file_of_the_package(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bert_tweets").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in files if not name.endswith(".pyc")}


def test_the_package_of_the_wheel_is_imported(python: Path, work: Path) -> None:
    file = _output(work, str(python), "-c", "import bert_tweets; print(bert_tweets.__file__)")
    assert Path(file.strip()).is_relative_to(python.parents[1])


def test_each_command_prints_its_help(python: Path, work: Path) -> None:
    command = str(python.with_name("bert-tweets"))
    assert "usage: bert-tweets STAGE" in _output(work, command, "--help")
    for name in STAGES:
        assert f"usage: bert-tweets {name} " in _output(work, command, name, "--help")


@pytest.mark.dist
@pytest.mark.timeout(600)  # under a minute on two idle cores
def test_the_demo(python: Path, work: Path) -> None:
    # Python must not import files of the working folder.
    (work / "random.py").write_text("raise ImportError('not this one')\n")
    output = _output(work, str(python.with_name("bert-tweets")), "demo", "tweets=500", "max_steps=10")
    assert output.rstrip().endswith(str(work / "demo" / "report.html"))
    assert {"report.html", "methods.md", "references.bib", "pictures"} <= {
        path.name for path in (work / "demo").iterdir()
    }


def _output(work: Path, *command: str) -> str:
    """Run a command in the working folder, with only PATH and an empty home folder; return its output."""
    home = work.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def _pip(*arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    completed = subprocess.run([*pip, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
