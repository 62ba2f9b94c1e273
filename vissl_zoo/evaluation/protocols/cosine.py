"""Cosine similarity of augmented pairs (App. K, Fig. 11): of embeddings, and of prediction and target, μ·z.

A pair is two views of one image by SimSiam's augmentation. Embeddings behind a ReLU are never far apart, so the cosine
of two different images' embeddings stands beside as what agreement must be compared with. Projector and predictor are
run from an export's tensors: an evaluation knows no method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from vissl_zoo.cli import OptionalCount
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.figures import NEUTRAL, SURE, UNSURE, new_figure, tidy
from vissl_zoo.evaluation.image_views import simsiam_pipeline

TITLE = "cosine similarity of augmented pairs"
NEEDS: set[str] = set()
PAPER: dict[str, str] = {}  # Fig. 11 gives no numbers
PAIRS_CPU, PAIRS_ACCELERATOR = 10_000, 100_000
# Linear-BN-ReLU-Linear, and the projector's BN without scale and shift where there is one.
_LAYERS = {"projector": ({0, 1, 3}, {0, 1, 3, 4}), "predictor": ({0, 1, 3},)}


@dataclass(frozen=True)
class Options:
    """How many pairs."""

    pairs: OptionalCount = None
    """Random augmented pairs, spread evenly over the test images; by default 10,000 on a CPU, else 100,000."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Median and quartiles of the cosine of y₁ and y₂, of μ₁ and z₂, and of embeddings of different images."""
    on_cpu = next(evaluation.model.parameters()).device.type == "cpu"
    pairs = options.pairs if options.pairs is not None else PAIRS_CPU if on_cpu else PAIRS_ACCELERATOR
    why_not = why_no_latents(evaluation)
    found = pair_cosines(evaluation, pairs, latents=why_not is None)
    yield "cosine.pairs", pairs
    yield "cosine.embedding", quartiles(found["embedding"])
    yield "cosine.latent", Undefined(why_not) if why_not else quartiles(found["latent"])
    lonely = Undefined("there is only one image")
    yield "cosine.unrelated", quartiles(found["unrelated"]) if len(found["unrelated"]) else lonely
    caption = f"Cosine of {pairs:,} augmented pairs; median and quartiles in the legend."
    evaluation.save_figure(_draw(found), "cosine.png", caption)


def why_no_latents(evaluation: Evaluation) -> str | None:
    """Why μ·z cannot be had, or None if it can."""
    if evaluation.heads is None:
        return "projector and predictor are not at hand (an export's heads.safetensors)"
    missing = [name for name in ("projector", "predictor") if not has_head(evaluation.heads, name)]
    return f"the method has no MLP as {' and '.join(missing)}" if missing else None


def pair_cosines(evaluation: Evaluation, pairs: int, *, latents: bool) -> dict[str, np.ndarray]:
    """Cosines (pairs,) of each kind; "unrelated" compares a first view with the next image's second one."""
    rng, heads = np.random.default_rng(evaluation.seed), evaluation.heads or {}
    count = len(evaluation.test_features.rows)
    found: dict[str, list[Tensor]] = {"embedding": [], "unrelated": []} | ({"latent": []} if latents else {})
    for repeat, start in enumerate(range(0, pairs, count)):
        chosen = rng.permutation(count)[: pairs - start]
        pipeline = simsiam_pipeline(evaluation, repeat=repeat)
        for batch in evaluation.views(chosen, pipeline, "augmented pairs"):
            first, second = torch.from_numpy(batch.embedding)
            found["embedding"].append(torch.cosine_similarity(first, second))
            if len(first) > 1:
                found["unrelated"].append(torch.cosine_similarity(first, second.roll(-1, 0)))
            if latents:
                z_tilde = [apply_head(heads, "projector", y) for y in (first, second)]
                prediction = apply_head(heads, "predictor", z_tilde[0])
                found["latent"].append(torch.cosine_similarity(prediction, z_tilde[1]))
    return {name: torch.cat([torch.empty(0), *parts]).numpy() for name, parts in found.items()}


def quartiles(cosines: np.ndarray) -> dict[str, float]:
    """Lower quartile, median and upper quartile of (N,) cosines."""
    low, middle, high = np.quantile(cosines.astype(np.float64), [0.25, 0.5, 0.75])
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def has_head(heads: Mapping[str, Tensor] | None, name: str) -> bool:
    """Whether an export's tensors hold the MLP `name`, "projector" or "predictor", in a form that `apply_head` runs."""
    layers = {k.split(".")[1] for k in heads or () if k.startswith(f"{name}.")}
    return layers in [{str(layer) for layer in form} for form in _LAYERS[name]]


def apply_head(heads: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """z̃ = projector(y) or m̃ = predictor(z̃), (B, out) of x (B, in), as in evaluation mode; not normalised.

    Raises:
        ValueError: the tensors hold no such MLP, or one of another width.
    """
    if not has_head(heads, name):
        raise ValueError(f"the tensors hold no MLP called {name}")
    here = {
        k.removeprefix(f"{name}."): v.to(x.device, x.dtype) for k, v in heads.items() if k.startswith(name)
    }
    if x.shape[-1] != here["0.weight"].shape[1]:
        raise ValueError(f"the {name} takes {here['0.weight'].shape[1]} features, not {x.shape[-1]}")
    x = F.linear(x, here["0.weight"], here.get("0.bias"))
    x = F.relu(_batch_norm(here, "1", x))
    x = F.linear(x, here["3.weight"], here.get("3.bias"))
    return _batch_norm(here, "4", x) if "4.running_mean" in here else x


def _batch_norm(tensors: Mapping[str, Tensor], layer: str, x: Tensor) -> Tensor:
    statistics = (tensors[f"{layer}.running_mean"], tensors[f"{layer}.running_var"])
    return F.batch_norm(x, *statistics, tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias"))


def _draw(found: dict[str, np.ndarray]) -> Figure:
    """Histograms of each kind on one axis."""
    labels = {"embedding": "embeddings", "latent": "μ·z", "unrelated": "embeddings of different images"}
    figure = new_figure(6.2, 3.0)
    axes = figure.subplots()
    lowest = min(c.min() for c in found.values() if len(c))
    bins = np.linspace(min(lowest, 0.0), 1.0, 81)
    for (name, label), colour in zip(labels.items(), (SURE, UNSURE, NEUTRAL), strict=True):
        if name not in found or not len(found[name]):
            continue
        q = quartiles(found[name])
        said = f"{label}: {q['median']:.3f} ({q['lower_quartile']:.3f} to {q['upper_quartile']:.3f})"
        weights = np.full(len(found[name]), 1 / len(found[name]))
        axes.hist(found[name], bins, weights=weights, color=colour, alpha=0.55, label=said)
        axes.axvline(q["median"], color=colour, lw=1.2)
    axes.set_xlabel("cosine similarity", fontsize=9)
    axes.set_ylabel("share of pairs", fontsize=9)
    figure.legend(loc="outside upper left", fontsize=8, frameon=False)
    tidy(axes)
    return figure
