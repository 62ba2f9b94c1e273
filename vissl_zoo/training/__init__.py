"""The parts of a training loop: what is trained, its images and views, its schedule, its folder, and its end."""

from vissl_zoo.training.assembly import build_method, build_model, build_optimizer, build_views
from vissl_zoo.training.finish import finish
from vissl_zoo.training.gradient_guard import GradientGuard
from vissl_zoo.training.launch import start_accelerator
from vissl_zoo.training.run_folder import Run
from vissl_zoo.training.schedule import Plan, set_learning_rate
from vissl_zoo.training.step_profile import profiled_steps
from vissl_zoo.training.training_data import load_images, open_table, read_views

__all__ = [
    "GradientGuard",
    "Plan",
    "Run",
    "build_method",
    "build_model",
    "build_optimizer",
    "build_views",
    "finish",
    "load_images",
    "open_table",
    "profiled_steps",
    "read_views",
    "set_learning_rate",
    "start_accelerator",
]
