"""A map: embeddings as points of the plane, near where they are alike."""

from __future__ import annotations

import numpy as np

from vissl_zoo.photos.selection import unit_length

FEWEST = 10  # below, t-SNE has nothing to say
_COMPONENTS = 50


def project(embeddings: np.ndarray, how: str = "tsne", seed: int = 0) -> np.ndarray:
    """Lay N embeddings out in the plane.

    Args:
        embeddings: (N, F), finite; they are scaled to length 1.
        how: "tsne" (van der Maaten & Hinton, 2008) from the first 50 principal components, started at the first two,
            or "pca", the first two themselves. Fewer than `FEWEST` images get "pca".
        seed: of t-SNE. The same input gives the same map on the same machine.

    Returns:
        (N, 2) float64, each axis scaled to [0, 1]; 0.5 where all are equal.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = unit_length(embeddings).astype(np.float64)
    points = points - points.mean(axis=0)
    components = min(_COMPONENTS, *points.shape)
    reduced = np.zeros((len(points), 2))
    if np.ptp(points, axis=0).max() > 0:
        found = PCA(components, svd_solver="full", random_state=seed).fit_transform(points)
        reduced[:, : found.shape[1]] = found[:, :2]
        if how == "tsne" and len(points) >= FEWEST:
            perplexity = min(30.0, (len(points) - 1) / 3)
            start = 1e-4 * reduced / max(reduced[:, 0].std(), 1e-12)
            reduced = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(found)
    low, extent = reduced.min(axis=0), np.ptp(reduced, axis=0)
    return np.where(extent > 0, (reduced - low) / np.where(extent > 0, extent, 1), 0.5)
