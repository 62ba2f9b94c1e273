"""Where this project keeps what it would otherwise compute again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$VISSL_ZOO_CACHE`, by default vissl_zoo in the user's cache folder."""
    if named := os.environ.get("VISSL_ZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vissl_zoo"
