"""The photo model: a backbone that the table names, under the generic name `kappa`."""

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo import weights
from vissl_zoo.inference import load_model

NAME = "kappa.efficientnet_lite0_photos"

pytestmark = pytest.mark.skipif(not weights.shipped()[NAME].path.is_file(), reason="the weights are left out")


@pytest.fixture(scope="module")
def model():
    return timm.create_model(NAME, pretrained=True, num_classes=0).eval()


def test_it_is_timms_backbone_with_kappa(model):
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    assert (
        model.state_dict().keys() - plain.state_dict().keys()
        == model.kappa_head.state_dict(prefix="kappa_head.").keys()
    )
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        said = model.represent(x)
        assert torch.equal(said.embedding, model(x))
    assert said.embedding.shape == (2, 1280)
    assert ((said.uncertainty > 0) & (said.uncertainty < 1)).all()


def test_timm_adapts_it_as_its_own():
    own = timm.models.get_pretrained_cfg("tf_efficientnet_lite0")
    grey = timm.create_model(NAME, pretrained=True, num_classes=5, in_chans=1)
    assert grey.pretrained_cfg["first_conv"] == own.first_conv == "conv_stem"
    assert grey.pretrained_cfg["classifier"] == own.classifier == "classifier"
    colour = timm.create_model(NAME, pretrained=True, num_classes=0)
    torch.testing.assert_close(grey.conv_stem.weight, colour.conv_stem.weight.sum(1, keepdim=True))


def test_every_way_to_load_it_gives_the_same(model):
    expected = model.state_dict()
    loaded = load_model(NAME)
    assert loaded.image_size == 224
    for other in (loaded.model, vissl_zoo.create_model(NAME, pretrained=True, num_classes=0)):
        assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


def test_a_backbone_that_is_named_wins_and_the_tag_is_needed_for_weights():
    assert timm.create_model("kappa", backbone="test_resnet", num_classes=0).num_features == 96
    assert timm.create_model("kappa", num_classes=0).num_features == 512
    with pytest.raises(RuntimeError, match=NAME):
        timm.create_model("kappa", pretrained=True)
