"""Tokenizers: load, fingerprint, encode texts to flat token arrays with word boundaries, train a small one."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common import hub
from bert_tweets.common.arrays import Bools, Ints, ranges
from bert_tweets.common.errors import UserError

from .cached_wordpiece import WordEncoder, can_encode

_TEXTS_AT_ONCE = 1024
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def load_tokenizer(name: str, revision: str = "main", local_only: bool = False) -> Any:
    """Load a fast tokenizer of `transformers`.

    Args:
        name: folder, or name on the hub (see `hub.split_revision`); a name that looks like a path is never looked up
            on the hub.
        revision: revision of a hub tokenizer.
        local_only: only use files on this machine.

    Raises:
        UserError: the tokenizer cannot be loaded, contains code, is not fast, or lacks a special token that masking
            needs.
    """
    if not name:
        raise UserError("the name of the tokenizer is empty; give a folder or a hub name")
    folder = Path(name).expanduser()
    is_path = hub.is_local(name)
    if is_path and not folder.is_dir():
        raise UserError(
            f"{name}: no such folder; give the folder of a tokenizer, or a hub name such as bert-base-uncased"
        )
    if is_path:
        hub.require_no_code(folder, name)
    try:
        tokenizer = _from_folder(folder) if is_path else _from_hub(name, revision, local_only)
    except UserError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, TypeError and bare Exceptions
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: contains no tokenizer that can be loaded ({reason})") from None
    _require_usable(tokenizer, name)
    return tokenizer


def _from_folder(folder: Path) -> Any:
    """Load as `AutoTokenizer` would. BERT's class is found without it: importing it takes two seconds (torch)."""
    declared = hub.json_object(folder / "tokenizer_config.json").get("tokenizer_class")
    model_type = hub.json_object(folder / "config.json").get("model_type")
    if declared in ("BertTokenizer", "BertTokenizerFast") and model_type in ("bert", None):
        from transformers import BertTokenizerFast as Tokenizer
    else:
        from transformers import AutoTokenizer as Tokenizer
    return Tokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _from_hub(name: str, revision: str, local_only: bool) -> Any:
    """Load from the cache, else from the hub; an unreachable hub is reported at once, without its retries."""
    from transformers import AutoTokenizer

    place, revision = hub.split_revision(name, revision)
    arguments = {"revision": revision, "trust_remote_code": False}
    try:
        return AutoTokenizer.from_pretrained(place, local_files_only=True, **arguments)
    except (OSError, ValueError):
        if local_only or not hub.in_reach():
            raise UserError(
                f"{name}: no such folder, not among the downloaded tokenizers, and the hub is not reachable; "
                "give the folder of a tokenizer"
            ) from None
    return AutoTokenizer.from_pretrained(place, **arguments)


def _require_usable(tokenizer: Any, name: str) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"{name}: is not a fast tokenizer; convert it to a tokenizer.json first")
    for role in ("mask", "pad", "unk"):
        if getattr(tokenizer, f"{role}_token_id") is None:
            raise UserError(f"{name}: has no {role} token; masked language modelling needs a BERT-like tokenizer")
    ends = tokenizer("a")["input_ids"]
    if len(ends) < 2 or {ends[0], ends[-1]} - set(tokenizer.all_special_ids):
        raise UserError(f"{name}: does not put a special token at the start and end of a text, as BERT and RoBERTa do")
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        raise UserError(f"{name}: has no ordinary token in its vocabulary; is the folder complete?")


def fingerprint(tokenizer: Any) -> str:
    """sha256 (hex) of everything that determines the ids of a text: vocabulary, merges, normaliser, pre- and
    post-processor, added tokens. Settings of padding and truncation are not part of it.
    """
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("padding", "truncation"):
        parts.pop(state, None)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Encoded:
    """Tokens of several texts, concatenated.

    Attributes:
        lengths: int64 [texts], number of tokens of each text, including special ones.
        input_ids: int32 [tokens].
        word_starts: bool [tokens], whether a token is the first of a word; each special token is a word of its own.
        truncated: bool [texts], whether a text was longer than max_length.
    """

    lengths: Ints
    input_ids: npt.NDArray[np.int32]
    word_starts: Bools
    truncated: Bools


def save(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer of `transformers`; a full disk raises OSError, as it does everywhere else."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the library raises no other type
        number = re.search(r"\(os error ([0-9]+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error), str(folder)) from None


def private_backend(tokenizer: Any) -> Any:
    """Copy the Rust part of a tokenizer, or the Rust tokenizer itself, without padding and truncation.

    `[SEP]` or `<mask>` in a tweet is read as plain text.
    """
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(getattr(tokenizer, "backend_tokenizer", tokenizer).to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return backend


class BatchTokenizer:
    """Encode texts as shards contain them: truncated to `max_length`, with special tokens.

    Args:
        tokenizer: fast tokenizer of `transformers`, or its Rust part.
        max_length: maximum length of a text in tokens, including special ones.
    """

    def __init__(self, tokenizer: Any, max_length: int):
        self._backend = private_backend(tokenizer)
        self._max_length = max_length
        self._words = WordEncoder(self._backend) if can_encode(self._backend) else None
        self._ends = self._backend.encode("").ids
        if self._words is None:
            self._backend.enable_truncation(max_length)

    @staticmethod
    def from_file(path: Path, max_length: int) -> BatchTokenizer:
        """Make an encoder from a tokenizer.json, without importing `transformers`."""
        from tokenizers import Tokenizer

        return BatchTokenizer(Tokenizer.from_file(str(path)), max_length)

    def __call__(self, texts: pa.Array | list[str]) -> Encoded:
        """Encode texts, string [texts], without nulls."""
        column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        if self._words is not None:
            return self._with_ends(*self._words(column), self._words.begins_word)
        parts = [
            self._by_text(column.slice(first, _TEXTS_AT_ONCE).to_pylist())
            for first in range(0, max(1, len(column)), _TEXTS_AT_ONCE)
        ]
        return Encoded(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Encoded)))

    def _with_ends(self, lengths: Ints, ids: npt.NDArray[np.int32], begins_word: Bools) -> Encoded:
        """Truncate long texts, and put the special tokens around each text."""
        room = self._max_length - len(self._ends)
        truncated = lengths > room
        kept = np.minimum(lengths, room)
        if truncated.any():
            ids = ids[ranges(np.cumsum(lengths) - lengths, kept)]
        ends = np.cumsum(kept + 2)
        input_ids = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
        inside = np.ones(len(input_ids), np.bool_)
        first, last = ends - kept - 2, ends - 1
        inside[first] = inside[last] = False
        input_ids[inside] = ids
        input_ids[first], input_ids[last] = self._ends
        return Encoded(kept + 2, input_ids, begins_word[input_ids], truncated)

    def _by_text(self, texts: list[str]) -> Encoded:
        # Not encode_batch_fast: its encodings have no word ids.
        encodings = self._backend.encode_batch(texts)
        ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        tokens = int(lengths.sum())
        input_ids = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=tokens)
        truncated = np.zeros(len(ids), dtype=np.bool_)
        full = np.flatnonzero(lengths == self._max_length)
        truncated[full] = [bool(encodings[row].overflowing) for row in full.tolist()]
        return Encoded(lengths, input_ids, _word_starts(encodings, lengths, tokens), truncated)


def _word_starts(encodings: list[Any], lengths: Ints, tokens: int) -> Bools:
    """Whether each token is the first of a word: where the word id or the text changes; bool [tokens]."""
    # A special token has the word id None, here -1; it is always the first of a word.
    ids = chain.from_iterable(encoding.word_ids for encoding in encodings)
    words = np.fromiter((-1 if word is None else word for word in ids), dtype=np.int64, count=tokens)
    word_starts = words < 0
    word_starts[1:] |= words[1:] != words[:-1]
    ends = np.cumsum(lengths)
    word_starts[(ends - lengths)[lengths > 0]] = True
    return word_starts


def train_wordpiece(texts: Iterable[list[str]], vocabulary_size: int, lowercase: bool = True) -> Any:
    """Train a BERT tokenizer: the same texts give the same vocabulary, byte for byte.

    The library's own WordPiece trainer numbers its subwords in the order of a hash map, so that two runs differ. Here
    the alphabet, with and without `##`, gets its ids first, which makes the merges deterministic.

    Args:
        texts: batches of cleaned tweets.
        vocabulary_size: maximum number of tokens, including special ones.
        lowercase: whether to remove case and accents.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for batch in texts:
        for text in batch:
            counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    frequencies: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            frequencies[character] += count
    ranked = sorted(frequencies, key=lambda character: (-frequencies[character], character))
    alphabet = set(ranked[: (vocabulary_size - len(SPECIAL)) // 4])
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    # A word with a character outside the alphabet would only distort the counts of its subwords.
    writable = {word: count for word, count in counts.items() if alphabet.issuperset(word)}
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    characters = sorted(alphabet)
    fixed = SPECIAL + characters + [f"##{character}" for character in characters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(vocabulary_size, len(fixed)), special_tokens=fixed, show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(_repeated(writable), trainer)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return _bert_tokenizer([token for token, _ in vocabulary], lowercase)


def _repeated(counts: dict[str, int]) -> Iterator[str]:
    """Repeat each word as often as it occurs, in lines of bounded length."""
    for word, count in counts.items():
        for repeated in range(0, count, 1000):
            yield " ".join([word] * min(count - repeated, 1000))


def _bert_tokenizer(vocabulary: list[str], lowercase: bool) -> Any:
    """Make a BERT tokenizer with this vocabulary, by saving and loading it, so that it equals its saved copy."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, "model_max_length": 512}
    settings |= {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
    with tempfile.TemporaryDirectory() as folder:
        backend.save(str(Path(folder) / "tokenizer.json"))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        loaded = load_tokenizer(folder)
    loaded.name_or_path = ""
    return loaded


class TokenizerIds(TypedDict):
    """The part of a manifest that describes its tokenizer, see `Manifest`."""

    vocabulary_size: int
    special_ids: list[int]
    pad_id: int
    mask_id: int
    unknown_id: int


def ids_of(tokenizer: Any) -> TokenizerIds:
    """Vocabulary size and special ids, ascending and including [UNK], of a fast tokenizer of `transformers`."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {
        "vocabulary_size": len(tokenizer),
        "special_ids": sorted(added | set(tokenizer.all_special_ids)),
        "pad_id": tokenizer.pad_token_id,
        "mask_id": tokenizer.mask_token_id,
        "unknown_id": tokenizer.unk_token_id,
    }
