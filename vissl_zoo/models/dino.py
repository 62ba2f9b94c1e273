"""DINO models: the posterior of an image is a categorical over prototypes, and its entropy the uncertainty.

Emerging Properties in Self-Supervised Vision Transformers, Caron et al. 2021. Besides the prototype head
there is a κ head, fitted to the unit vectors of the bottleneck: their dimension is the d of κ.
"""

from timm.models import generate_default_cfgs, register_model

from vissl_zoo.models._backbones import backbone_cfg
from vissl_zoo.models._build import build_model
from vissl_zoo.models._pretrained import with_shipped

# κ lives on the sphere of the bottleneck: latent_dim and bottleneck_dim are two names of one number.
_HEAD_DEFAULTS = {"latent_dim": 256, "prototypes": 2048, "bottleneck_dim": 256, "teacher_temperature": 0.04}


def _create_dino(
    variant: str,
    backbone: str,
    pretrained: bool = False,
    generic: bool = False,
    /,
    bottleneck_dim: int | None = None,
    latent_dim: int | None = None,
    **kwargs,
):
    """Build a DINO model."""
    if None not in (bottleneck_dim, latent_dim) and bottleneck_dim != latent_dim:
        raise ValueError(f"latent_dim={latent_dim} and bottleneck_dim={bottleneck_dim} must agree for DINO")
    dim = bottleneck_dim or latent_dim
    dims = {"latent_dim": dim, "bottleneck_dim": dim}
    return build_model(variant, backbone, pretrained, generic, _HEAD_DEFAULTS, **dims, **kwargs)


default_cfgs = generate_default_cfgs(
    with_shipped(
        {
            "dino": backbone_cfg("resnet18"),
            "dino_resnet18": backbone_cfg("resnet18"),
            "dino_resnet18_cifar": backbone_cfg("resnet18_cifar"),
            "dino_resnet50": backbone_cfg("resnet50"),
            "dino_convnext_tiny": backbone_cfg("convnext_tiny"),
            "dino_vit_small_patch16_224": backbone_cfg("vit_small_patch16_224"),
        }
    )
)


@register_model
def dino(pretrained: bool = False, backbone: str = "resnet18", **kwargs):
    """DINO on any timm backbone, named by `backbone`."""
    return _create_dino("dino", backbone, pretrained, True, **kwargs)


@register_model
def dino_resnet18(pretrained: bool = False, **kwargs):
    """DINO on ResNet-18: embedding (B, 512)."""
    return _create_dino("dino_resnet18", "resnet18", pretrained, **kwargs)


@register_model
def dino_resnet18_cifar(pretrained: bool = False, **kwargs):
    """DINO on ResNet-18 with a 3×3 stride-1 stem for 32-pixel images: embedding (B, 512)."""
    return _create_dino("dino_resnet18_cifar", "resnet18_cifar", pretrained, **kwargs)


@register_model
def dino_resnet50(pretrained: bool = False, **kwargs):
    """DINO on ResNet-50: embedding (B, 2048)."""
    return _create_dino("dino_resnet50", "resnet50", pretrained, **kwargs)


@register_model
def dino_convnext_tiny(pretrained: bool = False, **kwargs):
    """DINO on ConvNeXt-T: embedding (B, 768)."""
    return _create_dino("dino_convnext_tiny", "convnext_tiny", pretrained, **kwargs)


@register_model
def dino_vit_small_patch16_224(pretrained: bool = False, **kwargs):
    """DINO on ViT-S/16: embedding (B, 384)."""
    return _create_dino("dino_vit_small_patch16_224", "vit_small_patch16_224", pretrained, **kwargs)
