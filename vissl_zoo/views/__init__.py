"""Random views of images for self-supervised training, rendered in batches on the training device."""

from .draws import ViewDraws
from .pipeline import IMAGENET_MEAN, IMAGENET_STD, ViewPipeline

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ViewDraws", "ViewPipeline"]
