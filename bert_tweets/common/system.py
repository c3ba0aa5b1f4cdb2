"""What this machine gives a process: cores, memory, disks, files, networks. Asks the system alone, and no library."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR
# What a processor multiplies 16-bit floats with, as Linux calls it.
_BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True)
class Disk:
    """Where something is, or would be, written. Sizes in bytes.

    Attributes:
        path: what was asked for.
        free: for this user.
        writable: by this user, in the nearest folder above that is there.
    """

    path: str
    total: int
    free: int
    writable: bool


def cores() -> int:
    """Cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def total_memory() -> int:
    """Bytes of memory that the processes of this machine, or of this container, may have; 0: not known."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
    for file in _GROUPS:
        with suppress(OSError, ValueError):
            found = min(found, int(Path(file).read_text()))
    return found


def bf16_units() -> list[str]:
    """The processor's units for products in bf16, by their flags; none where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [unit for unit in _BF16_UNITS if unit in flags]


def disk(path: str | Path) -> Disk:
    """The disk of a file or folder that need not be there yet."""
    there = Path(path).expanduser().absolute()
    while not os.access(there, os.F_OK):
        there = there.parent
    usage = shutil.disk_usage(there)
    return Disk(str(path), usage.total, usage.free, os.access(there, os.W_OK))


def open_files() -> int:
    """How many files a process may have open at once; 0: no limit is known."""
    try:
        import resource
    except ImportError:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def interfaces() -> dict[str, str]:
    """The network interfaces that have an IPv4 address, and that address."""
    found = {}
    with suppress(OSError, ImportError, AttributeError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        import fcntl

        for _, name in socket.if_nameindex():
            with suppress(OSError):
                packed = fcntl.ioctl(probe.fileno(), _ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()[:15]))
                found[name] = socket.inet_ntoa(packed[20:24])
    return found


def infiniband() -> list[str]:
    """The adapters of InfiniBand or RoCE, by which NCCL goes past the interfaces."""
    place = Path("/sys/class/infiniband")
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


def own_address() -> str:
    """Where the machine's name leads, as gloo asks; empty: nowhere."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
