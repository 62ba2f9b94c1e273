"""Models as folders and repositories: what a run exports and what others load."""

from vissl_zoo.hub.card import render_card
from vissl_zoo.hub.export import export_model, load_heads

__all__ = ["export_model", "load_heads", "render_card"]
