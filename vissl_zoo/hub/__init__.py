"""Models as folders and repositories: what a run exports and what others load."""

from vissl_zoo.hub.card import Record, render_card
from vissl_zoo.hub.export import export_model, load_heads

__all__ = ["Record", "export_model", "load_heads", "render_card"]
