"""The softmax classifier on frozen embeddings, trained with LARS (Table 2, 6, 9; App. B).

Every rate of the grid is trained at once on the training images less the local validation split
(`Evaluation.validation`, a fifth). The rate with the best top-1 accuracy there is kept; of equally good ones, that of
the lowest cross-entropy. A classifier is then trained at that rate on all training images. Its last epoch is judged on
the test images, which had no say before. The paper reports the epoch that is best on its validation set; we do not
choose among epochs.

Embeddings are taken as they are, neither normalised nor standardised: LARS makes each step a share of the weights'
length, so their scale hardly matters. Each step being a share, few steps do not get far at a low rate: small data sets
choose a high one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from timm.optim.lars import Lars
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from vissl_zoo.cli import Count, Within
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.image_views import CropReader
from vissl_zoo.evaluation.neighbours import FEWEST

INITIAL_STD = 0.01  # of the weights, as in SimSiam's linear evaluation; zero would stop LARS
MOMENTUM: Any = 0.9  # timm takes it for an integer


@dataclass(frozen=True)
class LinearOptions:
    """How the linear classifier is trained; the defaults are the paper's, App. B, but for the choice of rate."""

    epochs: Count = 100
    """Passes over the training images."""
    batch_size: Count = 512
    """Images of a step, at most."""
    learning_rates: Annotated[tuple[float, ...], Within(0, 1e6, above=True)] = (
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        6.4,
        12.8,
        25.6,
    )
    """LARS learning rates to choose from on a fifth of the training images; the paper has 1.6."""
    augment: bool = False
    """Train on new random crops in each epoch, as the paper does, and not on cached features: much slower."""


class LinearClassifier(NamedTuple):
    """A softmax classifier of C classes, whose labels are `names` (C,): weight (C, F) and bias (C,)."""

    names: np.ndarray
    weight: Tensor
    bias: Tensor

    def scores(self, embedding: np.ndarray) -> Tensor:
        """Logits (N, C) of embeddings (N, F)."""
        return torch.from_numpy(embedding) @ self.weight.T + self.bias


class LinearResult(NamedTuple):
    """What the classifier says of the N test images, in the order of `Evaluation.test_features`.

    Attributes:
        top1: share of the labelled test images that are classified correctly.
        top5: share whose class is among the five likeliest, or None with fewer than six classes.
        lr: the learning rate chosen.
        predictions: (N,) classes, also for images without a label.
        max_probability: (N,) float64, the highest softmax probability.
        correct: (N,) bool, False where the label is unknown.
        classifier: that says it.
    """

    top1: float
    top5: float | None
    lr: float
    predictions: np.ndarray
    max_probability: np.ndarray
    correct: np.ndarray
    classifier: LinearClassifier


def linear_predictions(
    evaluation: Evaluation, options: LinearOptions | None = None
) -> LinearResult | Undefined:
    """Train and test the linear classifier of an evaluation, or return what `evaluation.memo["linear"]` holds of it.

    Args:
        evaluation: the model and the labelled images.
        options: how to train; None takes whatever was trained before or asked for, else the defaults.

    Returns:
        The result, or `Undefined` where there are too few labels.

    Raises:
        UserError: an option outside its range.
    """
    trained_with, result = evaluation.memo.get("linear_options"), evaluation.memo.get("linear")
    if result is None or options not in (None, trained_with):
        chosen: LinearOptions = options or trained_with or LinearOptions()
        result = _evaluate(evaluation, chosen)
        evaluation.memo |= {"linear": result, "linear_options": chosen}
    return result


def train(
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    width: int,
    classes: int,
    learning_rates: Sequence[float],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Train R linear classifiers at once, one for each rate, on the same batches from the same start.

    They share the batches and two matrix products a step; the gradient of the cross-entropy is written down, not
    traced.

    Args:
        batches: embeddings (B, F) float32 and classes (B,) int64 of each step.
        steps: number of them, over which the rates fall along a half cosine.
        width: F.
        classes: C.
        learning_rates: R of them.
        seed: of the initial weights.
        device: where to train.
        progress: what to call the work in a progress bar; no bar if None.

    Returns:
        Weights (R, C, F) and biases (R, C) after the last step.
    """
    count = len(learning_rates)
    start = torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)) * INITIAL_STD
    weight = start.to(device).repeat(count, 1, 1)
    bias = torch.zeros(count, classes, device=device)
    # As separate parameters, the rates' classifiers have norms of their own; biases are not adapted.
    layers = [{"params": [w], "always_adapt": True} for w in weight] + [{"params": [b]} for b in bias]
    optimizer = Lars(layers, momentum=MOMENTUM)
    bar = tqdm(batches, desc=progress, total=steps, unit="step", disable=progress is None, leave=False)
    for step, (x, labels) in enumerate(bar):
        slopes = chain(*gradients(weight, bias, x.to(device), labels.to(device)))
        for group, slope, peak in zip(optimizer.param_groups, slopes, 2 * [*learning_rates], strict=True):
            group["params"][0].grad = slope
            group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return weight.cpu(), bias.cpu()


def gradients(weight: Tensor, bias: Tensor, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the mean cross-entropy of R classifiers: (softmax - one-hot) · x / B, and its sum for the biases.

    Args:
        weight, bias: (R, C, F) and (R, C), and so are the gradients.
        x: embeddings (B, F).
        labels: classes (B,).
    """
    count, classes, _ = weight.shape
    # (R, C, B) and not (B, R, C): a softmax over a short last dimension took most of a step's time.
    logits = (weight.flatten(0, 1) @ x.T).view(count, classes, -1)
    slope = logits.add_(bias.unsqueeze(2)).softmax(1)
    slope.scatter_add_(1, labels.expand(count, 1, -1), slope.new_full((count, 1, len(x)), -1.0))
    slope.div_(len(x))
    return (slope.flatten(0, 1) @ x).view_as(weight), slope.sum(2)


def shuffled(count: int, batch_size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Positions (B,) of each step: every image once an epoch, in batches of equal size (to one) up to batch_size."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).tensor_split(-(-count // batch_size))


def _evaluate(evaluation: Evaluation, options: LinearOptions) -> LinearResult | Undefined:
    if not options.learning_rates:
        raise UserError("--linear.learning-rates must be one or more numbers")
    labels, held_out = evaluation.train_labels, evaluation.validation
    known, asked = labels >= 0, evaluation.test_labels >= 0
    learnt, judged = np.flatnonzero(known & ~held_out), np.flatnonzero(known & held_out)
    if known.sum() < FEWEST or not len(learnt) or not len(judged):
        return Undefined(f"fewer than {FEWEST} labelled training images, or none to choose a rate on")
    if not asked.any():
        return Undefined("no test image has a label")

    # Labels may be any integers, such as ids: the classes are those of the training images, numbered.
    names = np.unique(labels[known])
    classes = torch.from_numpy(np.searchsorted(names, labels))  # of no meaning where the label is unknown
    rate = options.learning_rates[0]
    if len(options.learning_rates) > 1:
        weight, bias = _train(evaluation, options, learnt, classes, options.learning_rates)
        accuracy, loss = _judge(weight, bias, evaluation.train_features.embedding, classes, judged)
        rate = options.learning_rates[np.lexsort((loss.numpy(), -accuracy.numpy()))[0]]
    # The choice of the rate never augments: it would double the passes through the network.
    weight, bias = _train(
        evaluation, options, np.flatnonzero(known), classes, [rate], augment=options.augment
    )
    classifier = LinearClassifier(names, weight[0], bias[0])
    scores = classifier.scores(evaluation.test_features.embedding)
    predictions = names[scores.argmax(1)]
    correct = asked & (predictions == evaluation.test_labels)
    top5 = None
    if len(names) > 5:
        five = names[scores.topk(5).indices.numpy()]  # (N, 5)
        top5 = float((five == evaluation.test_labels[:, None]).any(1)[asked].mean())
    # In float64: a sure classifier's probabilities are all 1 in float32, and ties ruin an AUROC.
    sureness = scores.double().softmax(1).amax(1).numpy()
    top1 = float(correct[asked].mean())
    return LinearResult(top1, top5, rate, predictions, sureness, correct, classifier)


def _train(
    evaluation: Evaluation,
    options: LinearOptions,
    places: np.ndarray,
    labels: Tensor,
    rates: Sequence[float],
    *,
    augment: bool = False,
) -> tuple[Tensor, Tensor]:
    """`train` on the training images at `places` (n,), on their cached embeddings or on those of new random crops."""
    embedding = torch.from_numpy(evaluation.train_features.embedding)
    labels = labels[places]
    order = shuffled(len(places), options.batch_size, options.epochs, evaluation.seed)
    if augment:
        batches = CropReader(evaluation, places).embeddings(order, labels)
    else:
        batches = ((embedding[places[i]], labels[i]) for i in order)
    return train(
        batches,
        options.epochs * -(-len(places) // options.batch_size),
        embedding.shape[1],
        int(labels.max()) + 1,
        rates,
        seed=evaluation.seed,
        device=next(evaluation.model.parameters()).device,
        progress=f"linear classifier{'s' if len(rates) > 1 else ''}",
    )


def _judge(
    weight: Tensor, bias: Tensor, embedding: np.ndarray, labels: Tensor, places: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Accuracy and mean cross-entropy (R,) float64 of R classifiers on the embeddings (M, F) at `places` (n,)."""
    right, loss = torch.zeros(2, len(weight), dtype=torch.float64)
    for part in torch.from_numpy(places).split(1024):  # all at once would take gigabytes for ImageNet
        x, truth = torch.from_numpy(embedding[part.numpy()]), labels[part].expand(len(weight), -1)
        scores = torch.einsum("rcf,bf->rcb", weight, x) + bias[:, :, None]
        right += (scores.argmax(1) == truth).sum(1)
        loss += cross_entropy(scores.double(), truth, reduction="none").sum(1)
    return right / len(places), loss / len(places)
