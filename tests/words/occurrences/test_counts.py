"""inspect counts the occurrences that embed would find, without a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bert_tweets import inspect
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.words.occurrences.counts import count_occurrences
from bert_tweets.words.occurrences.matching import words_of
from tests.helpers import make_shards
from tests.processes import transformers_imports_torch


def test_each_word_is_counted(tokenizer_folder: Path, tmp_path: Path) -> None:
    texts = ["mask and mask", "a mask 漢", "no", "! " * 20 + "mask", "mask and mask"]
    folder = make_shards(tmp_path, texts, tokenizer=str(tokenizer_folder), max_length=16)
    mask, kanji, nowhere = count_occurrences(folder, Manifest.read(folder), words_of(["mask", "漢", "nowhere"]))
    assert mask.statuses == {"found": 5, "truncated": 1, "unknown": 0} and mask.matches == 6
    assert (mask.subwords, mask.tweets, mask.authors, mask.years) == (1, 3, 3, {"2020": 5})
    assert kanji.statuses == {"found": 0, "truncated": 0, "unknown": 1} and (kanji.subwords, kanji.tweets) == (0, 0)
    assert nowhere.matches == 0 and nowhere.authors is None and nowhere.years == {}
    assert count_occurrences(folder, Manifest.read(folder), words_of(["nowhere"])) == [nowhere]


def test_inspect_shows_them(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect.stage([str(shards), "words=[mask,#metoo]", "lemmas={subject: [virus, mask]}", "patterns={v: vaccin\\w*}"])
    lines = capsys.readouterr().out.splitlines()
    assert "lost to [UNK]" in lines[0] and [line.split()[0] for line in lines[1:5]] == [
        "mask",
        "#metoo",
        "subject",
        "v",
    ]
    assert all("2020: " in line for line in lines[1:3])


def test_words_are_counted_without_torch(shards: Path) -> None:
    code = f"import sys; from bert_tweets import inspect; inspect.stage([{str(shards)!r}, 'words=mask'])"
    code += "; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.splitlines()[-1] == str(transformers_imports_torch())
