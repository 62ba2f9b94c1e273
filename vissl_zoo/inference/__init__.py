"""One way to run a model over images: load it, take the one central crop, embed, and keep what was embedded."""

from vissl_zoo.inference.crop import CentralCrop, central_crop
from vissl_zoo.inference.embed import Embedded, RowViews, Views, concatenate, embed, embed_all
from vissl_zoo.inference.feature_cache import cached_features
from vissl_zoo.inference.hashing import model_hash
from vissl_zoo.inference.loading import Loaded, ModelOrName, load_model, open_tables

__all__ = [
    "CentralCrop",
    "Embedded",
    "Loaded",
    "ModelOrName",
    "RowViews",
    "Views",
    "cached_features",
    "central_crop",
    "concatenate",
    "embed",
    "embed_all",
    "load_model",
    "model_hash",
    "open_tables",
]
