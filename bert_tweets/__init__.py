"""bert_tweets: adapt a pre-trained BERT to tweets, and get back vectors of chosen words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_tweets.words.vectors.word_vectors import WordVectors

__version__ = "0.1.0"
__all__ = ["WordVectors", "__version__"]


def __getattr__(name: str) -> Any:
    """What is imported when it is first asked for: the command's help waits for none of it."""
    if name == "WordVectors":
        from bert_tweets.words.vectors.word_vectors import WordVectors

        return WordVectors
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
