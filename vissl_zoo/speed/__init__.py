"""What is fastest here is found out by a short measured trial, never assumed; and where the time of a step goes."""

from vissl_zoo.speed.allocator import keep_freed_memory
from vissl_zoo.speed.clock import StepClock, synchronize
from vissl_zoo.speed.cores import take_cores
from vissl_zoo.speed.device import take_device
from vissl_zoo.speed.profile import StepProfile
from vissl_zoo.speed.trial import Trial, run_trial

__all__ = [
    "StepClock",
    "StepProfile",
    "Trial",
    "keep_freed_memory",
    "run_trial",
    "synchronize",
    "take_cores",
    "take_device",
]
