"""A trunk that OpenVINO runs on a CPU, where that package is installed: up to four times as fast as torch.

It is converted once and kept in the cache folder. Whatever fails leaves torch to do the work, and nothing is shown.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vissl_zoo.data import cache_folder
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.output import write_whole

CONVERT_PIXELS = 200 * 224**2  # of all images: torch needs some seconds for them, a conversion up to three
KEPT = 8  # newest conversions, of up to hundreds of megabytes each
TOLERANCE = {False: 1e-4, True: 0.05}  # relative, in float32 and in bfloat16
_logger = logging.getLogger(__name__)
_refused: set[Path] = set()  # not to be tried again by this process


def is_installed() -> bool:
    """Whether OpenVINO is there."""
    return importlib.util.find_spec("openvino") is not None


def openvino_trunk(
    trunk: nn.Module, name: str, image_size: int, pixels: int, bfloat16: bool
) -> Callable[[Tensor], Tensor] | None:
    """Images (B, 3, s, s) float32 -> embeddings (B, F) float32, by OpenVINO; None where torch is the better way.

    Args:
        trunk: gives the embeddings, in evaluation mode and on a CPU. It is traced, which may change it.
        name: its hash, for the file; `image_size` is the side of the images in pixels, `pixels` those of all images.
        bfloat16: compute in it, else in float32.
    """
    precision = "bf16" if bfloat16 else "f32"
    file = cache_folder() / "openvino" / f"{name}-{image_size}-{precision}-{version('openvino')}.blob"
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    settings |= {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}  # the system places them, as torch's

    def load(openvino: Any) -> Any:
        return openvino.Core().import_model(file.read_bytes(), "CPU", settings)

    def convert(openvino: Any) -> Any:
        model = openvino.convert_model(trunk, example_input=torch.zeros(2, 3, image_size, image_size))
        model.reshape([-1, 3, image_size, image_size])  # a known size is faster
        return openvino.Core().compile_model(model, "CPU", settings)

    ways = [load] if file.is_file() else []
    ways += [convert] if pixels >= CONVERT_PIXELS and file not in _refused else []
    for way in ways:
        try:
            with _quietly():
                compiled = way(importlib.import_module("openvino"))
                _check(compiled, trunk, image_size, TOLERANCE[bfloat16])
            if way is convert:
                _keep(compiled, file)
            return partial(_run, compiled)
        except Exception as error:  # a model may refuse to be traced, and a runtime an operation of it
            _refused.update({file} if way is convert else ())
            _logger.info("OpenVINO does not run the model: %s", first_line(error))
    return None


def _run(compiled: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(compiled(x.contiguous().numpy())[0])


@torch.inference_mode()
def _check(compiled: Any, trunk: nn.Module, image_size: int, tolerance: float) -> None:
    # Three images: a trace of two may have taken their number for a constant.
    x = torch.randn(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    found, expected = _run(compiled, x), trunk(x)
    assert found.shape == expected.shape
    error = ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
    if not error <= tolerance:  # NaN is none either
        raise ValueError(f"its embeddings differ from torch's by {error:.2g}")


def _keep(compiled: Any, file: Path) -> None:
    compiled.export_model(blob := io.BytesIO())
    with suppress(OSError, UserError):  # it runs all the same
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda path: path.write_bytes(blob.getbuffer()))
        for old in sorted(file.parent.glob("*.blob"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """No word of the tracer or the converter on the screen, and none over the network."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    level, handlers, filters = root.level, root.handlers[:], root.filters[:]  # the converter sets them
    logging.disable()
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # it would report every import
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if modules.get("openvino_telemetry", root) is None:
            del modules["openvino_telemetry"]
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:], root.filters[:] = handlers, filters
