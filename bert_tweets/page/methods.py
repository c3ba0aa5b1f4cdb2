"""methods.md: a methods section for a paper, and what the study leaves unknown."""

from __future__ import annotations

from collections.abc import Iterator

from bert_tweets.corpus.shards.funnel import REASON_TEXTS, Funnel
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.training.records import Evaluation, RunSummary
from bert_tweets.words.analysis.records import ExchangeUnit, MatchedOn
from bert_tweets.words.analysis.verdicts import MIN_CONTROLS, exchange_unit_text, matched_on_text
from bert_tweets.words.store.summary import Summary

from .inputs import Change, StudyRecords
from .mentions import without_mentions
from .names import short_name
from .references import CORRECTIONS, has_distance_correlation, works, works_used
from .tables import usual_criterion
from .template_context import rare_words

METHODS_MARK = "<!-- Written by bert_tweets report. -->"

_SCHEDULES = {
    "linear": "linear decay",
    "cosine": "cosine decay",
    "constant": "no decay",
    "wsd": "decay over the last steps",
}
_DEDUPLICATION = {
    "exact": " Copies of earlier tweets (equal but for links, mentions, case and punctuation) were removed.",
    "near": " Near-duplicates of earlier tweets were removed.",
    "none": " Duplicates were not removed.",
}


def methods(study: StudyRecords) -> str:
    """The contents of methods.md; works are cited as [@key]."""
    change = study.change
    parts = [_data(study.funnel, study.manifest, study.run), _training(study)]
    parts += [_evaluation(study.evaluation)] if study.evaluation else []
    parts += [_vectors(study.words)] if study.words else []
    if change:
        parts += [_comparison(change)]
        parts += [_senses(change)] if change.senses else []
        parts += [_regression(change)] if change.regression else []
    text = "\n\n".join([METHODS_MARK, "# Methods", *parts]) + "\n"
    unknown = list(_limitations(study))
    if unknown:
        text += "\n# Limitations\n\n" + "".join(f"- {line}\n" for line in unknown)
    cited = "\n".join(f"- `{key}`" for key in works_used(study))
    text += f"\nCitation keys refer to references.bib:\n\n{cited}\n"
    # Citation keys such as @devlin2019bert are not mentions of users.
    for key in works():
        text = text.replace(f"@{key}", f"\0{key}")
    return without_mentions(text).replace("\0", "@")


def _data(funnel: Funnel | None, manifest: Manifest | None, run: RunSummary) -> str:
    if not funnel:
        return f"The model was trained on {run.rows:,} tweets."
    dropped = [f"{REASON_TEXTS[reason]} ({count:,})" for reason, count in funnel.dropped.items() if count]
    held_out = funnel.splits["validation"].tweets if "validation" in funnel.splits else 0
    text = f"Of {funnel.read:,} rows, {funnel.kept:,} tweets were kept"
    text += f" and the others excluded for these reasons: {', '.join(dropped)}." if dropped else "."
    text += f" {held_out:,} of the tweets were held out for validation." if held_out else ""
    if manifest:
        emoji = manifest.settings.get("emoji", "auto")
        text += f" Texts were cleaned with the preset `{manifest.recipe.clean}` of bert_tweets"
        text += f" (emoji: {emoji})." if emoji != "auto" else "."
        text += _DEDUPLICATION.get(manifest.settings.get("deduplicate", ""), "")
        text += f" Tweets were truncated to {manifest.max_length} tokens."
    return text


def _training(study: StudyRecords) -> str:
    run, config = study.run, study.config
    rate, decay, masking = config.optimizer.learning_rate, config.optimizer.weight_decay, config.masking
    start = f"continued to pre-train BERT [@devlin2019bert] ({short_name(run.model)}, {_revision(run)})"
    if config.model.name == "scratch":
        start = "trained a new BERT [@devlin2019bert] from scratch"
    text = (
        f"We {start} by masked language modelling on {run.rows:,} tweets for {run.epochs:.2f} epochs "
        f"({run.steps:,} steps of {config.batch_size:,} tweets; {run.tokens:,} tokens). "
        f"{masking.probability:.0%} of the "
        f"{'words' if masking.whole_word else 'tokens'} were masked, with new masks in each epoch. We used AdamW "
        f"[@loshchilov2019adamw] with a learning rate of {rate:g}, {_SCHEDULES[config.schedule.name]}, a weight decay "
        f"of {decay:g}, {run.precision} precision and seed {config.seed}, in PyTorch [@paszke2019pytorch] and "
        "transformers [@wolf2020transformers]"
    )
    text += " with DeepSpeed [@rajbhandari2020zero]." if config.engine.name == "deepspeed" else "."
    if run.stopped_early:
        text += f" Training stopped early, and step {run.best_step:,}, which had the lowest validation loss, was kept."
    return text


def _revision(run: RunSummary) -> str:
    """Identity of the initial weights."""
    _, at, commit = run.weights.rpartition("@")
    return f"revision {commit}" if at else f"weights with sha256 {commit[:12]}…"


def _evaluation(evaluation: Evaluation) -> str:
    model, base, difference = evaluation.model, evaluation.base, evaluation.difference
    text = (
        f"On {model.masked_tokens:,} masked tokens of {model.tweets:,} held-out tweets the adapted model had a loss of "
        f"{model.loss:.3f} nats per token (95 % interval {model.low:.3f} to {model.high:.3f})"
    )
    if base and difference:
        text += (
            f", compared with {base.loss:.3f} before adaptation, a difference of {difference.loss:.3f} "
            f"({difference.low:.3f} to {difference.high:.3f}; paired bootstrap with {difference.samples:,} samples of "
            f"{difference.clusters:,} near-duplicate clusters)"
        )
    return text + "."


def _vectors(words: Summary) -> str:
    found, truncated, unknown = (
        sum(getattr(word, name) for word in words.words.values()) for name in ("found", "truncated", "unknown")
    )
    text = (
        f"Vectors of {found:,} occurrences of {len(words.words)} words were taken from hidden layers "
        f"{', '.join(words.layers)} (0: embeddings), with {words.pooling} pooling over the subwords of a word"
    )
    if words.correction != "none":
        cited = f" [@{CORRECTIONS[words.correction]}]" if words.correction in CORRECTIONS else ""
        text += f", and corrected by {words.correction}{cited}, fitted on background occurrences"
    text += (
        f"; {truncated:,} occurrences were lost to truncation and {unknown:,} to unknown tokens. Neighbours of a word "
        f"are the nearest by cosine among {words.background_words:,} words of {words.background_tweets:,} sampled "
        "tweets, within one model."
    )
    if words.base:
        seeds = len(words.models)
        text += (
            f" Before and after adaptation ({'one training seed' if seeds == 1 else f'{seeds} training seeds'}) we "
            "compared only quantities within one model's space, on the same occurrences: the overlap of the nearest "
            "neighbours"
        )
        compared = has_distance_correlation(words)
        text += " and the correlation of distances between occurrences [@kriegeskorte2008rsa]." if compared else "."
    return text


def _comparison(change: Change) -> str:
    tested, settings = change.tested, change.settings
    if not tested:
        return "The words were too rare to be compared between groups."
    omnibus = [row for row in change.omnibus if row["p_value"] is not None]
    units = sorted({row["exchange_unit"] for row in tested})
    several = any(len(row["groups"]) > 2 for row in omnibus)
    groups = f"values of {change.by}" if change.by else "groups"
    text = (
        f"The use of {len({row['word'] for row in tested})} words was compared between {groups} by the energy distance "
        "[@szekely2013energy] of their occurrences, with one occurrence per near-duplicate cluster "
        f"[@broder1997resemblance]{', over all groups as in DISCO [@rizzo2010disco]' if several else ''}: "
        f"{len(tested):,} permutation tests ({len(omnibus):,} over all groups) that exchange "
        f"{' or '.join(map(exchange_unit_text, units))}"
    )
    text += " [@winkler2015block]" if any(unit != ExchangeUnit.CLUSTERS for unit in units) else ""
    text += f", with {settings.permutations:,} permutations each (seed {settings.seed})" if settings else ""
    text += ", p = (b + 1)/(R + 1) [@phipson2010permutation], and control of the false discovery rate"
    text += f" at {settings.fdr:g}" if settings else ""
    text += (
        " over all words and contrasts [@benjamini1995fdr]. 95 % intervals are from a jackknife over units "
        "[@efron1981jackknife; @aronow2015dyadic]."
    )
    most = max(row["controls"] for row in tested)
    if not most:
        return f"{text} No control words were compared, so no change of meaning is claimed."
    if most < MIN_CONTROLS:
        return f"{text} Fewer than {MIN_CONTROLS} control words matched, so no change of meaning is claimed."
    return (
        f"{text} A change of meaning is claimed only for words that also rank near the top of up to {most:,} "
        f"control words matched on {matched_on_text(omnibus[0]['matched_on'] if omnibus else [MatchedOn.FREQUENCY])}."
    )


def _senses(change: Change) -> str:
    several = sum(one["count"] > 1 for one in change.senses.values())
    return (
        "Usage clusters were fitted without knowledge of the groups with scikit-learn [@pedregosa2011sklearn]. "
        f"Criterion for their number: {usual_criterion(change.senses)} [@hubert1985partitions]. {several} of "
        f"{len(change.senses)} words have more than one. Intervals of shares are Wilson's [@wilson1927inference] at an "
        "effective sample size over whole units [@korn1998proportions]."
    )


def _regression(change: Change) -> str:
    terms = ", ".join(sorted({row["term"] for row in change.regression}))
    return (
        f"Vectors were regressed on {terms} [@rodriguez2023embedding]; partial effects (partial R²) were tested by "
        "permutation of the residuals of whole units [@freedman1983nonstochastic]."
    )


def _limitations(study: StudyRecords) -> Iterator[str]:
    """What a reviewer would ask for and the study cannot answer."""
    words, change = study.words, study.change
    if not study.evaluation:
        yield "Whether adaptation helped was not evaluated."
    if not study.run.has_trained_head:
        yield "The initial model had no trained masked-LM head, so its predictions of masked words are unknown."
    if words and words.base and len(words.models) == 1:
        yield "The model was trained with one seed; the variation between training seeds is unknown."
    if change:
        tested = change.tested
        if any(row["exchange_unit"] != ExchangeUnit.AUTHORS for row in tested):
            yield "Some authors are unknown; an author of several such tweets counts as several authors."
        if any(row["controls"] < MIN_CONTROLS for row in tested):
            yield (
                f"Fewer than {MIN_CONTROLS} control words matched some words, so whether their use differs by more "
                "than that of ordinary words is unknown."
            )
        if any(row["controls"] and MatchedOn.PART_OF_SPEECH not in row["matched_on"] for row in tested):
            yield "Not all control words are matched on part of speech."
    elif words:
        yield "The use of the words was not compared between periods or groups."
    rare = rare_words(words)
    if rare:
        yield f"These words are too rare to draw any conclusion: {', '.join(rare)}."
