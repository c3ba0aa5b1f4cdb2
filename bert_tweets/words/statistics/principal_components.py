"""Principal components: vectors projected to two dimensions, for maps and exports."""

from __future__ import annotations

import numpy as np

from bert_tweets.common.arrays import Floats


def principal_components(vectors: Floats) -> tuple[Floats, float]:
    """Project vectors, float32 [rows, width], onto their first two principal components.

    The largest entry of each axis is positive, so that the same vectors always give the same points. Returns them,
    float32 [rows, 2], and the share of the variance that they keep, 0 if all vectors are equal.
    """
    if not len(vectors):
        return np.zeros((0, 2), np.float32), 0.0
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    total = float(variances.sum())
    return (centred @ axes).astype(np.float32), float(variances[-2:].sum()) / total if total > 0 else 0.0
