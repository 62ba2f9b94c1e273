"""The shipped weights say of one input tensor what they said when they were published."""

import json
from pathlib import Path

import pytest
import timm
import torch

import vissl_zoo  # noqa: F401  (registers the models)

EXPECTED = json.loads(Path(__file__).with_name("reference_outputs.json").read_text())


def waves(count: int, size: int) -> torch.Tensor:
    """Images (count, 3, size, size) of plane waves: a formula, so that every torch makes the same."""
    line = torch.arange(size, dtype=torch.float64) / size
    number = torch.arange(count * 3, dtype=torch.float64).view(count, 3, 1, 1)
    phase = (1 + number) * line[:, None] + (2 + 0.7 * number) * line + number
    return (1.5 * torch.sin(6.0 * phase)).float()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_input_gives_the_same_kappa_and_embedding(name):
    expected = EXPECTED[name]
    model = timm.create_model(name, pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        embedding, kappa, uncertainty = model.represent(waves(4, 32))
    found = {
        "kappa": kappa,
        "uncertainty": uncertainty,
        "embedding_norm": embedding.norm(dim=1),
        "embedding_start": embedding[:, :8].flatten(),
    }
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, torch.tensor(expected[key]), rtol=1e-4, atol=1e-5)
