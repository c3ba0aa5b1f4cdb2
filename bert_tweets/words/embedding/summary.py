"""From the study and the models' results to the record of summary.json."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bert_tweets.config import EmbedConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.words.occurrences.find import FOUND, STATUSES, median_subwords
from bert_tweets.words.occurrences.part_of_speech import part_of_speech
from bert_tweets.words.store.summary import ControlWordSummary, Summary, WordDrift, WordSummary

from .drift import SeedDrift, mean_over_seeds, summarize_drift
from .notes import notes_of
from .study import BASE, MODEL, ModelResult, Study


def summarize(
    config: EmbedConfig,
    manifest: Manifest,
    study: Study,
    results: dict[str, ModelResult],
    drift: Sequence[SeedDrift],
    without_head: str | None,
) -> Summary:
    """Make the record of summary.json from the results by role and the drift by training seed.

    `without_head` names a model that has no trained head for the requested substitutes.
    """
    model, base = results[MODEL], results.get(BASE)
    of_words = summarize_drift(drift, len(study.words)) if base else []
    words = {
        word.text: _word_summary(study, number, model, base, of_words[number] if base else None)
        for number, word in enumerate(study.words)
    }
    return Summary(
        words=words,
        control_words=_control_summaries(study, drift),
        models=config.model,
        base=config.base or None,
        layers=model.layers,
        base_layers=base.layers if base else None,
        vectors_layer=model.centroids.space.layer,
        layer_pooling=config.layer_pooling,
        pooling=config.pooling,
        correction=config.correction,
        correction_hashes={role: one.centroids.space.correction_hash for role, one in results.items()},
        weights={role: one.centroids.space.weights for role, one in results.items()},
        recipe=manifest.recipe.hash,
        data=manifest.fingerprint,
        background_tweets=study.background.tweets,
        background_words=len(study.background.words),
        seed=config.seed,
        notes=notes_of(config, manifest, study, words, without_head),
    )


def _control_summaries(study: Study, drift: Sequence[SeedDrift]) -> dict[str, ControlWordSummary]:
    return {
        word.text: ControlWordSummary(
            matches=int(study.matches[number]),
            subwords=median_subwords(study.occurrences, study.occurrences.places.word == number),
            part_of_speech=word.part_of_speech,
            neighbour_overlap=mean_over_seeds([seed.neighbour_overlap[number] for seed in drift]),
            distance_correlation=mean_over_seeds([seed.distance_correlation[number] for seed in drift]),
        )
        for number, word in enumerate(study.control_words, len(study.words))
    }


def _word_summary(
    study: Study, number: int, model: ModelResult, base: ModelResult | None, drift: WordDrift | None
) -> WordSummary:
    occurrences = study.occurrences
    mine = occurrences.places.word == number
    found = mine & (occurrences.status == FOUND)
    counts = np.bincount(occurrences.status[mine], minlength=len(STATUSES)).tolist()
    return WordSummary(
        **dict(zip(STATUSES, counts, strict=True)),
        matches=int(study.matches[number]),
        subwords=median_subwords(occurrences, mine),
        part_of_speech=part_of_speech(study.words[number].key),
        tweets=len(np.unique(occurrences.places.tweet[found])),
        clusters=len(np.unique(occurrences.cluster[found])),
        neighbours=model.neighbours[number],
        base_neighbours=base.neighbours[number] if base else [],
        drift=drift,
    )
