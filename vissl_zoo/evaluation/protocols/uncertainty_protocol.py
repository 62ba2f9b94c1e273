"""Uncertainty: does κ know which images are classified wrongly, and better than scores that need no training?

Fig. 4, 5 and 9, Table 4 and App. J of the paper. κ earns its place only against what stands in the same table: the
embedding's norm, the similarity to the nearest training images, and the cosine of two random views. The classifier's
own maximum probability is there as a ceiling: unlike the others it has seen labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from vissl_zoo.cli import Count
from vissl_zoo.evaluation import figures
from vissl_zoo.evaluation.context import NO_KAPPA, Evaluation, Undefined
from vissl_zoo.evaluation.correctness import Answers, knn_answers, linear_answers
from vissl_zoo.evaluation.image_views import two_views
from vissl_zoo.evaluation.measures import aurc, auroc_with_p, excess_aurc, mean_and_std, slope_p

TITLE = "Uncertainty"
NEEDS: set[str] = set()  # without labels κ's own statistics remain, without κ the other scores
PAPER = {
    "uncertainty.knn.auroc.kappa.value": "0.76 (ImageNet-100, 500 epochs)",
    "uncertainty.linear.auroc.kappa.value": "0.72 (ImageNet-100, 500 epochs)",
    "uncertainty.linear.auroc.negative_entropy.value": "0.67 (DINO, ImageNet-100, 200 epochs)",
    "uncertainty.linear.kappa_correct.mean": "890.52 (ImageNet-100, 500 epochs)",
    "uncertainty.linear.kappa_correct.std": "140.53 (ImageNet-100, 500 epochs)",
    "uncertainty.linear.kappa_wrong.mean": "805.06 (ImageNet-100, 500 epochs)",
    "uncertainty.linear.kappa_wrong.std": "131.20 (ImageNet-100, 500 epochs)",
}
LABELS = {"knn": "kNN", "linear": "the linear classifier"}


@dataclass(frozen=True)
class Options:
    """What κ is compared with, and how often chance is tried."""

    two_view: bool = True
    """Measure the two-view cosine, which renders and embeds two random views of every test image."""
    linear: bool = True
    """Judge by the linear classifier, too; it is trained if the linear protocol has not run."""
    shuffles: Count = 1000
    """Shuffles of each permutation test, M of the paper's App. J."""
    resamples: Count = 1000
    """Bootstrap draws behind each 95% interval."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Statistics of κ, and for each classifier the AUROC of every score, AURC, Table 4 and the logistic regression."""
    features = evaluation.test_features
    for name in ("kappa", "uncertainty"):
        column = getattr(features, name)
        yield f"uncertainty.{name}", Undefined(NO_KAPPA) if column is None else mean_and_std(column)
    shared = None
    for name, ask in {"knn": knn_answers, **({"linear": linear_answers} if options.linear else {})}.items():
        answers = ask(evaluation)
        if isinstance(answers, Undefined):
            yield f"uncertainty.{name}", answers
            continue
        if shared is None:  # only now: without a classifier nothing is judged, and no view need be rendered
            shared = _scores(evaluation, options)
        if answers.similarity is not None:
            shared["knn_distance"] = evaluation.predictions["knn_similarity"] = answers.similarity
        evaluation.predictions[f"{name}_probability"] = answers.max_probability
        scores = {**shared, "max_probability": answers.max_probability}
        for key, value in _judge(evaluation, options, name, scores, answers):
            yield f"uncertainty.{name}.{key}", value


def _scores(evaluation: Evaluation, options: Options) -> dict[str, np.ndarray]:
    """The scores (N,) that know no label, higher = surer, in the order of the table."""
    features, scores = evaluation.test_features, {}
    if features.kappa is not None:
        scores["kappa"] = features.kappa
    if getattr(evaluation.model, "prototype_head", None) is not None:
        # Not 1 - H/log K: a sharp categorical's entropy is below the step of a float32 at 1, and would tie.
        scores["negative_entropy"] = -features.uncertainty
    scores["norm"] = evaluation.predictions["embedding_norm"] = np.linalg.norm(features.embedding, axis=1)
    scores["knn_distance"] = np.full(len(features.rows), np.nan)  # its place; kNN fills it
    if options.two_view:
        first, second = two_views(evaluation)
        scores["two_view_cosine"] = np.einsum("nf,nf->n", first, second)
        evaluation.predictions["two_view_cosine"] = scores["two_view_cosine"]
    return scores


def _judge(
    evaluation: Evaluation, options: Options, name: str, scores: dict[str, np.ndarray], answers: Answers
) -> Iterator[tuple[str, object]]:
    """Every measure of the scores (N,) against one classifier, over the images that have a label; draws the figures."""
    correct = answers.correct[answers.known]
    scores = {key: score[answers.known] for key, score in scores.items()}
    finite = {key: score for key, score in scores.items() if np.isfinite(score).all()}
    yield "accuracy", float(correct.mean())
    areas = {}
    for key in scores:
        area = _auroc(finite.get(key), correct, options, evaluation.seed)
        if isinstance(area, dict):
            areas[key] = area["value"]
        yield f"auroc.{key}", area
    if "kappa" in finite:
        yield from _judge_kappa(evaluation, options, name, finite["kappa"], correct)
    else:
        reason = Undefined("κ is not finite" if "kappa" in scores else NO_KAPPA)
        missing = ["aurc", "e_aurc", "kappa_correct", "kappa_wrong", "logistic"]
        for key in missing if "kappa" in scores else ["auroc.kappa", *missing]:
            yield key, reason
    for key, score in finite.items():
        yield f"aurc_by_score.{key}", aurc(score, correct)
    if areas:
        drawn = figures.roc({key: finite[key] for key in areas}, correct, areas)
        caption = f"ROC of each score for the correctness of {LABELS[name]} (Fig. 4 and 5)"
        evaluation.save_figure(drawn, f"uncertainty_{name}_roc.png", caption)
    if finite:
        drawn = figures.risk_against_coverage(finite, correct)
        caption = (
            f"Risk against coverage: the errors of {LABELS[name]} among the images each score is surest of"
        )
        evaluation.save_figure(drawn, f"uncertainty_{name}_risk.png", caption)


def _judge_kappa(
    evaluation: Evaluation, options: Options, name: str, kappa: np.ndarray, correct: np.ndarray
) -> Iterator[tuple[str, object]]:
    """What is measured of κ (N,) alone: AURC, Table 4, the logistic regression and its histogram."""
    yield "aurc", aurc(kappa, correct)
    yield "e_aurc", excess_aurc(kappa, correct)
    for kind, chosen in (("correct", correct), ("wrong", ~correct)):
        none = Undefined(f"no answer is {kind}")
        yield f"kappa_{kind}", mean_and_std(kappa[chosen]) if chosen.any() else none
    line = logistic_line(kappa, correct)
    if isinstance(line, Undefined):
        yield "logistic", line
    else:
        p_value = slope_p(kappa, correct, shuffles=options.shuffles, seed=evaluation.seed)
        yield "logistic", {"slope": line[0], "intercept": line[1], "p_value": p_value}
    drawn = figures.histogram(kappa, correct, None if isinstance(line, Undefined) else line)
    caption = f"Histogram of κ, and the accuracy of {LABELS[name]} in each bin (Fig. 9)"
    evaluation.save_figure(drawn, f"uncertainty_{name}_kappa.png", caption)


def logistic_line(kappa: np.ndarray, correct: np.ndarray) -> tuple[float, float] | Undefined:
    """Slope, in log-odds per unit of κ, and intercept of the logistic regression of `correct` (N,) on κ (N,) (App. C).

    Of greatest likelihood, with no penalty. It has none where κ parts correct from wrong: the slope would grow forever.
    """
    if correct.all() or not correct.any():
        return Undefined(_one_kind(correct))
    kappa = kappa.astype(np.float64)
    middle, spread = kappa.mean(), kappa.std()
    if np.ptp(kappa) == 0:
        return Undefined("κ is the same for all images")
    right, wrong = kappa[correct], kappa[~correct]
    if right.min() >= wrong.max() or right.max() <= wrong.min():
        return Undefined("κ parts correct from wrong without overlap")
    # C so large that the penalty is nothing: how to say "no penalty" differs between versions of scikit-learn.
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000, solver="newton-cholesky")
    model.fit((kappa[:, None] - middle) / spread, correct)
    slope = np.asarray(model.coef_).item() / spread
    return float(slope), float(np.asarray(model.intercept_).item() - slope * middle)


def _auroc(score: np.ndarray | None, correct: np.ndarray, options: Options, seed: int) -> object:
    if score is None:
        return Undefined("the score is not finite for every image")
    area = auroc_with_p(score, correct, shuffles=options.shuffles, resamples=options.resamples, seed=seed)
    return Undefined(_one_kind(correct)) if area is None else area._asdict()


def _one_kind(correct: np.ndarray) -> str:
    return f"every answer is {'correct' if correct.all() else 'wrong'}"
