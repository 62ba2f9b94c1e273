"""Semi-supervised learning (Table 8): the whole network fine-tuned on 1% and 10% of the labels, and from scratch.

Off by default, because it trains networks: `--semi-supervised.epochs 200` is the paper's setting. The labelled images
are drawn equally from the classes, at least one of each. They are seen as random resized crops, mirrored half the
time, by SGD with momentum .9, weight decay 1e-4 and a half cosine. The paper gives no learning rate, and a hundredth of
the labels leaves none to choose one with: ours are constants, the best of three settings on the embedded shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from vissl_zoo.cli import Within
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.image_views import CropReader
from vissl_zoo.evaluation.linear_classifier import shuffled
from vissl_zoo.inference import embed_all
from vissl_zoo.models import HEAD_ARGS, entrypoints

TITLE = "semi-supervised fine-tuning"
NEEDS = {"labels", "train"}
PAPER = {
    "semi_supervised.percent_1.top1": "SimSiam 0.338, VI-SimSiam 0.535 (ImageNet-100, 100 epochs)",
    "semi_supervised.percent_1.scratch_top1": "0.108 (ImageNet-100)",
    "semi_supervised.percent_10.top1": "SimSiam 0.646, VI-SimSiam 0.688 (ImageNet-100, 100 epochs)",
    "semi_supervised.percent_10.scratch_top1": "0.368 (ImageNet-100)",
}
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4


@dataclass(frozen=True)
class Options:
    """How the network is fine-tuned."""

    epochs: Annotated[int, Within(0)] = 0
    """Passes over the labelled images; 0 leaves the protocol out, 200 is the paper's."""
    percents: Annotated[tuple[float, ...], Within(0, 100, above=True)] = (1, 10)
    """Shares of the labelled training images, in percent."""
    batch_size: Annotated[int, Within(3)] = 128  # of batches of two one image may be left over
    """Images of a step, at most."""
    lr: float = 0.05
    """Learning rate of the pre-trained network."""
    classifier_lr: float = 0.5
    """Learning rate of its new classifier."""
    scratch: bool = True
    """Train the same network from random weights, too."""
    scratch_lr: float = 0.1
    """Learning rate from random weights, for all layers."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """For each share: number of labelled images, top-1 after fine-tuning, top-1 from scratch. Nothing at 0 epochs."""
    if options.epochs == 0:
        return
    if not (evaluation.test_labels >= 0).any():
        yield "semi_supervised.top1", Undefined("no test image has a label")
        return
    labels = evaluation.train_labels
    names = np.unique(labels[labels >= 0])
    for percent in options.percents:
        share = f"{percent:g}".replace(".", "_")  # a dot would nest metrics.json one deeper
        prefix = f"semi_supervised.percent_{share}"
        chosen = draw_labelled(labels, percent / 100, evaluation.seed)
        yield f"{prefix}.labels", len(chosen)
        if len(chosen) < 2:
            yield f"{prefix}.top1", Undefined("fewer than two labelled images")
            continue
        classes = np.searchsorted(names, labels[chosen])
        rates = {"top1": (options.lr, options.classifier_lr)}
        if options.scratch:
            rates["scratch_top1"] = (options.scratch_lr, options.scratch_lr)
        for name, pair in rates.items():
            model = with_classifier(evaluation, len(names), scratch=name == "scratch_top1")
            fine_tune(evaluation, model, chosen, classes, options, pair)
            yield f"{prefix}.{name}", _top1(names[_answers(evaluation, model)], evaluation.test_labels)


def draw_labelled(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places (n,) of labelled images, sorted: the same number of each class, at least one.

    Args:
        labels: classes (M,), negative where unknown.
        share: of the labelled images; a class that has fewer than its part gives all it has.
        seed: of the draw.
    """
    known = labels[labels >= 0]
    names = np.unique(known)
    if not len(names):
        return np.empty(0, dtype=np.int64)
    each = max(1, round(share * len(known) / len(names)))
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == name))[:each] for name in names]
    return np.sort(np.concatenate(drawn))


def with_classifier(evaluation: Evaluation, classes: int, *, scratch: bool) -> nn.Module:
    """A copy of the evaluation's model with a new classifier; with `scratch` all its weights are new."""
    source: Any = evaluation.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(evaluation.seed)
        if scratch:
            # Built anew by timm: resetting the layers one by one would give torch's initial weights and not timm's,
            # and would leave tokens and positions of a transformer as they were trained.
            known = getattr(source, "_model_args", None)
            if known is None:  # older versions of timm do not keep them: of a transformer, its size matters
                img_size = getattr(getattr(source, "patch_embed", None), "img_size", None)
                known = {} if img_size is None else {"img_size": img_size}
            name = source.pretrained_cfg["architecture"]
            ours = (
                {"kappa_head"} if name in entrypoints() else HEAD_ARGS
            )  # a head that was added is none of timm's
            arguments = {k: v for k, v in known.items() if k not in {"num_classes", *ours}}
            model = timm.create_model(name, num_classes=classes, **arguments)
        else:
            model = copy.deepcopy(source)
            model.cpu().reset_classifier(classes)  # on the CPU: the same weights for the seed on any device
    return model.to(next(source.parameters()).device)


def fine_tune(
    evaluation: Evaluation,
    model: nn.Module,
    chosen: np.ndarray,
    classes: np.ndarray,
    options: Options,
    rates: tuple[float, float],
) -> None:
    """Train a model with a classifier in place, and leave it in evaluation mode.

    Args:
        evaluation: the images.
        model: what to train.
        chosen: places (n,) in `evaluation.train_features`.
        classes: of the chosen images (n,), from 0 on.
        options: epochs and batch size.
        rates: of all weights but the classifier's, and of those.
    """
    classifiers = cast(Any, model).get_classifier()  # a pair in distilled transformers
    classifiers = classifiers if isinstance(classifiers, tuple) else (classifiers,)
    head = {id(p) for classifier in classifiers for p in classifier.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if (id(p) in head) == is_head], "lr": rate}
        for is_head, rate in enumerate(rates)
    ]
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = options.epochs * -(-len(chosen) // options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = shuffled(len(chosen), options.batch_size, options.epochs, evaluation.seed)
    batches = CropReader(evaluation, chosen).crops(order, torch.from_numpy(classes))
    model.train()
    for x, labels in tqdm(batches, "fine-tuning", steps, unit="step", leave=False):
        loss = cross_entropy(model(x).float(), labels.to(x.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


class _Logits(nn.Module):
    """A classifier whose logits are what it says of an image, and not the features before them."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.pretrained_cfg = model, model.pretrained_cfg

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def _answers(evaluation: Evaluation, model: nn.Module) -> np.ndarray:
    """The classes (N,) that a classifier gives the test images, from 0 on."""
    rows, options = evaluation.test_features.rows, {"exact": evaluation.exact, "workers": evaluation.workers}
    said = embed_all(_Logits(model), evaluation.test, evaluation.image_size, rows=rows, **options)
    return said.embedding.argmax(axis=1)


def _top1(predictions: np.ndarray, labels: np.ndarray) -> float:
    known = labels >= 0
    return float((predictions[known] == labels[known]).mean())
