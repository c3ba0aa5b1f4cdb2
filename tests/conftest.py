"""What many tests share: a small tokenizer, CSV files, and a folder of shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from bert_tweets.common.logs import log_to_console
from bert_tweets.corpus.text.tokenizer import train_wordpiece
from bert_tweets.model import masked_lm
from tests.analyses import word, words_folder
from tests.helpers import generated_tweets, make_shards, write_csv

# A busy machine is no fault of the code.
settings.register_profile("here", deadline=None)
settings.load_profile("here")
# Models are tiny here, and threads that wait for each other beside another busy process cost far more than they save.
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `--dist loadscope`; of its other values, xdist's own."""
    from tests.scheduling import ModuleScheduling

    return ModuleScheduling(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # of xdist
        from tests.scheduling import in_order

        items[:] = in_order(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True, scope="session")
def printed_log() -> None:
    """The package's log records are printed, as the command line prints them."""
    log_to_console()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real tweets that BERT_TWEETS_REAL_DATA names; beside it lies ../models/minilm-l6."""
    named = os.environ.get("BERT_TWEETS_REAL_DATA")
    if not named:
        pytest.skip("BERT_TWEETS_REAL_DATA names no folder of real tweets")
    return Path(named)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A WordPiece of 240 pieces, in which most words are several."""
    return train_wordpiece([generated_tweets(400)], 240)


@pytest.fixture(scope="session")
def tokenizer_folder(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer, saved."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tweets_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV file: `tweets_csv(rows, header=("text",), name="tweets.csv")`; rows may be plain texts."""

    def write(rows: Iterable[str | Sequence[str]], header: Sequence[str] = ("text",), name: str = "tweets.csv") -> Path:
        return write_csv(tmp_path / name, header, [(row,) if isinstance(row, str) else row for row in rows])

    return write


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards of 400 generated tweets; to read only. `helpers.make_shards` makes others."""
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that torch.compile makes; its code generator, which needs a compiler, is left out."""
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


@pytest.fixture(scope="session")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of embed with the occurrences of 205 ordinary words, the contexts of all of which drift a little."""
    drifts = np.random.default_rng(1).uniform(0, 2, 205)
    rows = [row for number, drift in enumerate(drifts) for row in word(f"c{number}", 60, drift=float(drift))]
    return words_folder(tmp_path_factory.mktemp("controls") / "words", rows)
