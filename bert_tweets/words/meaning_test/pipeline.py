"""The meaning test: classify pairs of words in context with a model and its base, with a threshold from other pairs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from bert_tweets.common.arrays import Bools, Doubles
from bert_tweets.common.errors import UserError
from bert_tweets.common.hashing import generator
from bert_tweets.config import EmbedConfig, MeaningTestConfig, ModelConfig
from bert_tweets.distributed.download import check_local, fetch_and_check
from bert_tweets.distributed.world import World, process_group
from bert_tweets.model.loading import weights_identity
from bert_tweets.words.embedding.extractor import Extractor, layer_labels
from bert_tweets.words.embedding.pipeline import load_extractor
from bert_tweets.words.embedding.study import BASE, MODEL
from bert_tweets.words.occurrences.find import FOUND
from bert_tweets.words.occurrences.span_corpus import SpanCorpus, spans_for
from bert_tweets.words.occurrences.span_file import SpanFile
from bert_tweets.words.statistics.pair_metrics import (
    ChosenThreshold,
    bootstrap_weights,
    choose_threshold,
    cosines,
    pair_scores,
    percentile_intervals,
)
from bert_tweets.words.store.reader import NOT_FINITE

from .pair_files import Pairs, read_pairs
from .results import MeaningTest, PairTest, test_notes

logger = logging.getLogger(__name__)

# float64 [pairs] by layer.
Cosines = dict[str, Doubles]


@dataclass(frozen=True)
class PairSets:
    """The files of a meaning test: pairs to choose layer and threshold on, and pairs to test them on."""

    train: Pairs
    tests: list[Pairs]

    @property
    def files(self) -> list[Pairs]:
        return [self.train, *self.tests]


def read_pair_sets(config: MeaningTestConfig) -> PairSets:
    """Read the files.

    Raises:
        UserError: one cannot be used, or is both for training and for testing.
    """
    labels = config.labels or [""] * len(config.test)
    if len(labels) != len(config.test):
        raise UserError(
            f"labels: lists {len(labels)} files for {len(config.test)} test files; give one for each, or none"
        )
    train = read_pairs(config.train, config.train_labels)
    if len(set(train.same.tolist())) < 2:
        raise UserError(f"{config.train}: all pairs have the same label, so no threshold can be chosen")
    tests = [read_pairs(path, label_file) for path, label_file in zip(config.test, labels, strict=True)]
    for test in tests:
        if set(test.identities()) == set(train.identities()):
            raise UserError(f"{test.path}: has the same pairs as train; test on others than those chosen on")
    return PairSets(train, tests)


def meaning_test_fingerprint(config: MeaningTestConfig, sets: PairSets) -> Mapping[str, object]:
    """Everything that determines the output: settings without `output`, pairs and labels, weights."""
    pairs = [[one.words, one.texts, one.start.tolist(), one.end.tolist(), one.same.tolist()] for one in sets.files]
    names = [name for name in (config.model, config.base) if name]
    return {
        "settings": {key: value for key, value in asdict(config).items() if key != "output"},
        "pairs": hashlib.sha256(repr(pairs).encode()).hexdigest(),
        "weights": {name: weights_identity(name) for name in names},
    }


def run_meaning_test(config: MeaningTestConfig, sets: PairSets, world: World) -> MeaningTest:
    """Embed all pairs, choose layer and threshold on the training pairs, and test them.

    Raises:
        UserError: a model does not fit, or too few pairs can be scored.
    """
    roles = {MODEL: config.model} | ({BASE: config.base} if config.base else {})
    models = [ModelConfig(name=name) for name in roles.values()]
    spans = spans_for(_as_spans(sets.files), list(roles.values()))
    check_local(models, spans.manifest)
    all_cosines: dict[str, Cosines] = {}
    with process_group(world):
        fetch_and_check(models, spans.manifest, world)
        for role, name in roles.items():
            logger.info(f"embedding with {name}")
            all_cosines[role] = _cosines(_reader(config, spans, name, world), spans, config)
    bounds = np.cumsum([0, *map(len, sets.files)])
    parts = [slice(first, last) for first, last in pairwise(bounds.tolist())]
    # The same in both models: the same tokens of the same windows.
    found = (spans.occurrences.status == FOUND).reshape(-1, 2).all(axis=1)
    thresholds = {role: _choose(values, sets.train, parts[0], found) for role, values in all_cosines.items()}
    for role, by_layer in all_cosines.items():
        if any(np.isnan(values[found]).any() for values in by_layer.values()):
            raise UserError(f"{roles[role]}: {NOT_FINITE}")
    train_pairs = set(sets.train.identities())
    tests = [
        _test(
            test,
            {role: all_cosines[role][thresholds[role].layer][part] for role in roles},
            thresholds,
            found[part],
            sum(key in train_pairs for key in test.identities()),
            config,
        )
        for test, part in zip(sets.tests, parts[1:], strict=True)
    ]
    return MeaningTest(
        model=config.model,
        base=config.base or None,
        train=config.train,
        thresholds=thresholds,
        pooling=config.pooling,
        seed=config.seed,
        bootstrap_samples=config.bootstrap_samples,
        tests=tests,
    )


def _as_spans(files: Sequence[Pairs]) -> SpanFile:
    """All texts of all pairs as spans, one per row."""
    texts = pa.array([text for one in files for text in one.texts], pa.string())
    nulls = pa.nulls(len(texts), pa.string())
    return SpanFile(
        texts,
        np.concatenate([one.start for one in files]),
        np.concatenate([one.end for one in files]),
        [],
        np.zeros(len(texts), np.int64),
        pa.array(map(str, range(len(texts))), pa.string()),
        nulls,
        pa.nulls(len(texts), pa.timestamp("s", tz="UTC")),
        {},
        "",
    )


def _reader(config: MeaningTestConfig, spans: SpanCorpus, name: str, world: World) -> Extractor:
    """Load a model to read each of the layers in the settings, or every layer if none are given."""
    shared = {key: getattr(config, key) for key in ("layers", "pooling", "seed", "tokens_per_device", "precision")}
    reader = load_extractor(EmbedConfig(model=[name], layer_pooling="none", **shared), spans.manifest, name, world)
    every = list(range(int(reader.module.model.config.num_hidden_layers) + 1))
    return reader if config.layers else replace(reader, layers=every)


def _cosines(reader: Extractor, spans: SpanCorpus, config: MeaningTestConfig) -> Cosines:
    """Cosines of all pairs by layer; if the settings give no layers, also those of the mean that embed uses."""
    labels = list(reader.labels)
    last_four = reader.layers[max(1, len(reader.layers) - 4) :]
    # With max pooling the mean of the layers is not the mean of these vectors.
    mean = not config.layers and config.pooling != "max" and len(last_four) > 1
    if mean:
        labels += layer_labels(last_four, "mean")
    values = np.full((len(spans.occurrences) // 2, len(labels)), np.nan)
    for rows, vectors in reader.vectors(spans.corpus, spans.occurrences):
        # A text is a tweet here, and slices have an even number of these, so that pairs are not split.
        assert rows.start % 2 == 0 and rows.stop % 2 == 0
        if mean:
            of_mean = vectors[:, [reader.layers.index(layer) for layer in last_four]].mean(axis=1, keepdims=True)
            vectors = np.concatenate([vectors, of_mean], axis=1)
        values[rows.start // 2 : rows.stop // 2] = cosines(vectors[::2], vectors[1::2])
    return dict(zip(labels, values.T, strict=True))


def _choose(by_layer: Cosines, train: Pairs, part: slice, found: Bools) -> ChosenThreshold:
    there = found[part]
    if len(set(train.same[there].tolist())) < 2:
        raise UserError(
            f"{train.path}: only {int(there.sum())} of its pairs can be scored, all of one label; give more pairs"
        )
    return choose_threshold({layer: values[part][there] for layer, values in by_layer.items()}, train.same[there])


def _test(
    test: Pairs,
    values: dict[str, Doubles],
    thresholds: dict[str, ChosenThreshold],
    found: Bools,
    in_train: int,
    config: MeaningTestConfig,
) -> PairTest:
    """Score a file of test pairs by their cosines at the chosen layer, float64 [pairs] by role."""
    rows = np.flatnonzero(found)
    if not len(rows):
        raise UserError(f"{test.path}: in no pair do both words have tokens of their own, so nothing can be scored")
    words, same = [test.words[row] for row in rows.tolist()], test.same[rows]
    # The same resamples for both models, so that their difference is paired.
    weights = bootstrap_weights(words, config.bootstrap_samples, generator(config.seed, "bootstrap"))
    scores = {role: pair_scores(values[role][rows], same, thresholds[role].threshold, weights) for role in values}
    has_base = BASE in scores
    result = PairTest(
        file=test.path,
        pairs=len(test),
        unlabelled=test.unlabelled,
        in_train=in_train,
        scored=len(rows),
        words=len(set(words)),
        same_fraction=float(same.mean()),
        model=percentile_intervals(scores[MODEL]),
        base=percentile_intervals(scores[BASE]) if has_base else None,
        difference=percentile_intervals(scores[MODEL] - scores[BASE]) if has_base else None,
        notes=[],
    )
    return replace(result, notes=test_notes(result))
