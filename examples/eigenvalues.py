"""Claim 4.4 as a picture: under DirectPred the eigenvalues of E[z zᵀ] flatten, which is J_uniform at its maximum.

    python examples/eigenvalues.py --output docs/eigenvalues.png

A linear encoder of eight features of very unequal size is trained by SimSiam's loss on noisy copies of its input;
with DirectPred, and with no predictor at all. Takes seconds.
"""

from __future__ import annotations

import argparse

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cosine_similarity

from vissl_zoo.networks.direct_predictor import DirectPredictor

DIM, STEPS = 8, 600


def eigenvalues(direct: bool, seed: int = 0) -> torch.Tensor:
    """Eigenvalues (STEPS, DIM) of E[z zᵀ] of the unit latents, largest first, over a toy training."""
    torch.manual_seed(seed)
    encoder = torch.nn.Linear(DIM, DIM, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.diag(torch.linspace(1.0, 0.2, DIM)))
    predictor = DirectPredictor(DIM)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.3, weight_decay=1e-3)
    history = []
    for _ in range(STEPS):
        x = torch.randn(256, DIM)
        a, b = (encoder(x + 0.3 * torch.randn_like(x)) for _ in range(2))
        predicted = (predictor(a), predictor(b))
        mean = predicted if direct else (a, b)
        loss = -(
            cosine_similarity(mean[0], b.detach()).mean() + cosine_similarity(mean[1], a.detach()).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        predictor.update()
        history.append(torch.linalg.eigvalsh(predictor.moment).flip(0))
    return torch.stack(history)


def main(path: str) -> None:
    """Draw both trainings side by side into `path`."""
    figure = Figure(figsize=(8, 3), layout="constrained", dpi=110)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, direct in zip(panels, (True, False), strict=True):
        axes.plot(eigenvalues(direct), lw=1.2)
        axes.axhline(1 / DIM, color="black", lw=1, ls=":", label="1/d: uniform on the sphere")
        axes.set_title("DirectPred (Eq. 23)" if direct else "no predictor", fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("eigenvalues of E[z zᵀ]", fontsize=9)
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="eigenvalues.png", help="the PNG file to write")
    output = parser.parse_args().output
    main(output)
    print(output)
