"""Which images to label first: by certainty, by spread over the embedding, or by how typical they are.

Which one is right depends on the budget. With few labels, typical images teach most, and uncertain ones least
(Hacohen, Dekel & Weinshall, "Active learning on a budget: opposite strategies suit high and low budgets", ICML 2022,
which is also where TypiClust comes from); with many labels it is the other way round.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

from vissl_zoo.photos.cosine_index import PROBES, CellIndex, use_index

Order = Literal["typical", "diverse", "uncertain", "certain"]

MOST_CLUSTERS = 500  # as in TypiClust: more clusters than that are tiny, and k-means is slow
SMALL_BUDGET = 50  # up to so many clusters k-means looks at all images in every step
NEIGHBOURS = 20  # as in TypiClust
COMPARED = 5_000  # images of a cluster, of many images; in a larger one an index finds the neighbours
_PART = 2**16


def choose(
    places: np.ndarray, embeddings: np.ndarray | None, k: int, order: Order, seed: int = 0
) -> np.ndarray:
    """Choose k of the M images at `places`, the most certain first, in the order of choice.

    Args:
        places: (M,) rows of the embeddings, M >= k.
        embeddings: (N, F); "certain" and "uncertain" need none.
        k: how many.
        order: by what rule.
        seed: of the clusters of "typical".

    Returns:
        k of the places.
    """
    if order in ("certain", "uncertain") or embeddings is None:
        return (places[::-1] if order == "uncertain" else places)[:k]
    places = np.sort(places)
    found = embeddings[places]
    return places[most_typical(found, k, seed) if order == "typical" else most_diverse(found, k)]


def unit_length(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (N, F) scaled to length 1, float32; a zero stays zero."""
    points = np.array(embeddings, dtype=np.float32)
    for start in range(0, len(points), _PART):  # in place: of a million, a further copy is 2 GB
        part = points[start : start + _PART]
        norm = np.linalg.norm(part, axis=1, keepdims=True)
        part /= np.where(norm > 0, norm, 1)
    return points


def most_diverse(embeddings: np.ndarray, k: int) -> np.ndarray:
    """k-centre greedy (Sener & Savarese, "Active learning for convolutional neural networks: a core-set approach").

    Every choice is the image farthest from all choices before it. The first, which the paper takes from the labelled
    images, is the one nearest to the mean.

    Args:
        embeddings: (N, F), finite; they are scaled to length 1.
        k: how many, 1 to N.

    Returns:
        Rows (k,) in the order of choice; after images that are all equal, the first that remain.
    """
    points = unit_length(embeddings)
    # ‖x - m‖² without a further copy of them all.
    first = int(np.argmin(np.einsum("nf,nf->n", points, points) - 2 * (points @ points.mean(axis=0))))
    chosen = [first]
    nearest = np.full(len(points), np.inf, dtype=np.float32)  # squared distance to the nearest choice
    for _ in range(k - 1):
        distance = np.maximum(2 - 2 * (points @ points[chosen[-1]]), 0)
        nearest = np.minimum(nearest, distance)
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)


def most_typical(embeddings: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """TypiClust (Hacohen et al., ICML 2022) without labelled images: the most typical image of each of k clusters.

    Clusters are of k-means on embeddings of length 1, at most `MOST_CLUSTERS`; typicality is the inverse of the mean
    distance to the 20 nearest neighbours in the cluster. With more images wanted than clusters, each cluster in turn,
    the largest first, gives its next most typical.

    Args:
        embeddings: (N, F), finite.
        k: how many, 1 to N.
        seed: of k-means.

    Returns:
        Rows (k,), those of the largest clusters first.
    """
    points = unit_length(embeddings)
    labels = _clusters(points, min(k, MOST_CLUSTERS), seed)
    names, sizes = np.unique(labels, return_counts=True)
    ranked, indexed = [], use_index(len(points))
    for name in names[np.argsort(-sizes, kind="stable")]:
        members = np.flatnonzero(labels == name)
        told = typicality(points[members], indexed=indexed and len(members) > COMPARED)
        ranked.append(members[np.argsort(-told, kind="stable")])
    turns = range(max(map(len, ranked)))
    in_turn = [members[turn] for turn in turns for members in ranked if turn < len(members)]
    return np.array(in_turn[:k])


def typicality(points: np.ndarray, *, indexed: bool = False) -> np.ndarray:
    """The inverse of each point's mean distance to its `NEIGHBOURS` nearest others: (n, F) of length 1 -> (n,).

    With `indexed` the nearest are those that an index finds.
    """
    neighbours = min(NEIGHBOURS, len(points) - 1)
    if neighbours == 0:
        return np.ones(1)
    if indexed:
        index = CellIndex(points, PROBES[0])
        index.add(np.arange(len(points)))
        distances = np.sqrt(np.maximum(2 - 2 * index.cosines(points, neighbours + 1)[:, 1:], 0))
    else:
        from sklearn.neighbors import NearestNeighbors

        distances, _ = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(points).kneighbors()
    return 1 / (distances.mean(axis=1) + 1e-5)


def _clusters(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The cluster (N,) of each point; clusters may turn out fewer where points are equal."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    means = KMeans(count, random_state=seed)
    if count > SMALL_BUDGET:
        size = max(1024, 3 * count)
        means = MiniBatchKMeans(count, n_init=3, batch_size=size, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer distinct points than clusters
        return means.fit_predict(points)
