"""κ for a backbone that was trained without one: what it is fitted to, the fit, and what it is worth."""

from vissl_zoo.uncertainty.fitted_kappa import fit_kappa
from vissl_zoo.uncertainty.head_fit import Fit

__all__ = ["Fit", "fit_kappa"]
