"""Distributions on the unit sphere S^(d-1), as `torch.distributions` classes.

    posterior = PowerSpherical(mu, kappa)                    # mu (..., d), kappa (...)
    posterior.log_prob(z)                                    # (...)
    kl_divergence(posterior, HypersphericalUniform(d))       # (...)

`VonMisesFisher(mu, kappa)` answers the same calls. `dim` is everywhere the ambient dimension d, not that of
the surface. `log_normalizer` and `log1p_cosine` are the two pieces of PowerSpherical's log density, for a
loss that weighs or stops them separately; `vmf_log_normalizer` is that of VonMisesFisher, whose other piece
is κ μ·z.
"""

from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform
from vissl_zoo.distributions.power_spherical import PowerSpherical, log_normalizer
from vissl_zoo.distributions.sphere import UnitSphere, log1p_cosine, unit_sphere
from vissl_zoo.distributions.von_mises_fisher import VonMisesFisher, vmf_log_normalizer

__all__ = [
    "HypersphericalUniform",
    "PowerSpherical",
    "UnitSphere",
    "VonMisesFisher",
    "log1p_cosine",
    "log_normalizer",
    "unit_sphere",
    "vmf_log_normalizer",
]
