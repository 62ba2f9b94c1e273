"""The parts of a training loop: network, precision, order of the images, learning rate, checkpoints, log, profile."""

from vissl_zoo.training.build import build_model
from vissl_zoo.training.compilation import compile_backbone, restore_backbone
from vissl_zoo.training.guard import GradientGuard
from vissl_zoo.training.optimizer import build_optimizer
from vissl_zoo.training.precision import choose_precision
from vissl_zoo.training.processes import start_accelerator, start_processes, start_tracker
from vissl_zoo.training.profiler import Profiler, check_profile
from vissl_zoo.training.run import Run
from vissl_zoo.training.schedule import Plan, index_batches, learning_rate
from vissl_zoo.training.step import to_device

__all__ = [
    "GradientGuard",
    "Plan",
    "Profiler",
    "Run",
    "build_model",
    "build_optimizer",
    "check_profile",
    "choose_precision",
    "compile_backbone",
    "index_batches",
    "learning_rate",
    "restore_backbone",
    "start_accelerator",
    "start_processes",
    "start_tracker",
    "to_device",
]
