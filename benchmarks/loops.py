"""Our training loop as a contestant: train.py's own, from its command line to its steps, only fed by turns."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from contestants import Turns

from vissl_zoo import training
from vissl_zoo.data import Batch, ImageStore
from vissl_zoo.methods import RECIPES
from vissl_zoo.recipes import Recipe, parse

ENDLESS = ("--max-steps", "1000000", "--save-every", "1000000", "--no-report", "--overwrite")
TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def train_module() -> ModuleType:
    """train.py, which lies beside the package and not in it."""
    if "train" not in sys.modules:
        spec = importlib.util.spec_from_file_location("train", TRAIN)
        sys.modules["train"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["train"])
    return sys.modules["train"]


def endless_recipe(flags: Sequence[str]) -> Recipe:
    """The recipe of train.py's command line, but without an end."""
    return parse([*flags, *ENDLESS], RECIPES)


def ours(turns: Turns, flags: tuple[str, ...]) -> None:
    """Train with train.py and these flags; data, views, precision, steps and log are its own.

    `info` has `precision`, "no" or "bf16".
    """
    load_images = training.load_images
    recipe = endless_recipe(flags)

    def load(recipe, table, accelerator):
        return Fed(load_images(recipe, table, accelerator), turns, accelerator)

    training.load_images = load
    train_module().train(recipe, "benchmark")


def ready_made(turns: Turns, flags: tuple[str, ...]) -> None:
    """The step that train.py would do with these flags, without its loader: the same views again and again."""
    train = train_module()

    def fit(run, batches, method, optimizer):
        views, accelerator = next(iter(batches)), run.accelerator
        method, optimizer = accelerator.prepare(method, optimizer)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3

        def unit() -> int:
            accelerator.backward(method(views).loss)
            optimizer.step()
            optimizer.zero_grad()
            return run.recipe.batch_size

        turns.ready(precision=accelerator.mixed_precision)
        turns.run(unit, accelerator.device)

    train.fit = fit
    train.train(endless_recipe(flags), "benchmark")


class Fed:
    """The images of a store, whose batches come when it is the contestant's turn."""

    def __init__(self, store: ImageStore, turns: Turns, accelerator):
        self._store, self._turns, self._accelerator = store, turns, accelerator

    def __len__(self) -> int:
        return len(self._store)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """See `ImageStore.batches`."""
        self._turns.ready(precision=self._accelerator.mixed_precision, images=len(self._store))
        yield from self._turns.feed(self._store.batches(index_batches), self._accelerator.device)


def last_lines(run: Path, count: int) -> list[dict]:
    """The last lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[-count:]]
