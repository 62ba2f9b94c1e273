"""Networks on a CPU: OpenVINO beside torch, each as `embed` calls it, on one batch of random images.

    pip install -e ".[cpu]"
    python benchmarks/runtime.py --output runtime.jsonl --threads 1

Weights are random, and no image is decoded. torch has a channels-last copy with batch normalisation folded into the
convolutions. The conversion to OpenVINO is done before.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass

import timm
import torch
from measure import NO_BFLOAT16, Line, Report, Target, compare, in_turns, say, with_version
from options import Options, main

from vissl_zoo.errors import UserError
from vissl_zoo.inference import forward
from vissl_zoo.inference.runtime import CONVERT_PIXELS, is_installed
from vissl_zoo.networks.bfloat16 import bfloat16_is_native

NETWORKS = ("tf_efficientnet_lite0", "resnet18", "resnet50", "convnext_tiny", "vit_small_patch16_224")
SIZE, BATCH = 224, 32
FASTER = Target("≥", 1.0)


@dataclass(frozen=True)
class RuntimeOptions(Options):
    """What to run, and how often."""

    networks: tuple[str, ...] = NETWORKS
    """Names of timm."""
    repeats: int = 7
    """Batches of each that count."""


def measure(options: RuntimeOptions, report: Report) -> None:
    """Each network in both precisions, in turns."""
    if not is_installed():
        reason = "openvino is not installed"
        report.add(Line("runtime: OpenVINO beside torch", "images/s", target=FASTER, reason=reason))
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VISSL_ZOO_CACHE"] = scratch
        for name in options.networks[: 1 if options.quick else None]:
            for bfloat16 in (False, True):
                say(f"runtime: {name}, {'bfloat16' if bfloat16 else 'float32'}")
                report.add(beside_torch(name, bfloat16, 1 if options.quick else options.repeats))


def beside_torch(name: str, bfloat16: bool, repeats: int) -> Line:
    """One network in one precision; `details` has the greatest relative error of both ways against float32.

    Raises:
        UserError: OpenVINO does not run the network.
    """
    what = f"runtime: {name}, {SIZE} px, {'bfloat16' if bfloat16 else 'float32'}"
    if bfloat16 and not bfloat16_is_native("cpu"):
        return Line(what, "images/s", target=FASTER, reason=NO_BFLOAT16)
    torch.manual_seed(0)
    model, x = timm.create_model(name, num_classes=0).eval(), torch.randn(BATCH, 3, SIZE, SIZE)
    ways = {
        "ours": forward.converted(model, SIZE, CONVERT_PIXELS, bfloat16=bfloat16),
        "torch": forward.folded(model, bfloat16=bfloat16),
    }
    if ways["ours"] is None:
        raise UserError(f"OpenVINO does not run {name}")
    exact = forward.exact_forward(model)(x).embedding
    errors = {
        f"error_of_{key}": ((way(x).embedding - exact).norm(dim=1) / exact.norm(dim=1)).max().item()
        for key, way in ways.items()
    }
    seconds = in_turns({key: lambda way=way: way(x) for key, way in ways.items()}, repeats)
    rates = ([BATCH / taken for taken in seconds[key]] for key in ways)
    against = f"{with_version('torch')}, folded and channels-last"
    return compare(what, "images/s", *rates, against=against, target=FASTER, details=errors)


if __name__ == "__main__":
    sys.exit(main("runtime", RuntimeOptions(), __doc__, measure))
