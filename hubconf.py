"""Entry points of torch.hub: `torch.hub.load("ORG/vissl_zoo", "vi_simsiam_resnet18", pretrained=True)`.

They are the functions that timm's registry has under the same names, and take the same arguments.
"""

dependencies = ["torch", "timm", "huggingface_hub", "safetensors"]

from vissl_zoo.models import entrypoints as _entrypoints  # noqa: E402

globals().update(_entrypoints())
