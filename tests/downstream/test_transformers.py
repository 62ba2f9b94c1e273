"""transformers reads an export as it reads timm's own repositories, and κ comes with it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import vissl_zoo


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers")
    module.logging.disable_progress_bar()
    return module


@pytest.mark.parametrize("kind", ("resnet", "vit_exp", "dino"))
def test_auto_model_gives_the_same_embedding_and_kappa(transformers, exports, load, images, kind):
    model, info = transformers.AutoModel.from_pretrained(exports(kind), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        expected = load(kind).represent(images)
        found = model.eval()(images).pooler_output
        assert torch.equal(found, expected.embedding)
        for a, b in zip(model.timm_model.represent(images), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_a_classifier_to_be_trained(transformers, exports, images):
    cls = transformers.AutoModelForImageClassification
    model, info = cls.from_pretrained(exports("resnet"), num_labels=4, output_loading_info=True)
    assert model(images).logits.shape == (5, 4)
    assert {key.removeprefix("timm_model.") for key in info["missing_keys"]} == {"fc.weight", "fc.bias"}
    assert not any("kappa" in name for name, _ in model.named_parameters())


def test_the_image_processor_is_that_of_the_config(transformers, exports):
    processor = transformers.AutoImageProcessor.from_pretrained(exports("resnet"))
    assert processor.data_config["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_a_plain_timm_face_needs_no_vissl_zoo(transformers, exports, load, images, tmp_path):
    """The backbone alone under timm's own name, as a plain repository holds it."""
    config = json.loads((exports("resnet") / "config.json").read_text())
    own = ("latent_dim", "kappa_map", "kappa_head")
    config["model_args"] = {k: v for k, v in config["model_args"].items() if k not in own}
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "resnet18"}))
    tensors = load_file(exports("resnet") / "model.safetensors")
    backbone = {k: v for k, v in tensors.items() if not k.startswith("kappa_head.")}
    save_file(backbone, tmp_path / "model.safetensors")
    model, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not isinstance(model.timm_model, vissl_zoo.models.RepresentationMixin)
    with torch.no_grad():
        assert torch.equal(model.eval()(images).pooler_output, load("resnet")(images))


def test_the_class_count_stands_where_transformers_looks(exports):
    """At the root of config.json and nowhere else: transformers passes it on its own."""
    config = json.loads((exports("resnet") / "config.json").read_text())
    assert config["num_classes"] == 0
    assert "num_classes" not in config["model_args"]
