"""Run tests with other versions of the dependencies: the lowest that pyproject.toml allows, or the newest.

    python tests/environments.py lowest|newest [--within SECONDS] [pytest arguments]

`make lowest` and `make newest` call it. The environment is kept in ~/.cache/bert_tweets, under a name derived from its
pinned versions. If there is too little space, no network or too little time to make the environment, the tests are
skipped with a message and exit code 0.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert_tweets"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
# torch 2.11 is available only as a CUDA build, 5 GB with its dependencies.
FREE_BYTES = 8e9
# Error messages of uv about this machine; all others are our own mistakes.
LACKS = ("error sending request", "Failed to fetch", "No space left", "Could not connect", "dns error")
# Seconds after which an unused environment with other pinned versions is removed.
UNUSED_SECONDS = 7 * 86_400
UV = [str(Path(sys.executable).with_name("uv")), "--quiet", "--system-certs"]


class SkippedError(Exception):
    """The environment cannot be made on this machine; the message is the reason."""


def pins(kind: str, seconds: float) -> str:
    """The pinned requirements of this package and its tests, one per line."""
    options = ["--extra", "dev", "--no-header", "--no-annotate", "--resolution", RESOLUTIONS[kind]]
    command = [*UV, "pip", "compile", *options, "--python", sys.executable, "pyproject.toml"]
    return _run(command, seconds, "the versions could not be resolved")


def environment(kind: str, seconds: float) -> Path:
    """Make the environment unless it exists; return its Python.

    Raises:
        SkippedError: it cannot be made on this machine.
    """
    requirements = pins(kind, seconds)
    key = hashlib.sha256(f"{sys.version_info[:2]} {requirements}".encode()).hexdigest()[:12]
    folder = CACHE / f"{kind}-{key}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.is_file():
        complete.touch()
        return python
    CACHE.mkdir(parents=True, exist_ok=True)
    for other in CACHE.glob(f"{kind}-*/complete"):
        if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(other.parent)
    free = shutil.disk_usage(CACHE).free
    if free < FREE_BYTES:
        raise SkippedError(f"{FREE_BYTES / 1e9:.0f} GB are needed in {CACHE}, but only {free / 1e9:.1f} GB are free")
    print(f"making {folder}", flush=True)
    _run([*UV, "venv", "--python", sys.executable, str(folder)], seconds, "the environment could not be made")
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    install = [*UV, "pip", "install", "--python", str(python), "--requirement", str(folder / "requirements.txt")]
    _run(install, seconds, "the packages could not be installed")
    complete.touch()
    return python


def _run(command: list[str], seconds: float, problem: str) -> str:
    try:
        completed = subprocess.run(command, cwd=ROOT, timeout=seconds, capture_output=True, text=True, check=True)
    except subprocess.TimeoutExpired:
        raise SkippedError(f"{problem} within {seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        lacking = any(words in error.stderr for words in LACKS)
        raise (SkippedError if lacking else SystemExit)(f"{problem}: {error.stderr.strip()}") from None
    return completed.stdout


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run tests with other versions of the dependencies.")
    parser.add_argument("kind", choices=RESOLUTIONS)
    parser.add_argument(
        "--within", type=float, default=1800, help="time limit in seconds for each step of making the environment"
    )
    options, pytest_arguments = parser.parse_known_args(arguments)
    try:
        python = environment(options.kind, options.within)
    except SkippedError as reason:
        print(f"skipped: tests with the {options.kind} versions: {reason}")
        return 0
    show = "import torch, transformers as t; print('torch', torch.__version__, 'transformers', t.__version__)"
    subprocess.run([python, "-c", show], check=True)
    return subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *pytest_arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
