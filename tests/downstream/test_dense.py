"""Detection and segmentation: an export is the feature extractor under torchvision's and smp's heads."""

import pytest
import timm
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign


class Pyramid(torch.nn.Module):
    """A `features_only` model under a feature pyramid, in the form in which FasterRCNN wants a backbone."""

    def __init__(self, body, out_channels=16):
        super().__init__()
        self.body, self.out_channels = body, out_channels
        self.fpn = FeaturePyramidNetwork(body.feature_info.channels(), out_channels)

    def forward(self, x):
        maps = self.body(x)
        return self.fpn({str(i): feature for i, feature in enumerate(maps)})


def learn_and_detect(backbone, maps):
    """One training step and one inference of a Faster R-CNN; returns the losses and the detections."""
    torch.manual_seed(0)
    detector = FasterRCNN(
        backbone,
        num_classes=2,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(
            ((16,), (32,), (48,), (64,), (64,))[:maps], ((0.5, 1.0, 2.0),) * maps
        ),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2),
    )
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 44.0]]), "labels": torch.tensor([1])}
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01)
    losses = detector.train()(images, [target, target])
    optimizer.zero_grad()
    sum(losses.values()).backward()
    unused = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    optimizer.step()
    with torch.no_grad():
        return losses, unused, detector.eval()(images[:1])[0]


def test_features_only_under_a_faster_rcnn(load):
    body = load("resnet", features_only=True, out_indices=(1, 2, 3, 4))
    assert body.feature_info.reduction() == [4, 8, 16, 32]
    losses, unused, found = learn_and_detect(Pyramid(body), maps=4)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert unused == []
    assert found["boxes"].shape == (len(found["scores"]), 4)


def test_torchvision_takes_the_layers_out_itself(load):
    """`BackboneWithFPN` goes by the names of torchvision's ResNet, which are timm's too."""
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(
        load("resnet", kappa_head=False), layers, [8, 8, 16, 16], 16, extra_blocks=None
    )
    losses, unused, found = learn_and_detect(backbone, maps=5)  # it adds a pooled one
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert unused == []
    assert found["boxes"].shape == (len(found["scores"]), 4)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_encoder_of_a_unet(exports, load, images):
    smp = pytest.importorskip("segmentation_models_pytorch")
    expected = load("resnet", features_only=True)
    torch.manual_seed(0)
    net = smp.Unet(f"tu-local-dir:{exports('resnet')}", encoder_weights=True, classes=3)
    assert same(net.encoder.model, expected)
    registered = smp.Unet(
        "tu-vi_simsiam_resnet18",
        encoder_weights=True,
        classes=3,
        pretrained_cfg_overlay={"file": str(exports("resnet") / "model.safetensors")},
        channels=(8, 8, 16, 16),
        layers=(1, 1, 1, 1),
    )
    assert same(registered.encoder.model, expected)
    net.train()
    x = torch.nn.functional.interpolate(images, size=(64, 64))
    out = net(x)
    assert out.shape == (5, 3, 64, 64)
    torch.nn.functional.cross_entropy(out, torch.zeros(5, 64, 64, dtype=torch.long)).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_a_registered_name_without_weights_is_an_untrained_encoder():
    smp = pytest.importorskip("segmentation_models_pytorch")
    net = smp.Unet("tu-simsiam_resnet18", encoder_weights=None, classes=2)
    assert type(net.encoder.model) is type(timm.create_model("resnet18", features_only=True))
