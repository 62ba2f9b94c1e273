"""What a model knows and how sure it is of it; evaluation sees a model and images, never a method."""

from typing import TYPE_CHECKING

from vissl_zoo.lazy import load_on_demand

if TYPE_CHECKING:
    from vissl_zoo.evaluation.evaluation_run import evaluate
    from vissl_zoo.evaluation.training_report import open_measured, report_training

__all__ = ["evaluate", "open_measured", "report_training"]
# On first use: what draws or compares imports a module of this room alone, and no torch for it.
__getattr__, __dir__ = load_on_demand(
    __name__,
    {"evaluation_run": ("evaluate",), "training_report": ("open_measured", "report_training")},
)
