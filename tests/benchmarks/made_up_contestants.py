"""Contestants for the tests: they must be importable in a process of their own."""

import multiprocessing
import time

import torch

from vissl_zoo.errors import UserError


def counting(turns, path):
    """Has a worker that writes on without end, as a data loader's does."""
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=_write, args=(path,), daemon=True)
    worker.start()
    turns.ready(greeting="hello")

    def unit():
        time.sleep(0.02)
        return 3

    turns.run(unit, torch.device("cpu"))
    worker.kill()


def without_its_package(turns):
    """Needs what nobody has."""
    import a_package_that_nobody_has  # noqa: F401


def failing(turns):
    """Goes wrong."""
    raise ValueError("the sky has fallen")


def refusing(turns):
    """Is given what a user can put right."""
    raise UserError("no such photos")


def _write(path):
    while True:
        with open(path, "a") as file:
            file.write("x")
        time.sleep(0.005)
