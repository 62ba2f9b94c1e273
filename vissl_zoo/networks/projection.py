"""Projector and predictor: the small networks between an embedding and the sphere (App. B)."""

from __future__ import annotations

from torch import nn


def projector(in_features: int, hidden: int, latent_dim: int, *, output_norm: bool) -> nn.Sequential:
    """Embedding y (B, in_features) to z̃ (B, latent_dim), the point whose direction is the latent z.

    Linear-BN-ReLU-Linear, as in DirectPred, whose networks the paper takes over (512-512-BN-ReLU-2048 for
    a ResNet-18). `output_norm` adds a batch norm without scale and shift, as SimSiam's own projector has;
    the paper's has none, and without it a run collapses more readily. No bias before a batch norm.

    Raises:
        ValueError: a width below 1.
    """
    _check_widths(in_features, hidden, latent_dim)
    layers: list[nn.Module] = [
        nn.Linear(in_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, latent_dim, bias=not output_norm),
    ]
    if output_norm:
        layers.append(nn.BatchNorm1d(latent_dim, affine=False))
    return nn.Sequential(*layers)


def predictor(latent_dim: int, hidden: int) -> nn.Sequential:
    """z̃ (B, latent_dim) to m̃ (B, latent_dim), whose direction is the posterior's mean μ (h_θ of Eq. 1).

    Raises:
        ValueError: a width below 1.
    """
    _check_widths(latent_dim, hidden)
    return nn.Sequential(
        nn.Linear(latent_dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, latent_dim),
    )


def _check_widths(*widths: int) -> None:
    if min(widths) < 1:
        raise ValueError(f"widths of layers must be at least 1, not {min(widths)}")
