"""launch/kubernetes.yaml: a PyTorchJob, its settings exist, and torchrun understands what the operator sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bert_tweets.config import TrainConfig, parser
from tests.launch.starting import clone_with, start
from tests.processes import ROOT, free_port

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = Path(__file__).with_name("pytorchjob.schema.json")


def job() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "launch/kubernetes.yaml").read_text(encoding="utf-8"))
    return read


def mistakes(read: dict[str, Any]) -> list[str]:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(read)]


def test_the_job_of_kubernetes_is_one() -> None:
    assert not mistakes(job())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("spec.nprocPerNode", 8),
        ("spec.runPolicy.backofLimit", 3),
        ("spec.pytorchReplicaSpecs.Master.replicas", 2),
        ("spec.pytorchReplicaSpecs.Worker.template.spec.containers", [{"name": "train", "image": "x"}]),
        ("spec.pytorchReplicaSpecs.Worker.template.spec.volumes", [{"name": "data"}]),
        ("metadata.name", "bert_tweets"),
    ],
)
def test_the_schema_finds_mistakes(place: str, value: Any) -> None:
    # Without the anchors, by which two places are one.
    wrong = json.loads(json.dumps(job()))
    *groups, key = place.split(".")
    inside = wrong
    for group in groups:
        inside = inside[group]
    inside[key] = value
    assert len(mistakes(wrong)) == 1


def test_the_job_trains_on_every_gpu_it_asks_for_with_settings_that_exist() -> None:
    spec = job()["spec"]
    for replica in spec["pytorchReplicaSpecs"].values():
        (container,) = replica["template"]["spec"]["containers"]
        assert container["command"] == ["torchrun", "-m", "bert_tweets.train"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == int(spec["nprocPerNode"])
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in replica["template"]["spec"]["volumes"]
        }
        parser.load(TrainConfig, container["args"])


@pytest.mark.dist
def test_torchrun_takes_its_options_from_what_the_operator_sets(tmp_path: Path) -> None:
    says = "import os; print(*(os.environ[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')))"
    clone = clone_with(tmp_path / "clone", {"bert_tweets/__init__.py": "", "bert_tweets/train.py": says})
    container = job()["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    port = str(free_port())
    # Two pods of one rank, as pkg/controller.v1/pytorch/envvar.go of the operator (1.9) has it; RANK is the pod's.
    of_the_job = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "WORLD_SIZE": "2"}
    meeting = {"PET_MASTER_ADDR": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port, "MASTER_PORT": port}
    pods = [
        start(
            [*container["command"], *container["args"]],
            clone,
            **{variable["name"]: variable["value"] for variable in container["env"]},
            **of_the_job,
            **meeting,
            PET_NODE_RANK=pod,
            RANK=pod,
        )
        for pod in ("0", "1")
    ]
    said = [pod.communicate(timeout=60)[0].splitlines() for pod in pods]
    # The one that ends first takes the meeting place with it, which torchrun on the other may complain of afterwards.
    for rank, lines in enumerate(said):
        assert [line for line in lines if line.endswith(f" 2 {port}")] == [f"{rank} 0 2 {port}"], lines
