"""The models: timm's own networks with a κ head, and the names under which timm knows them.

`vissl_zoo.methods` registers a name for each method on each backbone. Nothing else of timm's registry changes.
"""

import timm  # noqa: F401  (first: its import ends in that of `vissl_zoo.methods`, which needs this room's files)

# isort: split
from vissl_zoo.models.build import HEAD_ARGS
from vissl_zoo.models.representation import Representation, RepresentationMixin, add_kappa_head
from vissl_zoo.models.zoo import backbone_of, create_model, entrypoints, method_names, pool_size

__all__ = [
    "HEAD_ARGS",
    "Representation",
    "RepresentationMixin",
    "add_kappa_head",
    "backbone_of",
    "create_model",
    "entrypoints",
    "method_names",
    "pool_size",
]
