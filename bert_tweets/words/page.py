"""The page: what a study found, in one self-contained HTML file without a tweet's text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .figures import funnel_figure, loss_figure, missing_extra, plotly_script

TOO_RARE = 20

_MENTION = re.compile(r"(?<!\w)[@＠]\w+")


@dataclass(frozen=True)
class Material:
    """What the stages left behind.

    Attributes:
        title: of the page.
        run: run.json.
        training, validation: lines of metrics.jsonl and validation.jsonl.
        funnel: funnel.json, None where the shards are gone.
        evaluation: metrics.json, None where there was none.
        words: summary.json, None where there was none.
        commands: command lines of the stages.
        seeds: by stage.
    """

    title: str
    run: dict[str, Any]
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    funnel: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    words: dict[str, Any] | None = None
    commands: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)


def render(material: Material) -> str:
    """The page as HTML.

    Raises:
        UserError: jinja2 or plotly is not installed.
        ValueError, TypeError, LookupError: the material has other fields than the stages leave.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
        from markupsafe import Markup
    except ImportError:
        raise missing_extra("jinja2") from None
    script = plotly_script()
    context = without_mentions(_context(material))
    figures = {"loss": loss_figure(material.training, material.validation, material.run.get("best_step"))}
    if context["funnel"]:
        figures["funnel"] = funnel_figure(context["funnel"])
    environment = Environment(
        loader=PackageLoader("bert_tweets.words", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    try:
        return environment.get_template("page.html").render(
            **context,
            too_rare=TOO_RARE,
            # Both are plotly's: it writes what stands in a figure as JSON without < and >.
            plotly=Markup(script),  # noqa: S704
            figures={name: Markup(figure) for name, figure in figures.items()},  # noqa: S704
        )
    except UndefinedError as error:
        raise ValueError(str(error)) from None


def without_mentions(value: Any) -> Any:
    """A record with every @name in its texts as @user: no account is named on a page that is passed around."""
    if isinstance(value, str):
        return _MENTION.sub("@user", value)
    if isinstance(value, dict):
        return {key: without_mentions(inner) for key, inner in value.items()}
    return [without_mentions(inner) for inner in value] if isinstance(value, list) else value


def _context(material: Material) -> dict[str, Any]:
    return {
        "title": material.title,
        "run": material.run,
        "verdict": _verdict(material),
        "facts": _facts(material),
        "funnel": _funnel_rows(material.funnel),
        "funnel_notes": _notes(material.funnel),
        "evaluation": _evaluation(material.evaluation),
        "words": _words(material.words),
        "study": material.words,
        "commands": material.commands,
        "seeds": material.seeds,
        "fall": _fall(material.run),
    }


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


def _funnel_rows(funnel: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not funnel:
        return []
    read = max(1, funnel["read"])
    rows = [("rows read", funnel["read"], "read")]
    rows += [(f"dropped: {reason}", count, "dropped") for reason, count in funnel["dropped"].items() if count]
    rows.append(("tweets kept", funnel["kept"], "kept"))
    named = {"train": "for training", "validation": "held out for validation"}
    rows += [(named.get(split, split), part["tweets"], "split") for split, part in funnel["splits"].items()]
    return [{"name": name, "count": count, "kind": kind, "share": f"{count / read:.1%}"} for name, count, kind in rows]


def _notes(funnel: dict[str, Any] | None) -> list[str]:
    return [f"{note}: {count:,}" for note, count in funnel["notes"].items() if count] if funnel else []


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
        "base_name": base["name"] if base else None,
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
        "name": figures["name"],
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
    order = summary.get("asked") or sorted(summary["words"])
    return [_word(name, summary["words"][name], bool(summary["base"])) for name in order]


def _word(name: str, record: dict[str, Any], has_base: bool) -> dict[str, Any]:
    before = {word for word, _ in record["base_neighbours"]}
    after = {word for word, _ in record["neighbours"]}
    overlap = record["neighbour_overlap"]
    return {
        **{key: record[key] for key in ("found", "truncated", "unknown", "tweets", "clusters")},
        "name": name,
        "matches": record["matches"],
        "sampled": record["matches"] > record["found"] + record["truncated"] + record["unknown"],
        "flag": _flag(record),
        "before": [_neighbour(pair, has_base and pair[0] not in after) for pair in record["base_neighbours"]],
        "after": [_neighbour(pair, has_base and pair[0] not in before) for pair in record["neighbours"]],
        "overlap": None if overlap is None else f"{overlap:.0%}",
    }


def _flag(record: dict[str, Any]) -> str | None:
    """What keeps a word from being shown like the others."""
    if not record["matches"]:
        return "not in the tweets"
    if record["unknown"] and not record["found"]:
        return "lost to [UNK]"
    return "too rare" if record["found"] < TOO_RARE else None


def _neighbour(pair: list[Any], differs: bool) -> dict[str, Any]:
    return {"word": pair[0], "cosine": f"{pair[1]:.2f}", "differs": differs}
