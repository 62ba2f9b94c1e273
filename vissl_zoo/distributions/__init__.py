"""Distributions on the unit sphere S^(d-1), as `torch.distributions` classes.

    posterior = PowerSpherical(mu, kappa)                    # mu (..., d), kappa (...)
    posterior.log_prob(z)                                    # (...), Eq. 33
    kl_divergence(posterior, HypersphericalUniform(d))       # (...)

`VonMisesFisher(mu, kappa)` answers the same calls. `dim` is everywhere the ambient dimension d, not that of the
surface.
"""

from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform
from vissl_zoo.distributions.power_spherical import PowerSpherical
from vissl_zoo.distributions.sphere import UnitSphere, unit_sphere
from vissl_zoo.distributions.von_mises_fisher import VonMisesFisher

__all__ = [
    "HypersphericalUniform",
    "PowerSpherical",
    "UnitSphere",
    "VonMisesFisher",
    "unit_sphere",
]
