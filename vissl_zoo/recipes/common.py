"""What the recipes of all methods share: the paper's settings on ImageNet-100, and the zoo's on CIFAR-10."""

from __future__ import annotations

from vissl_zoo.recipes.base import Data, Views

CIFAR10 = Data(path="uoft-cs/cifar10")
IMAGENET100 = Data(path="clane9/imagenet-100")

# Images of 32 pixels are blurred enough: SimSiam's own CIFAR recipe leaves the blur out.
CIFAR10_VIEWS = Views(blur=0.0)
# App. B: two standard views and six of 96 pixels that cover 5% to 20% of the image.
MULTI_CROP = Views(low=6, low_size=96)

NOT_MEASURED = "not measured by this project yet"
