"""Run several command lines of train.py, one after the other, in the processes that torchrun starts.

    torchrun --nproc_per_node 2 tests/distributed_driver.py COMMANDS.json

The file holds a list of argument lists. One start of the processes for all of them: importing torch is most
of what such a test costs.
"""

import json
import sys
from pathlib import Path

from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).parents[1]))
import train

if __name__ == "__main__":
    Accelerator.end_training = lambda self: None  # it would close the process group that the next one needs
    for command in json.loads(Path(sys.argv[1]).read_text()):
        code = train.main(command)
        if code:
            sys.exit(code)
