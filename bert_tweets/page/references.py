"""References: BibTeX entries of the works that a study relies on."""

from __future__ import annotations

from importlib.resources import files

from bert_tweets.words.analysis.records import ExchangeUnit
from bert_tweets.words.store.summary import Summary

from .inputs import StudyRecords

BIB_MARK = "% Written by bert_tweets report: the works that this study used."

# Published corrections of vectors, by the setting `correction`.
CORRECTIONS = {"all-but-the-top": "mu2018allbutthetop", "standardize": "timkey2021rogue"}


def works_used(study: StudyRecords) -> list[str]:
    """Keys of the works that the study used, in the order of its methods."""
    words, change = study.words, study.change
    keys = ["devlin2019bert", "paszke2019pytorch", "wolf2020transformers", "loshchilov2019adamw"]
    keys += ["rajbhandari2020zero"] if study.config.engine.name == "deepspeed" else []
    if words:
        keys += [CORRECTIONS[words.correction]] if words.correction in CORRECTIONS else []
        keys += ["kriegeskorte2008rsa"] if has_distance_correlation(words) else []
    if change and change.tested:
        keys += ["szekely2013energy", "broder1997resemblance", "phipson2010permutation", "benjamini1995fdr"]
        keys += ["efron1981jackknife", "aronow2015dyadic"]
        keys += ["rizzo2010disco"] if any(len(row["groups"]) > 2 for row in change.tested) else []
        whole_authors = any(row["exchange_unit"] != ExchangeUnit.CLUSTERS for row in change.tested)
        keys += ["winkler2015block"] if whole_authors else []
    if change and change.senses:
        keys += ["hubert1985partitions", "wilson1927inference", "korn1998proportions", "pedregosa2011sklearn"]
    if change and change.regression:
        keys += ["rodriguez2023embedding", "freedman1983nonstochastic"]
    if study.maps and study.projection == "tsne":
        keys += ["pedregosa2011sklearn", "vandermaaten2008tsne"]
    return list(dict.fromkeys(keys))


def has_distance_correlation(words: Summary) -> bool:
    """Whether distances were correlated between base and model for any word."""
    drifts = [word.drift for word in words.words.values() if word.drift]
    return any(value is not None for drift in drifts for value in drift.distance_correlation.by_seed)


def bibliography(keys: list[str]) -> str:
    """The contents of references.bib."""
    entries = works()
    return "\n\n".join([BIB_MARK, *(entries[key] for key in keys)]) + "\n"


def works() -> dict[str, str]:
    """All BibTeX entries, by key."""
    text = (files(__package__) / "templates/works.bib").read_text(encoding="utf-8")
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in text.strip().split("\n\n")}
