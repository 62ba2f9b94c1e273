"""The parts of a training loop: network, order of the images, learning rate, checkpoints, log and run folder."""

from vissl_zoo.training.build import build_model
from vissl_zoo.training.run import Run
from vissl_zoo.training.schedule import Plan, index_batches, learning_rate

__all__ = ["Plan", "Run", "build_model", "index_batches", "learning_rate"]
