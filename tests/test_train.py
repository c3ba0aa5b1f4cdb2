"""train: its outputs, what it rejects, and its messages."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.helpers import make_shards
from tests.processes import failure, run, stage

TINY = (
    "model.scratch.hidden_size=32",
    "model.scratch.num_attention_heads=2",
    "model.scratch.intermediate_size=64",
    "precision=fp32",
    "batch_size=32",
    "device=cpu",
)


def words_of(shards: Path, output: Path, *more: str) -> list[str]:
    name = [] if any(word.startswith("model.name=") for word in more) else ["model.name=scratch", *TINY[:3]]
    return [f"data.path={shards}", f"output={output}", *TINY[3:], *name, *more]


def lines_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    stage("train", *words_of(shards, folder, "max_steps=40", "optimizer.learning_rate=1e-3", "log.every_steps=10"))
    return folder


@pytest.mark.dist
def test_a_run_leaves_its_files(trained: Path, shards: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "validation.jsonl",
        "run.json",
        "train.log",
        "model",
        ".made-by-bert-tweets",
    }
    lines = lines_of(trained / "metrics.jsonl")
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    named = "step epoch loss loss_mean learning_rate grad_norm tokens_per_second tweets_per_second mfu"
    named += " padding_fraction data_wait_fraction step_seconds"
    by_rank = "rank_compute_seconds rank_data_wait_seconds slowest_rank"
    assert set(lines[0]) == {"time", *named.split(), *by_rank.split()}
    assert all(math.isfinite(line[name]) for line in lines for name in named.split())
    assert lines[-1]["loss_mean"] < lines[0]["loss_mean"]
    assert lines[-1]["epoch"] == pytest.approx(40 * 32 / json.loads((trained / "run.json").read_text())["rows"])
    assert (trained / "model" / "recipe.json").is_file()
    assert not list((trained / "model").glob("*.bin"))


@pytest.mark.dist
def test_two_ranks_make_the_same_run(trained: Path, shards: Path, tmp_path: Path) -> None:
    words = words_of(shards, tmp_path / "run", "max_steps=40", "optimizer.learning_rate=1e-3", "log.every_steps=10")
    # In processes whose hashes, and so the order of sets, differ.
    stage("train", *words, "tokens_per_device=300", processes=2, PYTHONHASHSEED="random")
    for mine, expected in zip(
        lines_of(tmp_path / "run/metrics.jsonl"), lines_of(trained / "metrics.jsonl"), strict=True
    ):
        assert mine["loss"] == pytest.approx(expected["loss"], abs=2e-3)
        assert mine["loss_mean"] == pytest.approx(expected["loss_mean"], abs=2e-3)
    first, second = (lines_of(run / "validation.jsonl")[0] for run in (trained, tmp_path / "run"))
    assert first["validation_loss"] == pytest.approx(second["validation_loss"], abs=1e-5)


@pytest.mark.dist
def test_the_export_is_a_stock_model_that_is_accepted_again(trained: Path, shards: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from bert_tweets.config import ModelConfig
    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.corpus.text.tokenizer import fingerprint, load_tokenizer
    from bert_tweets.model.loading import load_model
    from bert_tweets.model.masked_lm import PackedMaskedLM
    from tests.model.test_masked_lm import full_logits
    from tests.model.tiny import packed, tweets_of

    model, tokenizer = (
        AutoModelForMaskedLM.from_pretrained(trained / "model"),
        AutoTokenizer.from_pretrained(trained / "model"),
    )
    assert fingerprint(tokenizer) == fingerprint(load_tokenizer(str(shards / "tokenizer")))
    assert model.dtype == torch.float32
    with safe_open(trained / "model" / "model.safetensors", "pt") as file:
        # Tied weights are written once.
        assert "cls.predictions.decoder.weight" not in file.keys()  # noqa: SIM118 - it is no dictionary
    ours = PackedMaskedLM(load_model(ModelConfig(name=str(trained / "model")), Manifest.read(shards)).model)
    tweets = tweets_of([9, 20, 4])
    tweets.input_ids[:] %= len(tokenizer)
    ids = torch.from_numpy(tweets.input_ids.astype("int64"))
    expected = torch.cat([model.eval()(input_ids=part[None]).logits[0] for part in ids.split(tweets.lengths.tolist())])
    assert torch.allclose(full_logits(ours.eval(), packed(tweets)), expected, atol=1e-5)
    again = stage("train", *words_of(shards, tmp_path / "again", f"model.name={trained}/model", "max_steps=2"))
    assert "head" not in again.stdout
    # The next run starts from the best model by validation.
    best = min(line["validation_loss"] for line in lines_of(trained / "validation.jsonl"))
    start = lines_of(tmp_path / "again/validation.jsonl")[0]["validation_loss"]
    assert start == pytest.approx(best, abs=1e-5)


@pytest.mark.dist
def test_a_finished_run_is_left_alone_and_another_is_rejected(trained: Path, shards: Path) -> None:
    same = ("max_steps=40", "optimizer.learning_rate=1e-3", "log.every_steps=10")
    before = (trained / "model" / "model.safetensors").stat().st_mtime_ns
    assert "finished" in stage("train", *words_of(shards, trained, *same)).stdout
    assert (trained / "model" / "model.safetensors").stat().st_mtime_ns == before
    line = failure("train", *words_of(shards, trained, *same, "seed=1"))
    assert "other settings (seed)" in line


@pytest.mark.dist
def test_a_finished_run_over_other_tweets_is_rejected(shards: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(shards, tmp_path / "shards"))
    words = words_of(moved, tmp_path / "run", "max_steps=2")
    stage("train", *words)
    shutil.rmtree(moved)
    make_shards(tmp_path / "data", validation_fraction=0.2).rename(moved)
    assert "over other data" in failure("train", *words)


@pytest.mark.dist
def test_a_rising_validation_loss_warns_stops_and_exports_the_best(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "data", validation_fraction=0.4)
    settings = ("epochs=60", "optimizer.learning_rate=2e-2", "optimizer.allow_high_learning_rate=true")
    patience = ("validation.every_steps=10", "validation.patience=3", "schedule.name=constant")
    done = stage("train", *words_of(shards, tmp_path / "run", *settings, *patience))
    assert "warning: validation loss has risen from" in done.stderr and "stopped early" in done.stdout
    summary = json.loads((tmp_path / "run/run.json").read_text())
    validations = lines_of(tmp_path / "run/validation.jsonl")
    best = min(validations, key=lambda line: line["validation_loss"])
    assert summary["stopped_early"] and summary["steps"] < summary["planned_steps"]
    assert summary["best_step"] == best["step"] == validations[-4]["step"]
    # The exported model is that step's, not the last.
    again = (f"model.name={tmp_path}/run/model", "max_steps=1", "schedule.name=constant")
    stage("train", *words_of(shards, tmp_path / "again", *again))
    start = lines_of(tmp_path / "again/validation.jsonl")[0]["validation_loss"]
    assert start == pytest.approx(best["validation_loss"], abs=1e-5)


@pytest.mark.dist
def test_an_empty_validation_split_is_legal(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "data", validation_fraction=0.0)
    done = stage("train", *words_of(shards, tmp_path / "run", "max_steps=3"))
    assert "validation split is empty" in done.stderr
    assert (tmp_path / "run/model/model.safetensors").is_file()


@pytest.mark.dist
def test_too_few_masked_tokens_choose_no_model(tmp_path: Path) -> None:
    """One short held-out tweet without a masked token would have an unbeatable loss of 0."""
    texts = [f"{first} {second}" for first in "abcdefgh" for second in "klmnop"]
    shards = make_shards(tmp_path / "data", texts, vocabulary_size=100, validation_fraction=0.06, seed=1)
    done = stage("train", *words_of(shards, tmp_path / "run", "max_steps=30", "validation.every_steps=1"))
    assert "masked tokens to validate on" in done.stderr
    summary = json.loads((tmp_path / "run/run.json").read_text())
    assert summary["steps"] == 30 and summary["best_step"] is None


@pytest.mark.dist
def test_two_runs_do_not_share_a_folder(shards: Path, tmp_path: Path) -> None:
    words = words_of(shards, tmp_path / "run", "epochs=400")
    first = subprocess.Popen([sys.executable, "-m", "bert_tweets.train", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and any("step 0/" in line for line in first.stdout)
        assert "another run is writing" in failure("train", *words)
    finally:
        first.kill()
        first.wait()
    assert (tmp_path / "run/validation.jsonl").is_file()


@pytest.mark.dist
def test_embeddings_can_be_trained_alone(trained: Path, shards: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    settings = ("max_steps=3", f"model.name={trained}/model", "model.trainable=embeddings", "validation.max_tweets=5")
    stage(
        "train",
        *words_of(shards, tmp_path / "run", *settings, "schedule.warmup_steps=0", "optimizer.learning_rate=1e-5"),
    )
    before, after = (load_file(run / "model/model.safetensors") for run in (trained, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("word_embeddings" in name or "decoder.weight" in name for name in changed)


@pytest.mark.dist
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["optimizer.learning_rate=1e-2"], "above 1e-3"),
        (["optimizer.lerning_rate=1e-4"], "did you mean 'optimizer.learning_rate'"),
        (["model.name=/no/such/model"], "/no/such/model: no such folder"),
        (["data.path=/no/such/shards"], "no such folder of shards"),
        (["max_steps=3", "epochs=2"], "not both"),
        (["device=cuda"], "no GPU"),
        (["data.row_length=16"], "shorter than the shards' longest tweet"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(shards: Path, tmp_path: Path, more: list[str], said: str) -> None:
    if more == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = failure("train", *words_of(shards, tmp_path / "run", *more))
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.dist
def test_under_torchrun_a_mistake_is_printed_once(shards: Path, tmp_path: Path) -> None:
    line = failure("train", *words_of(shards, tmp_path / "run", "model.name=/no/such/model"), processes=2)
    assert "no such folder" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.dist
def test_foreign_folders_damaged_shards_and_other_recipes_are_rejected(
    trained: Path, shards: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("all of it")
    assert "holds other files" in failure("train", *words_of(shards, foreign))
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]

    damaged = Path(shutil.copytree(shards, tmp_path / "damaged"))
    shard = sorted((damaged / "train").glob("*.arrow"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert shard.name in failure("train", *words_of(damaged, tmp_path / "run"))

    raw = make_shards(tmp_path / "raw", clean="raw", tokenizer=str(trained / "model"))
    line = failure("train", *words_of(raw, tmp_path / "run", f"model.name={trained}/model"))
    assert "clean (raw against tweets)" in line and "tokenizer" not in line.split("(", 1)[1].split(";")[0]
    other = make_shards(tmp_path / "other", vocabulary_size=300)
    assert "tokenizer (" in failure("train", *words_of(other, tmp_path / "run", f"model.name={trained}/model"))
    assert not (tmp_path / "run").exists()


@pytest.mark.dist
def test_a_hub_model_is_found_by_its_name_on_every_rank(trained: Path, shards: Path, tmp_path: Path) -> None:
    """From the cache of the hub's client: there is no hub in a test."""
    kept = tmp_path / "hub" / "models--someone--tiny-bert"
    shutil.copytree(trained / "model", kept / "snapshots" / "0123abcd")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123abcd")
    words = words_of(shards, tmp_path / "run", "model.name=someone/tiny-bert", "max_steps=2")
    offline = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    stage("train", *words, processes=2, **offline)
    raw = make_shards(tmp_path / "raw", clean="raw", tokenizer=str(trained / "model"))
    refused = run(
        ["-m", "bert_tweets.train", *words_of(raw, tmp_path / "other", "model.name=someone/tiny-bert")], **offline
    )
    assert refused.returncode == 2 and "clean (raw against tweets)" in refused.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["has_trained_head"]


@pytest.mark.dist
def test_another_architecture_is_rejected_and_supported_ones_are_named(shards: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config().save_pretrained(tmp_path / "gpt2")
    (tmp_path / "gpt2/model.safetensors").touch()
    line = failure("train", *words_of(shards, tmp_path / "run", f"model.name={tmp_path}/gpt2"))
    assert "'gpt2' is not supported" in line and "roberta" in line
