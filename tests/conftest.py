"""What the tests of training share: a small data set, a way to call train.py, and one finished run."""

import contextlib
import importlib.util
import io
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Workers side by side with two threads each are ten times slower than with one. Both are read when torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "3000"}

# isort: split
import datasets
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

ROOT = Path(__file__).parents[1]
# What the tests count on is said here, since the demo's own numbers may be tuned.
SMALL = """--image-size 32 --batch-size 16 --method.latent-dim 64 --log-every 2
    --lr 0.05 --lr-batch-size 128 --schedule cosine --warmup-epochs 0 --mixed-precision no"""


class Outcome(NamedTuple):
    """What a command left: its exit code and what it wrote on stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def no_network_and_no_user_cache(tmp_path_factory) -> Iterator[None]:
    """Data sets are cached in this session's own folder, and training stays on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setenv("VISSL_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def threads_kept() -> Iterator[None]:
    """What a test sets torch's threads to is over with it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads_kept) -> None:
    """Torch computes in one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def train_module():
    """train.py as a module; it lies beside the package and not in it."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def train_main(train_module):
    """train_main(*arguments) -> Outcome of `train.py ARGUMENTS`, in this process."""

    def train_main(*arguments: object) -> Outcome:
        AcceleratorState._reset_state(reset_partial_state=True)  # each command has its own precision
        out, err = io.StringIO(), io.StringIO()
        warnings = logging.StreamHandler(err)  # pytest takes them from stderr
        logging.getLogger().addHandler(warnings)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = train_module.main([str(a) for a in arguments])
        finally:
            logging.getLogger().removeHandler(warnings)
            AcceleratorState._reset_state(reset_partial_state=True)
        return Outcome(code, out.getvalue(), err.getvalue())

    return train_main


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory) -> Path:
    """Parquet files of 120 training and 40 test images of the embedded data set."""
    from vissl_zoo.data.shapes import shapes

    folder = tmp_path_factory.mktemp("shapes")
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        for split, count in {"train": 120, "test": 40}.items():
            shapes(split, count=count).to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def small(shapes_folder) -> tuple[str, ...]:
    """Flags that make the demo small."""
    return (*SMALL.split(), "--data.path", str(shapes_folder))


@pytest.fixture(scope="session")
def demo_arguments(small) -> tuple[str, ...]:
    """The command line of `demo_run`, but for its folder."""
    return (*small, "--max-steps", "6", "--report-images", "200")


@pytest.fixture(scope="session")
def demo_run(train_main, demo_arguments, tmp_path_factory) -> tuple[Path, Outcome]:
    """The folder and the outcome of six steps of the demo; read it, change nothing."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    outcome = train_main(*demo_arguments, "--output-dir", folder)
    assert outcome.code == 0, outcome.err
    return folder, outcome


def _encode(pixels: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="session")
def write_split():
    """write_split(path, images, labels=None, **columns): a parquet file; an image is (H, W, 3) uint8 or bytes."""

    def write_split(path, images, labels=None, **columns):
        features = {"image": datasets.Image(decode=False)}
        rows = {"image": [{"bytes": i, "path": None} if isinstance(i, bytes) else _encode(i) for i in images]}
        if labels is not None:
            features["label"] = datasets.ClassLabel(names=["a", "b", "c"])
            rows["label"] = list(labels)
        for name, values in columns.items():
            features[name] = datasets.Value("string" if isinstance(values[0], str) else "float32")
            rows[name] = values
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)
        return path

    return write_split


@pytest.fixture(scope="session")
def torchrun():
    """torchrun(script, *arguments) runs a script in two processes; the test fails with what they said."""

    def torchrun(script: Path, *arguments: object, timeout: float = 240) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        address = ["--master_addr", "127.0.0.1", "--master_port", str(port)]
        done = subprocess.run(
            [*launcher, *address, str(script), *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    return torchrun
