"""Views of the test images: as the pipeline alone renders them, in whatever batches, whatever images are corrupt."""

import numpy as np
import pytest
import timm
import torch

from vissl_zoo.data import open_images
from vissl_zoo.evaluation import crops
from vissl_zoo.evaluation.crops import (
    each_batch,
    normalised,
    on_central_crop,
    pixels,
    plain_pipeline,
    random_views,
    represent_views,
    sample_images,
)
from vissl_zoo.views import ViewPipeline


def test_a_pipeline_that_changes_nothing_gives_the_clean_features(shapes_evaluation):
    evaluation = shapes_evaluation()
    chosen = np.arange(40)
    pipeline = plain_pipeline(evaluation, 2)
    render = on_central_crop(random_views(pipeline, pipeline.draw(40, 0)), 32)
    views = represent_views(evaluation, chosen, render, 2)
    clean = evaluation.test_features
    for view in range(2):
        np.testing.assert_allclose(views.kappa[view], clean.kappa, rtol=1e-4)
        np.testing.assert_allclose(views.uncertainty[view], clean.uncertainty, rtol=1e-4)
        np.testing.assert_allclose(views.embedding[view], clean.embedding, atol=1e-4)


@pytest.mark.parametrize("forward", [1, 7, 20, 1000])
def test_batches_do_not_matter(shapes_evaluation, monkeypatch, forward):
    """The reference renders one image at a time, straight from the store."""
    evaluation = shapes_evaluation(seed=3)
    chosen = np.array([5, 0, 39, 5, 17, 8, 21])  # in no order, with a repetition
    pipeline = ViewPipeline(32, standard=3, seed=3)
    draws = pipeline.draw(len(chosen), 0)
    monkeypatch.setattr(crops, "FORWARD", forward)
    found = represent_views(evaluation, chosen, random_views(pipeline, draws), 3)
    for i, place in enumerate(chosen):
        batch = next(iter(evaluation.test_store.batches([np.array([place])])))
        with torch.no_grad():
            views = pipeline.render(batch.images, batch.sizes, draws[i : i + 1])
            expected = [evaluation.model.represent(view) for view in views]
        for view, (embedding, kappa, uncertainty) in enumerate(expected):
            torch.testing.assert_close(found.embedding[view, i], embedding[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.kappa[view, i], kappa[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.uncertainty[view, i], uncertainty[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found.kappa[:, 0], found.kappa[:, 3])  # the same image, drawn for twice


def test_parts_cover_the_chosen_in_order(shapes_evaluation, monkeypatch):
    evaluation = shapes_evaluation()
    monkeypatch.setattr(crops, "FORWARD", 8)
    pipeline = plain_pipeline(evaluation, 2)
    render = random_views(pipeline, pipeline.draw(10, 0))
    parts = [part for part, _ in each_batch(evaluation, np.arange(10), render, 2)]
    assert [list(range(10))[part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("memory_limit", [0, 2**30])  # decoded on the fly, or in memory
def test_corrupt_images_are_passed_over(shapes_evaluation, write_split, noise, tmp_path, memory_limit):
    images = list(noise(9))
    readable = [*images[:3], *images[4:]]
    images[3] = b"no image"
    spoilt = open_images(write_split(tmp_path / "spoilt" / "train.parquet", images))
    sound = open_images(write_split(tmp_path / "sound" / "train.parquet", readable))
    found = []
    for table in (spoilt, sound):
        evaluation = shapes_evaluation(test=table, image_size=16, memory_limit=memory_limit, workers=0)
        pipeline = ViewPipeline(16)
        render = random_views(pipeline, pipeline.draw(8, 0))
        found.append(represent_views(evaluation, sample_images(evaluation, 100), render, 2))
    assert found[0].kappa.shape == (2, 8)
    torch.testing.assert_close(found[0].embedding, found[1].embedding)


def test_a_model_without_kappa_has_embeddings_alone(shapes_evaluation):
    evaluation = shapes_evaluation(model=timm.create_model("test_resnet", num_classes=0).eval())
    pipeline = plain_pipeline(evaluation, 2)
    views = represent_views(
        evaluation, np.arange(5), random_views(pipeline, pipeline.draw(5, 0)), 2, progress="views"
    )
    assert views.embedding.shape == (2, 5, evaluation.model.num_features)
    assert views.kappa is None
    assert views.uncertainty is None


def test_a_sample_is_drawn_by_the_seed(shapes_evaluation):
    first, again, other = (sample_images(shapes_evaluation(seed=seed), 12) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(set(first)) == 12
    assert np.array_equal(first, np.sort(first))
    assert np.array_equal(sample_images(shapes_evaluation(), 1000), np.arange(40))
    among = np.array([3, 30, 31])
    assert np.array_equal(sample_images(shapes_evaluation(), 10, among), among)
    assert set(sample_images(shapes_evaluation(), 2, among)) < set(among)


def test_pixels_undo_normalisation():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    assert torch.equal(pixels(normalised(images.float() / 255)), images)
