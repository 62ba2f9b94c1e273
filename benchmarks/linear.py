"""Linear evaluation: one and eight learning rates of ours, and scikit-learn's logistic regression as a yardstick.

    python benchmarks/linear.py --output linear.jsonl          # scikit-learn is a dependency of the project

Embeddings of 512 numbers in ten overlapping clusters, 100 epochs in batches of 512. Eight rates are trained at once on
the same batches, as the linear evaluation tells them apart. The yardstick is a logistic regression by L-BFGS as it
comes: its time is no target.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from knn import CLASSES, clusters
from measure import Report, Target, compare, in_turns, say, with_version
from options import Options, main
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vissl_zoo.evaluation.linear_classifier import LinearOptions, shuffled, train

RATE = 1.6  # the paper's


@dataclass(frozen=True)
class LinearBenchmarkOptions(Options):
    """How much to train."""

    LEAST = {"images": 100}  # of ten classes, every one of which is to be among them

    images: int = 20_000
    """Training embeddings."""
    width: int = 512
    """Numbers of an embedding."""
    epochs: int = 100
    """Passes over them."""
    repeats: int = 3
    """Timed calls of each."""


def measure(options: LinearBenchmarkOptions, report: Report) -> None:
    """Time all in turns and report."""
    images, width, epochs, repeats = options.images, options.width, options.epochs, options.repeats
    if options.quick:
        images, width, epochs, repeats = 1_000, 64, 5, 2
    features, labels = clusters(images + images // 4, width)
    batch, rates = LinearOptions().batch_size, LinearOptions().learning_rates
    trained: dict[str, object] = {}

    def ours(learning_rates: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        order = shuffled(images, batch, epochs, 0)
        batches = ((features[:images][i], labels[:images][i]) for i in order)
        steps = epochs * -(-images // batch)
        return train(batches, steps, width, CLASSES, learning_rates)

    def yardstick() -> LogisticRegression:
        model = LogisticRegression(max_iter=200)
        return model.fit(features[:images].numpy(), labels[:images].numpy())

    size = f"{images:,} × {width}, {epochs} epochs"
    say(f"linear: {size}")
    work = {
        "eight": lambda: ours(rates),
        "one": lambda: ours((RATE,)),
        "scikit-learn": yardstick,
    }
    calls = {name: (lambda n=name, call=call: trained.update({n: call()})) for name, call in work.items()}
    seconds = in_turns(calls, repeats)
    details = accuracies(trained, features[images:], labels[images:])
    for name, beside, against, target in (
        ("one", "one", "ours, one learning rate", Target("≤", 1.5)),
        ("scikit-learn", "logistic regression", f"{with_version('scikit-learn')}, a yardstick", None),
    ):
        title = f"linear: {size}, {len(rates)} learning rates beside {beside}"
        asked = {"against": against, "target": target, "details": details}
        report.add(compare(title, "s", seconds["eight"], seconds[name], **asked))


def accuracies(trained: dict[str, object], features: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 on held-out embeddings: of the best of the eight, of the one, and of the yardstick."""
    found = {}
    for name in ("one", "eight"):
        weight, bias = trained[name]
        scores = features @ weight.flatten(0, 1).T + bias.flatten()
        right = scores.unflatten(1, weight.shape[:2]).argmax(2) == labels[:, None]  # (N, R)
        found[f"top1_{name}"] = right.double().mean(0).max().item()
    guesses = trained["scikit-learn"].predict(features.numpy())
    return {**found, "top1_scikit_learn": float((guesses == labels.numpy()).mean())}


if __name__ == "__main__":
    sys.exit(main("linear", LinearBenchmarkOptions(), __doc__, measure))
