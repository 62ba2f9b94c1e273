"""Where random resized crops lie: integer boxes on the original, of a whole batch.

They follow torchvision's RandomResizedCrop to the letter (Szegedy et al., "Going deeper with convolutions", 2015, is
where the augmentation comes from).
"""

import numpy as np
import torch
from torch import Tensor


def choose_boxes(
    area: Tensor, aspect: Tensor, position: Tensor, sizes: Tensor, ratio: tuple[float, float]
) -> Tensor:
    """The first attempt that fits inside each image, else the largest central crop of an allowed ratio.

    area, aspect (..., B, attempts), position (..., B, 2) in [0, 1), sizes (B, 2) height and width in pixels
    -> (..., B, 4) int64: top, left, height, width in pixels of the original.
    """
    sizes = sizes.to(torch.float64)
    height, width = sizes.unbind(-1)
    target = area * (height * width).unsqueeze(-1)
    # numpy's root: torch hands even a small one to MKL's threads, for which a busy machine waits longer than for views.
    squares = torch.stack([target / aspect, target * aspect], -1).numpy()
    tried = torch.from_numpy(np.rint(np.sqrt(squares)))
    fits = ((tried > 0) & (tried <= sizes.unsqueeze(-2))).all(-1)  # (..., B, attempts)
    first = fits.to(torch.uint8).argmax(-1)  # the first of equal maxima
    chosen = tried.gather(-2, first[..., None, None].expand(*first.shape, 1, 2)).squeeze(-2)

    narrow, wide = (width / height) < ratio[0], (width / height) > ratio[1]
    fallback = torch.stack(
        [
            torch.where(narrow, (width / ratio[0]).round().clamp_min(1), height),
            torch.where(wide, (height * ratio[1]).round().clamp_min(1), width),
        ],
        -1,
    )
    found = fits.any(-1, keepdim=True)
    extent = torch.where(found, chosen, fallback)
    room = sizes - extent
    corner = torch.where(found, (position * (room + 1)).floor().minimum(room), (room / 2).floor())
    return torch.cat([corner, extent], -1).to(torch.int64)
