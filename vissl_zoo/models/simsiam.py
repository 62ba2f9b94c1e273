"""SimSiam models: a posterior on the sphere whose concentration is fixed while the embedding is learned.

Exploring Simple Siamese Representation Learning, Chen & He 2021. κ is fitted to detached features, so the
trunk is SimSiam's own.
"""

from timm.models import generate_default_cfgs, register_model

from vissl_zoo.models._backbones import backbone_cfg
from vissl_zoo.models._build import build_model
from vissl_zoo.models._pretrained import with_shipped

default_cfgs = generate_default_cfgs(
    with_shipped(
        {
            "simsiam": backbone_cfg("resnet18"),
            "simsiam_resnet18": backbone_cfg("resnet18"),
            "simsiam_resnet18_cifar": backbone_cfg("resnet18_cifar"),
            "simsiam_resnet50": backbone_cfg("resnet50"),
            "simsiam_convnext_tiny": backbone_cfg("convnext_tiny"),
            "simsiam_vit_small_patch16_224": backbone_cfg("vit_small_patch16_224"),
        }
    )
)


@register_model
def simsiam(pretrained: bool = False, backbone: str = "resnet18", **kwargs):
    """SimSiam on any timm backbone, named by `backbone`."""
    return build_model("simsiam", backbone, pretrained, True, **kwargs)


@register_model
def simsiam_resnet18(pretrained: bool = False, **kwargs):
    """SimSiam on ResNet-18: embedding (B, 512)."""
    return build_model("simsiam_resnet18", "resnet18", pretrained, **kwargs)


@register_model
def simsiam_resnet18_cifar(pretrained: bool = False, **kwargs):
    """SimSiam on ResNet-18 with a 3×3 stride-1 stem for 32-pixel images: embedding (B, 512)."""
    return build_model("simsiam_resnet18_cifar", "resnet18_cifar", pretrained, **kwargs)


@register_model
def simsiam_resnet50(pretrained: bool = False, **kwargs):
    """SimSiam on ResNet-50: embedding (B, 2048)."""
    return build_model("simsiam_resnet50", "resnet50", pretrained, **kwargs)


@register_model
def simsiam_convnext_tiny(pretrained: bool = False, **kwargs):
    """SimSiam on ConvNeXt-T: embedding (B, 768)."""
    return build_model("simsiam_convnext_tiny", "convnext_tiny", pretrained, **kwargs)


@register_model
def simsiam_vit_small_patch16_224(pretrained: bool = False, **kwargs):
    """SimSiam on ViT-S/16: embedding (B, 384)."""
    return build_model("simsiam_vit_small_patch16_224", "vit_small_patch16_224", pretrained, **kwargs)
