"""The log of a run: one JSON object a line in metrics.jsonl, and what tells of collapse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vissl_zoo.errors import UserError
from vissl_zoo.output import write_text
from vissl_zoo.training.checkpoint_manifest import force_to_disk


class RunLog:
    """metrics.jsonl of one run. Lines after `from_step` of an earlier try are dropped when a run resumes."""

    def __init__(self, path: Path, *, from_step: int = 0):
        self.path = path
        kept = []
        if from_step and path.exists():
            kept = [line for line in _whole_lines(path.read_text()) if line["step"] <= from_step]
        write_text(
            path, "".join(json.dumps(line) + "\n" for line in kept)
        )  # whole: killed here, none is lost

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; a killed process has not lost it.

        Raises:
            UserError: it cannot be written.
        """
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error

    def force_to_disk(self) -> None:
        """Let the lines so far survive a power cut.

        Raises:
            UserError: the disk is full or gone.
        """
        try:
            force_to_disk(self.path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error

    def read(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]


# Embeddings from which the effective rank is computed, at most: of 1,024 it takes six times as long.
RANK_ROWS = 256


def collapse_signals(embedding: Tensor) -> dict[str, Tensor]:
    """Two signs of collapse from the embeddings (V, B, F) of one step.

    `embedding_std` is the deviation of the L2-normalised embeddings times √F: about 1 when they spread over
    the sphere, 0 when they are one point (Chen and He, 2021, Fig. 2). `effective_rank` is the exponential of
    the entropy of the singular values (Roy and Vetterli, 2007): how many dimensions are in use. Of more
    than `RANK_ROWS` embeddings as many are looked at, each of another image where there are so many, and of all views.
    """
    flat = normalize(embedding.flatten(0, 1).float(), dim=1)
    deviation = flat.std(dim=0).mean() * math.sqrt(flat.shape[1])
    if not flat.isfinite().all():  # LAPACK would raise, and hide that the loss is what diverged
        return {"embedding_std": deviation, "effective_rank": torch.full_like(deviation, math.nan)}
    (views, batch), rows = embedding.shape[:2], min(RANK_ROWS, len(flat))
    # Every n-th row would be the same few images in each view, whose rank falls as the views come to agree.
    k = torch.arange(rows, device=flat.device)
    some = flat.index_select(0, k % views * batch + k * batch // rows)
    values = singular_values(some - some.mean(dim=0)).to(flat)
    share = values / values.sum().clamp_min(1e-12)
    return {"embedding_std": deviation, "effective_rank": torch.special.entr(share).sum().exp()}


def singular_values(x: Tensor) -> Tensor:
    """Singular values (min(N, F),) float64, on the CPU, of x (N, F) on any device.

    By the eigenvalues of the smaller of x xᵀ and xᵀ x, off by 1e-8 of the largest. `torch.linalg.svdvals` takes longer,
    and on CUDA, by what others measured, much longer.
    """
    x = x.cpu().double()
    x = x if len(x) <= x.shape[1] else x.T
    return torch.linalg.eigvalsh(x @ x.T).clamp_min(0).sqrt()


def _whole_lines(text: str) -> list[dict[str, Any]]:
    """The lines up to one that a killed process left unfinished."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def short_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line with six significant digits, which are all a reader needs."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in line.items()}
