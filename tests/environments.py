"""Runs tests with other versions of the dependencies: the lowest that pyproject.toml declares, or the newest there are.

    python tests/environments.py lowest|newest [--within SECONDS] [pytest arguments]

`make lowest` and `make newest` call it. The environment is kept in ~/.cache/bert_tweets, under a name made of its
pins. The tests are skipped, with a message and exit code 0, where there is no room for the environment, no network
to make it from, or too little time.
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
# torch 2.11 comes as a CUDA build only, 5 GB with what it needs.
FREE_BYTES = 8e9
# What uv says where this machine lacks something; anything else is a mistake of ours.
LACKS = ("error sending request", "Failed to fetch", "No space left", "Could not connect", "dns error")
# Seconds after which an environment of other pins that nobody uses is removed.
UNUSED_SECONDS = 7 * 86_400
UV = [str(Path(sys.executable).with_name("uv")), "--quiet", "--system-certs"]


class SkippedError(Exception):
    """The environment cannot be made here; the message says why."""


def pins(kind: str, seconds: float) -> str:
    """The resolved requirements of this package and its tests, a line each."""
    options = ["--extra", "dev", "--no-header", "--no-annotate", "--resolution", RESOLUTIONS[kind]]
    command = [*UV, "pip", "compile", *options, "--python", sys.executable, "pyproject.toml"]
    return _run(command, seconds, "the versions could not be resolved")


def environment(kind: str, seconds: float) -> Path:
    """The environment's Python; makes the environment where it does not exist yet.

    Raises:
        SkippedError: it cannot be made here.
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
        raise SkippedError(f"{FREE_BYTES / 1e9:.0f} GB are needed at {CACHE}, and {free / 1e9:.1f} GB are free")
    print(f"making {folder}", flush=True)
    _run([*UV, "venv", "--python", sys.executable, str(folder)], seconds, "the environment could not be made")
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    install = [*UV, "pip", "install", "--python", str(python), "--requirement", str(folder / "requirements.txt")]
    _run(install, seconds, "the packages could not be installed")
    complete.touch()
    return python


def _run(command: list[str], seconds: float, problem: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=seconds, capture_output=True, text=True, check=True)
    except subprocess.TimeoutExpired:
        raise SkippedError(f"{problem} within {seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        lacking = any(words in error.stderr for words in LACKS)
        raise (SkippedError if lacking else SystemExit)(f"{problem}: {error.stderr.strip()}") from None
    return done.stdout


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Runs tests with other versions of the dependencies.")
    parser.add_argument("kind", choices=RESOLUTIONS)
    parser.add_argument("--within", type=float, default=1800, help="seconds for each step of making the environment")
    given, for_pytest = parser.parse_known_args(arguments)
    try:
        python = environment(given.kind, given.within)
    except SkippedError as reason:
        print(f"skipped: tests with the {given.kind} versions: {reason}")
        return 0
    show = "import torch, transformers as t; print('torch', torch.__version__, 'transformers', t.__version__)"
    subprocess.run([python, "-c", show], check=True)
    return subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *for_pytest], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
