"""The files of configs/: loaded, validated, and every departure from a default explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bert_tweets.config import TrainConfig, parser
from bert_tweets.data.layout import Layout, fixed_shape
from bert_tweets.data.permutation import Stream

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
NEEDED = {"data.path", "model.name", "output"}


def test_the_files_are_there() -> None:
    assert {file.stem for file in FILES} >= {"small_corpus", "bert_base", "bert_base_8gpu", "bert_large_64gpu"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_valid_and_explains_itself(file: Path) -> None:
    config = parser.load(TrainConfig, ["--config", str(file)])
    commented = [line.split(":")[0].strip() for line in file.read_text().splitlines() if "# defaults to" in line]
    changed = [word.split("=")[0] for word in parser.overrides(config)]
    for key in changed:
        if key not in NEEDED:
            assert key.rpartition(".")[2] in commented, f"{file.name}: why {key}?"
    assert len(commented) == len([key for key in changed if key not in NEEDED])


class Drawn:
    """Ten million tweets, whose lengths are drawn from a sample."""

    def __init__(self, sample: npt.NDArray[np.int64]):
        self.sample = sample

    def lengths_of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self.sample[indices % len(self.sample)]


@pytest.mark.parametrize(
    ("name", "ranks"), [("small_corpus", 1), ("bert_base", 1), ("bert_base_8gpu", 8), ("bert_large_64gpu", 64)]
)
def test_a_step_fills_its_micro_batches(name: str, ranks: int) -> None:
    """With tweets of 26 tokens on average, as BERT's tokenizer cuts everyday English ones."""
    config = parser.load(TrainConfig, ["--config", f"configs/{name}.yaml"])
    drawn = np.random.default_rng(0).gamma(3.0, 26 / 3, 100_000).round().clip(3, 128).astype(int)
    batch, tokens = config.batch_size, config.tokens_per_device
    stream = Stream(10**7, 0, batch, 10**7)
    shape = fixed_shape(128, tokens, stream, Drawn(drawn), ranks, 0.15)
    micro_batches, _ = Layout(128, tokens, 0, shape).split(round(batch / ranks * drawn.mean() / 128 / 0.99))
    assert 0.7 < batch / ranks * drawn.mean() / (micro_batches * tokens) < 1
