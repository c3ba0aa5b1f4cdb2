"""The compiled step: the same loss and gradients, in one graph, and no compiling once shapes have been seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bert_tweets.data.batches import MicroBatch
from bert_tweets.model import masked_lm
from bert_tweets.model.masked_lm import PackedMaskedLM

from .test_masked_lm import capacity
from .tiny import masking_of, packed, packed_model, tweets_of

LENGTHS = [20, 9, 14, 30, 5]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch.compile without its code generator, which wants a compiler: what it compiles, it leaves here."""
    seen: list[Any] = []
    compile_as_asked = torch.compile

    def keep(graph: Any, inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    def compile_here(function: Any, **options: Any) -> Any:
        return compile_as_asked(function, backend=keep, fullgraph=True, **options)

    torch._dynamo.reset()
    monkeypatch.setattr(masked_lm.torch, "compile", compile_here)
    return seen


def batch_of(seed: int, places: int = 16) -> MicroBatch:
    return capacity(packed(tweets_of(LENGTHS, seed)), places)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_it_is_one_graph_and_new_tweets_compile_nothing(family: str, graphs: list[Any]) -> None:
    plain, compiled = PackedMaskedLM(packed_model(family)), PackedMaskedLM(packed_model(family), compiled=True)
    for seed in range(4):
        losses = [module(batch_of(seed), masking_of()) for module in (plain, compiled)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
    assert len(graphs) == 1
    for mine, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    compiled(batch_of(0, places=24), masking_of())
    compiled(batch_of(1, places=16), masking_of())
    assert len(graphs) == 2


def test_as_many_shapes_as_a_run_meets_are_all_compiled(graphs: list[Any]) -> None:
    """torch itself leaves off behind eight."""
    compiled = PackedMaskedLM(packed_model("bert"), compiled=True)
    for places in range(16, 26):
        compiled(batch_of(0, places), masking_of())
    assert len(graphs) == 10
