"""Tuning for processors: you need not read this room to understand anything else in the package.

Nothing here changes a result beyond rounding. A program that trains or scores on a CPU calls it at its start;
`import vissl_zoo` calls none of it.

- `cores`: the threads that torch takes;
- `device`: where a command computes, and memory that stays with the process;
- `small_maps`: convolutions over maps of a few pixels as matrix products.
"""

import os


def spin_less() -> None:
    """Let OpenMP's threads sleep after some 10 µs without work; called before torch is imported, or it does nothing.

    By default they spin for a millisecond. Where another program keeps one of the cores busy, they then spin away
    the time that the late one needs, and a training is many times slower. What the user has set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
