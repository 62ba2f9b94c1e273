"""--profile: some steps under torch's profiler, as a table, a trace and one line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from accelerate.utils import ProfileKwargs
from torch.profiler import profile
from tqdm.auto import tqdm

from vissl_zoo.errors import UserError
from vissl_zoo.output import write_text, write_whole
from vissl_zoo.training.run_folder import Run

WAIT, WARM_UP, MEASURED = 8, 2, 5  # steps
TABLE, TRACE = "profile.txt", "profile.json"


@contextlib.contextmanager
def profiled_steps(run: Run) -> Iterator[Callable[[], None]]:
    """With --profile, watch steps 11 to 15 of a try, or what follows the first third of a shorter one.

    Yields a call to make after every step. The table and the trace lie in the output folder; the trace opens in
    chrome://tracing or https://ui.perfetto.dev. The training itself goes on as without it.

    Raises:
        UserError: the run is finished, or there is a single step to do, which would be all warm-up.
    """
    if not run.recipe.profile:
        yield lambda: None
        return
    if (steps := run.plan.steps - run.step) < 2:
        raise UserError(f"--profile needs at least 2 steps, and there {'is 1' if steps else 'is none left'}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler else logs its start and what it lacks
    wait, warm_up, measured = watched_steps(steps)
    schedule = {"wait": wait, "warmup": warm_up, "active": measured, "repeat": 1}

    def write(profiler: profile) -> None:
        if run.accelerator.is_main_process:
            tqdm.write(write_profile(profiler, run.folder, measured), file=sys.stderr)

    with run.accelerator.profile(ProfileKwargs(schedule_option=schedule, on_trace_ready=write)) as profiler:
        yield profiler.step


def watched_steps(steps: int) -> tuple[int, int, int]:
    """Of so many steps, how many pass, how many warm the profiler up, and how many it then watches."""
    warm_up = max(1, min(WARM_UP, steps // 3))
    wait = max(0, min(WAIT, steps // 3 - warm_up))
    return wait, warm_up, min(MEASURED, steps - wait - warm_up)


def write_profile(profiler: profile, folder: Path, steps: int) -> str:
    """Write the table and the trace into `folder`; returns the line for the user."""
    operations = profiler.key_averages()
    on_device = any(operation.self_device_time_total for operation in operations)
    own = "self_device_time_total" if on_device else "self_cpu_time_total"
    write_text(folder / TABLE, operations.table(sort_by=own, row_limit=30))
    write_whole(folder / TRACE, lambda path: profiler.export_chrome_trace(str(path)))
    # Not what torch marks around operations: ProfilerStep*, Optimizer.step#SGD.step.
    times = {
        o.key: getattr(o, own) for o in operations if not o.key.startswith(("ProfilerStep", "Optimizer."))
    }
    total = sum(times.values())
    largest = sorted(times, key=times.__getitem__, reverse=True)[:3]
    shares = ", ".join(f"{name} {times[name] / total:.0%}" for name in largest)
    return (
        f"profile: {total / steps / 1000:.1f} ms a step in operations ({shares}); {folder / TABLE}, {TRACE}"
    )
