"""κ for any backbone: freeze it, estimate how well each image is recognised, and fit κ to that. No label is used."""

from __future__ import annotations

import copy
import logging
import os
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from vissl_zoo.data import ImageTable, open_images
from vissl_zoo.errors import UserError
from vissl_zoo.inference import central_crop
from vissl_zoo.models import add_kappa_head
from vissl_zoo.models.representation import embedding_width
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.uncertainty.head_fit import Fit, fit_head, held_out_rows
from vissl_zoo.uncertainty.targets import TARGETS
from vissl_zoo.uncertainty.view_embeddings import MEMORY_LIMIT, embed_views

FEWEST = 10  # images; a tenth of them, one at least, chooses the step
HELD_OUT = 0.1
REFIT_IMAGES = (4000, 10_000)  # after a training: a fifth of its images, within these bounds
REFIT_VIEWS = 4
WIDEST = 256  # hidden layer of the head: 1,024 won no AUROC
_logger = logging.getLogger(__name__)


def fit_kappa(
    model: nn.Module,
    images: str | os.PathLike | ImageTable,
    *,
    target: str = "clusters",
    views: int = 8,
    image_size: int | None = None,
    kappa_map: str = "exp",
    kappa_hidden: int | None = None,
    steps: int = 600,
    lr: float = 1e-3,
    exact: bool = False,
    seed: int = 0,
    workers: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: bool = True,
) -> nn.Module:
    """Give any timm model a κ head fitted to unlabelled images, in minutes on a CPU.

        model = vissl_zoo.fit_kappa(timm.create_model("resnet50", pretrained=True, num_classes=0), "photos/")
        embedding, kappa, uncertainty = model.represent(x)

    Each image and its views are embedded once. A target says, without labels, with which chance p the kind of an
    image is recognised. κ = head(y) is fitted to p by cross-entropy, so the uncertainty (d-1)/(d-1+κ) estimates 1 - p;
    d is the embeddings' width.

    Args:
        model: any timm model with pooled features; it keeps its class and heads, and is put in evaluation mode.
        images: what `open_images` takes, of which the split "train" is read, or an opened table.
        target: "clusters", "neighbours" or "views", see `targets`.
        views: V >= 2 random views of each image.
        image_size: side of the views in pixels; by default the model's own.
        kappa_map: "exp" or "softplus", see `KappaHead`.
        kappa_hidden: width of the head; by default that of the embedding, 256 at most.
        steps: of the fit.
        lr: its learning rate.
        exact: embed in plain float32.
        seed: of views, held-out images and batches.
        workers: threads that decode images.
        memory_limit: bytes of embeddings above which they lie on disk, in the cache folder.
        progress: show progress bars.

    Returns:
        A model with `represent`, in evaluation mode, that shares the weights of its trunk with `model`. Its attribute
        `kappa_fit` says how the fit went, see `Fit`.

    Raises:
        TypeError: `model` is no timm model with pooled features.
        UserError: the model is DINO's, there are too few readable images, or the embeddings are not finite or all
            the same.
        ValueError: an option is out of range.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    if views < 2 or steps < 1 or not lr > 0:
        raise ValueError(f"views must be at least 2, steps and lr positive: {views}, {steps}, {lr}")
    fitted = with_fresh_head(model, kappa_map, kappa_hidden, seed)
    table = images if isinstance(images, ImageTable) else open_images(images)
    embeddings = embed_views(
        fitted,
        table,
        image_size or central_crop(model).size,
        views=views,
        seed=seed,
        exact=exact,
        workers=workers,
        memory_limit=memory_limit,
        progress="embedding views" if progress else None,
    )
    return fit_to_embeddings(
        fitted, embeddings, target=target, steps=steps, lr=lr, seed=seed, progress=progress
    )


def refit_kappa(
    model: nn.Module, images: ImageTable, image_size: int, *, seed: int = 0, workers: int | None = None
) -> Fit:
    """Fit the κ head of a trained model anew, in place, to a fifth of its training images and 4 views of each.

    Of few images all are taken up to 4,000, and of many 10,000 at most. On the demo twice as many won nothing; on
    CIFAR-10 the AUROC rose by .012 to .017 from 4,000 to 10,000.

    The head keeps its shape and its latent dimension. Its map becomes `exp`: softplus, whose input is κ itself, is
    fitted worse (on the demo's network the AUROC was .64 against .68).

    Raises:
        UserError: there are too few readable images, or the embeddings are all the same; the head is then as it was.
    """
    head, trained = cast(KappaHead, model.kappa_head), cast(Any, model)
    count = int(np.clip(len(images) // 5, *REFIT_IMAGES))
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
    options: dict[str, Any] = {"views": REFIT_VIEWS, "seed": seed, "workers": workers}
    y = embed_views(model, images.select(rows), image_size, **options, progress="images for κ")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = KappaHead(head.in_features, head.latent_dim, "exp", head.mlp.fc1.out_features)
    trained.kappa_head = fresh.to(head.mlp.fc1.weight.device).train(head.training)
    try:
        fit = fit_to_embeddings(model, y, seed=seed).kappa_fit
    except UserError:
        trained.kappa_head = head
        raise
    trained._model_args = {**trained._model_args, "kappa_map": "exp"}
    return fit


def fit_to_embeddings(
    model: nn.Module,
    embeddings: np.ndarray,
    *,
    target: str = "clusters",
    steps: int = 600,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Any:
    """Fit the κ head of a model, which is a fresh one, to embeddings of images and their views; returns the model.

    Args:
        model: of `with_fresh_head`.
        embeddings: (N, 1 + V, F) float32, of the clean image first.
        target, steps, lr, seed, progress: as for `fit_kappa`.

    Raises:
        UserError: there are too few images, or the embeddings are all the same.
    """
    if len(embeddings) < FEWEST:
        raise UserError(f"κ can be fitted to {FEWEST} images or more; {len(embeddings)} can be read")
    own = cast(KappaHead, model.kappa_head)
    head = copy.deepcopy(own).to("cpu", torch.float32)
    learnt = held_out_rows(len(embeddings), HELD_OUT, seed)
    with torch.enable_grad():
        aims = TARGETS[target](embeddings, seed)
        fit = fit_head(head, embeddings, aims, learnt, steps=steps, lr=lr, seed=seed, progress=progress)
    own.load_state_dict(head.state_dict())
    if fit.cross_entropy >= fit.constant_cross_entropy:
        _logger.warning("κ(x) is worth no more than one κ for all on the held-out images: give more images")
    model.__dict__["kappa_fit"] = fit._replace(target=target)
    return model


def refuse_dino(model: nn.Module) -> None:
    """Raise a UserError for a model whose uncertainty is the entropy of its prototypes, whatever its κ."""
    if getattr(model, "prototype_head", None) is not None:
        raise UserError("the uncertainty of a DINO model is its entropy: a fitted κ needs another backbone")


def with_fresh_head(
    model: nn.Module, kappa_map: str = "exp", kappa_hidden: int | None = None, seed: int = 0
) -> nn.Module:
    """A model of the same modules, but for a κ head of its own; the given one keeps its class and its head."""
    refuse_dino(model)
    fitted = copy.copy(model)
    fitted._modules = model._modules.copy()  # else the head would be added to both
    if getattr(fitted, "kappa_head", None) is not None:
        fitted._modules["kappa_head"] = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The 2 goes nowhere: add_kappa_head refuses such a model.
        width = embedding_width(model) if hasattr(model, "num_features") else 2
        add_kappa_head(fitted, width, kappa_map, kappa_hidden or min(width, WIDEST))
    return fitted.eval()
