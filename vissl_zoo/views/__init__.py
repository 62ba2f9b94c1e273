"""Random views of images for self-supervised training, rendered in batches on the training device."""

from vissl_zoo.views.draws import ViewDraws
from vissl_zoo.views.pipeline import IMAGENET_MEAN, IMAGENET_STD, ViewPipeline

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ViewDraws", "ViewPipeline"]
