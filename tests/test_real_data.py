"""The pipeline on real tweets with a real encoder; skipped unless BERT_TWEETS_REAL_DATA names a folder of tweets."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bert_tweets.config import ModelConfig, PrepareConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.data.batches import to_micro_batch
from bert_tweets.data.packing import pack
from bert_tweets.model.loading import load_model
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.prepare import prepare
from tests.processes import stage

pytestmark = pytest.mark.real_data
WORDS = ["love", "sick", "virus", "#fail", "@user", "no"]


@pytest.fixture(scope="module")
def encoder(real_data: Path) -> str:
    return str(real_data.parent / "models" / "minilm-l6")


@pytest.fixture(scope="module")
def folder(real_data: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of about 4,000 everyday tweets."""
    folder = tmp_path_factory.mktemp("real")
    with gzip.open(real_data / "everyday_en.csv.gz", "rt", encoding="utf-8", newline="") as source:
        (folder / "tweets.csv").write_text("".join(islice(source, 4000)), encoding="utf-8")
    prepare(
        PrepareConfig(
            input=[str(folder / "tweets.csv")],
            output=str(folder / "shards"),
            tokenizer=encoder,
            validation_fraction=0.05,
        )
    )
    return folder


def test_packed_states_of_a_real_encoder_equal_the_padded_ones(folder: Path, encoder: str) -> None:
    from transformers import AutoModel

    manifest = Manifest.read(folder / "shards")
    indices = np.random.default_rng(0).integers(0, manifest.rows("train"), 48)
    tweets = open_split(folder / "shards", manifest, "train").gather(indices)
    batch = to_micro_batch(pack(tweets, manifest.max_length, manifest.pad_id), indices, np.zeros_like(indices))
    ours = PackedMaskedLM(load_model(ModelConfig(name=encoder), manifest).model).eval()
    stock = AutoModel.from_pretrained(encoder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = ours.hidden_states(batch)[-1]
        for number, ids in enumerate(np.split(tweets.input_ids, np.cumsum(tweets.lengths)[:-1]), start=1):
            expected = stock(input_ids=torch.from_numpy(ids.astype(np.int64))[None])[0][0]
            assert torch.allclose(states[batch.segment_ids == number], expected, atol=2e-5)


@pytest.mark.dist
@pytest.mark.soak
def test_the_pipeline_on_two_ranks(folder: Path, encoder: str) -> None:
    data = f"data.path={folder}/shards"
    printed = stage(
        "train", data, f"model.name={encoder}", f"output={folder}/run", "max_steps=12", "batch_size=64", processes=2
    ).stdout
    assert "without a masked-LM head" in printed and "not adaptation" in printed
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert 5 < lines[-1]["loss"] < 10.5
    assert lines[-1]["padding_fraction"] < 0.15
    pair = (f"model={folder}/run/model", f"base={encoder}", data)
    assert "not comparable" in stage("evaluate", *pair, f"output={folder}/eval").stdout
    stage("embed", *pair, f"words=[{','.join(WORDS)}]", f"output={folder}/words", "background_tweets=300", "controls=0")
    table = pq.read_table(folder / "words/occurrences.parquet").to_pylist()
    tokenizer = load_tokenizer(encoder)
    assert {row["word"] for row in table} <= set(WORDS) and len(table) > 200
    assert all(len(row["vector"]) == 384 for row in table if row["status"] == "found")
    assert "text" not in table[0] and tokenizer.mask_token == "[MASK]"
    stage(
        "report", f"run={folder}/run", f"evaluation={folder}/eval", f"words={folder}/words", f"output={folder}/r.html"
    )
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert "not comparable" in page and "Adaptation helped" not in page
