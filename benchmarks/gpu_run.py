"""Run the parts of benchmarks/gpu.sh one after the other, each within its time limit.

    python -m benchmarks.gpu_run 1|2

A part that fails or exceeds its limit does not stop the others; the exit status is then 1. This module does not import
torch, so that it starts at once.
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

from benchmarks.common import ROOT, append_jsonl, read_jsonl

# Parts and their time limits in seconds; usual times are far lower.
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
# Time limit of a call in seconds, packing of caches included.
TOTAL = {"1": 385, "2": 190}
_FOR_CACHES = 8
# Some machines send files of at most 16 MiB, and receive at most 64 MiB with the inputs.
_CHUNK_BYTES, _MAX_CHUNKS = 15 * 2**20, 2


class Part:
    """A process that prepares and then waits for its turn."""

    def __init__(self, name: str):
        self.name = name
        command = [sys.executable, "-m", "benchmarks.gpu_parts", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT, process_group=0)

    def run(self, limit: float) -> str:
        """Let it run; return an error message, or an empty string."""
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
        """Kill it with all processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run(call: str, out: Path, seconds: float) -> list[str]:
    """Run the parts of a call; return the names of those that failed, with their errors."""
    deadline, failed = time.monotonic() + seconds, list[str]()
    limits = CALLS[call]
    names = list(limits)
    next_part = Part(names[0])
    for number, name in enumerate(names):
        part, started = next_part, time.monotonic()
        if number + 1 < len(names):
            next_part = Part(names[number + 1])
        limit = min(limits[name], deadline - started)
        if os.environ.get("SMALL"):
            limit = 600
        print(f"== {name}: at most {limit:.0f} s", flush=True)
        error = part.run(limit) if limit > 0 else "no time left"
        part.stop()
        seconds_taken = time.monotonic() - started
        print(f"== {name} took {seconds_taken:.1f} s {error}", flush=True)
        row = {"who": "part", "part": name, "seconds": seconds_taken, "error": error}
        append_jsonl(out / f"gpu-rows-{call}.jsonl", row)
        if error:
            failed.append(f"{name} ({error})")
    return failed


def pack_caches(folder: Path, out: Path) -> None:
    """Pack the compiled kernels as caches.tar.gz.0, .1, ..., each small enough to be sent."""
    packed = out / "caches.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=6) as archive:
        archive.add(folder, folder.name)
    data = packed.read_bytes()
    packed.unlink()
    chunks = range(0, len(data), _CHUNK_BYTES)
    print(f"== caches: {len(data) / 2**20:.1f} MiB", flush=True)
    if len(chunks) <= _MAX_CHUNKS:
        for number, first in enumerate(chunks):
            (out / f"caches.tar.gz.{number}").write_bytes(data[first : first + _CHUNK_BYTES])


def main(call: str) -> None:
    out, work = Path(os.environ["OUT"]), Path(os.environ["WORK"])
    started, rows = time.monotonic(), out / f"gpu-rows-{call}.jsonl"
    for earlier in (rows, *([out / "profile.txt"] if call == "1" else [])):
        earlier.unlink(missing_ok=True)
    failed = run(call, out, TOTAL[call] - _FOR_CACHES)
    failed += [f"{row['who']}: {row['failed']}" for row in read_jsonl(rows) if row.get("failed")]
    if call == "1":
        pack_caches(work / "caches", out)
    print(f"== {time.monotonic() - started:.0f} s in total; results in {out}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
