"""Facts of this machine and of what a run would be given; `checks` judges them."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from bert_tweets.common import system
from bert_tweets.common.errors import UserError, without_secrets
from bert_tweets.common.hub import is_local
from bert_tweets.common.system import Disk
from bert_tweets.config import DoctorConfig, ModelConfig
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
_SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_PROCID")
_HUB = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT")
_DEVICES = ("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "TORCH_DISTRIBUTED_DEBUG")
_PREFIXES = ("NCCL_", "GLOO_", "TORCH_NCCL_")


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use; memory in bytes."""

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the highest CUDA version that it supports, such as (12, 4), and its GPUs."""

    release: str
    cuda: tuple[int, int]
    gpus: int


@dataclass(frozen=True)
class Facts:
    """Facts of one rank's machine.

    Attributes:
        device: setting `device`: auto, cpu or cuda.
        memory: bytes of memory of the host or container.
        versions, required: installed version and required specifier by package.
        cuda, cudnn, nccl: versions that torch was built with; empty: without.
        shared: /dev/shm, if there is one.
        files: number of files that a process may have open; 0: any number.
        needs: bytes that the output needs at least.
        environment: variables of launchers, hub and communication libraries.
        address: address that the hostname resolves to; empty: it does not.
        unreadable: problems with torch, shards or model, one line each.
    """

    device: str = "auto"
    gpus: tuple[Gpu, ...] = ()
    cores: int = 1
    memory: int = 0
    bf16_units: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    required: dict[str, str] = field(default_factory=dict)
    cuda: str = ""
    cudnn: str = ""
    nccl: str = ""
    driver: Driver | None = None
    shared: Disk | None = None
    files: int = 0
    disks: dict[str, Disk] = field(default_factory=dict)
    needs: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    interfaces: dict[str, str] = field(default_factory=dict)
    address: str = ""
    unreadable: list[str] = field(default_factory=list)


def gather_facts(config: DoctorConfig, environment: Mapping[str, str]) -> Facts:
    """Facts of this machine. Changes nothing, and allocates nothing on a device."""
    required = required_versions()
    gpus, built, broken = _torch()
    weights = Path(config.model.name).expanduser().glob("*.safetensors") if config.model.name else ()
    return Facts(
        device=config.device,
        gpus=gpus,
        cores=system.cores(),
        memory=system.total_memory(),
        bf16_units=system.bf16_units(),
        versions={"python": platform.python_version(), **_installed([*required, "tokenizers"])},
        required=required,
        **built,
        driver=driver(),
        shared=system.disk("/dev/shm") if Path("/dev/shm").is_dir() else None,
        files=system.open_files(),
        disks={name: system.disk(path) for name, path in _places(config, environment).items()},
        needs=sum(path.stat().st_size for path in weights),
        environment=_variables(environment),
        interfaces=system.interfaces(),
        address=system.own_address(),
        unreadable=[*broken, *_unreadable(config)],
    )


def required_versions() -> dict[str, str]:
    """Version specifier by required package: of the checkout's pyproject.toml, else of the installed metadata."""
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8")).get("project", {}) if _PROJECT.is_file() else {}
    # Next to an installed package, the file belongs to another project.
    if project.get("name") == "bert_tweets":
        lines, python = project["dependencies"], project["requires-python"]
    else:
        lines = [line for line in metadata.requires("bert_tweets") or [] if "extra ==" not in line]
        python = metadata.metadata("bert_tweets")["Requires-Python"]
    wanted = [Requirement(line) for line in lines]
    here = {one.name: str(one.specifier) for one in wanted if one.marker is None or one.marker.evaluate()}
    return {"python": python, **here}


def _installed(packages: list[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def driver() -> Driver | None:
    """NVIDIA's driver, from its own library; None if there is none."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return None
    except (OSError, AttributeError):
        return None
    release, cuda, gpus = ctypes.create_string_buffer(80), ctypes.c_int(), ctypes.c_uint()
    nvml.nvmlSystemGetDriverVersion(release, 80)
    nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda))
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(gpus))
    nvml.nvmlShutdown()
    return Driver(release.value.decode(), (cuda.value // 1000, cuda.value % 1000 // 10), gpus.value)


def _torch() -> tuple[tuple[Gpu, ...], dict[str, str], list[str]]:
    """GPUs, the libraries that torch was built with, and why torch cannot be imported."""
    try:
        import torch
    except Exception as error:  # broken installations fail in many ways: missing libraries, wrong symbols, ...
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return (), {}, [f"torch: cannot be imported ({first}); reinstall it"]
    built = {"cuda": torch.version.cuda or ""}
    if built["cuda"]:
        built["cudnn"] = str(torch.backends.cudnn.version() or "")  # type: ignore[no-untyped-call]
        if torch.distributed.is_nccl_available():
            built["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an old driver, which `checks` reports
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    seen = [torch.cuda.get_device_properties(number) for number in range(count)]
    return tuple(Gpu(one.name, one.total_memory, (one.major, one.minor)) for one in seen), built, []


def _places(config: DoctorConfig, environment: Mapping[str, str]) -> dict[str, str]:
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    places = {"output": config.output, "hub's cache": environment.get("HF_HUB_CACHE") or f"{home}/hub"}
    try:
        return {**places, "temporary files": tempfile.gettempdir()}
    except FileNotFoundError:  # none of the usual folders is writable
        return {**places, "temporary files": environment.get("TMPDIR", "/tmp")}


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    wanted = [name for name in environment if name.startswith(_PREFIXES)]
    names = [name for name in (*_LAUNCHERS, *_SLURM, *_HUB, *_DEVICES) if name in environment]
    return {name: without_secrets(environment[name]) for name in (*names, *sorted(wanted))}


def _unreadable(config: DoctorConfig) -> Iterator[str]:
    """Problems with the shards and the model that the settings name."""
    manifest = None
    if config.data.path:
        try:
            manifest = Manifest.read(config.data.path)
            yield from _missing_shards(Path(config.data.path), manifest)
        except (UserError, OSError) as error:
            yield str(error)
    if config.model.name:
        from bert_tweets.model.loading import check_model

        try:
            check_model(ModelConfig(config.model.name, config.model.revision), manifest)
        except UserError as error:
            yield str(error)
            return
        if is_local(config.model.name) and not any(Path(config.model.name).expanduser().glob("*.safetensors")):
            yield f"{config.model.name}: contains no weights (*.safetensors); save the model in that format"


def _missing_shards(folder: Path, manifest: Manifest) -> Iterator[str]:
    for entry in (entry for split in SPLITS for entry in manifest.splits[split]):
        path = folder / entry.file
        if not (os.access(path, os.R_OK) and path.stat().st_size == entry.bytes):
            yield f"{path}: is missing, unreadable or of another size; bert-tweets verify {folder} lists all damage"
            return
