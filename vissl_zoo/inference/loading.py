"""From what a person types to a model and its images."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vissl_zoo.data import ImageTable, available_splits, open_images, split_name
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.hub.export import check_config, load_heads
from vissl_zoo.inference.crop import central_crop, check_entries
from vissl_zoo.models import create_model
from vissl_zoo.models.representation import Represents

TEST_SPLITS = ("test", "validation")
ModelOrName = Represents | nn.Module | str | os.PathLike
_logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A model ready for evaluation.

    Attributes:
        model: `represent` works if it has a κ head. One that was named is in evaluation mode, without a classifier.
        name: what to call it.
        image_size: side of the images it wants, in pixels.
        heads: tensors of projector and predictor where an export has them, else None.
    """

    model: nn.Module
    name: str
    image_size: int
    heads: dict[str, Tensor] | None


def load_model(
    model: ModelOrName,
    *,
    random_init: bool = False,
    image_size: int | None = None,
    device: torch.device | str | None = None,
) -> Loaded:
    """Load a model by what a person types; one that is a model already is taken as it is, where it lies.

    Args:
        model: a run folder (with `export/` in it), an export folder, a registered name of the zoo, any name of timm,
            with its tag if any, or a model.
        random_init: leave the weights of a model that is named random, for a floor to compare with.
        image_size: side of the images in pixels; by default what the model was trained at.
        device: where a model that is named goes; by default it stays on the CPU.

    Raises:
        UserError: there is no such model, it has no weights, or they cannot be loaded.
    """
    if isinstance(model, (str, os.PathLike)):
        loaded = _load_named(os.fspath(model), random_init, image_size)
        return loaded._replace(model=loaded.model.to(device or "cpu"))
    module = cast(nn.Module, model)
    config = getattr(module, "pretrained_cfg", None) or {}
    name = ".".join(filter(None, (config.get("architecture") or type(module).__name__, config.get("tag"))))
    return Loaded(module, name, central_crop(module, image_size).size, None)


def _load_named(name: str, random_init: bool, image_size: int | None) -> Loaded:
    folder = next((f for f in (Path(name) / "export", Path(name)) if (f / "config.json").is_file()), None)
    if folder is None and Path(name).is_dir():
        raise UserError(
            f"{name} holds no export: there is no config.json in it or in {Path(name) / 'export'}"
        )
    source = name if folder is None else f"local-dir:{folder}"
    config = check_config(folder) if folder is not None else {}
    try:
        check_entries(config.get("pretrained_cfg", {}))
        with torch.random.fork_rng(devices=[]):  # random weights follow from the name alone
            torch.manual_seed(0)
            model = create_model(source, pretrained=not random_init, num_classes=0).eval()
        size = image_size or central_crop(model).size
    except Exception as error:  # timm, the Hub and safetensors each raise their own
        raise UserError(f"{name} cannot be loaded: {first_line(error)}") from error
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"{name} cannot take images of --image-size {size}: {first_line(error)}") from error
    label = f"{name} (random weights)" if random_init else name
    return Loaded(model, label, size, None if folder is None or random_init else load_heads(folder))


def open_tables(
    path: str, *, train_split: str = "train", split: str | None = None, **columns: str | None
) -> tuple[ImageTable | None, ImageTable]:
    """The training and the test images of a data set; nothing is decoded yet.

    Without a second split all images are measured on, and there are none to learn from (None).

    Args:
        path: as for `open_images`.
        train_split: the split that classifiers learn from, or a part of it.
        split: the split to measure on, or a part of one; by default `test` or `validation`, the first that has labels.
        columns: `image_column` and `label_column`, as for `open_images`.

    Raises:
        UserError: as `open_images`; or images to measure on are among those to learn from.
    """
    splits, (_, bounds) = available_splits(path), split_name(path, train_split)
    train = None
    if train_split != "train" or "train" in splits:
        train = open_images(path, split=train_split, **columns)
    wanted = (
        [split] if split else [s for s in TEST_SPLITS if s in splits and (train is None or s != train.whole)]
    )
    if not wanted and bounds:
        raise UserError(
            f"{path}: beside {train_split} there is no split to measure on; say what with --data.split, such as the "
            "rest: 'train[90%:]' beside 'train[:90%]'"
        )
    if not wanted:
        return None, train or open_images(path, split=train_split, **columns)
    tables = [open_images(path, split=s, **columns) for s in wanted]
    # A test split without labels, as challenges have, gives way to a validation split that has them.
    test = next((table for table in tables if table.labels is not None), tables[0])
    if train is None:
        return None, test
    if test.is_same_as(train):
        _logger.warning(
            "--data.split %s is also the split to learn from: what needs training images is left out",
            test.split,
        )
        return None, test
    if shared := train.shared_with(test):
        raise UserError(
            f"{path}: {shared} images of --data.split {test.split} are also among those to learn from, "
            f"--data.train-split {train.split}; name parts that share none, such as 'train[:90%]' and 'train[90%:]'"
        )
    return train, test
