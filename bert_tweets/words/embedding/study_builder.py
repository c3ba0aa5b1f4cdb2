"""Find the words and occurrences of a study, in shards or in a file of spans."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from bert_tweets.common.errors import UserError
from bert_tweets.config import EmbedConfig
from bert_tweets.corpus.shards.manifest import Manifest, how_to_recreate
from bert_tweets.corpus.text.tokenizer import fingerprint, load_tokenizer
from bert_tweets.distributed.world import World
from bert_tweets.model.loading import tokenizer_folder
from bert_tweets.words.occurrences.find import (
    FOUND,
    Occurrences,
    Places,
    align,
    open_corpus,
    places_in_share,
    tweet_columns,
)
from bert_tweets.words.occurrences.groups import group_column, labels, require_groups
from bert_tweets.words.occurrences.matching import ChosenWord
from bert_tweets.words.occurrences.queries import chosen_words
from bert_tweets.words.occurrences.select import choose_occurrences, gather_rows
from bert_tweets.words.occurrences.span_corpus import SpanCorpus

from .neighbours import background
from .postprocess import NONE
from .study import Study

logger = logging.getLogger(__name__)


def words_of_study(config: EmbedConfig, manifest: Manifest, spans: SpanCorpus | None) -> list[ChosenWord]:
    """The chosen words; UserError if there are none, or no column to group by, before anything is read."""
    if config.by:
        group_column(config.by, manifest.groups, config.occurrences or config.data.path)
    return [*spans.words] if spans else chosen_words(config)


def find_study(
    config: EmbedConfig, manifest: Manifest, words: list[ChosenWord], world: World, spans: SpanCorpus | None
) -> Study:
    """Find the words' occurrences, and choose control words and background words. Every rank calls it.

    Raises:
        UserError: the shards or their tokenizer are damaged, or there is nothing to fit a correction on.
    """
    study = _of_spans(config, manifest, words, world, spans) if spans else _of_shards(config, manifest, words, world)
    is_chosen = study.occurrences.places.word < len(words)
    if config.by and is_chosen.any():
        # The comparison would find it too, but after all models have run.
        where = config.occurrences or config.data.path
        column = group_column(config.by, manifest.groups, where)
        tweets = tweet_columns(study.corpus, np.unique(study.occurrences.places.tweet[is_chosen]), [column])
        require_groups(labels(tweets.column(0), config.by).drop_null().unique().to_pylist(), config.by, where)
    count, others = int(is_chosen.sum()), study.background
    logger.info(
        f"{count:,} occurrences of {len(words)} word(s), {len(study.occurrences) - count:,} of "
        f"{len(study.control_words):,} control words; {len(others.words):,} background words in "
        f"{others.tweets:,} tweets"
    )
    if config.correction != NONE and not (study.background_occurrences.status == FOUND).any():
        raise UserError(
            f"correction={config.correction}: is fitted on background words, but there are none; raise "
            "background_tweets or lower background_minimum"
        )
    return study


def _of_shards(config: EmbedConfig, manifest: Manifest, words: list[ChosenWord], world: World) -> Study:
    tokenizer = load_tokenizer(str(tokenizer_folder(config.data.path)), local_only=True)
    if fingerprint(tokenizer) != manifest.recipe.tokenizer:
        folder = tokenizer_folder(config.data.path)
        raise UserError(f"{folder}: does not match the shards; {how_to_recreate(config.data.path)}")
    corpus = open_corpus(config.data.path, manifest)
    choice = choose_occurrences(config, corpus, words, tokenizer, manifest.unknown_id, world)
    others = background(corpus, words, config.background_tweets, config.background_minimum, config.seed)
    occurrences, of_background = (
        _align_share(corpus, places, tokenizer, manifest, world)
        for places in (choice.places, Places.join([others.places]))
    )
    return Study(corpus, words, choice.control_words, others, occurrences, of_background, choice.matches, tokenizer)


def _of_spans(
    config: EmbedConfig, manifest: Manifest, words: list[ChosenWord], world: World, spans: SpanCorpus
) -> Study:
    """Every rank has read all spans. There are no control words: a file of spans is too few texts to choose from."""
    others = background(spans.background, words, config.background_tweets, config.background_minimum, config.seed)
    found = others.places
    places = Places.join([Places(found.word, found.tweet + len(spans.occurrences), found.start, found.end)])
    of_background = _align_share(spans.corpus, places, spans.tokenizer, manifest, world)
    matches = np.bincount(spans.occurrences.places.word, minlength=len(words))
    return Study(spans.corpus, words, [], others, spans.occurrences, of_background, matches, spans.tokenizer)


def _align_share(corpus: Any, places: Places, tokenizer: Any, manifest: Manifest, world: World) -> Occurrences:
    mine = align(corpus, places_in_share(places, world.work_split), tokenizer, manifest.unknown_id)
    return gather_rows(mine, world)
