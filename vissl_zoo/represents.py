"""What a model must have to say how certain it is; the models of the zoo have it, and those of `add_kappa_head`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vissl_zoo.models import Representation


class Represents(Protocol):
    """A `torch.nn.Module` with a κ head and the call that reads it.

    Attributes:
        kappa_head: the module that gives κ; None where it was taken off, and then `represent` raises.
    """

    kappa_head: nn.Module | None

    def represent(self, x: Tensor) -> Representation:
        """Embed images x (B, 3, H, W), normalised as for `forward`, and say how certain each one is."""
        ...
