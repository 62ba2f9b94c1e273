"""A run folder: recipe.json, metrics.jsonl, checkpoints/, export/ and report/."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.optim import Optimizer
from tqdm.auto import tqdm

from vissl_zoo.errors import UserError
from vissl_zoo.methods import Method, Objective
from vissl_zoo.output import write_text
from vissl_zoo.recipes import Recipe
from vissl_zoo.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint, set_aside
from vissl_zoo.training.continuation import check_continuation, surroundings
from vissl_zoo.training.doctor import Doctor
from vissl_zoo.training.folder_choice import PARTS, claim_folder
from vissl_zoo.training.launch import describe_precision, ending_together, start_tracker
from vissl_zoo.training.log import RunLog, collapse_signals, short_line
from vissl_zoo.training.schedule import Plan
from vissl_zoo.training.stop_signals import StopSignals

T = TypeVar("T")


class Run:
    """The folder of one run and where the run stands.

    Attributes:
        recipe: what to train.
        plan: how long; known from `start` on.
        accelerator: accelerate's.
        command: the command line, for the model card.
        folder: the output folder.
        step: optimizer steps done.
        stopped_by: number of the signal that ended the training, or 0.
    """

    plan: Plan

    def __init__(self, recipe: Recipe, accelerator: Accelerator, command: str, images: str):
        """Check the folder; `images` is the fingerprint of what is trained on."""
        self.recipe, self.accelerator, self.command = recipe, accelerator, command
        described = dataclasses.asdict(recipe)
        method = {"name": recipe.method.name, **described["method"]}
        settled = {"mixed_precision": accelerator.mixed_precision, "images": images}
        # What recipe.json holds.
        self._described = {**described, "method": method, **settled, **surroundings(accelerator)}
        self.folder, self._resumes = self._claim_folder()
        accelerator.project_configuration.set_directories(str(self.folder))  # where a tracker writes
        self.step, self._seconds_before = 0, 0.0
        self._started = self._logged_at = time.monotonic()
        self._logged_step, self._loading = 0, 0.0
        self._signals, self.stopped_by, self._saved_at = StopSignals(), 0, self._started
        self._hosts: Any = None
        if accelerator.num_processes > 1:
            self._hosts = torch.distributed.new_group(backend="gloo")
        self._checkpoint = self._find_checkpoint()
        start_tracker(recipe, accelerator)

    @property
    def seconds(self) -> float:
        """Seconds the run has taken, interrupted tries included."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def out_of_time(self) -> bool:
        """Whether --max-minutes have passed in this try, by this process's clock."""
        limit = self.recipe.max_minutes
        return limit is not None and time.monotonic() - self._started > 60 * limit

    @property
    def finished(self) -> bool:
        """Whether all steps of the plan are done."""
        return self.step >= self.plan.steps

    def start(self, plan: Plan, method: Method, optimizer: Optimizer) -> None:
        """Restore the newest checkpoint with --resume, else clear the folder (--overwrite); open the log.

        Apart from the constructor: a mistake elsewhere in the command must be found before an earlier run is removed.
        """
        self.plan, self._doctor = plan, Doctor(plan.steps, method.dim)
        if self._checkpoint is not None:
            for path, wrong in self._faults.items():
                self.accelerator.print(f"{path} is skipped and set aside: {wrong}")
            state = load_checkpoint(self._checkpoint, method, optimizer)
            self.step, self._seconds_before = state["step"], state["seconds"]
            self._logged_step = self.step
            if self.accelerator.scaler and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.accelerator.print(f"resuming {self.folder} at step {self.step}")
            for line in self._inexact:
                self.accelerator.print(f"not as the run began: {line}")
        with ending_together(self.accelerator, self._hosts):
            if self.accelerator.is_main_process:
                self._open_log()
        self.accelerator.print(describe_precision(self.recipe, self.accelerator))
        self._logged_at = self._saved_at = time.monotonic()

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[None]:
        """Show a progress bar inside, on the first process; signals that end a run wait for the end of the step."""
        steps, others = self.plan.steps, not self.accelerator.is_main_process
        bar = tqdm(total=steps, initial=self.step, desc=title, unit="step", disable=others)
        with self._signals, bar as self._bar:
            yield

    def waits(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time until each of them is there counts as the loader's."""
        batches = iter(batches)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._loading += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def step_done(self, method: Method, optimizer: Optimizer, objective: Objective) -> bool:
        """Count an optimizer step, with its line of the log and its checkpoint if they are due.

        Returns whether --max-minutes have passed or a signal came, and the training ends here.

        Raises:
            UserError: the loss or a weight is no longer a number.
        """
        self.step += 1
        self._bar.update()
        if self.step % self.recipe.log_every == 0 or self.step in (1, self.plan.steps):
            line = self.log(method, objective, optimizer.param_groups[0]["lr"])
            speed = f"{line['images_per_second']:.0f} images/s, data {line['data_share']:.0%}"
            self._bar.set_postfix_str(f"loss {line['loss']:.3f}, κ {line['kappa_mean']:.4g}, {speed}")
        over, self.stopped_by, late = self._agree()
        ends = bool(over or self.stopped_by)
        if self.step % self.recipe.save_every == 0 or self.finished or ends or late:
            self.save(method, optimizer, objective)
            self._saved_at = time.monotonic()
        return ends

    def _agree(self) -> list[int]:
        """Whether the time of any process is over, the signal that one got, and whether a save is due by the clock.

        Processes ask each other through their hosts, outside any signal handler; accelerators do not wait for it.
        """
        late = time.monotonic() - self._saved_at > 60 * self.recipe.save_minutes
        flags = torch.tensor([int(bool(self.out_of_time)), self._signals.number, int(late)])
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._hosts)
        return flags.tolist()

    def save(self, method: Method, optimizer: Optimizer, objective: Objective) -> None:
        """Write a checkpoint of this step.

        Raises:
            UserError: the loss or a weight is no longer a number; the last good checkpoint stays.
        """
        loss = objective.loss.item()
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} at step {self.step}: try a smaller --lr")
        state = method.state_dict()  # which the loss need not feel
        finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()  # read once
        if not all(finite):
            name = list(state)[finite.index(False)]
            raise UserError(
                f"{name} is no longer finite at step {self.step}: try a smaller --lr or --mixed-precision no"
            )
        with ending_together(self.accelerator, self._hosts):
            if self.accelerator.is_main_process:
                scaler = self.accelerator.scaler  # of the loss, in float16
                extra = {"seconds": self.seconds, "scaler": scaler.state_dict() if scaler else None}
                self._log.force_to_disk()
                keep = self.recipe.keep_checkpoints
                save_checkpoint(self.folder / "checkpoints", self.step, method, optimizer, extra, keep)

    @torch.no_grad()
    def log(self, method: Method, objective: Objective, lr: float) -> dict[str, Any]:
        """Append a line to metrics.jsonl (and the tracker): means over the processes; returns the line.

        What the doctor makes of it stands in the line under `diagnoses`. `data_share` is the share of the time since
        the line before that went into waiting for batches and making views, on an accelerator the host's.

        Raises:
            UserError: the loss is no longer a number.
        """
        latents = objective.latents
        values = {"loss": objective.loss, **objective.terms(), **method.signals(latents)}
        values |= {"kappa_mean": latents.kappa.mean(), "kappa_std": latents.kappa.std()}
        values |= collapse_signals(latents.embedding)
        values["data_share"] = torch.tensor(self._loading, device=latents.kappa.device)
        packed = torch.stack([v.float() for v in values.values()])  # MPS has no float64
        reduced = torch.as_tensor(self.accelerator.reduce(packed, "mean"))
        means = dict(zip(values, reduced.tolist(), strict=True))
        now = time.monotonic()
        passed = max(now - self._logged_at, 1e-9)
        images = (self.step - self._logged_step) * self.plan.batch_size * self.plan.accumulation
        self._logged_at, self._logged_step, self._loading = now, self.step, 0.0
        line = {
            "step": self.step,
            "epoch": self.plan.epoch(self.step),
            **means,
            "data_share": means["data_share"] / passed,
            "lr": lr,
            "images_per_second": images / passed,
            "seconds": self.seconds,
            "processes": self.accelerator.num_processes,
        }
        if not math.isfinite(means["loss"]):
            raise UserError(f"the loss is {means['loss']} at step {self.step}: try a smaller --lr")
        self.accelerator.log({k: v for k, v in line.items() if k != "step"}, step=self.step)
        if self.accelerator.is_main_process:
            line = short_line(line)  # which a resumed run reads back: the doctor sees the same in both
            if found := self._doctor.examine(line):
                line["diagnoses"] = found
            for sentence in found:
                tqdm.write(f"step {self.step}: {sentence}", file=sys.stderr)
        with ending_together(self.accelerator, self._hosts):
            if self.accelerator.is_main_process:
                self._log.write(line)
        return line

    def diagnoses(self) -> list[str]:
        """What the collapse doctor found, one sentence each."""
        return self._doctor.at_the_end(self.history())

    def history(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return self._log.read()

    def _claim_folder(self) -> tuple[Path, bool]:
        """The folder, which the first process chooses for all, and whether the run in it goes on."""
        claimed: list[Any] = [None, False]
        with ending_together(self.accelerator):
            if self.accelerator.is_main_process:
                claimed = list(claim_folder(self.recipe))
        folder, resumes = broadcast_object_list(claimed)
        return folder, resumes

    def _find_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, if any: the newest that is whole."""
        self._faults: dict[Path, str] = {}
        self._inexact: list[str] = []
        if not self._resumes:
            return None
        found: list[Any] = [None, {}]
        with ending_together(self.accelerator):
            if self.accelerator.is_main_process:  # reads all of it
                found = list(newest_checkpoint(self.folder / "checkpoints"))
        checkpoint, self._faults = broadcast_object_list(found)
        if checkpoint is None:
            said = "; ".join(f"{path.name}: {wrong}" for path, wrong in self._faults.items())
            raise UserError(
                f"--resume: there is no {'whole ' if said else ''}checkpoint in {self.folder / 'checkpoints'}"
                + (f" ({said})" if said else "")
            )
        try:
            before = dict(json.loads((self.folder / "recipe.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"--resume: {self.folder / 'recipe.json'} cannot be read") from error
        try:
            self._inexact = check_continuation(before, self._described, force=self.recipe.resume_force)
        except UserError as error:
            raise UserError(f"--resume: {self.folder} {error}") from None
        if self._inexact:  # recipe.json tells what each part of the run was made with
            self._described["continued"] = [
                *before.get("continued", []),
                {"from": checkpoint.name, "otherwise": self._inexact},
            ]
        return checkpoint

    def _open_log(self) -> None:
        """Make the folder ready and open metrics.jsonl, from which the doctor reads the steps before."""
        if not self._resumes:
            self._clear()
        if self._inexact or not self._resumes:
            write_text(self.folder / "recipe.json", json.dumps(self._described, indent=1) + "\n")
        set_aside(self._faults)
        self._log = RunLog(self.folder / "metrics.jsonl", from_step=self.step)
        for earlier in self.history():
            self._doctor.examine(earlier)

    def _clear(self) -> None:
        """Remove what an earlier run left."""
        if (self.folder / "recipe.json").exists():
            self.accelerator.print(f"starting {self.folder} over")
        for name in PARTS[1:]:
            part = self.folder / name
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)
