"""What is fastest here is found out by a short measured trial, never assumed; and where the time of a step goes."""

from vissl_zoo.speed.clock import StepClock, synchronize
from vissl_zoo.speed.profile import StepProfile
from vissl_zoo.speed.trial import Trial, run_trial

__all__ = [
    "StepClock",
    "StepProfile",
    "Trial",
    "run_trial",
    "synchronize",
]
