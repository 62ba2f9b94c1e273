"""lightly's SimSiam as its documentation builds it: the peer of our training.

pip install lightly==1.6.0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from contestants import Turns
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vissl_zoo.data import canvas_size, open_images, open_store

T = TypeVar("T")


class InMemory(Dataset):
    """Images uint8 (N, H, W, 3) as PIL images through a transform: how torchvision's CIFAR10 serves them."""

    def __init__(self, images: np.ndarray, transform):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.images[index]))


def decode(path: str, image_size: int) -> np.ndarray:
    """The pixels that our store holds of a data set, uint8 (N, H, W, 3): both sides start from the same."""
    table = open_images(path)
    store = open_store(table, image_size, progress=False)
    batch = next(iter(store.batches([np.arange(len(store))])))
    assert (batch.sizes == torch.tensor(canvas_size(table, image_size))).all(), "images of one size only"
    return np.ascontiguousarray(batch.images.numpy().transpose(0, 2, 3, 1))


def lightly_simsiam(
    turns: Turns, path: str, image_size: int, batch_size: int, workers: int, cifar_stem: bool
) -> None:
    """lightly's SimSiam: the model, transform, loader, loss and optimizer of the example in its documentation.

    Its heads there are smaller than ours (128 dimensions, not 2048), which is to its advantage. `cifar_stem` makes the
    first convolution 3 × 3 with stride 1 and leaves out the pooling, as is usual for images of 32 pixels.
    """
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform
    from torchvision.models import resnet18

    class SimSiam(nn.Module):
        def __init__(self, backbone: nn.Module):
            super().__init__()
            self.backbone = backbone
            self.projection_head = SimSiamProjectionHead(512, 512, 128)
            self.prediction_head = SimSiamPredictionHead(128, 64, 128)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.projection_head(self.backbone(x).flatten(start_dim=1))
            return z.detach(), self.prediction_head(z)

    network = resnet18()
    if cifar_stem:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SimSiam(nn.Sequential(*list(network.children())[:-1])).to(device)
    loader = DataLoader(
        InMemory(decode(path, image_size), SimSiamTransform(input_size=image_size)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,  # to its advantage: else they start anew in every epoch
    )
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    batches = endless(loader)

    def step() -> int:
        x0, x1 = (x.to(device) for x in next(batches))
        (z0, p0), (z1, p1) = model(x0), model(x1)
        loss = 0.5 * (criterion(z0, p1) + criterion(z1, p0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return batch_size

    turns.ready()
    turns.run(step, device)


def endless(loader: Iterable[T]) -> Iterator[T]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader
