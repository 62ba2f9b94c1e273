"""The training loop keeps close to the speed of its step on ready-made views: the guard against slow loading.

Both are timed in one process in turns, in CPU time of one thread, which a busy machine disturbs least; the ratio of
each pair of neighbours counts, and the median of these. What is asked for is a ratio, never seconds.
"""

import itertools
import time
from statistics import median

import pytest
import torch
from accelerate.state import AcceleratorState

from vissl_zoo.data import ImageStore
from vissl_zoo.recipes import parse
from vissl_zoo.training import Plan, Run, build_model, build_optimizer, start_accelerator, start_processes
from vissl_zoo.training.precision import Precision
from vissl_zoo.training.profiler import bare_step

LEAST, TRIES = 0.8, 3  # the best of so many tries counts: noise only ever lowers the ratio for long
PAIRS, STEPS = 5, 2
FLAGS = ["--batch-size", "64"]  # of the demo: its network is small, so loading has little to hide behind


class Interleaved(ImageStore):
    """The batches of a store, `STEPS` for the loop and then as many bare steps, `PAIRS` times and once to warm up.

    The time from asking for the first batch of a block to asking for the one after its last is the loop's own.
    """

    def __init__(self, store, bare):
        super().__init__(store.canvas, store.rows, store._tally)
        self.store, self.bare, self.ratios = store, bare, []

    def batches(self, index_batches):
        batches = self.store.batches(index_batches)
        for _ in range(PAIRS + 1):
            start = time.process_time()
            yield from itertools.islice(batches, STEPS)
            whole = time.process_time() - start
            self.ratios.append(seconds_of(self.bare, STEPS) / whole)


class SlowViews:
    """Views that take as much longer as half a step lasts: what the guard is there to catch."""

    def __init__(self, views, bare):
        self.views, self.delay = views, seconds_of(bare, STEPS) / STEPS / 2

    def __call__(self, *arguments, **keywords):
        views, end = self.views(*arguments, **keywords), time.process_time() + self.delay
        while time.process_time() < end:
            pass
        return views


def seconds_of(call, times):
    start = time.process_time()
    for _ in range(times):
        call()
    return time.process_time() - start


@pytest.fixture
def ratio_of(train_module, shapes_folder, tmp_path, one_thread):
    """ratio_of(slow) -> speed of train.py's loop over that of its step on ready-made views."""

    def ratio_of(slow=False):
        AcceleratorState._reset_state(reset_partial_state=True)
        folder = ("--data.path", str(shapes_folder), "--output-dir", str(tmp_path / "run"))
        recipe = parse([*FLAGS, *folder])
        processes, precision = start_processes(recipe), Precision("no", "")
        views = train_module.build_views(recipe)
        torch.manual_seed(0)
        method = train_module.build_method(recipe, build_model(recipe), processes.device)
        table = train_module.open_table(recipe, processes)
        accelerator = start_accelerator(recipe, precision)
        optimizer = build_optimizer(recipe, method, precision.name)
        run = Run(recipe, accelerator, "", table.fingerprint)
        run.start(method, optimizer)
        store = train_module.load_images(recipe, table, accelerator)
        batch = next(iter(store.batches([range(recipe.batch_size)])))
        bare = bare_step(method, optimizer, views(batch.images, batch.sizes, 0), recipe, accelerator)
        seconds_of(bare, 2)
        turns = Interleaved(store, bare)
        plan = Plan(len(store), recipe.batch_size, 1, 10_000)  # the batches end before it does
        loop_views = SlowViews(views, bare) if slow else views
        train_module.fit(recipe, plan, run, turns, loop_views, method, optimizer, accelerator)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert run.step == (PAIRS + 1) * STEPS
        return median(turns.ratios[1:])

    return ratio_of


def test_loading_costs_little(ratio_of):
    ratios = []
    while not ratios or (max(ratios) < LEAST and len(ratios) < TRIES):
        ratios.append(ratio_of())
    print(f"speed of the loop over that of ready-made views: {ratios}")
    assert max(ratios) >= LEAST, ratios


def test_slow_views_would_be_seen(ratio_of):
    """They cannot pass by luck: the best of as many tries is below."""
    ratios = [ratio_of(slow=True) for _ in range(TRIES)]
    print(f"the same with slow views: {ratios}")
    assert max(ratios) < LEAST, ratios
