"""The notes of summary.json: every sentence about a study that its reader should know."""

from __future__ import annotations

from bert_tweets.config import EmbedConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.cleaning import USER
from bert_tweets.words.store.summary import WordSummary

from .study import Study


def notes_of(
    config: EmbedConfig, manifest: Manifest, study: Study, words: dict[str, WordSummary], without_head: str | None
) -> list[str]:
    """Word the notes; `without_head` names a model that has no trained head for the requested substitutes."""
    notes = []
    mentions = [word.text for word in study.words if word.text[0] == "@" and word.key != USER]
    if mentions and manifest.recipe.clean.partition("+")[0] != "raw":
        notes.append(f"{', '.join(mentions)}: cannot be found: the recipe of these shards replaces mentions by {USER}")
    absent = [word for word, one in words.items() if not one.matches]
    if len(absent) == len(words):
        notes.append("none of the words is in the tweets; check their spelling, and that these are the right shards")
    elif absent:
        notes.append(f"{', '.join(absent)}: not in the tweets")
    lost = [word for word, one in words.items() if one.unknown and not one.found]
    if lost:
        notes.append(
            f"{', '.join(lost)}: in the tweets, but lost to [UNK]: the tokenizer lacks the character; "
            "prepare with emoji=tokens, or with the tokenizer of a model that has it"
        )
    if config.occurrences and (unknown := sum(one.unknown for one in words.values())):
        notes.append(
            f"{unknown:,} of the spans are [UNK] to the tokenizer, or lie within text that the model's recipe rewrites "
            "(links, mentions)"
        )
    if len(study.background.words) < 2 * config.neighbours:
        notes.append(
            f"only {len(study.background.words)} background words: too few for {config.neighbours} meaningful "
            "neighbours; raise background_tweets or lower background_minimum"
        )
    if without_head:
        notes.append(f"{without_head}: has no trained masked-LM head, so there are no substitutes")
    return notes
