"""The collapse doctor: reads the log of a run as it is written, and says in one sentence what is wrong.

It costs nothing beyond the log's own signals, which are computed every `--log-every` steps. A sign must hold for
PATIENCE lines in a row, so that one odd batch alarms nobody, and each diagnosis is made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE = 3
Line = dict[str, Any]


@dataclass(frozen=True)
class Diagnosis:
    """One thing that can go wrong: when a line of the log shows it, and what to say."""

    name: str
    shows: Callable[[Line, Line], bool]  # of a line, and the first line of the run
    sentence: str  # formatted with the line's values
    settling: float = 0.0  # share of the training before which it is no sign of anything


DIAGNOSES = (
    Diagnosis(
        "collapsed",
        lambda line, first: line["embedding_std"] < 0.1,
        "Collapse: the embeddings are nearly one point (spread {embedding_std:.3f}, healthy is about 1). "
        "Try a smaller --lr, less --weight-decay or a larger --batch-size; SimSiam needs --method.output-norm.",
    ),
    Diagnosis(
        "low rank",
        lambda line, first: line["effective_rank"] < 4,
        "Dimensional collapse: the embeddings use {effective_rank:.1f} dimensions. Try a smaller --lr, or more varied "
        "views (smaller --views.scale, more colour jitter), since the present ones can be matched by very little.",
    ),
    Diagnosis(
        "dead kappa",
        lambda line, first: line["kappa_mean"] < 0.01 * first["kappa_mean"],
        "Dead κ: it fell from {first_kappa:.3g} to {kappa_mean:.3g}, which says that views tell nothing of each other. "
        "Try --method.kappa-warmup 0.2, the softplus map, or --method.variant detached.",
        settling=0.1,
    ),
    Diagnosis(
        "saturated kappa",
        lambda line, first: line["kappa_mean"] > 50 * line["dim"],  # a mean cosine above 0.98
        "Saturated κ: {kappa_mean:.3g} at d = {dim} says that the views are all but identical. "
        "Check that the augmentations are on, and look for collapse.",
    ),
    Diagnosis(
        "indifferent kappa",
        lambda line, first: (
            line["kappa_std"] < 0.02 * line["kappa_mean"]
            and line["kappa_mean"] >= 0.01 * first["kappa_mean"]  # a dead κ has its own diagnosis
        ),
        "Indifferent κ: it differs by {kappa_share:.1%} between images, too little to rank them by. "
        "Train longer, or raise --method.kappa-weight.",
        settling=0.5,
    ),
    Diagnosis(
        "uniform teacher",
        lambda line, first: line.get("teacher_entropy", 0.5) > 0.98,
        "Uniform teacher: its entropy is {teacher_entropy:.3f} of log K, the same for every image. "
        "Try a lower --method.teacher-temperature.",
        settling=0.1,
    ),
    Diagnosis(
        "one prototype",
        lambda line, first: line.get("prototype_entropy", 0.5) < 0.05,
        "One prototype: the teacher gives nearly all images the same one (entropy of their mean "
        "{prototype_entropy:.3f} of log K). Try a lower --method.center-momentum or a higher "
        "--method.teacher-temperature.",
    ),
)


class Doctor:
    """Watches the lines of one run; `said` keeps what it found, by name.

    Args:
        steps: optimizer steps of the whole run.
        dim: d of the latent sphere, against which κ is large or small.
    """

    def __init__(self, steps: int, dim: int):
        self.steps, self.dim = steps, dim
        self.said: dict[str, str] = {}
        self._first: Line | None = None
        self._streak: dict[str, int] = {}

    def examine(self, line: Line) -> list[str]:
        """Look at the next line of the log; returns the sentences of diagnoses made just now."""
        line = {**line, "dim": self.dim}
        self._first = self._first or line
        made = []
        for diagnosis in DIAGNOSES:
            settled = line["step"] >= diagnosis.settling * self.steps
            shows = settled and diagnosis.shows(line, self._first)
            self._streak[diagnosis.name] = self._streak.get(diagnosis.name, 0) + 1 if shows else 0
            if self._streak[diagnosis.name] == PATIENCE and diagnosis.name not in self.said:
                share = line["kappa_std"] / max(line["kappa_mean"], 1e-12)
                values = {**line, "first_kappa": self._first["kappa_mean"], "kappa_share": share}
                self.said[diagnosis.name] = diagnosis.sentence.format(**values)
                made.append(self.said[diagnosis.name])
        return made

    def at_the_end(self, lines: list[Line]) -> list[str]:
        """What only the whole run shows: a κ that has not settled. Returns all that was found."""
        found = list(self.said.values())
        quarter = len(lines) // 4
        if quarter >= PATIENCE:
            before, last = (
                sum(line["kappa_mean"] for line in part) / quarter
                for part in (lines[-2 * quarter : -quarter], lines[-quarter:])
            )
            if not 0.5 < last / max(before, 1e-12) < 2:
                found.append(
                    f"Drifting κ: its mean went from {before:.3g} to {last:.3g} in the last quarter, so it has not "
                    "settled. Train longer, or use --schedule cosine."
                )
        return found
