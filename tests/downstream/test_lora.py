"""LoRA on the ViT: low-rank updates of the attention, κ beside them, and a plain model after merging."""

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.hub import export_model


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


def perturbed(model):
    """The same model with adapters that do something; they start at zero."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def trainable(model):
    return {name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad}


def close(a, b):
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(a, b, strict=True))


def test_a_classifier_and_adapters_learn_and_nothing_else(peft, load, images):
    config = peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["head"])
    model = peft.get_peft_model(load("vit", num_classes=4), config).train()
    names = trainable(model)
    assert {name.split(".")[-3] if "lora" in name else name.split(".")[0] for name in names} == {
        "lora_A", "lora_B", "head"
    }  # fmt: skip
    assert len([n for n in names if "lora" in n]) == 4  # two matrices in each of two blocks
    model(images).sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_represent_goes_through_the_adapters(peft, load, images):
    expected = load("vit").represent(images)
    config = peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["kappa_head"])
    model = peft.get_peft_model(load("vit"), config).eval()
    assert close(model.represent(images), expected)  # adapters begin at zero
    perturbed(model)
    tuned = model.represent(images)
    assert torch.equal(model(images), tuned.embedding)
    assert not torch.allclose(tuned.embedding, expected.embedding, atol=1e-2)
    assert not torch.allclose(tuned.kappa, expected.kappa, rtol=1e-3)
    with model.disable_adapter():  # the κ that was trained, on the embedding that it was trained on
        assert close(model.represent(images), expected)


def test_a_saved_kappa_head_learns_with_the_adapters(peft, load, images):
    config = peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["kappa_head"])
    model = peft.get_peft_model(load("vit"), config)
    model.train().represent(images).kappa.log().sum().backward()
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert any("kappa_head" in name for name in learned)
    assert any("lora_A" in name for name in learned)
    frozen = peft.get_peft_model(load("vit"), peft.LoraConfig(r=2, target_modules=["qkv"]))
    assert not any("kappa_head" in name for name in trainable(frozen))
    perturbed(frozen).eval().represent(images).kappa.log().sum().backward()
    assert not any("kappa_head" in n for n, p in frozen.named_parameters() if p.grad is not None)


def test_merged_it_is_a_model_of_the_zoo(peft, load, images, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["kappa_head"])
    model = perturbed(peft.get_peft_model(load("vit"), config)).eval()
    expected = model.represent(images)
    merged = model.merge_and_unload()
    assert type(merged) is type(load("vit"))
    assert merged.state_dict().keys() == load("vit").state_dict().keys()
    assert close(merged.represent(images), expected)
    folder = export_model(merged, tmp_path / "export")
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert isinstance(again.represent(images), vissl_zoo.Representation)
    assert close(again.represent(images), expected)
