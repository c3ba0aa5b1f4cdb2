"""The tokenizer: one fingerprint whatever was done with it, and words that keep their pieces together."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.text import cleaning
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, fingerprint, ids_of, load_tokenizer, train_wordpiece
from tests.helpers import generated_tweets
from tests.processes import transformers_imports_torch


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A RoBERTa-like tokenizer: byte-level BPE."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(generated_tweets(100), trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    roles = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", mask_token="<mask>", **roles)
    folder = tmp_path_factory.mktemp("roberta")
    tokenizer.save_pretrained(folder)
    return load_tokenizer(str(folder))


def words(tokenizer, text: str, max_length: int = 128) -> list[str]:
    """The subwords of each word by word_starts, separated by `|`."""
    encoded = BatchTokenizer(tokenizer, max_length)([text])
    pieces = tokenizer.convert_ids_to_tokens(encoded.input_ids.tolist())
    found: list[str] = []
    for piece, starts in zip(pieces, encoded.word_starts, strict=True):
        if starts:
            found.append(piece)
        else:
            found[-1] += "|" + piece
    return found


def test_the_fingerprint_survives_saving_padding_and_truncation(tiny_tokenizer, tmp_path):
    before = fingerprint(tiny_tokenizer)
    tiny_tokenizer.save_pretrained(tmp_path / "one")
    loaded = load_tokenizer(str(tmp_path / "one"))
    assert fingerprint(loaded) == before
    loaded(["a", "a longer text"], padding=True, truncation=True, max_length=4)
    assert fingerprint(loaded) == before
    loaded.save_pretrained(tmp_path / "two")
    assert fingerprint(load_tokenizer(str(tmp_path / "two"))) == before


def test_another_tokenizer_has_another_fingerprint(tiny_tokenizer):
    others = [
        train_wordpiece([generated_tweets(400)], 241),
        train_wordpiece([generated_tweets(400)], 240, lowercase=False),
    ]
    assert len({fingerprint(tokenizer) for tokenizer in [tiny_tokenizer, *others]}) == 3


def test_training_is_the_same_every_time(tiny_tokenizer):
    batches = (generated_tweets(400)[first : first + 7] for first in range(0, 400, 7))
    assert fingerprint(train_wordpiece(batches, 240)) == fingerprint(tiny_tokenizer)
    assert len(tiny_tokenizer) == 240


def test_a_trained_tokenizer_is_berts(tiny_tokenizer):
    assert tiny_tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert ids_of(tiny_tokenizer)["special_ids"] == [0, 1, 2, 3, 4]
    pieces = words(tiny_tokenizer, "The unbelievable masks")
    assert pieces[0] == "[CLS]" and pieces[-1] == "[SEP]" and len(pieces) == 5
    assert "[UNK]" not in "".join(pieces)


def test_special_tokens_written_in_a_tweet_are_text(tiny_tokenizer):
    ids = BatchTokenizer(tiny_tokenizer, 64)(["no [MASK] and [SEP] here"]).input_ids.tolist()
    assert [number for number in ids if number in (2, 3, 4)] == [2, 3]


def test_encoding_does_not_change_the_tokenizer(tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.no_truncation()
    before = tiny_tokenizer.backend_tokenizer.to_str()
    BatchTokenizer(tiny_tokenizer, 4)(["some text"] * 3)
    assert tiny_tokenizer.backend_tokenizer.to_str() == before


def test_longer_texts_are_cut_counted_and_keep_their_special_tokens(tiny_tokenizer):
    encoded = BatchTokenizer(tiny_tokenizer, 8)(["x", "the mask " * 50, "a a a a a a"])
    assert encoded.lengths.tolist() == [3, 8, 8]
    assert encoded.truncated.tolist() == [False, True, False]
    ends = np.cumsum(encoded.lengths)
    assert encoded.input_ids[ends - 1].tolist() == [3, 3, 3]
    assert encoded.input_ids[ends - encoded.lengths].tolist() == [2, 2, 2]


def test_an_emoji_glued_to_a_word_never_swallows_it(tiny_tokenizer):
    cleaned = cleaning.clean(pa.array(["the virus😷 protects👾everyone"]), "tweets")[0].as_py()
    found = words(tiny_tokenizer, cleaned)
    for word in ("virus", "protects", "everyone"):
        assert word in [piece.replace("|##", "") for piece in found]
    assert found.count("[UNK]") <= 2
    assert "[UNK]" in words(tiny_tokenizer, "the virus👾")


def test_words_of_a_byte_level_tokenizer(byte_level):
    found = words(byte_level, "The mask, photographers 😷")
    assert found[0] == "<s>" and found[-1] == "</s>"
    joined = [word.replace("|", "").replace("Ġ", " ") for word in found[1:-1]]
    assert joined[:4] == ["The", " mask", ",", " photographers"]
    assert len(joined) == 5


def test_each_special_token_is_a_word_of_its_own(byte_level):
    encoded = BatchTokenizer(byte_level, 16)(["", "", "photographers photographers"])
    assert encoded.word_starts[:5].all() and encoded.word_starts[-1]
    assert not encoded.word_starts.all(), "a word of several subwords"


# Cleaned texts contain no special tokens.
@given(st.lists(st.text(max_size=30).filter(lambda text: "[" not in text), min_size=1, max_size=5))
def test_flat_arrays_are_what_the_tokenizer_says_of_each_text(tiny_tokenizer, texts):
    encoded = BatchTokenizer(tiny_tokenizer, 16)(texts)
    plain = [tiny_tokenizer(text, truncation=True, max_length=16) for text in texts]
    assert encoded.lengths.tolist() == [len(one.input_ids) for one in plain]
    assert encoded.input_ids.tolist() == [number for one in plain for number in one.input_ids]
    starts = []
    for one in plain:
        ids = one.word_ids()
        starts += [word is None or word != before for word, before in zip(ids, [None, *ids], strict=False)]
    assert encoded.word_starts.tolist() == starts
    assert encoded.input_ids.dtype == np.int32 and encoded.lengths.dtype == np.int64


def test_a_name_that_cannot_be_loaded_is_reported_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"\./nothing: no such folder"):
        load_tokenizer("./nothing")
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no tokenizer that can be loaded") as error:
        load_tokenizer(str(tmp_path / "empty"))
    assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UserError, match="the hub is not reachable"):
        load_tokenizer("somebody/some-tokenizer-that-nobody-has")
    with pytest.raises(UserError, match="the hub is not reachable"):
        load_tokenizer("somebody/some-tokenizer-that-nobody-has", local_only=True)
    assert time.monotonic() - started < 20


def test_a_tokenizer_without_a_mask_token_is_rejected(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["mask_token"]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    with pytest.raises(UserError, match="has no mask token"):
        load_tokenizer(str(tmp_path))


def test_a_slow_tokenizer_is_rejected(tmp_path):
    import transformers

    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    transformers.CanineTokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is not a fast tokenizer"):
        load_tokenizer(str(tmp_path))


def test_berts_own_class_is_the_one_that_auto_picks(tmp_path):
    """Without torch, which takes longer to import than all else that begins a preparation."""
    folder = tmp_path / "tokenizer"
    train_wordpiece([["some words", "more words"]], 100).save_pretrained(folder)
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(folder)
    code = (
        "import sys; from bert_tweets.corpus.text.tokenizer import fingerprint, load_tokenizer; "
        f"found = load_tokenizer({str(folder)!r}); "
        "print(type(found).__name__, fingerprint(found), 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == [type(auto).__name__, fingerprint(auto), str(transformers_imports_torch())]
