"""Untrusted models: no code runs, no file outside their folder is read; a hub model is identified by its commit."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForMaskedLM

from bert_tweets.common import hub
from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.model.attention import NAME
from bert_tweets.model.loading import check_model, load_model, weights_identity
from tests.model.tiny import SIZES
from tests.poison import Poison, poisoned_file

COMMIT, OLDER = "c" * 40, "0" * 40


@pytest.fixture(scope="module")
def manifest(shards: Path) -> Manifest:
    return Manifest.read(shards)


@pytest.fixture
def model(tmp_path: Path, shards: Path, manifest: Manifest) -> Path:
    """A model for the shards, with their tokenizer, to be tampered with."""
    sizes = {**SIZES, "vocab_size": manifest.vocabulary_size, "max_position_embeddings": 128}
    folder = tmp_path / "model"
    BertForMaskedLM(BertConfig(**sizes)).save_pretrained(folder)
    shutil.copytree(shards / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def refused(folder: Path | str, manifest: Manifest) -> str:
    """The error message that this model causes."""
    with pytest.raises(UserError) as caught:
        check_model(ModelConfig(name=str(folder)), manifest)
        load_model(ModelConfig(name=str(folder)), manifest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def index(folder: Path, file: Any) -> None:
    """Move the weights to a file of another name, as in the index of a large model."""
    names = [name for name, _ in BertForMaskedLM(BertConfig.from_pretrained(folder)).named_parameters()]
    record = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(record))


def test_the_poison_works(tmp_path: Path) -> None:
    with poisoned_file(tmp_path / "file").open("rb") as file:
        pickle.load(file)
    assert Poison.has_acted(tmp_path)


def test_pickled_weights_are_not_opened(model: Path, manifest: Manifest) -> None:
    (model / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"):
        poisoned_file(model / name)
    assert "has no model.safetensors; pickled weights" in refused(model, manifest)
    assert not Poison.has_acted(model)


def test_pickles_next_to_the_weights_are_not_opened(model: Path, manifest: Manifest) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "vocab.pkl"):
        poisoned_file(model / name)
    load_model(ModelConfig(name=str(model)), manifest)
    assert not Poison.has_acted(model)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_pickle_under_another_name_is_not_opened(model: Path, manifest: Manifest, name: str) -> None:
    (model / "recipe.json").unlink(missing_ok=True)
    poisoned_file(model / name)
    if name != "tokenizer_config.json":  # which is optional for BERT's tokenizer
        refused(model, manifest)
    assert not Poison.has_acted(model)


@pytest.mark.parametrize(
    "file", ["../stolen.safetensors", "weights.bin", "sub/x.safetensors", "/x.safetensors", "..", 7]
)
def test_an_index_may_only_name_weights_in_its_folder(model: Path, manifest: Manifest, file: Any) -> None:
    weights = model / "model.safetensors"
    shutil.copy(weights, model.parent / "stolen.safetensors")
    weights.rename(model / "part-1.safetensors")
    poisoned_file(model / "weights.bin")
    index(model, "part-1.safetensors")
    assert load_model(ModelConfig(name=str(model)), manifest).has_trained_head
    index(model, file)
    assert "which is not a file of weights in its folder" in refused(model, manifest)
    assert not Poison.has_acted(model)


@pytest.mark.parametrize("file", ["other.safetensors.index.json", "adapter_model.bin", "../stolen.safetensors"])
def test_a_configuration_may_not_name_other_weights(model: Path, manifest: Manifest, file: str) -> None:
    shutil.copy(model / "model.safetensors", model.parent / "stolen.safetensors")
    poisoned_file(model / "adapter_model.bin")
    change(model / "config.json", transformers_weights=file)
    assert "its config.json sets transformers_weights" in refused(model, manifest)
    assert not Poison.has_acted(model)


def test_an_adapter_is_rejected(model: Path, manifest: Manifest) -> None:
    change(model / "adapter_config.json", base_model_name_or_path="somebody/else", peft_type="LORA")
    assert "is an adapter of another model" in refused(model, manifest)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["bert", "never-heard-of"])
def test_code_in_a_model_is_not_run(model: Path, manifest: Manifest, file: str, kind: str) -> None:
    source = f"from pathlib import Path\nPath({str(model / Poison.TRACE)!r}).touch()\n"
    for name in ("evil.py", "configuration_evil.py", "modeling_evil.py", "tokenization_evil.py"):
        (model / name).write_text(source)
    classes = {"AutoConfig": "evil.C", "AutoModelForMaskedLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    change(model / "config.json", model_type=kind)
    change(model / file, auto_map=classes)
    assert "refers to code of its own (auto_map), which is never run" in refused(model, manifest)
    with pytest.raises(UserError, match="never run"):
        load_tokenizer(str(model))
    assert not Poison.has_acted(model)


def test_a_configuration_may_not_choose_the_attention(model: Path, manifest: Manifest) -> None:
    """transformers would download a kernel of that name from the hub."""
    change(model / "config.json", attn_implementation="somebody/kernels", _attn_implementation="somebody/kernels")
    assert load_model(ModelConfig(name=str(model)), manifest).model.config._attn_implementation == NAME


def test_the_settings_of_a_tokenizer_may_not_name_a_file(model: Path) -> None:
    own = load_tokenizer(str(model)).get_vocab()
    secret = model.parent / "secret.txt"
    secret.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "password"]))
    stolen = {"vocab_file": str(secret), "tokenizer_file": str(secret), "special_tokens_map_file": str(secret)}
    change(model / "tokenizer_config.json", **stolen)
    assert load_tokenizer(str(model)).get_vocab() == own


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "recipe.json"])
def test_deeply_nested_json_is_one_error_line(model: Path, manifest: Manifest, name: str) -> None:
    (model / name).write_text("[" * 100_000)
    if name == "tokenizer_config.json":
        with pytest.raises(UserError):
            load_tokenizer(str(model))
    else:
        refused(model, manifest)


@pytest.fixture
def cached(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put the model into the hub's cache, as `org/tiny` at a commit that becomes `main`."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))

    def put(commit: str) -> Path:
        of_model = cache / "models--org--tiny"
        (of_model / "refs").mkdir(parents=True, exist_ok=True)
        (of_model / "refs" / "main").write_text(commit)
        shutil.copytree(model, of_model / "snapshots" / commit)
        return cache

    return put


def test_a_hub_model_is_identified_by_its_commit(cached: Callable[[str], Path]) -> None:
    assert weights_identity("org/tiny") == "org/tiny"
    cached(OLDER)
    cached(COMMIT)
    assert weights_identity("org/tiny") == f"org/tiny@{COMMIT}"
    assert weights_identity(f"org/tiny@{OLDER}") == weights_identity("org/tiny", OLDER) == f"org/tiny@{OLDER}"


def test_only_a_hub_model_has_a_revision_after_its_name(tmp_path: Path) -> None:
    assert hub.split_revision("org/tiny@v1") == ("org/tiny", "v1")
    assert hub.split_revision("org/tiny", "v1") == ("org/tiny", "v1")
    folder = tmp_path / "my@model"
    folder.mkdir()
    assert hub.split_revision(str(folder)) == (str(folder), "main")
    assert hub.snapshot("no/such name@/..", "../../etc") is None


@pytest.mark.parametrize("name", ["org/tiny", f"org/tiny@{COMMIT}"])
def test_a_run_records_the_commit_that_it_used(
    cached: Callable[[str], Path], shards: Path, tmp_path: Path, name: str
) -> None:
    environment = {**os.environ, "HF_HUB_CACHE": str(cached(COMMIT)), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [f"data.path={shards}", f"model.name={name}", f"output={tmp_path / 'run'}", "max_steps=1", "batch_size=8"]
    command = [sys.executable, "-m", "bert_tweets.train", *words, "precision=fp32", "device=cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["weights"] == f"org/tiny@{COMMIT}"


def test_a_hub_model_is_checked_in_the_same_way(cached: Callable[[str], Path], manifest: Manifest) -> None:
    folder = cached(COMMIT) / "models--org--tiny" / "snapshots" / COMMIT
    change(folder / "config.json", auto_map={"AutoModelForMaskedLM": "evil.M"})
    assert hub.snapshot("org/tiny") == folder
    assert "never run" in refused("org/tiny", manifest)
