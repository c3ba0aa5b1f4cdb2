"""Nothing that is read is executed: no line of the package can do it, and no malicious file gets executed."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bert_tweets.common import errors
from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum
from bert_tweets.common.subprocesses import command, shell_line
from bert_tweets.config import PrepareConfig, TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.page import inputs
from bert_tweets.training import checkpoint
from tests.poison import Poison, poisoned_file
from tests.training.runs import record_of

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "bert_tweets").rglob("*.py"), *(ROOT / "launch").rglob("*.py")])
# Modules that create objects from bytes, and can thus run code.
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
# Calls that execute or unpickle their argument; names that start with a dot are methods of any object.
RUNNING = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save"}
RUNNING |= {"torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "runpy.run_path"}
RUNNING |= {".read_pickle", ".unsafe_load", ".full_load", ".load_module", ".exec_module"}
RUNNING |= {".all_gather_object", ".broadcast_object_list", ".gather_object", ".scatter_object_list"}
RUNNING |= {".send_object_list", ".recv_object_list", ".load_checkpoint", ".save_checkpoint"}
# Only these files write CSV, and only as inputs: a spreadsheet takes a cell that starts with = for a formula.
WRITING_CSV = {"demo.py", "run.py"}


def calls(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and the keyword arguments of every call, as source text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg or "**": ast.unparse(word.value) for word in node.keywords}


def dangers(source: str) -> list[str]:
    """The imports and calls in a source that could execute its input."""
    result = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        result += [f"import {name}" for name in names if name.split(".")[0] in PICKLES]
    for name, keywords in calls(source):
        runs = name in RUNNING or f".{name.rpartition('.')[2]}" in RUNNING
        unsafe = {
            "trust_remote_code": keywords.get("trust_remote_code", "False") != "False",
            "allow_pickle": keywords.get("allow_pickle", "False") != "False",
            "weights_only": keywords.get("weights_only", "True") != "True",
            "shell": keywords.get("shell", "False") != "False",
            "use_safetensors": keywords.get("use_safetensors", "True") != "True",
            "Loader": name == "yaml.load" and keywords.get("Loader") != "yaml.BaseLoader",
        }
        result += [name] * runs + [f"{name}({keyword})" for keyword, is_unsafe in unsafe.items() if is_unsafe]
    return result


def test_no_line_executes_or_unpickles_its_input() -> None:
    result = {}
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        writes_csv = "csv.writer" in source or "write_csv(" in source
        result[str(file.relative_to(ROOT))] = dangers(source) + ["CSV"] * (writes_csv and file.name not in WRITING_CSV)
    assert FILES and not {name: lines for name, lines in result.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path, weights_only=True)",
        "dist.all_gather_object(a, b)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(name, trust_remote_code=setting)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
        "self.engine.load_checkpoint(folder)",
    ],
)
def test_the_scan_detects_dangerous_lines(line: str) -> None:
    assert dangers(line)


def test_a_poisoned_checkpoint_is_rejected_as_damaged(tmp_path: Path) -> None:
    record = record_of(3)
    folder = checkpoint.write_checkpoint(tmp_path, record, {"weights": {"a": torch.ones(2)}}, keep=1)
    poison = poisoned_file(folder / "weights.safetensors").read_bytes()
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read_checkpoint(folder)
    # An attacker can also write matching checksums.
    content = json.loads((folder / checkpoint.RECORD).read_text())
    content["files"]["weights.safetensors"] = {"bytes": len(poison), "sha256": hashlib.sha256(poison).hexdigest()}
    write_record(folder, content)
    with pytest.raises(checkpoint.Damaged, match=r"weights\.safetensors: is damaged"):
        checkpoint.read_checkpoint(folder)
    for name in ("mp_rank_00_model_states.pt", "../outside.safetensors", "/outside.safetensors", "a/b.safetensors"):
        content["files"] = {name: content["files"].popitem()[1]}
        write_record(folder, content)
        with pytest.raises(checkpoint.Damaged, match="is not a file of a checkpoint"):
            checkpoint.read_checkpoint(folder)
    assert not Poison.has_acted(folder)


def write_record(folder: Path, record: dict[str, object]) -> None:
    """Write a checkpoint's record with a valid checksum."""
    record.pop("checksum")
    with_checksum = add_checksum(record)
    (folder / checkpoint.RECORD).write_text(json.dumps(with_checksum))
    record["checksum"] = with_checksum["checksum"]


def test_a_checkpoint_with_a_symbolic_link_is_rejected(tmp_path: Path) -> None:
    record = record_of(3)
    folder = checkpoint.write_checkpoint(tmp_path, record, {"weights": {"a": torch.ones(2)}}, keep=1)
    (folder / "weights.safetensors").rename(tmp_path / "elsewhere")
    (folder / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read_checkpoint(folder)


@pytest.mark.parametrize("name", ["manifest.json", "train/00000.arrow", "funnel.json"])
def test_poisoned_shards_are_rejected_as_damaged(shards: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    poisoned = poisoned_file(folder / name)
    with pytest.raises(SystemExit) as caught:
        from bert_tweets.verify import main

        main([f"path={folder}"])
    assert caught.value.code
    if name == "train/00000.arrow":
        with pytest.raises(UserError):
            open_split(folder, Manifest.read(folder), "train").batch(0)
    assert not Poison.has_acted(poisoned.parent)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [{trace}]",
        "output: !!python/object/apply:os.mkdir [{trace}]",
        "output: !!python/object/new:os.system [touch {trace}]",
        "output: !!python/name:os.system",
        "? !!python/object/apply:os.mkdir [{trace}]\n: x",
    ],
)
def test_yaml_tags_are_rejected_and_run_nothing(tmp_path: Path, text: str) -> None:
    path, trace = tmp_path / "config.yaml", tmp_path / Poison.TRACE
    path.write_text(text.format(trace=trace))
    with pytest.raises(UserError):
        parser.load(TrainConfig, ["--config", str(path)])
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 60)),
        "input: &a0 [x]\noutput: *a0\n",
        "data: &data\n  path: *data\n",
        "[" * 2_000,
        "{a: " * 2_000,
    ],
    ids=["billion laughs", "alias", "self reference", "deep list", "deep mapping"],
)
def test_yaml_aliases_and_deep_nesting_are_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        parser.load(TrainConfig, ["--config", str(path)])
    assert "alias" in str(caught.value) or "not YAML" in str(caught.value)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${oc.decode:1}", "${output}", "${oc.create:{a: 1}}", r"\${a}"])
def test_no_resolver_is_called(text: str, tmp_path: Path) -> None:
    """The list of allowed resolvers is empty."""
    path = tmp_path / "config.yaml"
    path.write_text(f"text_column: '{text}'\ninput: ['{text}']\n")
    for arguments in (["--config", str(path)], [f"text_column={text}", f'input=["{text}"]'.replace("\\", "\\\\")]):
        config = parser.load(PrepareConfig, [*arguments, "output=x", "tokenizer=y"])
        assert (config.text_column, config.input) == (text, [text])


SECRET, TOKEN = "hunter2-hunter2", "hf_0123456789abcdefghij"
URL = f"https://me:{SECRET}@tweets.example/t.csv?key={SECRET}"


def test_a_printed_command_contains_no_password() -> None:
    line = shell_line(command("prepare", [f"input=[{URL}]", "output=shards"]))
    assert SECRET not in line and "https://tweets.example/t.csv" in line
    assert SECRET not in inputs._quoted([f"input=[{URL}]"])


def test_an_error_message_contains_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        errors.run_entry(lambda arguments: parser.load(TrainConfig, arguments), [f"data.path={URL}", f"optput={URL}"])
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err and "optput" in printed.err


def test_tokens_of_the_environment_are_written_nowhere(tmp_path: Path, shards: Path) -> None:
    secrets = {
        "HF_TOKEN": TOKEN,
        "HUGGING_FACE_HUB_TOKEN": TOKEN,
        "WANDB_API_KEY": TOKEN,
        "AWS_SECRET_ACCESS_KEY": TOKEN,
    }
    environment = {**os.environ, **secrets, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    settings = [f"data.path={shards}", "model.name=scratch", f"output={tmp_path / 'run'}", "max_steps=2"]
    more = ["batch_size=8", "checkpoint.every_steps=1", "profile=true", "precision=fp32", "device=cpu"]
    missing = [f"data.path={shards}", "model.name=no/such-model", f"output={tmp_path / 'b'}"]
    for arguments in ([*settings, *more], missing):
        completed = subprocess.run(
            [sys.executable, "-m", "bert_tweets.train", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert TOKEN not in completed.stdout + completed.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in written)
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
