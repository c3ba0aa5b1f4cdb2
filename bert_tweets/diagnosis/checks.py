"""What follows from facts: what would stop a run, what would slow it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import SpecifierSet

from .probe import Facts

_MIB, _GIB = 2**20, 2**30
# NCCL's buffers between GPUs of a machine; Docker gives 64 MiB unless told otherwise.
_LITTLE_SHARED, _ENOUGH_SHARED = 64 * _MIB, _GIB
# Ranks have sockets to each other; macOS gives 256 files, most Linux systems 1,024 at least.
_FEW_FILES = 1024
_LITTLE_DISK, _ENOUGH_DISK = 64 * _MIB, 5 * _GIB
_SLOWING = {
    "CUDA_LAUNCH_BLOCKING": "every kernel is waited for",
    "NCCL_P2P_DISABLE": "GPUs of a machine go by its memory, not to each other",
    "NCCL_SHM_DISABLE": "GPUs of a machine go by the network",
    "NCCL_IB_DISABLE": "InfiniBand is not used",
    "TORCH_DISTRIBUTED_DEBUG": "every collective is checked first",
}
_COUNTS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_OFF = ("", "0", "OFF", "INFO")


@dataclass(frozen=True)
class Finding:
    """One line: what, where, what to do. It stops a run, or slows it."""

    stops: bool
    text: str


def findings(facts: Facts) -> list[Finding]:
    """All that is to be said of one machine."""
    checks = (
        _unreadable,
        _versions,
        _gpus,
        _processor,
        _shared_memory,
        _open_files,
        _disks,
        _ranks,
        _network,
        _slowing,
    )
    return [finding for check in checks for finding in check(facts)]


def world_size(facts: Facts) -> int:
    """Of the launch; 1 without one, or where that is no number."""
    given = facts.environment.get("WORLD_SIZE", "1")
    return int(given) if given.isdecimal() else 1


def tells(facts: Facts) -> bool:
    """Whether this process is the one that speaks: rank 0, or one that is none of the launch's ranks."""
    rank = facts.environment.get("RANK", "0")
    return not rank.isdecimal() or not 0 < int(rank) < world_size(facts)


def _local_ranks(facts: Facts) -> int:
    given = facts.environment.get("LOCAL_WORLD_SIZE", "1")
    return int(given) if given.isdecimal() else 1


def _unreadable(facts: Facts) -> Iterator[Finding]:
    yield from (Finding(True, line) for line in facts.unreadable)


def _versions(facts: Facts) -> Iterator[Finding]:
    for package, asked in facts.asked.items():
        there = facts.versions.get(package, "")
        if there and SpecifierSet(asked).contains(there, prereleases=True):
            continue
        what = f"{package}: {there or 'not installed'}, {asked} is needed"
        if package == "deepspeed":
            # The other engine does without it.
            yield Finding(
                False, f"{what} for engine.name=deepspeed; pip install '{package}{asked}', or leave the engine at ddp"
            )
        elif package == "python":
            yield Finding(True, f"{what}; make a new environment with it")
        else:
            yield Finding(True, f"{what}; pip install '{package}{asked}'")


def _gpus(facts: Facts) -> Iterator[Finding]:
    driver, ranks = facts.driver, _local_ranks(facts)
    if facts.device == "cpu":
        return
    if not facts.gpus and driver and driver.gpus:
        stops = facts.device == "cuda"
        what = f"{driver.gpus} GPU(s) are here, and torch uses none"
        release, cuda = driver.release, ".".join(map(str, driver.cuda))
        if not facts.cuda:
            yield Finding(stops, f"{what}: it was built for the CPU alone; install a build of torch for CUDA {cuda}")
        elif int(facts.cuda.split(".")[0]) > driver.cuda[0]:
            yield Finding(
                True,
                f"{what}: driver {release} is for CUDA {cuda}, torch for {facts.cuda}; install a newer driver, or a "
                f"build of torch for CUDA {cuda}",
            )
        elif "CUDA_VISIBLE_DEVICES" in facts.environment:
            shown = facts.environment["CUDA_VISIBLE_DEVICES"]
            yield Finding(stops, f"{what}: CUDA_VISIBLE_DEVICES={shown} hides them; unset it, or name some")
        else:
            yield Finding(stops, f"{what}, driver {release}; nvidia-smi says more")
    elif facts.device == "cuda" and not facts.gpus:
        yield Finding(True, "device=cuda: there is no GPU here; set device=cpu, or go where there is one")
    elif 0 < len(facts.gpus) < ranks:
        yield Finding(
            True, f"{ranks} ranks on this machine for {len(facts.gpus)} GPU(s); start as many, or set device=cpu"
        )
    for number, gpu in enumerate(facts.gpus):
        if gpu.capability < (8, 0):
            yield Finding(False, f"GPU {number} ({gpu.name}): has no units for bf16; precision=fp16 is faster there")


def _processor(facts: Facts) -> Iterator[Finding]:
    ranks, threads = _local_ranks(facts), facts.environment.get("OMP_NUM_THREADS", "")
    if facts.gpus and facts.device != "cpu":
        return
    if not facts.bf16_units:
        yield Finding(False, "the processor has no units for bf16; on it precision=fp32 is faster than the default")
    if ranks > facts.cores:
        yield Finding(False, f"{ranks} ranks share {facts.cores} core(s); start no more ranks than cores")
    elif threads.isdecimal() and int(threads) * ranks > facts.cores:
        yield Finding(
            False,
            f"OMP_NUM_THREADS={threads} for {ranks} rank(s) on {facts.cores} core(s): they wait for each other; "
            f"set OMP_NUM_THREADS={max(1, facts.cores // ranks)}",
        )
    elif threads.isdecimal() and int(threads) * ranks * 2 <= facts.cores:
        yield Finding(
            False,
            f"OMP_NUM_THREADS={threads} for {ranks} rank(s) leaves most of {facts.cores} cores idle; "
            f"set OMP_NUM_THREADS={facts.cores // ranks}",
        )


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    if facts.shared is None or max(len(facts.gpus), 1) < 2 or facts.device == "cpu":
        return
    size, free = facts.shared.total, facts.shared.free
    what = f"/dev/shm: {_size(free)} of {_size(size)} are free, by which NCCL joins the GPUs of a machine"
    if free <= _LITTLE_SHARED:
        yield Finding(
            True, f"{what}; give the container more: docker run --shm-size=1g (Kubernetes: an emptyDir in memory)"
        )
    elif free < _ENOUGH_SHARED:
        yield Finding(False, f"{what}; 1 GiB is usual: docker run --shm-size=1g")


def _open_files(facts: Facts) -> Iterator[Finding]:
    if 0 < facts.files < _FEW_FILES:
        several = len(facts.gpus) > 1 or world_size(facts) > 1
        yield Finding(
            several,
            f"a process may have {facts.files:,} files open, which several ranks use up; raise it: ulimit -n 65536",
        )


def _disks(facts: Facts) -> Iterator[Finding]:
    for name, disk in facts.disks.items():
        is_cache = name == "hub's cache"
        if is_cache and facts.environment.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            continue
        if not disk.writable:
            do = "set HF_HOME to a folder of yours" if is_cache else "choose another folder"
            do = "set TMPDIR to a folder of yours" if name == "temporary files" else do
            yield Finding(not is_cache, f"{name}: {disk.path} cannot be written; {do}")
            continue
        needed = _LITTLE_DISK + (facts.needs if name == "output" else 0)
        what = f"{name}: {_size(disk.free)} are free at {disk.path}"
        if disk.free < needed:
            yield Finding(not is_cache, f"{what}, {_size(needed)} are needed; make room, or choose another disk")
        elif disk.free < _ENOUGH_DISK and name == "output":
            yield Finding(False, f"{what}, little for a long run; make room, or choose another output")


def _ranks(facts: Facts) -> Iterator[Finding]:
    given = {name: facts.environment[name] for name in _COUNTS if name in facts.environment}
    for name, value in given.items():
        if not value.isdecimal():
            yield Finding(True, f"{name}={value}: is no number; leave it to the launcher, or unset it")
            return
    if given and int(given.get("RANK", "0")) >= world_size(facts):
        yield Finding(
            True, f"RANK={given.get('RANK')} of WORLD_SIZE={world_size(facts)}: counts from 0; unset both, or mend one"
        )


def _network(facts: Facts) -> Iterator[Finding]:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        wanted = facts.environment.get(name, "")
        if wanted and not _chosen(wanted, facts):
            yield Finding(
                True, f"{name}={wanted}: there is none of that name here; there are {', '.join(facts.interfaces)}"
            )
    meeting = facts.environment.get("MASTER_ADDR", "")
    several_nodes = world_size(facts) > _local_ranks(facts) and not meeting.startswith(("127.", "localhost"))
    if several_nodes and facts.address.startswith("127.") and "GLOO_SOCKET_IFNAME" not in facts.environment:
        others = [name for name in facts.interfaces if name != "lo"]
        name = others[0] if others else "NAME"
        yield Finding(
            True,
            f"this machine's name leads to itself ({facts.address}), where no other one finds gloo; "
            f"set GLOO_SOCKET_IFNAME={name} (launch/run.sh does)",
        )


def networks(facts: Facts) -> dict[str, str]:
    """The interface that gloo and NCCL would each take: as they are told, else as they choose themselves."""
    own = [name for name, address in facts.interfaces.items() if address == facts.address]
    gloo = _chosen(facts.environment.get("GLOO_SOCKET_IFNAME", ""), facts) or own
    # NCCL takes InfiniBand first, and loopback and Docker's last (NCCL's documentation, NCCL_SOCKET_IFNAME).
    nccl = _chosen(facts.environment.get("NCCL_SOCKET_IFNAME", "^lo,docker"), facts) or list(facts.interfaces)
    adapters = [] if facts.environment.get("NCCL_IB_DISABLE", "0") == "1" else facts.infiniband
    return {"gloo": ", ".join(gloo[:1]) or "none", "NCCL": ", ".join(adapters or nccl[:1]) or "none"}


def _chosen(wanted: str, facts: Facts) -> list[str]:
    """Interfaces by NCCL's rules: names are beginnings, `=` is before whole names, `^` before those to leave out."""
    names = tuple(wanted.lstrip("^=").split(",")) if wanted else ()
    whole, left_out = "=" in wanted, wanted.startswith("^")
    return [one for one in facts.interfaces if (one in names if whole else one.startswith(names)) != left_out]


def _slowing(facts: Facts) -> Iterator[Finding]:
    for name, effect in _SLOWING.items():
        value = facts.environment.get(name, "")
        if value.upper() not in _OFF:
            yield Finding(False, f"{name}={value}: {effect}; unset it unless you are looking for a fault")


def of_ranks(reports: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """What the ranks of a launch say together, see `engine.trial`; the first one is rank 0."""
    first = reports[0]
    for one in reports:
        who = f"rank {one['rank']} on {one['host']} ({one['device']})"
        if one["wrong"]:
            yield Finding(
                True,
                f"{who}: {one['wrong']:,} of the numbers of an all-reduce are wrong; leave that device out, and try "
                "NCCL_P2P_DISABLE=1 to see whether it is the way between GPUs",
            )
        for package, version in one["versions"].items():
            expected = first["versions"].get(package)
            if version != expected:
                yield Finding(
                    True, f"{who}: has {package} {version or 'not'}, rank 0 has {expected}; install the same everywhere"
                )
    # What another machine has found of itself; that of rank 0 is told already.
    seen = set()
    for one in reports:
        for stops, text in one["findings"]:
            if one["host"] != first["host"] and (one["host"], text) not in seen:
                seen.add((one["host"], text))
                yield Finding(stops, f"{one['host']}: {text}")


def _size(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"
