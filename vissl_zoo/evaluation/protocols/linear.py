"""Linear evaluation (Table 2, 6, 9): LARS on frozen embeddings, the learning rate chosen on a held-out fifth."""

from __future__ import annotations

from collections.abc import Iterator

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.linear_classifier import LinearOptions as Options
from vissl_zoo.evaluation.linear_classifier import linear_predictions

TITLE = "linear evaluation"
NEEDS = {"labels", "train"}
PAPER = {
    "linear.top1": "SimSiam 0.816, VI-SimSiam 0.775 (ImageNet-100, 500 epochs); "
    "SimSiam 0.785, VI-SimSiam 0.763, DINO 0.763 (ImageNet-100, 200 epochs); "
    "SimSiam 0.920, VI-SimSiam 0.928 (CIFAR-10, 500 epochs)",
    "linear.lr": "1.6",
}


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Top-1 and top-5 accuracy on the test images after the last epoch, and the rate that was chosen."""
    result = linear_predictions(evaluation, options)
    if isinstance(result, Undefined):
        yield "linear.top1", result
        return
    evaluation.predictions["linear_pred"] = result.predictions
    yield "linear.top1", result.top1
    yield "linear.top5", Undefined("fewer than six classes") if result.top5 is None else result.top5
    yield "linear.lr", result.lr
