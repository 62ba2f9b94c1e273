"""κ for a backbone that was trained without one: a head fitted afterwards to how well views of an image agree."""

from vissl_zoo.fitting.kappa import Fitted, fit_kappa, fit_kappa_with_figures

__all__ = ["Fitted", "fit_kappa", "fit_kappa_with_figures"]
