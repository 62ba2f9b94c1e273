"""Training crops belong to the images and the classes that they are said to, and follow from (seed, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.features import Features
from vissl_zoo.evaluation.training_crops import CropReader
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD

GRAYS = (np.arange(24) * 10 + 5).astype(np.uint8)


@pytest.fixture
def evaluation(write_split, model, tmp_path):
    """Each image has a gray of its own, which every crop of it shows; the third is corrupt."""
    images = [np.full((20, 30, 3), gray, dtype=np.uint8) for gray in GRAYS]
    images[2] = b"no image"
    table = open_images(write_split(tmp_path / "train.parquet", images, np.arange(24) % 3))
    evaluation = Evaluation(model, None, table, table, 16, tmp_path, workers=1)
    rows = np.delete(np.arange(24), 2)
    evaluation.train_features = Features(rows, np.zeros((23, 4), np.float32), None, None)
    return evaluation


def grays(view):
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (view * std + mean) * 255
    assert pixels.std(dim=(1, 2, 3)).max() < 0.01
    return pixels.mean(dim=(1, 2, 3)).round().to(torch.int64)


def test_crops_and_classes_are_those_of_the_chosen_images(evaluation):
    chosen = np.array([0, 2, 5, 7, 22])  # places among the 23 readable images: rows 0, 3, 6, 8, 23
    rows = evaluation.train_features.rows[chosen]
    classes = torch.from_numpy(rows % 3)
    order = [torch.tensor([4, 0, 1]), torch.tensor([2, 3]), torch.tensor([1])]
    found = list(CropReader(evaluation, chosen).crops(order, classes))
    for places, (view, labels) in zip(order, found, strict=True):
        assert view.shape == (len(places), 3, 16, 16)
        assert grays(view).tolist() == GRAYS[rows[places.numpy()]].tolist()
        assert torch.equal(labels, classes[places])


@pytest.mark.parametrize("limit", [2**32, 1])
def test_on_the_fly_as_in_memory(evaluation, limit):
    evaluation = replace_limit(evaluation, limit)
    chosen = np.arange(23)
    ((view, _),) = CropReader(evaluation, chosen).crops([torch.arange(23)], torch.zeros(23))
    assert grays(view).tolist() == np.delete(GRAYS, 2).tolist()


def replace_limit(evaluation, limit):
    changed = replace(evaluation, memory_limit=limit, workers=0 if limit == 1 else 1)
    changed.train_features = evaluation.train_features
    return changed


def test_crops_change_from_step_to_step_and_not_from_run_to_run(write_split, noise, model, tmp_path):
    table = open_images(write_split(tmp_path / "train.parquet", noise(6), [0, 1, 2] * 2))
    order = [torch.arange(6)] * 2

    def views(seed):
        evaluation = Evaluation(model, None, table, table, 16, tmp_path, seed=seed, workers=1)
        evaluation.train_features = Features(np.arange(6), np.zeros((6, 4), np.float32), None, None)
        return [view for view, _ in CropReader(evaluation, np.arange(6)).crops(order, torch.zeros(6))]

    first, again, other = views(1), views(1), views(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_embeddings_are_those_of_the_crops_and_need_no_gradient(evaluation):
    order, labels = [torch.arange(5)], torch.zeros(23)
    reader = CropReader(evaluation, np.arange(23))
    ((view, _),), ((embedding, _),) = reader.crops(order, labels), reader.embeddings(order, labels)
    assert torch.equal(embedding, evaluation.model(view))
    assert not embedding.requires_grad
