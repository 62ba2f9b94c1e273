"""The training loop keeps close to the speed of its step on ready-made views: the guard against slow loading.

Both are timed in one process in turns, in CPU time of one thread, which a busy machine disturbs least; the ratio of
each pair of neighbours counts, and the median of these. What is asked for is a ratio, never seconds.
"""

import copy
import itertools
import tempfile
import time
from statistics import median

import pytest
import torch
from accelerate.state import AcceleratorState

from vissl_zoo import training
from vissl_zoo.methods import RECIPES
from vissl_zoo.recipes import parse

LEAST, TRIES = 0.8, 3  # the best of so many tries counts: noise only ever lowers the ratio for long
PAIRS, STEPS = 5, 2
FLAGS = (
    "--batch-size",
    "96",
    "--mixed-precision",
    "no",
)  # a small network: loading has little to hide behind


class Interleaved:
    """The batches of a store, `STEPS` for the loop and then as many bare steps, `PAIRS` times and once to warm up.

    The time from asking for the first batch of a block to asking for the one after its last is the loop's own.
    """

    def __init__(self, store, bare):
        self.store, self.bare, self.ratios = store, bare, []

    def __len__(self):
        return len(self.store)

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


def bare_step(method, views):
    """A call that does one optimizer step of a copy of the method on ready-made views."""
    spare = copy.deepcopy(method)
    optimizer = torch.optim.SGD(spare.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step():
        spare(views).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.fixture
def ratio_of(train_module, shapes_folder, tmp_path, one_thread):
    """ratio_of(slow) -> speed of train.py's loop over that of its step on ready-made views."""

    def ratio_of(slow=False):
        AcceleratorState._reset_state(reset_partial_state=True)
        folder = ("--data.path", str(shapes_folder), "--output-dir", tempfile.mkdtemp(dir=tmp_path))
        recipe = parse([*FLAGS, *folder, "--max-steps", "10000"], RECIPES)  # the batches end before it does
        accelerator = training.start_accelerator(recipe)
        views = training.build_views(recipe)
        torch.manual_seed(0)
        method = training.build_method(recipe, training.build_model(recipe), accelerator.device)
        optimizer = training.build_optimizer(recipe, method, "no")
        table = training.open_table(recipe, accelerator)
        run = training.Run(recipe, accelerator, "", table.fingerprint)
        run.start(training.Plan.of(recipe, len(table), accelerator), method, optimizer)
        store = training.load_images(recipe, table, accelerator)
        batch = next(iter(store.batches([range(recipe.batch_size)])))
        bare = bare_step(method, views(batch.images, batch.sizes, 0))
        seconds_of(bare, 2)
        turns = Interleaved(store, bare)
        loop_views = SlowViews(views, bare) if slow else views
        train_module.fit(run, training.read_views(run, turns, loop_views), method, optimizer)
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
    ratio = ratio_of(slow=True)
    print(f"the same with slow views: {ratio}")
    assert ratio < LEAST
