"""Models as folders and repositories: what a run exports and what others load."""

from .export import export_model, load_heads

__all__ = ["export_model", "load_heads"]
