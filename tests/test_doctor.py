"""doctor: problems found in made-up facts, and its report on this machine and on a launch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bert_tweets.common.system import Disk
from bert_tweets.diagnosis import probe as facts_module
from bert_tweets.diagnosis.allreduce_check import all_reduce, bytes_per_second
from bert_tweets.diagnosis.checks import is_reporter, problems_of, problems_of_ranks
from bert_tweets.diagnosis.probe import Driver, Facts, Gpu, gather_facts, required_versions
from tests.processes import ROOT, failure, free_port, run, stage

MIB, GIB = 2**20, 2**30
H100 = Gpu("H100", 80 * GIB, (9, 0))
DRIVER = Driver("580.1", (13, 0), 2)
ROOM = Disk("/data", 10**12, 10**12, True)
REQUIRED = {"python": ">=3.11", "torch": ">=2.11", "deepspeed": ">=0.19"}
HERE = {"python": "3.12.3", "torch": "2.13.0+cu130", "deepspeed": "0.19.8"}
PLACES = {"output": ROOM, "hub's cache": ROOM, "temporary files": ROOM}
# A machine with two GPUs on which all is well.
WELL = Facts(
    gpus=(H100, H100), cores=32, memory=256 * GIB, bf16_units=["amx_bf16"], versions=HERE, required=REQUIRED,
    cuda="13.0", driver=DRIVER, shared=Disk("/dev/shm", 8 * GIB, 8 * GIB, True), files=65_536, disks=PLACES,
    interfaces={"lo": "127.0.0.1", "eth0": "10.0.0.2"}, address="10.0.0.2",
)  # fmt: skip
LAUNCH = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node-1"}
OLD_GPU = Gpu("V100", 16 * GIB, (7, 0))
LAPTOP = {"gpus": (), "driver": None, "cuda": ""}


def full(name: str, **more: Any) -> dict[str, Any]:
    return {"disks": {**PLACES, name: replace(ROOM, **{"free": 0, **more})}}


def test_a_healthy_machine_has_no_problems() -> None:
    assert problems_of(WELL) == []
    assert problems_of(replace(WELL, environment=LAUNCH)) == []
    assert problems_of(replace(WELL, **LAPTOP, files=0, shared=None)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"versions": {**HERE, "torch": "2.3.1"}}, "torch: 2.3.1, >=2.11 is needed; pip install 'torch>=2.11'"),
        ({"versions": {"python": "3.12.3", "deepspeed": "0.19.8"}}, "torch: not installed"),
        ({"versions": {**HERE, "python": "3.10.1"}}, "python: 3.10.1, >=3.11 is needed"),
        ({"gpus": (), "driver": Driver("470.1", (11, 4), 2)}, "driver 470.1 supports CUDA 11.4, torch needs 13.0"),
        ({"gpus": (), "cuda": "", "device": "cuda"}, "built for the CPU alone"),
        ({"gpus": (), "device": "cuda", "environment": {"CUDA_VISIBLE_DEVICES": ""}}, "CUDA_VISIBLE_DEVICES= hides"),
        ({**LAPTOP, "device": "cuda"}, "this machine has no GPU"),
        ({"environment": {**LAUNCH, "LOCAL_WORLD_SIZE": "8"}}, "8 ranks on this machine for 2 GPU(s)"),
        ({"shared": Disk("/dev/shm", 64 * MIB, 64 * MIB, True)}, "/dev/shm: 64 MiB of 64 MiB are free"),
        ({"files": 256}, "may have 256 files open"),
        (full("output"), "output: 0 MiB are free at /data, 64 MiB are needed"),
        ({**full("output", free=500 * MIB), "needs": GIB}, "500 MiB are free at /data, 1.1 GiB are needed"),
        (full("output", writable=False), "output: /data is not writable"),
        (full("temporary files"), "temporary files: 0 MiB are free"),
        ({"environment": {**LAUNCH, "RANK": "one"}}, "RANK=one: is not a number"),
        ({"environment": {**LAUNCH, "RANK": "16"}}, "RANK=16 with WORLD_SIZE=16"),
        ({"environment": {"NCCL_SOCKET_IFNAME": "ib"}}, "NCCL_SOCKET_IFNAME=ib: no such interface"),
        ({"environment": LAUNCH, "address": "127.0.1.1"}, "set GLOO_SOCKET_IFNAME=eth0"),
        ({"unreadable": ["shards: no such folder"]}, "shards: no such folder"),
    ],
)  # fmt: skip
def test_what_stops_a_run_is_one_line(change: dict[str, Any], said: str) -> None:
    (finding,) = problems_of(replace(WELL, **change))
    assert finding.stops and said in finding.text and "\n" not in finding.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"versions": {**HERE, "deepspeed": ""}}, "for engine.name=deepspeed"),
        ({"gpus": (OLD_GPU, H100)}, "GPU 0 (V100): has no bf16 units"),
        ({"gpus": (), "cuda": ""}, "torch uses none of the 2 GPU(s)"),
        ({**LAPTOP, "bf16_units": []}, "precision=fp32 is faster"),
        ({**LAPTOP, "files": 256}, "may have 256 files open"),
        ({**LAPTOP, "cores": 1, "environment": {**LAUNCH, "WORLD_SIZE": "2"}}, "2 ranks share 1 core(s)"),
        ({**LAPTOP, "environment": {"OMP_NUM_THREADS": "64"}}, "set OMP_NUM_THREADS=32"),
        ({**LAPTOP, "environment": {"OMP_NUM_THREADS": "1"}}, "leaves most of 32 cores idle"),
        ({"shared": Disk("/dev/shm", GIB, 512 * MIB, True)}, "--shm-size=1g"),
        (full("output", free=GIB), "little for a long run"),
        (full("hub's cache", writable=False), "set HF_HOME"),
        (
            {"environment": {"NCCL_P2P_DISABLE": "1"}},
            "NCCL_P2P_DISABLE=1: GPUs of a machine exchange data through host memory",
        ),
    ],
)
def test_what_slows_a_run_is_one_line(change: dict[str, Any], said: str) -> None:
    (finding,) = problems_of(replace(WELL, **change))
    assert not finding.stops and said in finding.text and "\n" not in finding.text


def test_correct_settings_are_no_problems() -> None:
    named = {"NCCL_SOCKET_IFNAME": "^lo,docker", "GLOO_SOCKET_IFNAME": "eth0", "TORCH_DISTRIBUTED_DEBUG": "OFF"}
    assert problems_of(replace(WELL, environment=named)) == []
    offline = {"environment": {"HF_HUB_OFFLINE": "1"}}
    assert problems_of(replace(WELL, **full("hub's cache"), **offline)) == []


@pytest.mark.parametrize(
    ("rank", "speaks"), [("0", True), ("1", False), ("15", False), ("16", True), ("one", True), ("", True)]
)
def test_one_process_reports_and_one_outside_of_the_launch(rank: str, speaks: bool) -> None:
    assert is_reporter(replace(WELL, environment={**LAUNCH, "RANK": rank})) == speaks


def report(rank: int, **more: Any) -> dict[str, Any]:
    about = {"host": f"node-{rank}", "device": "H100", "wrong_sums": 0, "versions": {"torch": "2.13.0"}, "problems": []}
    return {"rank": rank, **about, **more}


def test_ranks_that_are_wrong_or_differ_are_named() -> None:
    full_disk, slow = (True, "output: is full"), (False, "few cores")
    reports = [
        report(0, problems=[full_disk]),
        report(1),
        report(2, wrong_sums=7),
        report(3, versions={"torch": "2.12.1"}, problems=[full_disk, slow]),
        report(4, host="node-3", problems=[full_disk, slow]),
    ]
    found = [(one.stops, one.text) for one in problems_of_ranks(reports)]
    assert found[0][0] and found[0][1].startswith("rank 2 on node-2 (H100): 7 numbers of an all-reduce are wrong")
    assert found[1][0] and found[1][1].startswith("rank 3 on node-3 (H100): torch is 2.12.1, on rank 0 2.13.0")
    assert found[2:] == [(True, "node-3: output: is full"), (False, "node-3: few cores")]
    assert list(problems_of_ranks([report(0), report(1)])) == []


def test_wrong_sums_are_counted() -> None:
    def lossy(values: torch.Tensor) -> torch.Tensor:
        values *= 3  # of ranks 0 and 1: 1 + 2
        values[5:7] = 0
        return values

    world: Any = SimpleNamespace(rank=0, world_size=2, device=torch.device("cpu"), sum=lossy)
    assert all_reduce(world, 100, 3)[1] == 2 * 2  # in each of two turns
    assert bytes_per_second(1.0, 2) == 25 * MIB and bytes_per_second(0.5, 4) == 3 * 25 * MIB


def test_versions_are_required_as_in_pyproject() -> None:
    asked = required_versions()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"torch{asked["torch"]}"' in text and f'requires-python = "{asked["python"]}"' in text
    assert {"transformers", "pyarrow", "omegaconf"} <= asked.keys() and "jinja2" not in asked


@pytest.mark.parametrize("text", ["[tool.black]\n", '[project]\nname = "other"\ndependencies = ["other>=1"]\n'])
def test_versions_are_not_required_as_in_another_package_s_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(facts_module, "_PROJECT", tmp_path / "pyproject.toml")
    asked = required_versions()
    assert {"python", "torch", "transformers"} <= asked.keys() and "other" not in asked


def test_facts_of_this_machine(shards: Path, tmp_path: Path) -> None:
    from bert_tweets.config import DoctorConfig

    config = DoctorConfig(output=str(tmp_path / "not" / "there"))
    config.data.path = str(shards)
    facts = gather_facts(config, {"RANK": "0", "HF_TOKEN": "hidden", "NCCL_DEBUG": "WARN", "HF_HOME": str(tmp_path)})
    assert facts.environment == {"RANK": "0", "HF_HOME": str(tmp_path), "NCCL_DEBUG": "WARN"}
    assert facts.versions["torch"] == torch.__version__ and facts.cores >= 1 and facts.memory > GIB
    assert len(facts.gpus) == torch.cuda.device_count()
    assert facts.disks["output"].free > 0 and facts.disks["hub's cache"].path == f"{tmp_path}/hub"
    assert facts.unreadable == []
    config.model.name = str(tmp_path)
    assert "is not a model" in gather_facts(config, {}).unreadable[0]


@pytest.mark.dist
def test_it_ends_with_what_would_stop_a_run(tmp_path: Path) -> None:
    well = stage("doctor", f"output={tmp_path}", "device=cpu").stdout
    assert "what would stop a run: nothing" in well and "tokenizers" in well
    ill = run(["-m", "bert_tweets.doctor", f"output={tmp_path}", "data.path=/no/such/shards", "device=cpu"])
    assert ill.returncode == 2 and "/no/such/shards: no such folder of shards" in ill.stdout
    lost = run(
        ["-m", "bert_tweets.doctor", f"output={tmp_path}", "device=cpu"], LOCAL_WORLD_SIZE="two", MASTER_ADDR="a"
    )
    assert lost.returncode == 2 and "LOCAL_WORLD_SIZE=two: is not a number" in lost.stdout
    assert "did you mean 'timeout'" in failure("doctor", "timout=3")


@pytest.mark.dist
def test_ranks_finish_an_all_reduce(tmp_path: Path) -> None:
    said = stage("doctor", f"output={tmp_path}", "device=cpu", processes=2).stdout
    assert (
        said.count("sums are right") == 2 and "rank 1: " in said and said.count("what would stop a run: nothing") == 1
    )
    assert "25 MiB: " in said and "GB/s on each rank's link" in said


@pytest.mark.dist
def test_missing_ranks_are_waited_for_until_the_time_limit(tmp_path: Path) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", **place}
    done = subprocess.run(
        [sys.executable, "-m", "bert_tweets.doctor", f"output={tmp_path}", "device=cpu", "timeout=2"],
        env={**os.environ, **alone}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"the ranks did not meet within 2 s, at 127.0.0.1:{place['MASTER_PORT']}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.dist
def test_a_collective_that_hangs_ends_in_a_line() -> None:
    program = (
        "import time, torch; from bert_tweets.diagnosis import allreduce_check\n"
        "from bert_tweets.distributed import world\n"
        "world.World.sum = lambda *_: time.sleep(60)\n"
        "allreduce_check.check_all_reduce(world.World(0, 0, 1, 1, torch.device('cpu')), 'here', {}, [], 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 2 and "did not finish the all-reduce within 1 s" in done.stderr
