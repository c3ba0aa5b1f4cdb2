"""Methods: a paragraph to paste into a paper, and a record to do it again, of what the stages left."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bert_tweets.corpus.shards.funnel import REASON_TEXTS
from bert_tweets.words.analysis.records import ExchangeUnit, MatchedOn
from bert_tweets.words.analysis.verdicts import FEWEST_CONTROLS, exchange_unit_text, matched_on_text

from .analysis_tables import OMNIBUS, usual_criterion
from .charts import without_mentions
from .inputs import Change, Material
from .references import CORRECTIONS, compares_distances, used, works
from .template_context import funnel_rows, short_name, template_context

METHODS_MARK = "<!-- Made by bert_tweets report. -->"
MADE_BY = "bert_tweets report"

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "plotly", "matplotlib", "jinja2")


def methods(material: Material) -> str:
    """methods.md: what was done, in sentences with numbers, and what is not known; works are cited as [@key]."""
    shown = without_mentions(template_context(material))
    parts = [_data(material), _training(material), _evaluation(material)]
    if material.words:
        parts.append(_vectors(material, material.words))
    if material.change:
        parts += [_comparison(material.change), _senses(material.change), _regression(material.change)]
    unknown = _unknown(material, shown)
    text = f"{METHODS_MARK}\n\n# Methods\n\n{' '.join(part for part in parts if part)}\n"
    if unknown:
        text += "\n# What was not known\n\n" + "".join(f"- {line}\n" for line in unknown)
    cited = [f"- `{key}`" for key in used(material)]
    text += "\nKeys in brackets are those of references.bib:\n\n" + "\n".join(cited) + "\n"
    return _masked(text)


def _masked(text: str) -> str:
    """Accounts masked, keys of works not."""
    for key in works():
        text = text.replace(f"@{key}", f"\0{key}")
    return str(without_mentions(text)).replace("\0", "@")


def _data(material: Material) -> str:
    if not material.funnel:
        return f"The model was trained on {material.run['rows']:,} tweets."
    funnel, settings = material.funnel, material.settings.get("prepare", {})
    dropped = [f"{count:,} {REASON_TEXTS[reason]}" for reason, count in funnel["dropped"].items() if count]
    splits = funnel["splits"]
    held_out = splits.get("validation", {}).get("tweets", 0)
    text = f"Of {funnel['read']:,} rows read, {funnel['kept']:,} tweets were kept"
    text += f" (left out: {', '.join(dropped)})" if dropped else ""
    text += f"; {held_out:,} of them were held out for validation." if held_out else "."
    if settings.get("clean"):
        text += f" Texts were cleaned by the recipe `{settings['clean']}` of bert_tweets"
        text += f", emoji {settings['emoji']}." if settings.get("emoji", "auto") != "auto" else "."
    if settings.get("deduplicate"):
        kinds = {"none": "not removed", "exact": "removed where the cleaned text is the same", "near": "removed"}
        text += f" Copies were {kinds.get(settings['deduplicate'], settings['deduplicate'])}."
    if settings.get("max_length"):
        text += f" Tweets were cut at {settings['max_length']} tokens."
    return text


def _training(material: Material) -> str:
    run, settings = material.run, material.settings["train"]
    rate, masking = settings["optimizer"]["learning_rate"], settings["masking"]
    text = (
        f"A pre-trained BERT [@devlin2019bert] ({short_name(run['model'])}, {_revision(run)}) was trained further as a "
        f"masked language model on {run['rows']:,} tweets for {run['epochs']:.2f} epochs ({run['steps']:,} steps of "
        f"{settings['batch_size']:,} tweets, {run['tokens']:,} tokens), "
        f"{masking['probability']:.0%} of the {'words' if masking['whole_word'] else 'tokens'} masked anew each epoch, "
        f"by AdamW [@loshchilov2019adamw] with a learning rate of {rate:g}, {settings['schedule']['name']} decay and a "
        f"weight decay of {settings['optimizer']['weight_decay']:g}, in {run['precision']}, with seed "
        f"{settings['seed']}, in PyTorch [@paszke2019pytorch] and transformers [@wolf2020transformers]"
    )
    if run.get("engine") == "deepspeed":
        text += " under DeepSpeed [@rajbhandari2020zero]"
    if run.get("stopped_early"):
        text += f"; training stopped early, and step {run['best_step']:,}, the best by validation loss, was kept"
    return text + "."


def _revision(run: dict[str, Any]) -> str:
    """Which weights training began from."""
    _, at, commit = str(run["weights"]).rpartition("@")
    return f"revision {commit}" if at else f"weights of sha256 {commit[:12]}…"


def _evaluation(material: Material) -> str:
    evaluation = material.evaluation
    if not evaluation:
        return ""
    model = evaluation["model"]
    text = (
        f"On {model['masked_tokens']:,} masked tokens of {model['tweets']:,} held-out tweets the adapted model's loss "
        f"is {model['loss']:.3f} nats a token (95 % interval {model['low']:.3f} to {model['high']:.3f})"
    )
    base, difference = evaluation["base"], evaluation["difference"]
    if base and base.get("comparable") and difference:
        text += (
            f", that of the model before {base['loss']:.3f}; the difference is {difference['loss']:.3f} "
            f"({difference['low']:.3f} to {difference['high']:.3f}; {difference['samples']:,} paired bootstrap samples "
            f"of {difference['clusters']:,} clusters of near-duplicates)"
        )
    return text + "."


def _vectors(material: Material, words: dict[str, Any]) -> str:
    found = sum(record["found"] for record in words["words"].values())
    text = (
        f"Vectors of {found:,} occurrences of {len(words['words'])} words were taken as the "
        f"{', '.join(words['layers'])} of the hidden layers (0: embeddings), the {words.get('pooling', 'mean')} over a "
        "word's pieces"
    )
    correction = words.get("correction", "none")
    if correction != "none":
        cited = f" [@{CORRECTIONS[correction]}]" if correction in CORRECTIONS else ""
        text += f", corrected by {correction}{cited} fitted on background occurrences"
    lost = [sum(record[key] for record in words["words"].values()) for key in ("truncated", "unknown")]
    text += f"; {lost[0]:,} occurrences were truncated away and {lost[1]:,} lost to unknown tokens."
    text += (
        f" Neighbours are of {words['background_words']:,} words of {words['background_tweets']:,} sampled tweets"
        ", by cosine within one model."
    )
    if words["base"]:
        seeds = len(words["models"])
        trained = "one training seed" if seeds == 1 else f"{seeds} training seeds"
        text += (
            " Before and after adaptation only quantities within one model's space were compared, on the same "
            f"occurrences, over {trained}: the overlap of the nearest neighbours"
        )
        compared = compares_distances(words)
        text += " and the correlation of distances between occurrences [@kriegeskorte2008rsa]." if compared else "."
    return text


def _comparison(change: Change) -> str:
    tested = [row for row in change.rows if row["p_value"] is not None]
    if not tested:
        return "The words were too rare to be compared between groups."
    whole = [row for row in tested if row["contrast"] == OMNIBUS]
    settings = change.settings
    units = sorted({row["exchange_unit"] for row in tested})
    text = (
        f"The use of {len({row['word'] for row in tested})} words was compared between "
        f"{'groups' if not change.by else f'values of {change.by}'} by the energy distance [@szekely2013energy] of "
        "their occurrences, one occurrence a cluster of near-duplicates [@broder1997resemblance]"
        f"{', over all groups as in DISCO [@rizzo2010disco]' if any(len(r['groups']) > 2 for r in whole) else ''}: "
        f"{len(tested):,} tests ({len(whole):,} over all groups)"
    )
    if settings.get("permutations"):
        text += f" of {settings['permutations']:,} permutations each (seed {settings.get('seed', 0)})"
    text += f" of {' or '.join(map(exchange_unit_text, units))}"
    text += " [@winkler2015block]" if any(unit != ExchangeUnit.CLUSTERS for unit in units) else ""
    text += ", p = (b + 1)/(R + 1) [@phipson2010permutation], with a false-discovery rate"
    text += f" of {settings['fdr']:g}" if settings.get("fdr") else ""
    text += (
        " over all words and contrasts [@benjamini1995fdr]; intervals (95 %) are by a jackknife over units "
        "[@efron1981jackknife; @aronow2015dyadic]."
    )
    most = max(row["controls"] for row in tested)
    if not most:
        return text + " No control words were compared, so that no change of meaning is claimed."
    if most < FEWEST_CONTROLS:
        return f"{text} Fewer than {FEWEST_CONTROLS} control words matched, so that no change of meaning is claimed."
    return (
        f"{text} A change of meaning is claimed only of words that also rank among the first of up to {most:,} control "
        f"words matched on {matched_on_text(whole[0]['matched_on'] if whole else [MatchedOn.FREQUENCY])}."
    )


def _senses(change: Change) -> str:
    if not change.senses:
        return ""
    several = sum(sense["count"] > 1 for sense in change.senses.values())
    return (
        f"Usage clusters were fitted blind to the groups with scikit-learn [@pedregosa2011sklearn], their number "
        f"chosen by: {usual_criterion(change.senses)}; partitions are compared by the adjusted Rand index "
        f"[@hubert1985partitions]. Of {len(change.senses)} words {several} have more than one; intervals of shares are "
        "Wilson's [@wilson1927inference] at an effective size over whole units [@korn1998proportions]."
    )


def _regression(change: Change) -> str:
    if not change.regression:
        return ""
    terms = sorted({row["term"] for row in change.regression})
    return (
        f"Vectors were regressed on {', '.join(terms)} [@rodriguez2023embedding]; partial effects (partial "
        "R²) were tested by permutation of residuals of whole units [@freedman1983nonstochastic]."
    )


def _unknown(material: Material, shown: dict[str, Any]) -> list[str]:
    """What a reviewer would ask for, and the study cannot tell."""
    lines = []
    if not material.evaluation:
        lines.append("Whether adaptation helped: it was not evaluated.")
    if not material.run["has_trained_head"]:
        lines.append("How the model before guesses masked words: it had no trained head.")
    if shown["seeds_of_models"] == 1:
        lines.append("What another training seed would give: the model was trained with one seed.")
    if material.change:
        rows = [row for row in material.change.rows if row["p_value"] is not None]
        if any(row["exchange_unit"] != ExchangeUnit.AUTHORS for row in rows):
            lines.append("Authors of all tweets: where they are not known, an author of many tweets counts as many.")
        if any(row["controls"] < FEWEST_CONTROLS for row in rows):
            lines.append(
                "Whether use differs by more than that of ordinary words: fewer than 200 control words matched."
            )
        if any(row["controls"] and MatchedOn.PART_OF_SPEECH not in row["matched_on"] for row in rows):
            lines.append("Part of speech of the words: not all control words are matched on it.")
    elif material.words:
        lines.append("Whether the use of the words differs between times or groups: it was not compared.")
    if shown["rare"]:
        lines.append(f"Anything of words that are too rare: {', '.join(shown['rare'])}.")
    return lines


def reproduction(material: Material) -> dict[str, Any]:
    """reproduce.json: what it takes to do the study again, and what was tested in it."""
    run, words, change = material.run, material.words, material.change
    record = {
        "made_by": MADE_BY,
        "commands": material.commands,
        "seeds": material.seeds,
        "versions": {**run["versions"], **_versions()},
        "hardware": {
            "training": {key: run.get(key) for key in ("device", "ranks", "precision", "engine", "seconds")},
            "report": {
                "system": platform.system(),
                "processor": platform.machine(),
                "python": platform.python_version(),
            },
        },
        "recipe": run["recipe"],
        "data": run["data"],
        "model": {
            "name": run["model"],
            "revision": material.settings["train"]["model"]["revision"],
            "weights": run["weights"],
            "adapted_weights": run["exported"],
        },
        "funnel": [{"name": row["name"], "count": row["count"]} for row in funnel_rows(material.funnel)],
        "exclusions": _exclusions(material),
        "settings": material.settings,
        "evaluation": material.evaluation,
        "vectors": {key: words.get(key) for key in ("layers", "pooling", "correction", "models")} if words else None,
        "tests": _tests(change),
    }
    return dict(without_mentions(record))


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _exclusions(material: Material) -> list[dict[str, Any]]:
    """What was asked for and is not in the figures, and why."""
    rows = [
        {"what": "row", "reason": reason, "count": count}
        for reason, count in (material.funnel or {"dropped": {}})["dropped"].items()
        if count
    ]
    for word, record in (material.words or {"words": {}})["words"].items():
        reasons = {"truncated": "truncated", "unknown": "lost to [UNK]"}
        rows += [
            {"what": "occurrence", "word": word, "reason": reason, "count": record[key]}
            for key, reason in reasons.items()
            if record[key]
        ]
        left = record["matches"] - record["found"] - record["truncated"] - record["unknown"]
        if left > 0:
            rows.append({"what": "occurrence", "word": word, "reason": "not in the sample", "count": left})
    for row in material.change.rows if material.change else []:
        if row["measure"] == "energy" and row["p_value"] is None:
            groups = [str(group) for group in row["groups"]]
            rows.append({"what": "comparison", "word": row["word"], "reason": "too few", "groups": groups})
    return rows


def _tests(change: Change | None) -> list[dict[str, Any]]:
    keys = (
        "word",
        "contrast",
        "groups",
        "measure",
        "estimate",
        "low",
        "high",
        "p_value",
        "q_value",
        "exchange_unit",
        "verdict",
    )
    if not change:
        return []
    tests = [{key: row[key] for key in keys} for row in change.rows if row["p_value"] is not None]
    regression = ("word", "term", "statistic", "estimate", "p_value", "q_value", "permutations", "exchange_unit")
    return tests + [{key: row.get(key) for key in regression} for row in change.regression or []]
