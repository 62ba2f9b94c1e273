"""Two random views of every test image: their agreement needs no label, and more than one protocol asks for it."""

from __future__ import annotations

import numpy as np

from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.crops import random_views, represent_views, training_views


def two_views(evaluation: Evaluation) -> np.ndarray:
    """L2-normalised embeddings (2, N, F) of two views by SimSiam's augmentation, which the seed draws; made once."""
    if "two_views" not in evaluation.memo:
        chosen = np.arange(len(evaluation.test_features.rows))
        pipeline = training_views(evaluation)
        render = random_views(pipeline, pipeline.draw(len(chosen), step=0))
        views = represent_views(evaluation, chosen, render, 2, progress="two views")
        evaluation.memo["two_views"] = unit_length(views.embedding.numpy())
    return evaluation.memo["two_views"]


def unit_length(embedding: np.ndarray) -> np.ndarray:
    """Embeddings (…, F) divided by their length; one of length zero stays zero."""
    length = np.linalg.norm(embedding, axis=-1, keepdims=True)
    return embedding / np.maximum(length, np.finfo(np.float32).tiny)
