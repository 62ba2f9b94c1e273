"""How well the views of an image agree: what κ is fitted to, and all of the features that its likelihood needs.

Each view's latent is its embedding, centred and of unit length: z = (y - m)/‖y - m‖ with m the mean over the images
that the fit may see. Log p(z_j | x_i) = log C(κ_i) + κ_i log1p(z_i·z_j) is linear in log1p(t), so the mean over the
other views j needs nothing but one number for each view i: the mean of log1p(t_ij).

Other latents were measured, AUROC of κ for kNN correctness (and its Spearman with the shapes' known ambiguity).
`shapes` is the demo's network with 8,192 images to fit and 2,048 to test, CIFAR-10 the same network trained on it for 5
epochs with 20,000 and 4,000; 8 views, one seed. All were compared on the same test images, so the best of them reads a
little high; a second fit of the first row, with other views, differs by .014 and .003. So whitening is worse on shapes,
while centred, raw and standardised are not told apart by AUROC; centring follows the known ambiguity better than raw.

    latent                                            shapes         CIFAR-10
    centred (this one)                                .702 (.571)    .578
    centred, fitted again by the command              .688 (.560)    .575
    raw: the embedding itself                         .686 (.470)    .575
    each feature standardised                         .701 (.577)    .574
    whitened by PCA                                   .628 (.390)    .560
    whitened by PCA, shrunk by a tenth                .641 (.424)    .564
    canonical directions of two views, times ρ        .677 (.546)    .577
    the same, times ρ²                                .678 (.526)    .585
    direction of the mean of the other views          .686 (.609)    .574
    for comparison: κ learnt with the network         .706 (.608)    .576
      embedding norm                                  .649           .569
      similarity to neighbours                        .647           .564
      cosine of two views / mean of 9 views' cosines  .584 / .657    .531 / .564

Whitening gives directions in which views do not agree at all the weight of those in which they do. The number of views,
with the clean image as one more of them or as the only one, for which κ is asked in the end:

    2, 4, 8 views                                     .699 .690 .702  .566 .575 .578
    8 and the clean image; only the clean image       .687 .684       .578 .566
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vissl_zoo.errors import UserError
from vissl_zoo.fitting.view_features import ViewFeatures

LEAST_COSINE = -1 + 1e-6  # below lie only rounding and exact antipodes, where log1p has no finite value
CONSTANT = 1e-3  # a spread below that share of the embeddings' length is the rounding of their arithmetic
_CHUNK = 2**24  # features read at once: 64 MB


class Agreement(NamedTuple):
    """What the views of N images have in common.

    Attributes:
        mean: (F,) m less the features' offset.
        spread: root of the mean square of the centred features, one number for all F.
        log1p_cosine: (N, V) float64, mean of log1p(z_i·z_j) over the other views j of the image.
    """

    mean: Tensor
    spread: float
    log1p_cosine: Tensor


def measure_agreement(features: ViewFeatures, fitted: Tensor) -> Agreement:
    """Centre the features and measure how well the views of each image agree.

    Args:
        features: of N images and at least 2 views.
        fitted: (N,) bool, the images that m and the spread are taken over: not the held-out ones.

    Raises:
        UserError: the embeddings are all the same, so that there is nothing to agree on.
    """
    chunk = max(1, _CHUNK // (features.views * features.width))
    parts = [slice(i, min(i + chunk, len(features))) for i in range(0, len(features), chunk)]
    total = torch.zeros(features.width, dtype=torch.float64)
    squares = lengths = 0.0
    for part in parts:
        y = features.read(part)[fitted[part]].double()
        total += y.sum(dim=(0, 1))
        squares += float(y.square().sum())
        lengths += float((y + features.offset.double()).square().sum())
    count = int(fitted.sum()) * features.views
    mean = total / count
    variance = max(squares / count - float(mean.square().sum()), 0.0)
    if variance <= CONSTANT**2 * lengths / count:
        raise UserError(
            "the model gives nearly the same embedding for every view of every image: no κ can be fitted to it"
        )
    spread = (variance / features.width) ** 0.5
    agreement = [_mean_log1p(latents(features.read(part), mean, spread)) for part in parts]
    return Agreement(mean.float(), spread, torch.cat(agreement))


def latents(features: Tensor, mean: Tensor, spread: float) -> Tensor:
    """z (..., F) of unit length from features (..., F) less their offset; one at the mean itself stays zero."""
    centred = ((features.double() - mean) / spread).float()
    return torch.nn.functional.normalize(centred, dim=-1)


def _mean_log1p(z: Tensor) -> Tensor:
    """(B, V) means of log1p(z_i·z_j) over j ≠ i, of z (B, V, F)."""
    views = z.shape[1]
    terms = torch.log1p((z @ z.mT).double().clamp(LEAST_COSINE, 1))
    return (terms.sum(dim=2) - terms.diagonal(dim1=1, dim2=2)) / (views - 1)
