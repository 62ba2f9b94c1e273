"""The name of a model by what it computes: under it lies all that is kept of a model on disk."""

from __future__ import annotations

import hashlib

from torch import nn

from vissl_zoo.inference.crop import central_crop


def model_hash(model: nn.Module) -> str:
    """Sixteen hex digits of the SHA-256 of the architecture and of all parameters and buffers.

    The printed modules are part of it: two models may share every tensor and differ in an activation or in d.
    """
    digest = hashlib.sha256(f"{model!r} {central_crop(model)}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]
