"""Benchmarks: both sides count real tokens only, and rows of results have the documented columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AttentionInterface, BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling

from benchmarks import embedding, gpu_inputs, imbalance, loader, throughput, throughput_references
from benchmarks.common import parse_settings
from benchmarks.throughput_fits import ROUND, largest_that_fits
from benchmarks.throughput_references import PaddingFree, Rows, rows_of, token_counts, torch_varlen
from benchmarks.worker_group import FailedError, merge_ranks, summarize
from bert_tweets.config import EmbedConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.distributed.world import world_from_environment

SCHEMA = {
    *("who", "device", "ranks", "model", "precision", "engine", "attention", "optimizer_included"),
    *("tokens_per_second", "mfu", "padding_fraction", "peak_memory_bytes", "versions", "commit", "command"),
}
LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=12)


def rows_with(lengths: list[int], tokenizer: Any) -> Rows:
    """Tweets of these lengths, special tokens included."""
    ordinary = np.arange(20, 60)
    flat = np.concatenate(
        [[tokenizer.cls_token_id, *np.resize(ordinary, length - 2), tokenizer.sep_token_id] for length in lengths]
    )
    return Rows(flat.astype(np.int32), np.cumsum(lengths), tokenizer.all_special_ids)


@pytest.mark.parametrize("benchmark", [imbalance, loader])
@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_a_benchmark_prints_its_help(benchmark: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        benchmark.main(arguments)
    assert not end.value.code and "data.path=shards/" in capsys.readouterr().out


def test_an_unknown_setting_is_a_one_line_error() -> None:
    assert parse_settings(["steps=3"], steps=1, rate=0.5) == {"steps": 3, "rate": 0.5}
    for argument, message in (("stesp=3", "unknown: stesp; known: steps"), ("steps", "expected key=value, got steps")):
        with pytest.raises(SystemExit, match=message):
            parse_settings([argument], steps=1)


@given(lengths=LENGTHS)
def test_references_count_real_tokens_only(tiny_tokenizer: Any, lengths: list[int]) -> None:
    rows = rows_with(lengths, tiny_tokenizer)
    collator = DataCollatorForLanguageModeling(tiny_tokenizer, mlm_probability=0.15)
    batch = [rows[row] for row in range(len(rows))]

    tokens, tweets, positions = token_counts(collator(batch), tiny_tokenizer.cls_token_id)
    assert (int(tokens), int(tweets), positions) == (sum(lengths), len(lengths), len(lengths) * max(lengths))

    packed = PaddingFree(collator, 0)(batch)
    tokens, tweets, positions = token_counts(packed, tiny_tokenizer.cls_token_id)
    assert (int(tokens), int(tweets), positions) == (sum(lengths), len(lengths), sum(lengths))
    assert packed["cu_seq_lens_q"].diff().tolist() == lengths
    assert packed["position_ids"][0].tolist() == [position for length in lengths for position in range(length)]
    special = torch.tensor(np.isin(rows.flat, tiny_tokenizer.all_special_ids))
    assert (packed["labels"][0][special] == -100).all()


def test_reference_rows_are_the_tweets_of_the_shards(shards: Path) -> None:
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    tweets = split.gather(np.arange(len(split)))
    rows, long_rows = (rows_of(str(shards), concatenate) for concatenate in (False, True))
    assert [len(rows[row]["input_ids"]) for row in range(len(rows))] == tweets.lengths.tolist()
    assert {len(long_rows[row]["input_ids"]) for row in range(len(long_rows))} == {manifest.max_length}
    concatenated = [token for row in range(len(long_rows)) for token in long_rows[row]["input_ids"]]
    assert concatenated == tweets.input_ids[: len(concatenated)].tolist()
    assert manifest.tokens("train") - len(concatenated) < manifest.max_length


def test_the_padding_free_reference_equals_the_padded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_tweet(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, *_: Any) -> Tensor:
        """The result of FlashAttention: [tokens, heads, size]."""
        sizes = bounds.diff().tolist()
        parts = zip(*(part.transpose(0, 1).split(sizes, 1) for part in (query, key, value)), strict=True)
        attend = torch.nn.functional.scaled_dot_product_attention
        return torch.cat([attend(*part) for part in parts], 1).transpose(0, 1)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", by_tweet)
    AttentionInterface.register(throughput_references.TORCH_VARLEN, torch_varlen)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    padded = BertForMaskedLM(BertConfig(vocab_size=99, **sizes)).eval()
    free = BertForMaskedLM(
        BertConfig(vocab_size=99, attn_implementation=throughput_references.TORCH_VARLEN, **sizes)
    ).eval()
    free.load_state_dict(padded.state_dict())

    class NoMasks:
        def torch_mask_tokens(self, ids: Tensor, special_tokens_mask: Tensor) -> tuple[Tensor, Tensor]:
            return ids, ids

    tweets = [torch.randint(1, 99, (length,)) for length in (5, 9, 2)]
    rows = [{"input_ids": tweet.tolist(), "special_tokens_mask": [0] * len(tweet)} for tweet in tweets]
    batch = PaddingFree(NoMasks(), 0)(rows)  # type: ignore[arg-type]
    expected = torch.cat([padded(input_ids=tweet[None]).logits[0] for tweet in tweets])
    torch.testing.assert_close(free(**batch).logits[0], expected, atol=1e-5, rtol=1e-5)


def test_turns_are_merged_over_ranks() -> None:
    rank = {"seconds": [1.0, 2.0], "tokens": [10, 30], "tweets": [1, 2], "positions": [20, 40], "peak_memory_bytes": 5}
    both = merge_ranks([rank, rank | {"seconds": [2.0, 1.0], "peak_memory_bytes": 7}])
    assert both["seconds"] == [2.0, 2.0] and both["tokens"] == [20, 60] and both["peak_memory_bytes"] == 7
    columns = summarize([both])
    assert columns["tokens_per_second"] == 20.0 and columns["padding_fraction"] == pytest.approx(1 / 3)
    assert columns["tokens_per_second_mean"] == 20.0 and columns["tokens_per_step"] == 40.0


@given(per_token=st.floats(1e3, 1e6), fixed=st.floats(0, 2e10), curved=st.floats(0, 0.2))
def test_the_search_finds_the_largest_size_that_fits(per_token: float, fixed: float, curved: float) -> None:
    memory = int(1.4e11)

    def needed(tokens: float) -> float:
        return fixed + per_token * tokens * (1 + curved * tokens * per_token / memory)

    def step(tokens: int) -> dict[str, Any]:
        if needed(tokens) > memory:
            raise FailedError("out of memory")
        return {"peak_memory_bytes": int(needed(tokens)), "tokens": [tokens], "positions": [tokens]}

    columns, reason = largest_that_fits(step, 16_384, memory, tries=8)
    assert not reason
    fits, more = columns["tokens_that_fit"], columns["tokens_that_do_not_fit"] or 0
    assert needed(fits) <= memory and (not more or needed(more) > memory)
    assert needed(1.15 * fits + 2 * ROUND) > memory
    assert largest_that_fits(lambda _: step(10**12), 16_384, memory) == ({}, "out of memory")


@pytest.mark.slow
def test_the_speed_of_embed_is_measured_against_the_forward_pass(shards: Path, tmp_path: Path) -> None:
    gpu_inputs.save_model(str(shards), str(tmp_path / "model"), "32", "1", "2", "64")
    paths = [f"data.path={shards}", f"model={tmp_path}/model", "output=-"]
    settings = ["words=mask,virus", "max_occurrences=10", "background_tweets=40", "background_minimum=1"]
    config = parser.load(EmbedConfig, [*paths, *settings, "controls=0", "substitutes=0", "device=cpu"])
    measured = embedding.measure(config, world_from_environment("cpu"), turns=1)
    rows = embedding.rows_of(config, measured, [])
    assert [row["who"] for row in rows] == list(embedding.VARIANTS)
    assert all(row["tokens_per_second"] > 0 for row in rows) and rows[0]["ratio_to_forward"] > 0


@pytest.mark.dist
@pytest.mark.soak
def test_a_small_throughput_benchmark_writes_rows_table_and_plot(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    gpu_inputs.save_model(str(shards), str(tmp_path / "model"), "32", "1", "2", "64")
    small = ("seconds=0", "turns=1", "precision=fp32", "tokens_per_device=512", "batches=4", "device=cpu")
    only = ("sweep=false", "fits=false", "references=trainer_rows,flash_padding_free")
    paths = (f"shards={shards}", f"model={tmp_path}/model", f"output={tmp_path}/out/throughput")
    throughput.main([*paths, *small, *only])

    rows = {row["who"]: row for row in json.loads((tmp_path / "out" / "throughput.json").read_text())}
    assert set(rows) == {"bert_tweets", "trainer_rows", "flash_padding_free"}
    assert all(row.keys() >= SCHEMA for row in rows.values())
    assert "GPU" in rows.pop("flash_padding_free")["skipped"]
    for row in rows.values():
        assert row["tokens_per_second"] > 0 and row["mfu"] > 0 and 0 <= row["padding_fraction"] < 1
        assert row["peak_memory_bytes"] > 0 and row["optimizer_included"] and str(tmp_path) not in row["command"]
    phases = rows["bert_tweets"]["milliseconds_by_phase"]
    assert phases.keys() == {"data", "forward", "backward", "optimizer"} and phases["backward"] > 0
    table = (tmp_path / "out" / "throughput.md").read_text()
    assert table in capsys.readouterr().out and "trainer_rows" in table
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    assert (tmp_path / "out" / "throughput.png").stat().st_size > 1000
