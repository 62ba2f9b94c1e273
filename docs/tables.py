"""Write the generated blocks of README.md and of the pages in docs/ anew.

python docs/tables.py            # rewrites every page between its markers
python docs/tables.py --check    # exits with 1 if that would change anything

A block stands between <!-- NAME --> and <!-- /NAME -->. The methods, the recipes and the shipped weights say what
is in it; the figures of the demo come from docs/demo.json, which docs/figures.py writes.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vissl_zoo import weights
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.methods import METHODS, RECIPES, table
from vissl_zoo.models.zoo import BACKBONES

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))
DEMO, EVIDENCE, CLAIM, REPRODUCTION = (
    DOCS / f"{name}.json" for name in ("demo", "kappa_evidence", "the_claim", "reproduction")
)
PAIRS = {  # of experiments/kappa.py
    "demo-shapes": "demo, shapes",
    "vi_simsiam-cifar10": "VI-SimSiam, CIFAR-10",
    "simclr-cifar10": "SimCLR, CIFAR-10",
    "lite0-cifar10": "Lite0, CIFAR-10",
    "lite0-tiny32": "Lite0, tiny32",
    "lite2-tiny32": "Lite2, tiny32",
    "lite0-dtd10": "Lite0, dtd10",
    "photos": "Lite0, 700 photos",
}
CHOSEN_ON = ("demo-shapes", "lite0-tiny32")
OURS = {  # of experiments/reproduction.py
    "vi_simsiam_resnet18.cifar10": "VI-SimSiam",
    "vi_simsiam_resnet18.cifar10_paper": "its paper variant",
    "dino_resnet18.cifar10": "DINO",
}
EVIDENCE_SCORES = {
    "norm": "embedding norm",
    "centred norm": "centred norm",
    "similarity": "similarity to neighbours",
    "centred similarity": "the same, centred",
    "two-view cosine": "cosine of two views",
    "Mahalanobis": "Mahalanobis distance",
    "best free": "the best of these, by hindsight",
    "rank mean of the best two": "rank mean of the best two, by hindsight",
    "κ as learnt": "κ as learnt in training",
    "κ, views": "κ, target `views`",
    "κ, neighbours": "κ, target `neighbours`",
    "κ, clusters": "**κ, target `clusters`**",
    "set": "**`set_uncertainty`**",
    "set, 4 views": "**`set_uncertainty`, 4 views**",
    "max probability": "max probability (knows labels)",
}
SCORES = {  # what κ is compared with, by its name in metrics.json
    "kappa": "κ",
    "norm": "embedding norm",
    "knn_distance": "similarity to neighbours",
    "two_view_cosine": "cosine of two views",
    "max_probability": "max probability (knows labels)",
}


def models() -> str:
    """The rule by which names are made."""
    return (
        f"- `METHOD` is {_listed(sorted(METHODS))};\n"
        f"- `BACKBONE` is {_listed(sorted(BACKBONES))};\n"
        "- any other timm backbone works, too: `vissl_zoo.create_model(METHOD, backbone=NAME)`."
    )


def recipes() -> str:
    """A section for each recipe."""
    sections = [
        f"## {recipe.name}\n\n{recipe.about}\n\n```\n{recipe.command}\n```\n\n"
        f"- Cost: {recipe.cost}\n- Expected: {recipe.expected}\n"
        for recipe in RECIPES.values()
    ]
    return "\n" + "\n".join(sections)


def shipped() -> str:
    """One row a model whose weights this repository has, with the figures of its card."""
    rows = []
    for name, row in weights.shipped().items():
        found = row.card["metrics"]
        if "uncertainty" not in found:  # of the photo model docs/kappa.md has the figures
            continue
        auroc = found["uncertainty"]["knn"]["auroc"]
        others = ", ".join(_three(auroc[score]) for score in ("norm", "knn_distance", "two_view_cosine"))
        tops = (f"{100 * found[protocol]['top1']:.1f} %" for protocol in ("knn", "linear"))
        rows.append((f"`{name}`", *tops, _three(auroc["kappa"]), others))
    head = (
        "weights",
        "kNN top-1",
        "linear top-1",
        "AUROC of κ (kNN)",
        "of the norm, the neighbours, two views",
    )
    return _table(head, rows, "lrrrl")


def protocols() -> str:
    """One row a protocol of `vissl-zoo evaluate`, with the first line of its docstring."""
    rows = [(f"`{name}`", (protocol.__doc__ or "").splitlines()[0]) for name, protocol in PROTOCOLS.items()]
    return _table(("protocol", "what it measures"), rows)


def demo() -> str:
    """What the demo learned and what κ is worth there: its first run, and the range over the seeds."""
    seeds = [run["metrics"] for run in _demo()["runs"] if not run["flags"]]
    shown, rows = seeds[0], []
    for title, path, untrained in (
        ("kNN top-1", "knn.top1", "untrained.knn.top1"),
        ("AUROC of κ for kNN correctness", "uncertainty.knn.auroc.kappa", "untrained.uncertainty.knn.auroc.kappa"),
        ("the same of the embedding's norm", "uncertainty.knn.auroc.norm", None),
        ("Spearman of the uncertainty with the ambiguity", "ambiguity.spearman.kappa", "ambiguity.spearman.untrained"),
        ("the same of edge density, no network", "ambiguity.spearman.edge_density", None),
        ("the same of pixel deviation, no network", "ambiguity.spearman.pixel_deviation", None),
    ):  # fmt: skip
        values = [_at(metrics, path) for metrics in seeds]
        span = f"{_three(min(values))} to {_three(max(values))}" if len(seeds) > 1 else ""
        rows.append((title, _three(values[0]), span, _three(_at(shown, untrained)) if untrained else ""))
    where = f", {_demo()['machine']}" if _demo()["machine"] else ""
    rows.append((f"seconds, training and report{where}", f"{shown['seconds']:.0f}", "", ""))
    numbers = sorted(run["seed"] for run in _demo()["runs"] if not run["flags"])
    spread = f"seeds {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else ""
    return _table(("", f"seed {_demo()['runs'][0]['seed']}", spread, "untrained"), rows, "lrrr")


def variants() -> str:
    """One row for each set of flags that the demo was run with."""
    first = _demo()["runs"][0]
    runs = [run for run in _demo()["runs"] if run["seed"] == first["seed"]]
    paths = ("knn.top1", "uncertainty.knn.auroc.kappa", "ambiguity.spearman.kappa")
    rows = [
        (
            f"`{run['flags']}`" if run["flags"] else "none",
            *(_three(_at(run["metrics"], path)) for path in paths),
        )
        for run in runs
    ]
    return _table(("flags", "kNN top-1", "AUROC of κ", "Spearman with the ambiguity"), rows, "lrrr")


def evaluation() -> str:
    """The AUROC of each score on the demo's run."""
    found = _demo()["runs"][0]["metrics"]["uncertainty"]["knn"]["auroc"]
    rows = [(title, _three(found[score]), _interval(found[score])) for score, title in SCORES.items()]
    return _table(("score", "AUROC for kNN correctness", "95 % interval"), rows, "lrl")


def kappa_scores() -> str:
    """The AUROC of every score for the errors of kNN, a column a pair, the means over the seeds."""
    return _evidence("knn")


def kappa_scores_linear() -> str:
    """The same for the errors of the linear classifier."""
    return _evidence("linear")


def kappa_differences() -> str:
    """Differences of two AUROCs for kNN's errors, a row a pair, with the interval of a paired bootstrap."""
    found = json.loads(EVIDENCE.read_text(encoding="utf-8"))
    known = {name: found[name] for name in PAIRS if name in found and name != "photos"}
    pairs = tuple(next(iter(next(iter(known.values())).values()))["knn_bootstrap"])
    rows = []
    for name, runs in known.items():
        cells = []
        for pair in pairs:
            first, second = pair.split(" - ")
            middle = _mean(run["knn"][first] - run["knn"][second] for run in runs.values())
            low, high = next(iter(runs.values()))["knn_bootstrap"][pair]
            cells.append(f"{middle:+.3f} ({low:+.3f} to {high:+.3f})")
        seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
        rows.append((f"{PAIRS[name]} ({seeds})", *cells))
    head = ("pair", *(pair.replace("-", "less") for pair in pairs))
    return _table(head, rows, "l" + "r" * len(pairs))


def kappa_corruption() -> str:
    """Spearman of fitted κ's uncertainty with the level of corruption, a row a pair, the means over the seeds."""
    found = json.loads(EVIDENCE.read_text(encoding="utf-8"))
    known = {name: list(found[name].values()) for name in PAIRS if name in found and name != "photos"}
    kinds = tuple(next(iter(known.values()))[0]["corruption"])
    rows = [
        (PAIRS[name], *(_three(_mean(run["corruption"][kind] for run in runs)) for kind in kinds))
        for name, runs in known.items()
    ]
    return _table(("Spearman", *kinds), rows, "l" + "r" * len(kinds))


def kappa_ambiguity() -> str:
    """Spearman of every score with the known ambiguity of the shapes, the means over the seeds."""
    runs = list(json.loads(EVIDENCE.read_text(encoding="utf-8"))["demo-shapes"].values())
    shown = {score: title for score, title in EVIDENCE_SCORES.items() if score in runs[0]["ambiguity"]}
    rows = [(title, _three(_mean(run["ambiguity"][score] for run in runs))) for score, title in shown.items()]
    return _table(("uncertainty by", "Spearman"), rows, "lr")


def claim() -> str:
    """One row for each arm of experiments/claim.py, the means over its seeds."""
    rows = []
    for arm, runs in _arms().items():
        means = [_mean(run[key] for run in runs) for key in ("knn", "linear")]
        areas = [
            _mean(run[key][kind] for run in runs)
            for key in ("auroc", "auroc_fitted", "auroc_norm")
            for kind in ("knn", "linear")
        ]
        tops = (f"{100 * top:.1f} %" for top in means if top is not None)
        rows.append(
            (arm, str(len(runs)), *tops, *map(_three, areas), _three(_mean(run["r_auroc"] for run in runs)))
        )
    scores = ("AUROC of κ: kNN", "linear", "fitted κ: kNN", "linear", "norm: kNN", "linear")
    head = ("arm", "seeds", "kNN", "linear", *scores, "R-AUROC")
    return _table(head, rows, "l" + "r" * 10)


def claim_kappa() -> str:
    """What κ is like in each arm: accuracy by fifths, spread, and the cosine of pairs of views."""
    rows = []
    for arm, runs in _arms().items():
        fifths = zip(*(run["accuracy_by_fifth_of_kappa"] for run in runs), strict=True)
        shares = ", ".join(f"{100 * sum(fifth) / len(fifth):.0f}" for fifth in fifths)
        cosine = next((run["pair_cosine"] for run in runs if run["pair_cosine"]), {})
        quartiles = ", ".join(_three(cosine.get(q)) for q in ("lower_quartile", "median", "upper_quartile"))
        rows.append((arm, shares, _three(_mean(run["std_log_kappa"] for run in runs)), quartiles))
    head = (
        "arm",
        "kNN top-1 (%) by fifths of κ, least first",
        "std of log κ",
        "cosine of μ and z: quartiles",
    )
    return _table(head, rows, "lrrr")


def claim_seeds() -> str:
    """kNN top-1 of every seed, and its difference from SimSiam's of that seed."""
    arms = _arms()
    rows = []
    for arm, runs in arms.items():
        both = [
            (100 * run["knn"], 100 * plain["knn"]) for run, plain in zip(runs, arms["simsiam"], strict=False)
        ]
        rows.append((arm, *(f"{own:.2f} ({own - plain:+.2f})" for own, plain in both)))
    most = max(len(row) for row in rows)
    head = ("arm", *(f"seed {seed}" for seed in range(most - 1)))
    return _table(
        head, [(*row, *("–" for _ in range(most - len(row)))) for row in rows], "l" + "r" * (most - 1)
    )


def reproduction(*paths: str) -> str:
    """One row for each figure of a table of the paper: ours, and the paper's as the protocols know them."""
    found = json.loads(REPRODUCTION.read_text(encoding="utf-8"))
    paper = {key: said for protocol in PROTOCOLS.values() for key, said in protocol.PAPER.items()}
    rows = []
    for path in paths:
        values = [_found(found.get(name, {}), path) for name in OURS]
        shown = ("–" if v is None else f"{v:.0f}" if v >= 10 else f"{v:.3f}" for v in values)
        said = next((paper[key] for key in (path, f"{path}.value") if key in paper), "–")
        rows.append((f"`{path}`", *shown, said))
    return _table(("figure", *OURS.values(), "the paper"), rows, "lrrrl")


def _found(metrics: dict[str, Any], path: str) -> float | None:
    """A figure by its dotted name; None where it was not measured."""
    found: Any = metrics
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found.get("value") if isinstance(found, dict) else found


def reproduced_correlation() -> str:
    """Fig. 6: how VI-SimSiam's κ goes with DINO's entropy."""
    found = json.loads(REPRODUCTION.read_text(encoding="utf-8"))["compare"]
    ours = ", ".join(f"{name.title()} {found[name]['value']:+.3f}" for name in ("pearson", "spearman"))
    return f"Ours: {ours}, over {found['images']:,} images. The paper: {found['paper']['pearson']}."


_CHOICES = ("highest_kappa", "one_crop", "mean_embedding", "kappa_weighted")
_AUGMENTATIONS = ("normal", "blur", "color_jitter", "grayscale", "random_crop")
REPRODUCED = {
    "reproduced linear": ("linear.top1", "knn.top1"),
    "reproduced augmentation": tuple(f"augmentation.{a}.{m}" for a in _AUGMENTATIONS for m in ("mean", "std")),
    "reproduced correctness": (
        *(f"uncertainty.linear.kappa_{kind}.{m}" for kind in ("correct", "wrong") for m in ("mean", "std")),
        *(f"uncertainty.{by}.auroc.kappa" for by in ("knn", "linear")),
        *(f"uncertainty.{by}.auroc.negative_entropy" for by in ("knn", "linear")),
    ),
    "reproduced test time": (
        "test_time.linear.clean",
        *(f"test_time.linear.{choice}.mean" for choice in _CHOICES),
        "test_time.linear.highest_kappa.std",
        "test_time.kappa.clean",
        "test_time.kappa.highest_kappa.mean",
    ),
    "reproduced transfer": ("transfer.dtd10.top1", "transfer.tiny32.top1"),
    "reproduced labels": tuple(
        f"semi_supervised.percent_{share}.{what}" for share in (1, 10) for what in ("top1", "scratch_top1")
    ),
}  # fmt: skip


def _arms() -> dict[str, list[dict[str, Any]]]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for name, run in sorted(json.loads(CLAIM.read_text(encoding="utf-8")).items()):
        arms.setdefault(name.rsplit("-", 1)[0], []).append(run)
    first = ("simsiam", "simsiam_660", "detached")
    return {arm: arms[arm] for arm in (*first, *(arm for arm in arms if arm not in first))}


def _evidence(by: str) -> str:
    found = json.loads(EVIDENCE.read_text(encoding="utf-8"))
    pairs = [name for name in PAIRS if name in found and by in next(iter(found[name].values()))]
    judged = [name for name in pairs if name not in CHOSEN_ON and name != "photos"]
    rows = []
    for score, title in EVIDENCE_SCORES.items():
        areas = {name: _mean(run[by].get(score) for run in found[name].values()) for name in pairs}
        known = [areas[name] for name in judged]
        cells = [_three(areas[name]) for name in pairs]
        rows.append((title, *cells, _three(_mean(known) if None not in known else None)))
    accuracy = [_mean(run[f"{by}_accuracy"] for run in found[name].values()) for name in pairs]
    rows.append(("accuracy of the classifier", *map(_three, accuracy), ""))
    head = ("AUROC", *(PAIRS[name] for name in pairs), "mean of the pairs that chose nothing")
    return _table(head, rows, "l" + "r" * (len(head) - 1))


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None where one of them is."""
    found = list(values)
    return None if None in found else sum(found) / len(found)  # type: ignore[arg-type]


BLOCKS = {
    **{name: functools.partial(reproduction, *paths) for name, paths in REPRODUCED.items()},
    "reproduced correlation": reproduced_correlation,
    "claim": claim,
    "claim kappa": claim_kappa,
    "claim seeds": claim_seeds,
    "kappa scores": kappa_scores,
    "kappa scores linear": kappa_scores_linear,
    "kappa differences": kappa_differences,
    "kappa corruption": kappa_corruption,
    "kappa ambiguity": kappa_ambiguity,
    "table 1": table,
    "models": models,
    "recipes": recipes,
    "weights": shipped,
    "protocols": protocols,
    "demo": demo,
    "variants": variants,
    "evaluation": evaluation,
}


def renewed(text: str) -> str:
    """A page with its blocks made anew.

    Raises:
        ValueError: a block is opened and not closed.
    """
    for name, content in BLOCKS.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(start) != text.count(stop):
            raise ValueError(f"{start} without {stop}")
        if start in text:
            block = f"{start}\n{content()}\n{stop}"
            text = re.sub(f"{start}.*?{stop}", lambda _, block=block: block, text, flags=re.S)
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    rule = "".join("---:|" if side == "r" else "---|" for side in align or "l" * len(head))
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} or {last}"


def _demo() -> dict[str, Any]:
    return json.loads(DEMO.read_text(encoding="utf-8"))


def _at(metrics: dict[str, Any], path: str) -> Any:
    """A figure by its dotted name, without its interval."""
    found: Any = metrics
    for part in path.split("."):
        found = found[part]
    return found["value"] if isinstance(found, dict) else found


def _three(value: Any) -> str:
    """A figure, or the value of one with its interval, to three places; what is undefined is a dash."""
    value = value["value"] if isinstance(value, dict) else value
    return "–" if value is None else f"{value:.3f}"


def _interval(value: dict[str, float]) -> str:
    return f"{value['ci_low']:.3f} to {value['ci_high']:.3f}" if value.get("ci_low") is not None else "–"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if a page is behind"
    )
    check = parser.parse_args().check
    before = {page: page.read_text(encoding="utf-8") for page in PAGES}
    after = {page: renewed(text) for page, text in before.items()}
    behind = [page for page in PAGES if before[page] != after[page]]
    if check:
        sys.exit("\n".join(f"{page.name} is behind: run python docs/tables.py" for page in behind) or 0)
    for page in behind:
        page.write_text(after[page], encoding="utf-8")
