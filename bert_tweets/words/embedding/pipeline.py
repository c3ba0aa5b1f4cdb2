"""Embed the words of a study: occurrences, vectors, centroids and neighbours, in one or more models and their base."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from bert_tweets.common.arrays import Floats, Ints
from bert_tweets.common.errors import UserError
from bert_tweets.config import EmbedConfig, ModelConfig
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import verify
from bert_tweets.data.layout import Layout, row_length_of
from bert_tweets.distributed.download import check_local, fetch_and_check
from bert_tweets.distributed.world import World, process_group
from bert_tweets.engine.precision import COMPUTE_DTYPES
from bert_tweets.model.attention import Shape, backend_for
from bert_tweets.model.loading import load_model, weights_identity
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.words.occurrences.find import FOUND
from bert_tweets.words.occurrences.span_corpus import SpanCorpus
from bert_tweets.words.store.export_formats import write_word2vec_text
from bert_tweets.words.store.folder import BASE_VECTORS, OCCURRENCES, STATIC_VECTORS, VECTORS
from bert_tweets.words.store.reader import NOT_FINITE
from bert_tweets.words.store.summary import Neighbour, Summary, write_summary
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

from .background_writer import BackgroundWriter
from .drift import RowCollector, SeedDrift, distance_ranks, measure_drift, sample_for_distances
from .extractor import Centroids, Extractor, resolve_layers
from .gather_ordered import Chunks, gather_ordered
from .neighbours import background_mean, nearest
from .parquet_writer import OccurrenceWriter
from .postprocess import Postprocessor, PostprocessorFit
from .static import most_common_tokens, static_vectors
from .study import BASE, MODEL, ModelResult, Study
from .study_builder import find_study, words_of_study
from .substitutes import Substitutes, substitutes_of
from .summary import summarize

logger = logging.getLogger(__name__)


def models_by_role(config: EmbedConfig) -> dict[str, str]:
    """The models by role: base first, then `model`, `model.2`, … by training seed; UserError if one is given twice."""
    if len(set(config.model)) < len(config.model):
        raise UserError("model: the same model is given twice; give one model per training seed")
    models = {MODEL if not number else f"{MODEL}.{number + 1}": name for number, name in enumerate(config.model)}
    return ({BASE: config.base} if config.base else {}) | models


def embed(
    config: EmbedConfig, manifest: Manifest, world: World, folder: Path, spans: SpanCorpus | None = None
) -> Summary | None:
    """Embed the words and write the files of the output folder. Every rank calls it, and runs its share of the tweets.

    Args:
        folder: folder for the files, made by rank 0 and visible to all ranks.
        spans: the spans of `occurrences=`, in place of shards; the manifest is theirs.

    Returns:
        The content of summary.json on rank 0, None on the others, which write only intermediate files.

    Raises:
        UserError: a model, layer or shard does not fit.
    """
    words, roles = words_of_study(config, manifest, spans), models_by_role(config)
    models = [ModelConfig(name=name) for name in roles.values()]
    check_local(models, manifest)
    row_length_of(config.data, manifest)  # a mistake shows before the occurrences are looked for
    if config.data.verify and not spans:
        verify(config.data.path, world.local_part([shard for split in SPLITS for shard in manifest.splits[split]]))
    results: dict[str, ModelResult] = {}
    drift: list[SeedDrift] = []
    without_head = None
    with process_group(world):
        fetch_and_check(models, manifest, world)
        study = find_study(config, manifest, words, world, spans)
        selected = sample_for_distances(study.occurrences, [word.key for word in study.embedded], config.seed)
        with _writer(config, manifest, study, world, folder) as writer:
            for role, name in roles.items():
                logger.info(f"embedding with {name}")
                extractor = load_extractor(config, manifest, name, world)
                _require_alike(extractor, name, results.get(MODEL))
                substitutes = None
                if role == MODEL and config.substitutes:
                    substitutes = _substitutes(config, study, extractor, world, folder)
                    without_head = name if substitutes is None else None
                streams = [
                    gather_ordered(
                        extractor.vectors(study.corpus, some, world.work_split), f"{role}-{kind}", world, folder
                    )
                    for kind, some in (("background", study.background_occurrences), ("words", study.occurrences))
                ]
                if not writer:
                    continue
                result = model_result(
                    config, manifest, study, extractor, name, role, streams, writer, selected, substitutes
                )
                if role == MODEL:
                    _write_vectors(folder / STATIC_VECTORS, study, _static(study, extractor))
                if config.base and role != BASE:
                    drift.append(measure_drift(results[BASE], result))
                # The distances of a model are compared with those of the base only.
                results[role] = result if role == BASE else replace(result, distance_ranks=[])
    if not world.is_main:
        return None
    for role, file in ((MODEL, VECTORS), (BASE, BASE_VECTORS)):
        if role in results:
            _write_vectors(folder / file, study, results[role].centroids.values[: len(study.words)])
    summary = summarize(config, manifest, study, results, drift, without_head)
    write_summary(folder, summary)
    return summary


def _substitutes(
    config: EmbedConfig, study: Study, extractor: Extractor, world: World, folder: Path
) -> Substitutes | None:
    """The substitutes of the chosen words; None if the model's head is not trained."""
    if not extractor.has_trained_head:
        return None
    return substitutes_of(
        extractor, study.corpus, study.occurrences, len(study.words), config.substitutes, study.tokenizer, world, folder
    )


def _writer(
    config: EmbedConfig, manifest: Manifest, study: Study, world: World, folder: Path
) -> AbstractContextManager[OccurrenceWriter | None]:
    """Only rank 0 writes."""
    if not world.is_main:
        return nullcontext()
    names = [word.text for word in study.embedded]
    return OccurrenceWriter(
        folder / OCCURRENCES, study.corpus, names, len(study.words), config.include_text, manifest.groups
    )


def load_extractor(config: EmbedConfig, manifest: Manifest, name: str, world: World) -> Extractor:
    """Load a model on its device, to be run over tweets of the manifest's recipe."""
    loaded = load_model(ModelConfig(name=name), manifest, config.seed)
    model = loaded.model
    layers = resolve_layers(config.layers, int(model.config.num_hidden_layers), name)
    layout = Layout(row_length_of(config.data, manifest), config.tokens_per_device, manifest.pad_id)
    shape = Shape.of(model.config, world.device.type, COMPUTE_DTYPES[config.precision], layout.row_length)
    module = PackedMaskedLM(model, backend_for("auto", shape)).to(world.device).eval()
    made = (config.layer_pooling, config.pooling, loaded.has_trained_head)
    return Extractor(module, layers, layout, config.precision, world.device, *made)


def _require_alike(extractor: Extractor, name: str, first: ModelResult | None) -> None:
    """Check that training seeds are of one model: the same layers and width."""
    if first and (first.layers, first.centroids.values.shape[1]) != (extractor.labels, extractor.width):
        raise UserError(
            f"model: {first.name} has vectors of {', '.join(first.layers)} and width "
            f"{first.centroids.values.shape[1]}, {name} of {', '.join(extractor.labels)} and {extractor.width}; "
            "give several models only if they are training seeds of one"
        )


def model_result(
    config: EmbedConfig,
    manifest: Manifest,
    study: Study,
    extractor: Extractor,
    name: str,
    role: str,
    streams: Sequence[Chunks],
    writer: OccurrenceWriter,
    selected: list[Ints],
    substitutes: Substitutes | None = None,
) -> ModelResult:
    """Fit the correction to the background, then correct, write and average the words' vectors chunk by chunk.

    `streams` are the vectors of the background's occurrences and of the words'; `selected` are the occurrences of each
    word whose distances are compared.
    """
    of_background, of_words = streams
    others, correction = _fit_background(config.correction, study, extractor, of_background)
    space = VectorSpace(
        weights_identity(name),
        manifest.recipe.hash,
        extractor.labels[-1],
        config.pooling,
        correction.kind,
        correction.of_label(-1).hash,
    )
    centroids = Centroids(len(study.embedded), extractor.width)
    collector = RowCollector(selected if config.base else [], extractor.width)
    with BackgroundWriter() as background:
        for rows, raw in of_words:
            vectors = correction.transform(raw)
            background.submit(
                writer.write, study.occurrences, rows, vectors, role, extractor.labels, correction.kind, substitutes
            )
            found = study.occurrences.status[rows] == FOUND
            if not np.isfinite(vectors[found]).all():
                raise UserError(f"{name}: {NOT_FINITE}", found_by_one_rank=True)
            centroids.add(study.occurrences.places.word[rows][found], vectors[found, -1])
            collector.add(rows, vectors[:, -1])
    background_vectors = Vectors(space, others)
    origin = background_mean(background_vectors)
    means = Vectors(space, centroids.means())
    ranks = [distance_ranks(Vectors(space, collector.of_word(word)), origin) for word in range(len(collector.selected))]
    neighbours = _neighbours(study, means, background_vectors, config.neighbours)
    return ModelResult(name, extractor.labels, means, neighbours, ranks)


def _fit_background(kind: str, study: Study, extractor: Extractor, vectors: Chunks) -> tuple[Floats, Postprocessor]:
    """The corrected centroids of the background words, at the highest layer, and the fitted correction."""
    fit = PostprocessorFit(kind, len(extractor.labels), extractor.width)
    centroids = Centroids(len(study.background.words), extractor.width)
    for rows, chunk in vectors:
        found = study.background_occurrences.status[rows] == FOUND
        fit.partial_fit(chunk[found])
        centroids.add(study.background_occurrences.places.word[rows][found], chunk[found, -1])
    correction = fit.result()
    # Corrections are affine: the corrected mean is the mean of the corrected vectors.
    return correction.of_label(-1).transform(centroids.means()[:, None])[:, 0], correction


def _neighbours(study: Study, words: Vectors, others: Vectors, count: int) -> list[list[Neighbour]]:
    names = study.background.words
    parts = [word.parts for word in study.embedded]
    near = nearest(words, others, count + max(map(len, parts)))
    # A phrase is trivially near its own words.
    return [
        [(names[row], round(cosine, 4)) for row, cosine in ranked if names[row] not in own][:count]
        for own, ranked in zip(parts, near, strict=True)
    ]


def _static(study: Study, extractor: Extractor) -> Floats:
    matrix = extractor.module.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    return static_vectors(matrix, most_common_tokens(study.corpus, study.occurrences, len(study.words)))


def _write_vectors(path: Path, study: Study, vectors: Floats) -> None:
    """Write the vectors of the chosen words, float32 [words, width], as word2vec text."""
    write_word2vec_text(path, [word.text for word in study.words], vectors)
