"""Nothing that is read is executed: no line that could, and no file of a stranger that does."""

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

from bert_tweets import report
from bert_tweets.common import errors
from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum
from bert_tweets.common.subprocesses import command, shell_line
from bert_tweets.config import PrepareConfig, TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.training import checkpoint
from tests.poison import Poison, poisoned_file
from tests.training.runs import record_of

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "bert_tweets").rglob("*.py"), *(ROOT / "launch").rglob("*.py")])
# Modules that make objects, and so run code, out of bytes.
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
# Calls that run what they are given, or unpickle it: of any object where the last part alone is written.
RUNNING = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save"}
RUNNING |= {"torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "runpy.run_path"}
RUNNING |= {".read_pickle", ".unsafe_load", ".full_load", ".load_module", ".exec_module"}
RUNNING |= {".all_gather_object", ".broadcast_object_list", ".gather_object", ".scatter_object_list"}
RUNNING |= {".send_object_list", ".recv_object_list", ".load_checkpoint", ".save_checkpoint"}
# Tables in CSV for people; a spreadsheet takes a cell that begins with = for a formula. Both of these write inputs.
WRITING_CSV = {"demo.py", "run.py"}


def calls(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every call in a source: its name, and its keyword arguments as they are written."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg or "**": ast.unparse(word.value) for word in node.keywords}


def dangers(source: str) -> list[str]:
    """What in a source could run something that was read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found += [f"import {name}" for name in names if name.split(".")[0] in PICKLES]
    for name, words in calls(source):
        runs = name in RUNNING or f".{name.rpartition('.')[2]}" in RUNNING
        unsafe = {
            "trust_remote_code": words.get("trust_remote_code", "False") != "False",
            "allow_pickle": words.get("allow_pickle", "False") != "False",
            "weights_only": words.get("weights_only", "True") != "True",
            "shell": words.get("shell", "False") != "False",
            "use_safetensors": words.get("use_safetensors", "True") != "True",
            "Loader": name == "yaml.load" and words.get("Loader") != "yaml.BaseLoader",
        }
        found += [name] * runs + [f"{name}({word})" for word, is_unsafe in unsafe.items() if is_unsafe]
    return found


def test_no_line_runs_or_unpickles_what_was_read() -> None:
    found = {}
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        writes_csv = "csv.writer" in source or "write_csv(" in source
        found[str(file.relative_to(ROOT))] = dangers(source) + ["CSV"] * (writes_csv and file.name not in WRITING_CSV)
    assert FILES and not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path, weights_only=True)",
        "dist.all_gather_object(a, b)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(name, trust_remote_code=asked)",
        "subprocess.run(words, shell=True)",
        "eval(text)",
        "self.engine.load_checkpoint(folder)",
    ],
)
def test_the_scan_finds_what_it_looks_for(line: str) -> None:
    assert dangers(line)


def test_a_poisoned_checkpoint_is_damaged(tmp_path: Path) -> None:
    record = record_of(3)
    folder = checkpoint.write_checkpoint(tmp_path, record, {"weights": {"a": torch.ones(2)}}, keep=1)
    poison = poisoned_file(folder / "weights.safetensors").read_bytes()
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read_checkpoint(folder)
    # A stranger can seal what he made.
    told = json.loads((folder / checkpoint.RECORD).read_text())
    told["files"]["weights.safetensors"] = {"bytes": len(poison), "sha256": hashlib.sha256(poison).hexdigest()}
    seal(folder, told)
    with pytest.raises(checkpoint.Damaged, match=r"weights\.safetensors: is damaged"):
        checkpoint.read_checkpoint(folder)
    for name in ("mp_rank_00_model_states.pt", "../outside.safetensors", "/outside.safetensors", "a/b.safetensors"):
        told["files"] = {name: told["files"].popitem()[1]}
        seal(folder, told)
        with pytest.raises(checkpoint.Damaged, match="is not a file of a checkpoint"):
            checkpoint.read_checkpoint(folder)
    assert not Poison.has_acted(folder)


def seal(folder: Path, record: dict[str, object]) -> None:
    record.pop("checksum")
    sealed_again = add_checksum(record)
    (folder / checkpoint.RECORD).write_text(json.dumps(sealed_again))
    record["checksum"] = sealed_again["checksum"]


def test_a_checkpoint_reads_no_file_through_a_link(tmp_path: Path) -> None:
    record = record_of(3)
    folder = checkpoint.write_checkpoint(tmp_path, record, {"weights": {"a": torch.ones(2)}}, keep=1)
    (folder / "weights.safetensors").rename(tmp_path / "elsewhere")
    (folder / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read_checkpoint(folder)


@pytest.mark.parametrize("name", ["manifest.json", "train/00000.arrow", "funnel.json"])
def test_poisoned_shards_are_damaged(shards: Path, tmp_path: Path, name: str) -> None:
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
def test_tags_of_a_yaml_file_make_nothing(tmp_path: Path, text: str) -> None:
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
    ids=["billions", "alias", "itself", "deep list", "deep mapping"],
)
def test_a_yaml_file_can_neither_grow_nor_nest_without_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        parser.load(TrainConfig, ["--config", str(path)])
    assert "alias" in str(caught.value) or "not YAML" in str(caught.value)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${oc.decode:1}", "${output}", "${oc.create:{a: 1}}", r"\${a}"])
def test_no_resolver_is_called(text: str, tmp_path: Path) -> None:
    """The list of those that are allowed is empty."""
    path = tmp_path / "config.yaml"
    path.write_text(f"text_column: '{text}'\ninput: ['{text}']\n")
    for words in (["--config", str(path)], [f"text_column={text}", f'input=["{text}"]'.replace("\\", "\\\\")]):
        config = parser.load(PrepareConfig, [*words, "output=x", "tokenizer=y"])
        assert (config.text_column, config.input) == (text, [text])


SECRET, TOKEN = "hunter2-hunter2", "hf_0123456789abcdefghij"
URL = f"https://me:{SECRET}@tweets.example/t.csv?key={SECRET}"


def test_a_command_that_is_shown_tells_no_password() -> None:
    line = shell_line(command("prepare", [f"input=[{URL}]", "output=shards"]))
    assert SECRET not in line and "https://tweets.example/t.csv" in line
    assert SECRET not in report._joined([f"input=[{URL}]"])


def test_a_mistake_that_is_told_tells_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        errors.run_entry(lambda words: parser.load(TrainConfig, words), [f"data.path={URL}", f"optput={URL}"])
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err and "optput" in told.err


def test_what_the_environment_holds_is_written_nowhere(tmp_path: Path, shards: Path) -> None:
    secrets = {
        "HF_TOKEN": TOKEN,
        "HUGGING_FACE_HUB_TOKEN": TOKEN,
        "WANDB_API_KEY": TOKEN,
        "AWS_SECRET_ACCESS_KEY": TOKEN,
    }
    environment = {**os.environ, **secrets, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [f"data.path={shards}", "model.name=scratch", f"output={tmp_path / 'run'}", "max_steps=2", "batch_size=8"]
    more = ["checkpoint.every_steps=1", "profile=true", "precision=fp32", "device=cpu"]
    for arguments in ([*words, *more], [f"data.path={shards}", "model.name=no/such-model", f"output={tmp_path / 'b'}"]):
        done = subprocess.run(
            [sys.executable, "-m", "bert_tweets.train", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert TOKEN not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in written)
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
