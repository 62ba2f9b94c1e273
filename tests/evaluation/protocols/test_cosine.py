"""Cosines of augmented pairs: those of the method itself on the same views, and what is undefined without heads."""

import numpy as np
import pytest
import torch

from vissl_zoo.data import open_images
from vissl_zoo.data.canvas import read_to_canvas
from vissl_zoo.evaluation.context import Undefined
from vissl_zoo.evaluation.protocols.cosine import (
    Options,
    apply_head,
    evaluate,
    has_head,
    pair_cosines,
    quartiles,
)
from vissl_zoo.inference import RowViews
from vissl_zoo.methods.simclr import SimCLR
from vissl_zoo.methods.simsiam import SimSiam
from vissl_zoo.views import ViewPipeline


def tensors(method) -> dict[str, torch.Tensor]:
    return {f"{name}.{k}": v for name, head in method.heads().items() for k, v in head.state_dict().items()}


@pytest.fixture
def simsiam(model):
    torch.manual_seed(1)
    return SimSiam(model, hidden=24).eval()


def test_latent_cosines_are_the_methods_own(shapes_evaluation, simsiam):
    evaluation = shapes_evaluation(heads=tensors(simsiam), seed=2, exact=True)
    found = pair_cosines(evaluation, 40, latents=True)
    chosen = np.random.default_rng(2).permutation(40)
    pipeline = ViewPipeline(32, seed=2)
    canvases, sizes = zip(*(read_to_canvas(evaluation.test, row, (32, 32)) for row in chosen), strict=True)
    views = RowViews(pipeline)(torch.from_numpy(np.stack(canvases)), torch.tensor(sizes), chosen)
    with torch.no_grad():
        latents = simsiam.infer(views)
    expected = (latents.mean[0] * latents.target[1]).sum(-1)
    np.testing.assert_allclose(found["latent"], expected, atol=1e-4)
    first, second = latents.embedding.double().numpy()
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(found["embedding"], (first * second).sum(1) / lengths, atol=1e-5)
    other = np.roll(second, -1, axis=0)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(other, axis=1)
    unrelated = (first * other).sum(1) / lengths
    np.testing.assert_allclose(found["unrelated"][:31], unrelated[:31], atol=1e-5)  # of the first batch


def test_more_pairs_than_images_visit_each_evenly(shapes_evaluation, simsiam, tmp_path):
    evaluation = shapes_evaluation(heads=tensors(simsiam))
    found = dict(evaluate(evaluation, Options(pairs=90)))
    assert found["cosine.pairs"] == 90
    assert set(found["cosine.latent"]) == {"median", "lower_quartile", "upper_quartile"}
    assert (tmp_path / "cosine.png").stat().st_size > 1000
    cosines = pair_cosines(evaluation, 90, latents=False)
    assert len(cosines["embedding"]) == 90
    assert len(np.unique(cosines["embedding"])) == 90  # no pair twice


def test_unrelated_pairs_are_of_different_images(shapes_evaluation, write_split, noise, tmp_path):
    table = open_images(write_split(tmp_path / "two" / "train.parquet", list(noise(2))))
    evaluation = shapes_evaluation(test=table, train=None)
    assert len(pair_cosines(evaluation, 20, latents=False)["unrelated"]) == 20
    assert len(pair_cosines(evaluation, 21, latents=False)["unrelated"]) == 20  # the last is alone


def test_quartiles_by_hand():
    assert quartiles(np.array([0.0, 0.25, 0.5, 1.0, 1.0])) == {
        "median": 0.5,
        "lower_quartile": 0.25,
        "upper_quartile": 1.0,
    }
    assert quartiles(np.array([0.5], np.float32)) == dict.fromkeys(
        ("median", "lower_quartile", "upper_quartile"), 0.5
    )


def test_without_heads_the_latent_part_is_undefined(shapes_evaluation, model, simsiam):
    simclr = tensors(SimCLR(model, hidden=24))
    direct = tensors(SimSiam(model, hidden=24, predictor="direct"))
    for heads, reason in ((None, "heads.safetensors"), (simclr, "predictor"), (direct, "predictor")):
        found = dict(evaluate(shapes_evaluation(heads=heads), Options(pairs=4)))
        assert isinstance(found["cosine.latent"], Undefined)
        assert reason in found["cosine.latent"].reason
        assert -1 <= found["cosine.embedding"]["median"] <= 1


def test_one_image_has_no_unrelated_pair(shapes_evaluation, write_split, noise, tmp_path):
    table = open_images(write_split(tmp_path / "one" / "train.parquet", list(noise(1))))
    found = dict(evaluate(shapes_evaluation(test=table, train=None), Options(pairs=3)))
    assert isinstance(found["cosine.unrelated"], Undefined)
    assert found["cosine.embedding"]["median"] <= 1 + 1e-6


@pytest.fixture
def method(model):
    """method(**options) -> a SimSiam whose batch norms have seen something."""

    def method(**options):
        torch.manual_seed(0)
        made = SimSiam(model, hidden=24, **options)
        for _ in range(3):
            z = made.projector(torch.randn(32, model.num_features) * 2 + 1)
            made.predictor(z)
        return made.eval()

    return method


@pytest.mark.parametrize("output_norm", [True, False])
def test_the_mlps_are_those_of_training(method, model, output_norm):
    made = method(output_norm=output_norm)
    heads = tensors(made)
    y = torch.randn(5, model.num_features)
    with torch.no_grad():
        z_tilde, expected = made.projector(y), made.predictor(made.projector(y))
    torch.testing.assert_close(apply_head(heads, "projector", y), z_tilde)
    torch.testing.assert_close(apply_head(heads, "predictor", z_tilde), expected)
    alone = apply_head(heads, "projector", y[:1])  # statistics are the training's, not the batch's
    torch.testing.assert_close(alone, z_tilde[:1], atol=1e-5, rtol=1e-4)


def test_what_is_there_is_told(method, model):
    assert [has_head(tensors(method()), name) for name in ("projector", "predictor")] == [True, True]
    direct = tensors(method(predictor="direct"))
    assert [has_head(direct, name) for name in ("projector", "predictor")] == [True, False]
    simclr = tensors(SimCLR(model, hidden=24))
    assert [has_head(simclr, name) for name in ("projector", "predictor")] == [True, False]
    assert not has_head(None, "projector")
    assert not has_head({}, "projector")


def test_what_does_not_fit_is_refused(method):
    heads = tensors(method())
    with pytest.raises(ValueError, match=r"takes .* features, not 3"):
        apply_head(heads, "projector", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no MLP called predictor"):
        apply_head({k: v for k, v in heads.items() if "projector" in k}, "predictor", torch.zeros(2, 16))
