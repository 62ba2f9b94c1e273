"""`vissl-zoo tta`: the crops it reports are crops of the image, and κ is theirs."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn.functional import normalize

import vissl_zoo  # noqa: F401
from vissl_zoo.photos.image_crops import score_crops


def test_files_and_table(run_command, small_export, photos, tmp_path):
    files = {n: tmp_path / f for n, f in {"output": "t.png", "crop": "c.png", "embeddings": "e.npy"}.items()}
    flags = [word for name, file in files.items() for word in (f"--{name}", file)]
    outcome = run_command("tta", photos / "07.jpg", "--model", small_export, "--crops", 7, *flags)
    assert outcome.code == 0, outcome.err
    lines = [re.findall(r"[\d.,]+", line) for line in outcome.out.splitlines()[1:6]]
    kappa = [float(line[0].replace(",", "")) for line in lines]
    assert kappa == sorted(kappa, reverse=True)
    assert "2 more, the least" in outcome.out
    image = Image.open(photos / "07.jpg")
    left, top, width, height = map(int, lines[0][1:])
    assert min(left, top) >= 0
    assert left + width <= image.width
    assert top + height <= image.height
    cut = np.asarray(image)[top : top + height, left : left + width]
    np.testing.assert_array_equal(np.asarray(Image.open(files["crop"])), cut)
    assert Image.open(files["output"]).format == "PNG"
    assert np.load(files["embeddings"]).shape[0] == 1


def test_crops_are_scored_as_they_are_cut(small_export, photos):
    """Each box, cut from the image and resized by another filter, gets nearly the κ that is reported."""
    model = timm.create_model(f"local-dir:{small_export}", pretrained=True, num_classes=0).eval()
    image = Image.open(photos / "02.jpg").convert("RGB")
    found = score_crops(model, image, 64, crops=6, seed=1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    views = []
    for left, top, width, height in found.boxes.tolist():
        cut = image.crop((left, top, left + width, top + height)).resize((64, 64), Image.Resampling.BILINEAR)
        views.append((torch.from_numpy(np.array(cut)).permute(2, 0, 1) / 255 - mean) / std)
    with torch.inference_mode():
        said = model.represent(torch.stack(views))
    np.testing.assert_allclose(found.kappa, said.kappa.numpy(), rtol=0.02)
    direction = (said.kappa[:, None] * normalize(said.embedding, dim=1)).sum(dim=0)
    cosine = torch.nn.functional.cosine_similarity(direction, torch.from_numpy(found.embedding), dim=0)
    assert cosine > 0.999
    length = said.embedding.norm(dim=1).mean()
    assert np.linalg.norm(found.embedding) == pytest.approx(float(length), rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (400, 2)])
def test_extreme_images(size, run_command, small_export, tmp_path):
    Image.new("RGB", size, "red").save(tmp_path / "x.png")
    outcome = run_command(
        "tta", tmp_path / "x.png", "--model", small_export, "--crops", 2, "--output", tmp_path / "t.png"
    )
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["{photo}"], "--model"),
        (["{text}", "--model", "x"], "not an image"),
        (["{photo}", "--crops", "0"], "--crops"),
        (["{photo}", "--scale", "0.5", "0.1"], "--scale"),
        ([""], "IMAGE"),
        (["{photo}", "--crop", "{photo}"], "written over"),
        (["{photo}", "--output", "x.png", "--crop", "./x.png"], "--output writes"),
        (["{photo}", "--seed", "4294967296"], "--seed"),
    ],
)
def test_bad_input_is_one_line(arguments, named, run_command, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    arguments = [a.format(photo=photos / "00.jpg", text=tmp_path / "text.jpg") for a in arguments]
    model = [] if "--model" in (*arguments, named) else ["--model", "x"]
    outcome = run_command("tta", *arguments, *model)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert named in outcome.err
