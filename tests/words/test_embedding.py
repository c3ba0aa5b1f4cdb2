"""Embedding: a centroid is the mean of the occurrences that were found, and of no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bert_tweets.config import DataConfig, EmbedConfig
from bert_tweets.data.manifest import Manifest
from bert_tweets.engine.world import this_world
from bert_tweets.words.embedding import embed
from tests.helpers import make_shards
from tests.test_evaluate import export_scratch


def test_occurrences_that_were_cut_off_have_no_part_in_the_centroid(tmp_path: Path) -> None:
    texts = [f"mask {number} mask and so on until the end of it comes the mask" for number in range(40)]
    shards = make_shards(tmp_path / "data", texts, max_length=10)
    model = export_scratch(tmp_path / "model", shards, 0)
    config = EmbedConfig(
        model=[str(model)], words=["mask"], output="-", data=DataConfig(path=str(shards)), device="cpu"
    )
    whole = embed(config, Manifest.read(shards), this_world("cpu"), tmp_path)
    assert whole is not None
    summary = whole["words"]["mask"]
    assert summary["found"] >= 40 and summary["truncated"] >= 40
    rows = pq.read_table(tmp_path / "occurrences.parquet").to_pylist()
    found = np.array([row["vector"] for row in rows if row["status"] == "found" and not row["control"]])
    written = np.array((tmp_path / "vectors.txt").read_text().splitlines()[1].split(" ")[1:], dtype=float)
    assert len(found) == summary["found"]
    assert np.allclose(written, found.mean(axis=0), atol=1e-5)
