"""Inspection: its figures are those of the tweets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.data.inspection import inspect, padding_of
from bert_tweets.inspect import stage
from tests.helpers import make_shards


def test_padding_of_batches_that_can_be_counted_by_hand() -> None:
    lengths = np.array([4, 8, 8, 4, 2, 2, 2, 2])
    shares = padding_of(lengths, batch_size=4, max_length=16)
    assert shares["padded to 16"] == pytest.approx(1 - 32 / 128)
    assert shares["padded to the batch's longest"] == pytest.approx(1 - 32 / 40)
    assert shares["grouped by length, then padded"] == pytest.approx(1 - 32 / 40)
    assert shares["packed"] == pytest.approx(1 - 32 / 48)


def test_lengths_and_unknown_words_are_those_of_the_tweets(tmp_path: Path) -> None:
    texts = [f"the mask number {number} {'😷' if number % 4 == 0 else ''}" for number in range(400)]
    words = " ".join(dict.fromkeys(" ".join(texts).replace("😷", "").split()))
    from bert_tweets.corpus.text.tokenizer import train_wordpiece

    train_wordpiece([[words] * 2], 300).save_pretrained(tmp_path / "tokenizer")
    folder = make_shards(tmp_path / "data", texts, tokenizer=str(tmp_path / "tokenizer"), validation_fraction=0.0)
    manifest = Manifest.read(folder)
    seen = inspect(folder, manifest, max_tweets=1000, batch_size=32, samples=3, seed=0)
    tweets = open_split(folder, manifest, "train").gather(np.arange(400))
    assert seen.tweets == 400
    assert (seen.lengths[50], seen.lengths[100]) == (int(np.median(tweets.lengths)), int(tweets.lengths.max()))
    assert seen.unknown_tweets == pytest.approx(0.25)
    assert seen.unknown_tokens == pytest.approx(100 / (len(tweets.input_ids) - 800))
    assert manifest.unknown_tokens == 100
    assert seen.worst_words == [("😷", 100)]
    assert len(seen.samples) == 3 and all(tokens[0] == "[CLS]" for _, tokens in seen.samples)
    assert 0 <= seen.padding["packed"] < seen.padding["padded to 128"]


def test_unknown_tokens_are_reported_as_by_prepare(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"the mask number {number} {'漢' * (number % 3)}" for number in range(60)]
    folder = make_shards(tmp_path, texts, tokenizer=str(tokenizer_folder), validation_fraction=0.5)
    manifest = Manifest.read(folder)
    assert all(manifest.rows(split) for split in SPLITS)
    stage([str(folder), "max_tweets=5"])
    shown = capsys.readouterr().out
    summary, inspected = shown.split("\n[UNK]: ")
    tokens = sum(map(manifest.tokens, SPLITS)) - 2 * 60
    share = f"{manifest.unknown_tokens / tokens:.2%}"
    assert re.search(rf"\[UNK\] tokens +60 +{share} of the tokens", summary) and manifest.unknown_tokens == 60
    assert re.search(r"tweets with \[UNK\] +40 +66.7%", summary)
    words = " ".join(inspected.split())
    assert words.startswith(f"{share} of the tokens of both splits") and "in 66.7% of the tweets; in 5 tr" in words


def test_samples_are_shown_as_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_shards(tmp_path, ["at :100: past [red] :mask: we met"], validation_fraction=0.0, vocabulary_size=100)
    capsys.readouterr()
    stage([str(folder)])
    assert "at :100: past [red] :mask: we met" in capsys.readouterr().out


def test_without_training_tweets_there_is_nothing_to_inspect(tmp_path: Path, tokenizer_folder: Path) -> None:
    folder = make_shards(
        tmp_path, ["only the mask one"], tokenizer=str(tokenizer_folder), validation_fraction=0.5, seed=4
    )
    with pytest.raises(UserError, match="contains no training tweet; prepare more"):
        stage([str(folder)])
