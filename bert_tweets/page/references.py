"""References: BibTeX of the works that a study rests on, and of no others."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from bert_tweets.words.analysis.records import ExchangeUnit

from .inputs import Material

BIB_MARK = "% Made by bert_tweets report: the works that this study used."

# Of corrections that somebody proposed.
CORRECTIONS = {"all-but-the-top": "mu2018allbutthetop", "standardize": "timkey2021rogue"}

_WORKS = "works.bib"


def used(material: Material) -> list[str]:
    """Keys of the works that the study used, in the order of its methods."""
    keys = ["devlin2019bert", "paszke2019pytorch", "wolf2020transformers", "loshchilov2019adamw"]
    if material.run.get("engine") == "deepspeed":
        keys.append("rajbhandari2020zero")
    if material.words:
        keys.append("broder1997resemblance")
        keys += [CORRECTIONS[name]] if (name := material.words.get("correction")) in CORRECTIONS else []
        keys += ["kriegeskorte2008rsa"] if material.words["base"] and compares_distances(material.words) else []
    change = material.change
    tested = [row for row in change.rows if row["p_value"] is not None] if change else []
    if tested:
        keys += ["szekely2013energy", "phipson2010permutation", "benjamini1995fdr"]
        keys += ["efron1981jackknife", "aronow2015dyadic"]
        keys += ["rizzo2010disco"] if any(len(row["groups"]) > 2 for row in tested) else []
        keys += ["winkler2015block"] if any(row["exchange_unit"] != ExchangeUnit.CLUSTERS for row in tested) else []
    if change and change.senses:
        keys += ["hubert1985partitions", "wilson1927inference", "korn1998proportions"]
    if change and change.regression:
        keys += ["rodriguez2023embedding", "freedman1983nonstochastic"]
    if material.maps or (change and change.senses):
        keys.append("pedregosa2011sklearn")
    if material.maps and material.projection == "tsne":
        keys.append("vandermaaten2008tsne")
    return keys


def compares_distances(words: dict[str, Any]) -> bool:
    """Whether distances were correlated before and after, of any word of summary.json."""
    return any((one["drift"] or {}).get("distance_correlation") for one in words["words"].values())


def bibliography(keys: list[str]) -> str:
    """references.bib: the entries of these works."""
    entries = works()
    return "\n\n".join([BIB_MARK, *(entries[key] for key in keys)]) + "\n"


def works() -> dict[str, str]:
    """Every entry that there is, by its key."""
    text = (files(__package__) / "templates" / _WORKS).read_text(encoding="utf-8")
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in text.strip().split("\n\n")}
