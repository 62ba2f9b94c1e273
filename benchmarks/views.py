"""Views alone: our batched pipeline, lightly's transform in two workers, and kornia's batched augmentation.

    pip install lightly==1.6.0 kornia
    python benchmarks/views.py --output views.jsonl

Two views of 64 px from images of 32 px, the same with six smaller views, and both at 224 px from images of 256 px.
What each does is in view_ways.py; every batch's shapes and types are checked on all sides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from dataclasses import dataclass

from contestants import Contestant, Missing
from measure import Line, Report, Target, compare, say, with_version
from options import Options, main
from training import processor_ratio, take_turns
from view_ways import ViewCase, kornia_views, lightly_views, our_views

CASES = (
    ViewCase("two views, 64 px", 32, 64),
    ViewCase("multi-crop 2 + 6, 64 and 32 px", 32, 64, low=6, low_size=32),
    ViewCase("two views, 224 px", 256, 224),
    ViewCase("multi-crop 2 + 6, 224 and 96 px", 256, 224, low=6, low_size=96),
)
TARGETS = {"lightly": Target("≥", 20.0), "kornia": Target("≥", 5.0)}


@dataclass(frozen=True)
class ViewsOptions(Options):
    """How long to measure."""

    LEAST = {"workers": 0}

    workers: int = 2
    """Workers of lightly's DataLoader."""
    repeats: int = 5
    """Turns of each contestant that count."""
    seconds: float = 1.5
    """Length of a turn: whole batches, one at least."""


def measure(options: ViewsOptions, report: Report) -> None:
    """Every case in turns, and a line for each peer."""
    for case in CASES:
        if options.quick:
            case = dataclasses.replace(case, batch=16)
        for line in lines_of(case, options):
            report.add(line)


def lines_of(case: ViewCase, options: ViewsOptions) -> list[Line]:
    """One case: ours beside each peer, or why a peer is missing."""
    repeats, seconds = (1, 0.1) if options.quick else (options.repeats, options.seconds)
    peers = {"lightly": (lightly_views, case, options.workers), "kornia": (kornia_views, case)}
    reasons: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        started = {"ours": stack.enter_context(Contestant("ours", our_views, case))}
        for name, call in peers.items():
            try:
                started[name] = stack.enter_context(Contestant(name, *call))
            except Missing as error:
                reasons[name] = f"{error}: pip install {name}"
        say(f"views: {case.name}")
        turns = take_turns(started, repeats, seconds)
    rates = {name: [turn.rate for turn in taken] for name, taken in turns.items()}
    found = []
    for name, target in TARGETS.items():
        workers = f", {options.workers} workers" if name == "lightly" else ""
        against = with_version(name) + workers
        title = f"views: {case.name}, beside {name}"
        if name in reasons:
            found.append(Line(title, "images/s", against=against, target=target, reason=reasons[name]))
        else:
            line = compare(title, "images/s", rates["ours"], rates[name], against=against, target=target)
            line.details["ratio_of_processor_time"] = processor_ratio(turns["ours"], turns[name])
            found.append(line)
    return found


if __name__ == "__main__":
    sys.exit(main("views", ViewsOptions(), __doc__, measure))
