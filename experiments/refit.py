"""Fit the κ of shipped weights anew, as a training of today ends, and ship them again.

    python experiments/refit.py cifar10/ vi_simsiam_resnet18.cifar10 simsiam_resnet18.cifar10

It is for weights that were trained before trainings ended so, and whose κ was learnt beside the trunk. The figures of
their cards go: `vissl-zoo evaluate` measures new ones, and `ship.py NAME --evaluation F` puts them there.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm

from cards import write_cards
from ship import Arguments, ship
from vissl_zoo import weights
from vissl_zoo.data import open_images
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.training.finish import fit_note
from vissl_zoo.uncertainty.fitted_kappa import refit_kappa


def main() -> None:
    """Refit every model that is named to the training images that come first."""
    images, *names = sys.argv[1:]
    table = open_images(images, split="train")
    for name in names:
        row, (registered, tag) = weights.shipped()[name], name.split(".")
        model: Any = timm.create_model(name, pretrained=True, num_classes=0).eval()
        fit = refit_kappa(model, table, row.pretrained_cfg["input_size"][-1])
        old = Record.from_dict({"method": registered, **row.card.get("record", {})})
        record = replace(old, note=f"{old.note} {fit_note(fit)}" if old.note else fit_note(fit))
        told = {key: row.card[key] for key in ("dataset", "license") if key in row.card}
        with tempfile.TemporaryDirectory() as folder:
            export_model(model, folder, readme=render_card(model, record))
            about = Arguments(tag=tag, model=registered, description=row.description, **told)
            print(ship(Path(folder), about))
    write_cards(Path(__file__).resolve().parents[1] / "model_cards")


if __name__ == "__main__":
    main()
