"""What other tools import, held against what they document, and against their own code where it is installed."""

import json
import os
from urllib.parse import parse_qs, urlparse

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vissl_zoo.errors import UserError
from vissl_zoo.photos.tool_formats import FORMATS, export_scores

NAMES = ["a.jpg", "sub/b #1%?&.jpg", "=é.jpg", "bad.jpg"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (5, 4)).save(tmp_path / "photos" / name)
    return tmp_path


@pytest.fixture
def scores(folder) -> pd.DataFrame:
    kappa = np.array([1.1, 2.2, 3.3, np.nan], dtype=np.float32)
    table = pd.DataFrame(
        {"path": [f"photos/{name}" for name in NAMES], "kappa": kappa, "uncertainty": 1 / (1 + kappa)}
    ).assign(percentile=[100.0, 50.0, 0.0, np.nan], width=5, height=4, model="zoo", model_hash="abc")
    table.attrs = {"folder": str(folder)}
    return table


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def write(form, scores, folder, embeddings=None, order=(2, 0, 1, 3)):
    file = folder / "out.json"
    files, hint = export_scores(form, file, scores, np.array(order), embeddings)
    assert str(file) in hint
    assert all(f.is_file() for f in files)
    return file


def test_fiftyone(scores, folder):
    data = json.loads(write("fiftyone", scores, folder).read_text())
    assert {"name", "media_type", "sample_fields", "info", "samples"} == data.keys()
    assert data["media_type"] == "image"
    declared = set(data["sample_fields"]) | {"filepath", "tags", "metadata"}
    for sample, i in zip(data["samples"], (2, 0, 1), strict=True):
        assert sample.keys() == declared  # from_dict does not widen the schema
        assert os.path.samefile(sample["filepath"], folder / scores["path"][i])
        assert os.path.isabs(sample["filepath"])
        assert np.float32(sample["kappa"]) == scores["kappa"][i]
        assert sample["metadata"] == {"_cls": "ImageMetadata", "width": 5, "height": 4}
    assert all(kind.startswith("fiftyone.core.fields.") for kind in data["sample_fields"].values())


def test_cleanlab(scores, folder, embeddings):
    file = write("cleanlab", scores, folder, embeddings)
    data = datasets.Dataset.from_json(str(file), cache_dir=str(folder / "cache"))  # what Datalab calls
    features = np.load(folder / "out.features.npy")
    np.testing.assert_array_equal(features, embeddings[[2, 0, 1]])
    assert len(data) == len(features)
    assert [os.path.relpath(p, folder / "photos") for p in data["image"]] == [NAMES[2], NAMES[0], NAMES[1]]
    np.testing.assert_allclose(data["certainty_score"], 1 - scores["uncertainty"][[2, 0, 1]], rtol=1e-6)
    assert not export_scores("cleanlab", folder / "x.json", scores, np.arange(4)).files[1:]


def test_label_studio(scores, folder):
    tasks = json.loads(write("label-studio", scores, folder).read_text())
    for task, i in zip(tasks, (2, 0, 1), strict=True):
        url = urlparse(task["data"]["image"])
        assert url.path == "/data/local-files/"
        (name,) = parse_qs(url.query)["d"]
        assert os.path.samefile(
            folder / name, folder / scores["path"][i]
        )  # below the folder above the photos
        (prediction,) = task["predictions"]
        assert prediction["result"] == []
        assert prediction["model_version"] == "zoo"
        assert prediction["score"] == pytest.approx(1 - scores["uncertainty"][i], abs=1e-6)
        assert isinstance(task["meta"], dict)


def test_lightly(scores, folder, embeddings):
    file = write("lightly", scores, folder, embeddings)
    data = json.loads(file.read_text())
    io = pytest.importorskip("lightly.utils.io")
    entries = zip(data["images"], data["metadata"], strict=True)
    pairs = [(m["file_name"], {k: v for k, v in d.items() if k != "image_id"}) for m, d in entries]
    assert io.format_custom_metadata(pairs) == data
    assert [name for name, _ in pairs] == [NAMES[2], NAMES[0], NAMES[1]]
    table = str(folder / "out.embeddings.csv")
    io.check_embeddings(table)
    values, _, names = io.load_embeddings(table)
    np.testing.assert_allclose(values, embeddings[[2, 0, 1]], rtol=1e-6)
    assert names == [name for name, _ in pairs]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_of_a_table_and_nothing_to_write(form, scores, folder):
    with pytest.raises(UserError, match="no image has a score"):
        export_scores(form, folder / "x.json", scores, np.array([3]))
    scores.loc[0, "path"] = "data.parquet#7"
    with pytest.raises(UserError, match=r"data\.parquet#7"):
        export_scores(form, folder / "x.json", scores, np.arange(4))
    assert not (folder / "x.json").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_what_the_whole_set_says_goes_along_and_is_the_score(form, scores, folder):
    told = np.array([0.2, 0.4, 0.6, np.nan], dtype=np.float32)
    text = write(form, scores.assign(set_uncertainty=told), folder).read_text()
    assert text.count('"set_uncertainty": 0.') == {"label-studio": 6}.get(form, 3)
    if form == "cleanlab":
        assert [json.loads(line)["certainty_score"] for line in text.splitlines()] == pytest.approx(
            [0.4, 0.8, 0.6]
        )
    if form == "label-studio":
        assert [task["predictions"][0]["score"] for task in json.loads(text)] == pytest.approx(
            [0.4, 0.8, 0.6]
        )
