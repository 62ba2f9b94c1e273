"""What is fastest here is found out by a short measured trial, never assumed."""

from vissl_zoo.speed.trial import Trial, run_trial

__all__ = ["Trial", "run_trial"]
