"""Context: what the page's template shows, as texts and numbers that are ready to be read."""

from __future__ import annotations

import re
from typing import Any

from bert_tweets.corpus.shards.funnel import NOTE_TEXTS, REASON_TEXTS

from . import analysis_tables
from .inputs import Material

TOO_RARE = 20


def template_context(material: Material) -> dict[str, Any]:
    """All that the template names but the charts.

    Raises:
        ValueError, TypeError, LookupError: the material has other fields than the stages leave.
    """
    change = material.change
    words = _words(material.words)
    return {
        "title": material.title,
        "run": material.run,
        "verdict": _verdict(material),
        "facts": _facts(material),
        "funnel": funnel_rows(material.funnel),
        "funnel_notes": _notes(material.funnel),
        "evaluation": _evaluation(material.evaluation),
        "words": words,
        "study": material.words,
        "begun_from": short_name(material.run["model"]),
        "base": short_name(material.words["base"]) if material.words and material.words["base"] else None,
        "seeds_of_models": _seeds_of_models(material.words),
        "commands": material.commands,
        "seeds": material.seeds,
        "fall": _fall(material.run),
        "claims": analysis_tables.claims(change),
        "compared": change is not None,
        "by": change.by if change else "",
        "rare": [f"{word['name']} ({_how_rare(word)})" for word in words if word["flag"]],
        "ranks": analysis_tables.rank_rows(change) if change else [],
        "pairs": analysis_tables.pair_rows(change) if change else [],
        "senses": analysis_tables.sense_rows(change.senses if change else None),
        "criterion": analysis_tables.usual_criterion(change.senses) if change and change.senses else None,
        "regression": analysis_tables.regression_rows(change.regression if change else None),
        "matched_on": analysis_tables.matched_on(change),
        "has_controls": bool(change and change.controls),
    }


def _how_rare(word: dict[str, Any]) -> str:
    return f"{word['found']:,} found" if word["flag"] == "too rare" else str(word["flag"])


def _seeds_of_models(summary: dict[str, Any] | None) -> int | None:
    """Training seeds behind the before and after; None where there is no before."""
    return len(summary["models"]) if summary and summary["base"] else None


def short_name(name: str) -> str:
    """A model's name for readers: of a path its last two parts, for the rest is the writer's own disk."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return "/".join(parts[-2:]) or name


def _comparable(evaluation: dict[str, Any]) -> bool:
    return bool(evaluation["base"] and evaluation["base"].get("comparable") and evaluation["difference"])


def _verdict(material: Material) -> str:
    evaluation = material.evaluation
    if evaluation is None:
        return "Whether adaptation helped was not evaluated: run bert-tweets evaluate and make the report again."
    return str(evaluation["verdict"])


def _facts(material: Material) -> list[dict[str, str]]:
    """The numbers of the first screen."""
    run, facts = material.run, []
    if material.funnel:
        facts.append(_fact(f"{material.funnel['kept']:,}", f"tweets kept of {material.funnel['read']:,} rows"))
    facts.append(_fact(f"{run['steps']:,}", "training steps" + (", stopped early" if run.get("stopped_early") else "")))
    facts.append(_fact(f"{run['tokens']:,}", "tokens read in training"))
    evaluation = material.evaluation
    if evaluation:
        after = f"{evaluation['model']['accuracy']:.1%}"
        if _comparable(evaluation):
            facts.append(_fact(f"{100 * evaluation['base']['accuracy']:.1f} → {after}", "masked tokens guessed right"))
        else:
            facts.append(_fact(after, "masked tokens guessed right by the adapted model"))
    if material.words:
        found = sum(record["found"] for record in material.words["words"].values())
        count = len(material.words["words"])
        facts.append(_fact(f"{found:,}", f"occurrences of {count} {'word' if count == 1 else 'words'} embedded"))
    return facts


def _fact(number: str, meaning: str) -> dict[str, str]:
    return {"number": number, "meaning": meaning}


def _fall(run: dict[str, Any]) -> dict[str, str] | None:
    """Validation loss at the start and at its best."""
    if run.get("validation_loss") is None or run.get("start_validation_loss") is None:
        return None
    return {"start": f"{run['start_validation_loss']:.3f}", "best": f"{run['validation_loss']:.3f}"}


def funnel_rows(funnel: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What was read, dropped and kept: name, count, kind (read, dropped, kept, split) and share, top first."""
    if not funnel:
        return []
    read = max(1, funnel["read"])
    rows = [("rows read", funnel["read"], "read")]
    rows += [
        (f"dropped: {REASON_TEXTS[reason]}", count, "dropped") for reason, count in funnel["dropped"].items() if count
    ]
    rows.append(("tweets kept", funnel["kept"], "kept"))
    named = {"train": "for training", "validation": "held out for validation"}
    rows += [(named.get(split, split), part["tweets"], "split") for split, part in funnel["splits"].items()]
    return [{"name": name, "count": count, "kind": kind, "share": f"{count / read:.1%}"} for name, count, kind in rows]


def _notes(funnel: dict[str, Any] | None) -> list[str]:
    return [f"{NOTE_TEXTS[note]}: {count:,}" for note, count in funnel["notes"].items() if count] if funnel else []


def _evaluation(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    base, difference = evaluation["base"], evaluation["difference"]
    comparable = _comparable(evaluation)
    return {
        "notes": evaluation["notes"],
        "model": _figures(evaluation["model"]),
        "base": _figures(base) if comparable else None,
        # A base that is not comparable shows no figure that somebody could subtract.
        "not_comparable": (base.get("reason") or "its figures mean something else")
        if base and not comparable
        else None,
        "base_name": short_name(base["name"]) if base else None,
        "difference": {
            "loss": f"{difference['loss']:+.4f}",
            "interval": f"{difference['low']:+.4f} to {difference['high']:+.4f}",
            "accuracy": f"{100 * difference['accuracy']:+.2f} points",
            "clusters": difference["clusters"],
            "samples": difference["samples"],
        }
        if comparable
        else None,
    }


def _figures(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": short_name(figures["name"]),
        "loss": f"{figures['loss']:.4f}",
        "interval": f"{figures['low']:.4f} to {figures['high']:.4f}",
        "perplexity": f"{figures['perplexity']:.2f}",
        "accuracy": f"{figures['accuracy']:.2%}",
        "masked_tokens": figures["masked_tokens"],
        "tweets": figures["tweets"],
    }


def _words(summary: dict[str, Any] | None) -> list[dict[str, Any]]:
    if summary is None:
        return []
    return [_word(name, record, bool(summary["base"])) for name, record in summary["words"].items()]


def _word(name: str, record: dict[str, Any], has_base: bool) -> dict[str, Any]:
    before = {word for word, _ in record["base_neighbours"]}
    after = {word for word, _ in record["neighbours"]}
    overlap = record["drift"]["neighbour_overlap"]["by_seed"][0] if record["drift"] else None
    return {
        **{key: record[key] for key in ("found", "truncated", "unknown", "tweets", "clusters")},
        "name": name,
        "matches": record["matches"],
        "sampled": record["matches"] > record["found"] + record["truncated"] + record["unknown"],
        "flag": _flag(record),
        "before": [_neighbour(pair, has_base and pair[0] not in after) for pair in record["base_neighbours"]],
        "after": [_neighbour(pair, has_base and pair[0] not in before) for pair in record["neighbours"]],
        "overlap": None if overlap is None else f"{overlap:.0%}",
        "before_after": record["drift"],
        "beside": _beside(record["drift"]),
    }


def _beside(before_after: dict[str, Any] | None) -> str | None:
    """A word's overlap of neighbours beside the control words'."""
    one = (before_after or {}).get("neighbour_overlap")
    if not one or not one.get("control_quantiles") or one.get("rank") is None:
        return None
    low, middle, high = one["control_quantiles"]
    return f"ordinary words keep {middle:.0%} ({low:.0%} to {high:.0%}); rank {one['rank']} of {one['num_ranked']}"


def _flag(record: dict[str, Any]) -> str | None:
    """What keeps a word from being shown like the others."""
    if not record["matches"]:
        return "not in the tweets"
    if record["unknown"] and not record["found"]:
        return "lost to [UNK]"
    return "too rare" if record["found"] < TOO_RARE else None


def _neighbour(pair: list[Any], differs: bool) -> dict[str, Any]:
    return {"word": pair[0], "cosine": f"{pair[1]:.2f}", "differs": differs}
