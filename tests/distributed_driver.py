"""Run several command lines of train.py, one after the other, in the processes that torchrun starts.

    torchrun --nproc_per_node 2 tests/distributed_driver.py COMMANDS.json

The file holds a list of argument lists. A run whose folder is called "local negatives" is SimCLR without the other
process's images. One start of the processes for all of them: importing torch is most
of what such a test costs.
"""

import contextlib
import json
import sys
from pathlib import Path
from unittest import mock

from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).parents[1]))
import train
from vissl_zoo.methods import simclr


def own_images(x, dim=0):
    """What stands in for `all_gather`: nothing comes from the other process."""
    return x


if __name__ == "__main__":
    Accelerator.end_training = lambda self: None  # it would close the process group that the next one needs
    for command in json.loads(Path(sys.argv[1]).read_text()):
        alone = any("local negatives" in argument for argument in command)
        with (
            mock.patch.multiple(simclr, all_gather=own_images, rank=int)
            if alone
            else contextlib.nullcontext()
        ):
            code = train.main(command)
        if code:
            sys.exit(code)
