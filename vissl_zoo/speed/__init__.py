"""What is fastest here is found out by a short measured trial."""

from vissl_zoo.speed.trial import Trial, run_trial, synchronize

__all__ = ["Trial", "run_trial", "synchronize"]
