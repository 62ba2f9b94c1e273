"""Any timm backbone with a κ head that was fitted to it afterwards: no method, and no training of the backbone.

The name under which `vissl_zoo.add_kappa_head(model)` exports. The backbone keeps the statistics of the images
that it was made with, unlike the other generic names, whose training normalises with ImageNet's.
"""

from timm.models import generate_default_cfgs, register_model

from vissl_zoo.models._backbones import backbone_cfg
from vissl_zoo.models._build import build_model
from vissl_zoo.models._pretrained import with_shipped

default_cfgs = generate_default_cfgs(with_shipped({"kappa": backbone_cfg("resnet18", own_statistics=True)}))


@register_model
def kappa(pretrained: bool = False, backbone: str = "resnet18", **kwargs):
    """Any timm backbone, named by `backbone`, with a κ head beside it."""
    if not kwargs.get("pretrained_cfg"):
        kwargs["pretrained_cfg"] = backbone_cfg(backbone, own_statistics=True)
    return build_model("kappa", backbone, pretrained, True, **kwargs)
