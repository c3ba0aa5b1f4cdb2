"""The parts of benchmarks/gpu.sh, one after the other, each within its limit of seconds.

    python -m benchmarks.gpu_run 1|2

A part that fails or outlasts its limit does not stop the others; the exit status is 1 then. Knows nothing of torch, so
that it starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.common import ROOT, append_row, appended_rows

# Parts and their limits in seconds; the usual times are far lower.
CALLS = {
    "1": {
        "machine": 90,
        "attention_errors": 60,
        "compiled_against_eager": 80,
        "step_bf16": 150,
        "step_bf16_weights": 130,
        "tests": 120,
        "tests_of_flex": 90,
    },
    "2": {"references": 80, "attention_race": 60, "compiled_reference": 120, "switches": 120},
}
# Seconds of a call, caches included.
TOTAL = {"1": 385, "2": 190}
_FOR_CACHES = 8
# 16 MiB is the most that some machines send of a file; more of them would not travel again with the inputs, in 64 MiB.
_PIECE, _PIECES = 15 * 2**20, 2


class Part:
    """A process that gets ready, and waits for its turn."""

    def __init__(self, name: str):
        self.name = name
        command = [sys.executable, "-m", "benchmarks.gpu_parts", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT, process_group=0)

    def run(self, limit: float) -> str:
        """Let it run; empty, or what went wrong."""
        assert self.process.stdin
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.close()
            code = self.process.wait(limit)
        except BrokenPipeError:
            code = self.process.wait()
        except subprocess.TimeoutExpired:
            return f"stopped after {limit:.0f} s"
        finally:
            self.stop()
        return f"exit code {code}" if code else ""

    def stop(self) -> None:
        """End it, with all processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run(call: str, out: Path, seconds: float) -> list[str]:
    """Runs the parts of a call; returns those that failed."""
    deadline, failed = time.monotonic() + seconds, list[str]()
    limits = CALLS[call]
    names = list(limits)
    coming = Part(names[0])
    for number, name in enumerate(names):
        part, started = coming, time.monotonic()
        if number + 1 < len(names):
            coming = Part(names[number + 1])
        limit = min(limits[name], deadline - started)
        if os.environ.get("SMALL"):
            limit = 600
        print(f"== {name}: at most {limit:.0f} s", flush=True)
        trouble = part.run(limit) if limit > 0 else "no time left"
        part.stop()
        took = time.monotonic() - started
        print(f"== {name} took {took:.1f} s {trouble}", flush=True)
        append_row(out / f"gpu-rows-{call}.jsonl", {"who": "part", "part": name, "seconds": took, "trouble": trouble})
        if trouble:
            failed.append(f"{name} ({trouble})")
    return failed


def pack_caches(folder: Path, out: Path) -> None:
    """The compiled kernels as caches.tar.gz.0, .1, ..., each small enough to be sent."""
    packed = out / "caches.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=6) as archive:
        archive.add(folder, folder.name)
    data = packed.read_bytes()
    packed.unlink()
    pieces = range(0, len(data), _PIECE)
    print(f"== caches: {len(data) / 2**20:.1f} MiB", flush=True)
    if len(pieces) <= _PIECES:
        for number, first in enumerate(pieces):
            (out / f"caches.tar.gz.{number}").write_bytes(data[first : first + _PIECE])


def main(call: str) -> None:
    out, work = Path(os.environ["OUT"]), Path(os.environ["WORK"])
    started, rows = time.monotonic(), out / f"gpu-rows-{call}.jsonl"
    for earlier in (rows, *([out / "profile.txt"] if call == "1" else [])):
        earlier.unlink(missing_ok=True)
    failed = run(call, out, TOTAL[call] - _FOR_CACHES)
    failed += [f"{row['who']}: {row['failed']}" for row in appended_rows(rows) if row.get("failed")]
    if call == "1":
        pack_caches(work / "caches", out)
    print(f"== {time.monotonic() - started:.0f} s in all; results in {out}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
