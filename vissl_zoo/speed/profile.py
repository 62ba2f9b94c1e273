"""A picture of where a training step's time goes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

# Bottom up in the order of a step; what is no part of any is the rest.
PARTS = (
    "waiting for data",
    "views",
    "backbone, forward",
    "heads and loss",
    "backward",
    "optimizer",
    "the rest",
)
COLOURS = ("#b3b3b3", "#e5c494", "#66c2a5", "#8da0cb", "#fc8d62", "#e78ac3", "#ffd92f")


@dataclass(frozen=True)
class StepProfile:
    """What a step costs, and how it is made up.

    Attributes:
        parts: mean seconds of one step by part, in the order of `PARTS`: they add up to the mean step.
        step_seconds: median seconds of one whole step.
        ready_made_seconds: median seconds of the same step on views that lie ready: what the training would cost
            with a loader that costs nothing.
        steps: how many steps were measured.
        images: images in one step, of this process.
        device: where it ran.
        precision: "no", "fp16" or "bf16".
    """

    parts: dict[str, float]
    step_seconds: float
    ready_made_seconds: float
    steps: int
    images: int
    device: str
    precision: str

    @property
    def ratio(self) -> float:
        """Speed of the whole step over that of the step on ready-made views; 1 is a loader that costs nothing."""
        return self.ready_made_seconds / self.step_seconds

    def __str__(self) -> str:
        total = sum(self.parts.values())
        largest = sorted(self.parts, key=self.parts.__getitem__, reverse=True)[:3]
        shares = ", ".join(f"{name} {self.parts[name] / total:.0%}" for name in largest)
        return f"{1000 * self.step_seconds:.1f} ms a step ({shares}), {self.ratio:.2f} of ready-made views' speed"

    def write(self, folder: Path) -> Path:
        """Write profile.json and profile.png into `folder`; returns the picture."""
        described = {**asdict(self), "ratio": self.ratio}
        (folder / "profile.json").write_text(json.dumps(described, indent=1) + "\n")
        return self._draw(folder / "profile.png")

    def _draw(self, path: Path) -> Path:
        """One horizontal bar, cut into the parts, with a line for each part below it."""
        from matplotlib.figure import Figure  # not pyplot, which would choose a screen

        total = sum(self.parts.values())
        figure = Figure(figsize=(9, 4.2), dpi=120, layout="constrained")
        bar, table = figure.subplots(2, 1, height_ratios=[1, 2.2])
        start = 0.0
        for name, colour in zip(PARTS, COLOURS, strict=True):
            share = self.parts[name] / total
            bar.barh(0, share, left=start, color=colour, edgecolor="white")
            if share > 0.05:
                bar.text(start + share / 2, 0, f"{share:.0%}", ha="center", va="center")
            start += share
        bar.set(xlim=(0, 1), yticks=[], xticks=[])
        bar.spines[:].set_visible(False)
        bar.set_title(
            f"One training step, the median of {self.steps}: {1000 * self.step_seconds:.1f} ms, "
            f"{self.images / self.step_seconds:.0f} images/s\n"
            f"{self.ratio:.2f} of the speed on ready-made views; {self.device}, "
            f"{'float32' if self.precision == 'no' else self.precision}",
            fontsize=11,
        )
        table.barh(PARTS, [1000 * self.parts[name] for name in PARTS], color=COLOURS)
        for place, name in enumerate(PARTS):
            milliseconds = 1000 * self.parts[name]
            table.text(milliseconds, place, f" {milliseconds:.2f} ms", va="center", fontsize=9)
        table.invert_yaxis()
        table.margins(x=0.12)
        table.set_xlabel(f"milliseconds, mean of the {self.steps} steps")
        table.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)
        return path
