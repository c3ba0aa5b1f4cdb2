"""Added emoji: the most frequent ones, each a word and a token of its own, that changes nothing around it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import RobertaTokenizer

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.text import added_tokens, cleaning, recipe
from bert_tweets.corpus.text.added_tokens import SETTING, add_emoji, add_tokens, emoji_name, recipe_of
from bert_tweets.corpus.text.recipe import Recipe
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, fingerprint, ids_of, load_tokenizer, train_wordpiece
from tests.helpers import generated_tweets

PLAIN = [text.encode("ascii", "ignore").decode() for text in generated_tweets(300)]
EMOJI = ["😂", "❤️", "❤", "👩🏽‍💻", "🇺🇸", "1️⃣", "👩", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🫠", "☺️", "🏳️‍🌈", "🏴"]
WORDS = ["the", "mask,", "virus:", "12", "everyone!", "a"]
FAMILIES = ["uncased", "cased", "byte-level"]


def byte_level(texts: list[str]) -> Any:
    """A small tokenizer of RoBERTa's own class."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tokenizer of each family, that knows no emoji, as its saved copy loads."""
    made = {
        "uncased": train_wordpiece([PLAIN], 240),
        "cased": train_wordpiece([PLAIN], 240, lowercase=False),
        "byte-level": byte_level(PLAIN),
    }
    folder = tmp_path_factory.mktemp("stock")
    for family, tokenizer in made.items():
        tokenizer.save_pretrained(folder / family)
    return {family: load_tokenizer(str(folder / family)) for family in made}


@pytest.fixture(scope="module")
def extended(stock: dict[str, Any]) -> dict[str, Any]:
    """The same with all of EMOJI."""
    texts = [pa.array([" ".join(EMOJI)])]
    return {family: add_emoji(tokenizer, texts, 100) for family, tokenizer in stock.items()}


def added(tokenizer: Any) -> list[str]:
    return [token.token for token in recipe_of("", "", tokenizer).added]


def words(tokenizer: Any, text: str) -> list[list[str]]:
    """The pieces of each word but for the special tokens around, as shards hold them."""
    encoded = BatchTokenizer(tokenizer, 512)([text])
    pieces = tokenizer.convert_ids_to_tokens(encoded.input_ids.tolist())
    found: list[list[str]] = []
    for piece, starts in zip(pieces, encoded.word_starts, strict=True):
        found += [[piece]] if starts else []
        if not starts:
            found[-1].append(piece)
    return found[1:-1]


def test_the_most_frequent_become_tokens_and_ties_go_by_code_point(stock: dict[str, Any]) -> None:
    texts = [pa.array(["b 👾 👾 👾 🤖 🤖", "👻👻 a 😷 💀", "none"]), pa.array([], pa.string()), pa.array(["💀 &"])]
    for tokenizer in stock.values():
        assert added(add_emoji(tokenizer, texts, 4)) == ["👾", "👻", "💀", "🤖"]
        assert added(add_emoji(tokenizer, texts, 100)) == ["👾", "👻", "💀", "🤖", "😷"]
        assert add_emoji(tokenizer, [pa.array(["no emoji"])], 100) is tokenizer


@given(
    st.lists(st.lists(st.sampled_from(["😂", "👾", "👻", "👩‍💻", "🇺🇸", "word", "7"]), max_size=8), max_size=12),
    st.data(),
)
def test_the_choice_equals_a_plain_count_however_the_texts_are_divided(
    stock: dict[str, Any], tweets: list[list[str]], data: st.DataObject
) -> None:
    glue = data.draw(st.sampled_from([" ", "x"]))
    cut = data.draw(st.integers(0, len(tweets)))
    texts = pa.array([glue.join(tweet) for tweet in tweets], pa.string())
    counts = Counter(part for tweet in tweets for part in tweet if not part.isascii())
    expected = sorted(counts, key=lambda emoji: (-counts[emoji], emoji))[:3]
    found = add_emoji(stock["uncased"], [texts.slice(0, cut), texts.slice(cut)], 3)
    assert added(found) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_added_tokens_are_ordinary_ones_after_the_last_id(family: str, stock: Any, extended: Any) -> None:
    before, after = stock[family], extended[family]
    tokens = added(after)
    assert after.convert_tokens_to_ids(tokens) == list(range(len(before), len(after)))
    assert ids_of(after)["special_ids"] == ids_of(before)["special_ids"]
    assert {token: after.get_vocab()[token] for token in before.get_vocab()} == before.get_vocab()
    assert SETTING not in before.init_kwargs and fingerprint(before) != fingerprint(after)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_copy_is_the_same_tokenizer_with_the_same_recipe(family: str, extended: Any, tmp_path: Path) -> None:
    one = extended[family]
    for round_trip in ("one", "two"):
        one.save_pretrained(tmp_path / round_trip)
        one = load_tokenizer(str(tmp_path / round_trip))
        assert fingerprint(one) == fingerprint(extended[family])
        assert recipe_of("tweets", "r", one) == recipe_of("tweets", "r", extended[family])


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_an_emoji_is_a_word_of_its_own_and_the_words_around_are_what_they_were(
    stock: Any, extended: Any, family: str, data: st.DataObject
) -> None:
    parts = data.draw(st.lists(st.sampled_from([*EMOJI, *WORDS]), max_size=12))
    text = cleaning.clean(pa.array(["x " + " ".join(parts)]), "tweets")[0].as_py()
    plain = "x " + " ".join(part for part in parts if part not in EMOJI)
    tokens = set(added(extended[family]))
    found = words(extended[family], text)
    assert [word for word in found if not tokens.intersection(word)] == words(stock[family], plain.rstrip())
    assert all(len(word) == 1 for word in found if tokens.intersection(word))
    assert len([word for word in found if tokens.intersection(word)]) == sum(part in EMOJI for part in parts)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x1FFF), max_size=40))
def test_text_without_emoji_keeps_its_tokens(stock: Any, extended: Any, family: str, text: str) -> None:
    assert (
        BatchTokenizer(extended[family], 64)([text]).input_ids.tolist()
        == BatchTokenizer(stock[family], 64)([text]).input_ids.tolist()
    )


def test_both_forms_of_an_emoji_reach_one_token_if_selectors_are_dropped(stock: Any) -> None:
    for written in ("❤️ ❤️ 👍", "❤ 👍 ❤", "❤ ❤️ 👍"):
        tokenizer = add_emoji(stock["uncased"], [pa.array([written])], 1)
        assert added(tokenizer) == ["❤"]
        assert words(tokenizer, "the ❤️") == words(tokenizer, "the ❤") == words(tokenizer, "the ❤︎")


@pytest.mark.parametrize("family", ["cased", "byte-level"])
def test_both_forms_of_an_emoji_are_tokens_if_selectors_are_kept(family: str, stock: Any) -> None:
    tokenizer = add_emoji(stock[family], [pa.array(["❤️ ❤️ ❤️ 👍 👍 ❤︎"])], 1)
    assert added(tokenizer) == ["❤", "❤️"]
    assert words(tokenizer, "x ❤ ❤️")[1:] == [["❤"], ["❤️"]]
    pieces = [token.pieces for token in recipe_of("", "", tokenizer).added]
    assert pieces[0] == pieces[1]


def test_selectors_inside_an_emoji_make_two_tokens_everywhere(stock: Any) -> None:
    for tokenizer in stock.values():
        found = add_emoji(tokenizer, [pa.array(["🏳️‍🌈 1️⃣ 1️⃣"])], 2)
        assert added(found) == ["1⃣", "1️⃣", "🏳‍🌈", "🏳️‍🌈"]


def test_emoji_that_the_tokenizer_knows_are_not_added() -> None:
    knows = train_wordpiece([["😂 ❤ mask"] * 50], 100)
    assert "😂" in knows.get_vocab()
    found = add_emoji(knows, [pa.array(["😂 😂 😂 ❤️ ❤️ 👾 👻 👾"])], 1)
    assert added(found) == ["👾"]
    assert words(found, "😂 mask ❤️") == words(knows, "😂 mask ❤️")
    # There no piece reads 😂, but one stands for it and the space before.
    knows = byte_level(["a 😂"] * 50)
    assert len(knows.tokenize(" 😂")) == 1
    assert added(add_emoji(knows, [pa.array(["😂 😂 👾"])], 1)) == ["👾"]


def test_an_emoji_that_contains_an_added_one_is_added_too(stock: Any) -> None:
    whole = add_tokens(stock["uncased"], {"👩‍💻": "woman personal computer"})
    found = add_emoji(whole, [pa.array(["👩‍💻 👩"])], 5)
    assert added(found) == ["👩‍💻", "👩"] and words(found, "👩‍💻 👩") == [["👩‍💻"], ["👩"]]
    # One token with its selector, six without: the bare heart would be found in the other.
    heart = stock["byte-level"].tokenize("❤️")
    suffixes = ["".join(heart[first:]) for first in range(1, 6)]
    merges = [*zip(heart[4:0:-1], suffixes[:0:-1], strict=True), (heart[0], suffixes[0]), ("Ġ", "".join(heart))]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*special, "Ġ", *dict.fromkeys(heart), *dict.fromkeys("".join(pair) for pair in merges)]
    knows = RobertaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)
    assert len(knows.tokenize(" ❤️")) == 1 < len(knows.tokenize(" ❤"))
    assert added(add_emoji(knows, [pa.array(["❤️ ❤"])], 5)) == ["❤", "❤️"]


def test_counting_in_pieces_counts_each_emoji_once(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(added_tokens, "_ROWS_AT_ONCE", 2)
    texts = [pa.array(["👾", "", "👾", "x"]), pa.array(["🔥🔥🔥"])]
    assert added(add_emoji(stock["uncased"], texts, 5)) == ["🔥", "👾"]
    monkeypatch.setattr(added_tokens, "_MOST_DISTINCT", 4)
    rare = [pa.array([chr(0x1F400 + number), "😷 😷"]) for number in range(50)]
    assert added(add_emoji(stock["uncased"], [*texts, *rare], 1)) == ["😷"]


def test_emoji_joined_for_fun_become_no_token(stock: Any) -> None:
    assert add_emoji(stock["uncased"], [pa.array(["\u200d".join(["👩"] * 20)])], 5) is stock["uncased"]


def test_names_are_words() -> None:
    assert emoji_name("😷") == "face with medical mask"
    assert emoji_name("❤️") == emoji_name("❤") == "heavy black heart"
    assert emoji_name("👍🏽") == "thumbs up sign medium skin tone"
    assert emoji_name("👩‍💻") == "woman personal computer"
    assert emoji_name("🇺🇸") == "flag us"
    assert emoji_name("🏴󠁧󠁢󠁥󠁮󠁧󠁿") == "waving black flag gbeng"
    assert emoji_name("1️⃣") == "digit one keycap"
    assert emoji_name("\U0001faef") == "emoji" or emoji_name("\U0001faef").isascii()


def test_the_recipe_has_the_pieces_of_each_name_in_the_order_of_ids(stock: Any) -> None:
    for family, tokenizer in stock.items():
        found = recipe_of("tweets", "rules", add_emoji(tokenizer, [pa.array(["😷 😷 🔥"])], 2))
        assert found.base_tokenizer == fingerprint(tokenizer) != found.tokenizer
        assert [token.token for token in found.added] == ["😷", "🔥"]
        name = tokenizer(" face with medical mask", add_special_tokens=False).input_ids
        assert found.added[0].pieces == [piece for piece in name if piece != tokenizer.unk_token_id], family
        assert Recipe.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_name_that_cannot_be_read_is_unknown(stock: Any) -> None:
    tokenizer = stock["uncased"]
    found = recipe_of("", "", add_tokens(tokenizer, {"🔥": "火", "👾": "火 mask"}))
    assert found.added[0].pieces == [tokenizer.unk_token_id]
    assert found.added[1].pieces == tokenizer("mask", add_special_tokens=False).input_ids


def test_added_to_twice_the_base_is_the_first_one(stock: Any) -> None:
    once = add_emoji(stock["byte-level"], [pa.array(["😷"])], 1)
    twice = add_emoji(once, [pa.array(["😷 😷 🔥"])], 1)
    found = recipe_of("", "", twice)
    assert [token.token for token in found.added] == ["😷", "🔥"]
    assert found.base_tokenizer == fingerprint(stock["byte-level"])


def test_tokens_that_cannot_be_added_are_refused(stock: Any, extended: Any) -> None:
    with pytest.raises(UserError, match="ids of new tokens do not follow its last one"):
        add_tokens(stock["uncased"], {"a": "letter"})
    damaged = add_tokens(stock["uncased"], {"😷": "mask"})
    damaged.init_kwargs[SETTING]["names"]["🔥"] = "fire"
    with pytest.raises(UserError, match="are not those of its vocabulary"):
        recipe_of("", "", damaged)


def test_a_recipe_without_added_tokens_has_no_word_of_them(stock: Any) -> None:
    plain = recipe_of("tweets", "rules", stock["uncased"])
    assert plain == Recipe("tweets", "rules", fingerprint(stock["uncased"]))
    # The hash of the four parts that the first version had.
    assert Recipe("a", "b", "c", 1).hash == "4ede58fb65bcf73bbd1e106fab9de960330a944bf3b2c5902107202a7f1dda57"
    assert recipe.FORMAT_VERSION == 3


def test_every_part_decides_the_hash_and_is_named(extended: Any) -> None:
    whole = recipe_of("tweets", "rules", extended["uncased"])
    first, second, *others = whole.added
    changes: dict[str, Any] = {
        "clean": "raw",
        "rules": "other",
        "tokenizer": "other",
        "format_version": 1,
        "base_tokenizer": "other",
        "added": [second, first, *others],
    }
    for part, value in changes.items():
        other = replace(whole, **{part: value})
        assert other.hash != whole.hash
        assert [text.split(" (")[0] for text in whole.differences(other)] == [part]
    renamed = replace(whole, added=[replace(first, pieces=[7]), second, *others])
    assert renamed.hash != whole.hash and len(whole.differences(renamed)) == 1
