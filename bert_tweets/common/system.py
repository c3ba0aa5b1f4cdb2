"""Limits of this machine, or of this container: cores, memory, disks, open files, network interfaces."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# Linux's names of the units that multiply bf16.
_BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True)
class Disk:
    """The disk of a path: its size and the bytes that this user can fill.

    It is writable if this user may write in the nearest existing folder above the path.
    """

    path: str
    total: int
    free: int
    writable: bool


def cores() -> int:
    """Number of CPU cores that this process may use, by its affinity and the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def total_memory() -> int:
    """Bytes of memory of the machine, or of the container where that has a lower limit."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for file in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    return min(limits)


def bf16_units() -> list[str]:
    """Names of the processor's units for bf16 products; empty if the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [unit for unit in _BF16_UNITS if unit in flags]


def disk(path: str | Path) -> Disk:
    """The disk of a file or folder that need not exist yet."""
    existing = Path(path).expanduser().absolute()
    while not os.access(existing, os.F_OK):
        existing = existing.parent
    usage = shutil.disk_usage(existing)
    return Disk(str(path), usage.total, usage.free, os.access(existing, os.W_OK))


def open_files() -> int:
    """Number of files that a process may have open at once; 0: no limit is known."""
    try:
        import resource
    except ImportError:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def interfaces() -> dict[str, str]:
    """IPv4 address by name of the network interface."""
    import psutil

    addresses = psutil.net_if_addrs().items()
    return {name: one.address for name, every in addresses for one in every if one.family == socket.AF_INET}


def own_address() -> str:
    """The address that this machine's hostname resolves to, as gloo asks; empty: it does not resolve."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
