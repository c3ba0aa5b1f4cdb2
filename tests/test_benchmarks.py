"""The benchmark of throughput: it counts real tokens alone, on both sides, and leaves rows that others can read."""

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

from benchmarks import gpu_inputs, imbalance, loader, throughput, throughput_references
from benchmarks.throughput_fits import ROUND, largest_that_fits
from benchmarks.throughput_parties import FailedError, summary, together
from benchmarks.throughput_references import PaddingFree, Rows, held, rows_of, torch_varlen
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split

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
@pytest.mark.parametrize("words", [[], ["--help"]])
def test_a_benchmark_tells_how_it_is_called(
    benchmark: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        benchmark.main(words)
    assert not end.value.code and "data.path=shards/" in capsys.readouterr().out


@given(lengths=LENGTHS)
def test_references_count_real_tokens_alone(tiny_tokenizer: Any, lengths: list[int]) -> None:
    rows = rows_with(lengths, tiny_tokenizer)
    collator = DataCollatorForLanguageModeling(tiny_tokenizer, mlm_probability=0.15)
    every = [rows[row] for row in range(len(rows))]

    tokens, tweets, positions = held(collator(every), tiny_tokenizer.cls_token_id)
    assert (int(tokens), int(tweets), positions) == (sum(lengths), len(lengths), len(lengths) * max(lengths))

    batch = PaddingFree(collator, 0)(every)
    tokens, tweets, positions = held(batch, tiny_tokenizer.cls_token_id)
    assert (int(tokens), int(tweets), positions) == (sum(lengths), len(lengths), sum(lengths))
    assert batch["cu_seq_lens_q"].diff().tolist() == lengths
    assert batch["position_ids"][0].tolist() == [place for length in lengths for place in range(length)]
    special = torch.tensor(np.isin(rows.flat, tiny_tokenizer.all_special_ids))
    assert (batch["labels"][0][special] == -100).all()


def test_rows_hold_the_tweets_of_the_shards(shards: Path) -> None:
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    tweets = split.gather(np.arange(len(split)))
    rows, strung = (rows_of(str(shards), concatenated) for concatenated in (False, True))
    assert [len(rows[row]["input_ids"]) for row in range(len(rows))] == tweets.lengths.tolist()
    assert {len(strung[row]["input_ids"]) for row in range(len(strung))} == {manifest.max_length}
    together = [token for row in range(len(strung)) for token in strung[row]["input_ids"]]
    assert together == tweets.input_ids[: len(together)].tolist()
    assert manifest.tokens("train") - len(together) < manifest.max_length


def test_the_padding_free_reference_is_the_padded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_tweet(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, *_: Any) -> Tensor:
        """What FlashAttention computes: [tokens, heads, size]."""
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


def test_turns_are_summed_up_over_ranks() -> None:
    rank = {"seconds": [1.0, 2.0], "tokens": [10, 30], "tweets": [1, 2], "positions": [20, 40], "peak_memory_bytes": 5}
    both = together([rank, rank | {"seconds": [2.0, 1.0], "peak_memory_bytes": 7}])
    assert both["seconds"] == [2.0, 2.0] and both["tokens"] == [20, 60] and both["peak_memory_bytes"] == 7
    found = summary([both])
    assert found["tokens_per_second"] == 20.0 and found["padding_fraction"] == pytest.approx(1 / 3)
    assert found["tokens_per_second_mean"] == 20.0 and found["tokens_per_step"] == 40.0


@given(per_token=st.floats(1e3, 1e6), fixed=st.floats(0, 2e10), curved=st.floats(0, 0.2))
def test_the_search_finds_the_most_that_fits(per_token: float, fixed: float, curved: float) -> None:
    memory = int(1.4e11)

    def needed(tokens: float) -> float:
        return fixed + per_token * tokens * (1 + curved * tokens * per_token / memory)

    def step(tokens: int) -> dict[str, Any]:
        if needed(tokens) > memory:
            raise FailedError("out of memory")
        return {"peak_memory_bytes": int(needed(tokens)), "tokens": [tokens], "positions": [tokens]}

    found, why_not = largest_that_fits(step, 16_384, memory, tries=8)
    assert not why_not
    fits, more = found["tokens_that_fit"], found["tokens_too_many"] or 0
    assert needed(fits) <= memory and (not more or needed(more) > memory)
    assert needed(1.15 * fits + 2 * ROUND) > memory
    assert largest_that_fits(lambda _: step(10**12), 16_384, memory) == ({}, "out of memory")


@pytest.mark.dist
@pytest.mark.soak
def test_a_small_benchmark_ends_with_rows_a_table_and_a_picture(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    gpu_inputs.model(str(shards), str(tmp_path / "model"), "32", "1", "2", "64")
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
    parts = rows["bert_tweets"]["milliseconds_by_part"]
    assert parts.keys() == {"data", "forward", "backward", "optimizer"} and parts["backward"] > 0
    table = (tmp_path / "out" / "throughput.md").read_text()
    assert table in capsys.readouterr().out and "trainer_rows" in table
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    assert (tmp_path / "out" / "throughput.png").stat().st_size > 1000
