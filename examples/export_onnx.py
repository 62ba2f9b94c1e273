"""Export a model to ONNX with all that `represent` gives: embedding, κ and uncertainty, for any batch size.

    python examples/export_onnx.py runs/demo/export --output model.onnx

Needs onnxscript; with onnxruntime at hand the file is run and compared with the model before you get it.
The input is `image` (B, 3, s, s), resized and normalised as for the model.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.inference import load_model

OUTPUTS = ("embedding", "kappa", "uncertainty")
TOLERANCE = 1e-4
"""Largest difference from the model, relative where a value exceeds 1 (κ may be in the thousands)."""


@dataclass(frozen=True)
class Options:
    """What to write."""

    output: str = "model.onnx"
    """The file to write."""
    image_size: int | None = None
    """Side of the images in pixels, which is fixed in the file; by default what the model was trained at."""


class Represent(nn.Module):
    """`represent` as a `forward`, which is what exporters take."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map images (B, 3, s, s) to embedding (B, F), κ (B,) and uncertainty (B,)."""
        return tuple(self.model.represent(image))


def export_onnx(model: nn.Module, path: str | Path, image_size: int) -> None:
    """Write `model`, which has a κ head and is in evaluation mode, to one ONNX file with a free batch size."""
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        Represent(model).eval(),
        (torch.zeros(2, 3, image_size, image_size),),
        path,
        dynamo=True,
        dynamic_shapes={"image": {0: batch}},
        input_names=["image"],
        output_names=list(OUTPUTS),
        external_data=False,  # one file: beyond 2 GB ONNX would need a second one
        verbose=False,
    )


def largest_difference(model: nn.Module, path: str | Path, image_size: int, batch: int) -> float:
    """Run the file in onnxruntime on `batch` random images; the largest difference, relative above 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = torch.randn(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = model.represent(images)
    found = session.run(list(OUTPUTS), {"image": images.numpy()})
    pairs = zip(map(torch.from_numpy, found), expected, strict=True)
    return max(((a - b).abs() / b.abs().clamp_min(1)).max().item() for a, b in pairs)


def main(arguments: list[str]) -> None:
    """Export, check and say so."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    about = "MODEL is a run folder, an export folder, or a name with weights.\n\n" + __doc__
    rest = arguments if name is None else arguments[1:]
    options = parse_flags(Options, Options(), rest, "export_onnx.py MODEL", about)
    if name is None:
        raise UserError("export_onnx.py needs a model first (see --help)")
    if find_spec("onnxscript") is None:
        raise UserError("ONNX export needs onnxscript: pip install onnxscript")
    model, _, size, _ = load_model(name, image_size=options.image_size)
    if getattr(model, "kappa_head", None) is None:
        raise UserError(f"{name} has no κ head; see vissl_zoo.add_kappa_head")
    try:
        export_onnx(model, options.output, size)
    except OSError as error:
        raise UserError(f"--output {options.output} cannot be written: {error.strerror}") from error
    print(f"{options.output}: image (batch, 3, {size}, {size}) -> {', '.join(OUTPUTS)}")
    if find_spec("onnxruntime") is None:
        print("not checked: onnxruntime is not installed")
        return
    worst = max(largest_difference(model, options.output, size, batch) for batch in (1, 5))
    if not worst <= TOLERANCE:
        raise UserError(f"{options.output} differs from {name} by {worst:.1e} in onnxruntime")
    print(f"onnxruntime agrees to {worst:.0e} at batch sizes 1 and 5")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"export_onnx.py: {error}", file=sys.stderr)
        sys.exit(2)
