"""Embedding, κ and uncertainty of every image of a folder or data set, at the speed that the machine allows."""

from vissl_zoo.scoring.engine import Scored, score_images

__all__ = ["Scored", "score_images"]
