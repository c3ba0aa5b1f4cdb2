"""Judgement of facts: what would stop a run, what would slow it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from .allreduce_check import RankReport
from .probe import Facts

_MIB, _GIB = 2**20, 2**30
# NCCL's buffers between GPUs of a machine; Docker gives 64 MiB by default.
_TOO_LITTLE_SHARED, _ENOUGH_SHARED = 64 * _MIB, _GIB
# Ranks have sockets to each other; macOS allows 256 files, most Linux systems at least 1,024.
_ENOUGH_FILES = 1024
_TOO_LITTLE_DISK, _ENOUGH_DISK = 64 * _MIB, 5 * _GIB
_OTHER_FOLDERS = {"hub's cache": "set HF_HOME to a folder of yours", "temporary files": "set TMPDIR to one of yours"}
_SLOW_VARIABLES = {
    "CUDA_LAUNCH_BLOCKING": "the host waits for every kernel",
    "NCCL_P2P_DISABLE": "GPUs of a machine exchange data through host memory",
    "NCCL_SHM_DISABLE": "GPUs of a machine exchange data over the network",
    "NCCL_IB_DISABLE": "InfiniBand is not used",
    "TORCH_DISTRIBUTED_DEBUG": "every collective is checked first",
}
_COUNTS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_OFF = ("", "0", "OFF", "INFO")


@dataclass(frozen=True)
class Problem:
    """A problem in one line: what, where, what to do. It would stop a run, or else slow it."""

    stops: bool
    text: str


def problems_of(facts: Facts) -> list[Problem]:
    """The problems of one machine."""
    checks = (_unreadable, _versions, _gpus, _processor, _shared_memory, _open_files, _disks, _ranks, _network, _slow)
    return [problem for check in checks for problem in check(facts)]


def world_size(facts: Facts) -> int:
    """Number of ranks of the launch; 1 without a launcher, or if the variable is not a number."""
    return _count(facts, "WORLD_SIZE")


def is_reporter(facts: Facts) -> bool:
    """Whether this process prints: rank 0, or a process whose rank is not one of the launch's."""
    rank = facts.environment.get("RANK", "0")
    return not rank.isdecimal() or not 0 < int(rank) < world_size(facts)


def _count(facts: Facts, name: str) -> int:
    value = facts.environment.get(name, "1")
    return int(value) if value.isdecimal() else 1


def _unreadable(facts: Facts) -> Iterator[Problem]:
    yield from (Problem(True, line) for line in facts.unreadable)


def _versions(facts: Facts) -> Iterator[Problem]:
    for package, required in facts.required.items():
        version = facts.versions.get(package, "")
        if version and SpecifierSet(required).contains(version, prereleases=True):
            continue
        what, install = f"{package}: {version or 'not installed'}, {required} is needed", f"{package}{required}"
        if package == "deepspeed":
            # The DDP engine works without it.
            yield Problem(False, f"{what} for engine.name=deepspeed; pip install '{install}', or keep engine.name=ddp")
        elif package == "python":
            yield Problem(True, f"{what}; make a new environment with it")
        else:
            yield Problem(True, f"{what}; pip install '{install}'")


def _gpus(facts: Facts) -> Iterator[Problem]:
    driver, ranks, needed = facts.driver, _count(facts, "LOCAL_WORLD_SIZE"), facts.device == "cuda"
    if facts.device == "cpu":
        return
    if not facts.gpus and driver and driver.gpus:
        what, cuda = f"torch uses none of the {driver.gpus} GPU(s) of this machine", ".".join(map(str, driver.cuda))
        if not facts.cuda:
            yield Problem(needed, f"{what}: it was built for the CPU alone; install a build of torch for CUDA {cuda}")
        elif int(facts.cuda.split(".")[0]) > driver.cuda[0]:
            why = f"driver {driver.release} supports CUDA {cuda}, torch needs {facts.cuda}"
            yield Problem(True, f"{what}: {why}; install a newer driver, or a build of torch for CUDA {cuda}")
        elif "CUDA_VISIBLE_DEVICES" in facts.environment:
            visible = facts.environment["CUDA_VISIBLE_DEVICES"]
            yield Problem(needed, f"{what}: CUDA_VISIBLE_DEVICES={visible} hides them; unset it, or name some")
        else:
            yield Problem(needed, f"{what}, driver {driver.release}; run nvidia-smi to find out why")
    elif not facts.gpus and needed:
        yield Problem(True, "device=cuda: this machine has no GPU; set device=cpu, or use a machine with one")
    elif 0 < len(facts.gpus) < ranks:
        count = len(facts.gpus)
        yield Problem(True, f"{ranks} ranks on this machine for {count} GPU(s); start {count}, or set device=cpu")
    for number, gpu in enumerate(facts.gpus):
        if gpu.capability < (8, 0):
            yield Problem(False, f"GPU {number} ({gpu.name}): has no bf16 units; precision=fp16 is faster there")


def _processor(facts: Facts) -> Iterator[Problem]:
    ranks, cores = _count(facts, "LOCAL_WORLD_SIZE"), facts.cores
    threads = facts.environment.get("OMP_NUM_THREADS", "")
    if facts.gpus and facts.device != "cpu":
        return
    if not facts.bf16_units:
        yield Problem(False, "the processor has no bf16 units; precision=fp32 is faster on it than the default")
    best = f"set OMP_NUM_THREADS={max(1, cores // ranks)}"
    given = f"OMP_NUM_THREADS={threads} for {ranks} rank(s)"
    if ranks > cores:
        yield Problem(False, f"{ranks} ranks share {cores} core(s); start no more ranks than cores")
    elif threads.isdecimal() and int(threads) * ranks > cores:
        yield Problem(False, f"{given} on {cores} core(s): threads wait for each other; {best}")
    elif threads.isdecimal() and int(threads) * ranks * 2 <= cores:
        yield Problem(False, f"{given} leaves most of {cores} cores idle; {best}")


def _shared_memory(facts: Facts) -> Iterator[Problem]:
    if facts.shared is None or len(facts.gpus) < 2 or facts.device == "cpu":
        return
    free = f"{_size(facts.shared.free)} of {_size(facts.shared.total)}"
    what = f"/dev/shm: {free} are free, through which NCCL connects the GPUs of a machine"
    if facts.shared.free <= _TOO_LITTLE_SHARED:
        do = "give the container more: docker run --shm-size=1g (Kubernetes: an emptyDir in memory)"
        yield Problem(True, f"{what}; {do}")
    elif facts.shared.free < _ENOUGH_SHARED:
        yield Problem(False, f"{what}; 1 GiB is usual: docker run --shm-size=1g")


def _open_files(facts: Facts) -> Iterator[Problem]:
    if 0 < facts.files < _ENOUGH_FILES:
        several = len(facts.gpus) > 1 or world_size(facts) > 1
        what = f"a process may have {facts.files:,} files open, too few for several ranks"
        yield Problem(several, f"{what}; raise the limit: ulimit -n 65536")


def _disks(facts: Facts) -> Iterator[Problem]:
    for name, disk in facts.disks.items():
        is_cache = name == "hub's cache"
        if is_cache and facts.environment.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            continue
        if not disk.writable:
            do = _OTHER_FOLDERS.get(name, "choose another folder")
            yield Problem(not is_cache, f"{name}: {disk.path} is not writable; {do}")
            continue
        needed = _TOO_LITTLE_DISK + (facts.needs if name == "output" else 0)
        what = f"{name}: {_size(disk.free)} are free at {disk.path}"
        if disk.free < needed:
            yield Problem(not is_cache, f"{what}, {_size(needed)} are needed; make room, or choose another disk")
        elif disk.free < _ENOUGH_DISK and name == "output":
            yield Problem(False, f"{what}, little for a long run; make room, or choose another output")


def _ranks(facts: Facts) -> Iterator[Problem]:
    given = {name: facts.environment[name] for name in _COUNTS if name in facts.environment}
    for name, value in given.items():
        if not value.isdecimal():
            yield Problem(True, f"{name}={value}: is not a number; leave it to the launcher, or unset it")
            return
    if given and int(given.get("RANK", "0")) >= world_size(facts):
        what = f"RANK={given.get('RANK')} with WORLD_SIZE={world_size(facts)}: ranks count from 0"
        yield Problem(True, f"{what}; correct one of them, or unset both")


def _network(facts: Facts) -> Iterator[Problem]:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        wanted = facts.environment.get(name, "")
        # NCCL takes beginnings of names, = before whole names, ^ before those to leave out.
        starts = tuple(wanted.removeprefix("=").split(","))
        if wanted and wanted[0] != "^" and not any(one.startswith(starts) for one in facts.interfaces):
            yield Problem(True, f"{name}={wanted}: no such interface; there are {', '.join(facts.interfaces)}")
    meeting = facts.environment.get("MASTER_ADDR", "")
    several = world_size(facts) > _count(facts, "LOCAL_WORLD_SIZE") and not meeting.startswith(("127.", "localhost"))
    if several and facts.address.startswith("127.") and "GLOO_SOCKET_IFNAME" not in facts.environment:
        name = next((name for name in facts.interfaces if name != "lo"), "NAME")
        what = f"this machine's hostname resolves to itself ({facts.address}), where other machines cannot reach gloo"
        yield Problem(True, f"{what}; set GLOO_SOCKET_IFNAME={name} (launch/run.sh does)")


def _slow(facts: Facts) -> Iterator[Problem]:
    for name, effect in _SLOW_VARIABLES.items():
        value = facts.environment.get(name, "")
        if value.upper() not in _OFF:
            yield Problem(False, f"{name}={value}: {effect}; unset it unless you are looking for a fault")


def problems_of_ranks(reports: Sequence[RankReport]) -> Iterator[Problem]:
    """Problems that show only when the ranks of a launch are compared; the first report is rank 0's."""
    first, seen = reports[0], set()
    for one in reports:
        who = f"rank {one['rank']} on {one['host']} ({one['device']})"
        if one["wrong_sums"]:
            yield Problem(
                True,
                f"{who}: {one['wrong_sums']:,} numbers of an all-reduce are wrong; leave that device out, and try "
                "NCCL_P2P_DISABLE=1 to see whether the link between GPUs is at fault",
            )
        for package, version in one["versions"].items():
            expected = first["versions"].get(package)
            if version != expected:
                what = f"{who}: {package} is {version or 'not installed'}, on rank 0 {expected or 'not installed'}"
                yield Problem(True, f"{what}; install the same version everywhere")
    # Problems of other machines, once each; rank 0 has printed its own.
    for one in reports:
        for stops, text in one["problems"]:
            if one["host"] != first["host"] and (one["host"], text) not in seen:
                seen.add((one["host"], text))
                yield Problem(stops, f"{one['host']}: {text}")


def _size(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"
