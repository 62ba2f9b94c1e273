"""Small image files and data sets, made on the spot; nothing is read from or written to the user's caches."""

import io
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty Hugging Face cache of this test's own, and no network."""
    home = tmp_path_factory.mktemp("hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return home


@pytest.fixture
def encode():
    """encode(array or image, format="PNG", **options) -> the bytes of a file."""

    def encode(image, file_format: str = "PNG", **options) -> bytes:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def picture(encode):
    """picture(number, height=6, width=8) -> a PNG of noise that differs for each number."""

    def picture(number: int, height: int = 6, width: int = 8) -> bytes:
        generator = np.random.default_rng(number)
        return encode(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return picture


@pytest.fixture
def write_images(tmp_path, picture):
    """write_images({relative name: bytes or the number of a picture}) -> the folder with these files."""

    def write_images(files: dict[str, bytes | int], folder: str = "pictures") -> Path:
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(content) if isinstance(content, int) else content)
        return tmp_path / folder

    return write_images


@pytest.fixture
def write_parquet():
    """write_parquet(path, pictures, labels, **float columns) -> path, a file in the Hugging Face format."""

    def write_parquet(path: Path, pictures: list[bytes], labels: list[int], **extras: list[float]) -> Path:
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
        features |= {name: datasets.Value("float32") for name in extras}
        images = [{"bytes": encoded, "path": None} for encoded in pictures]
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"image": images, "label": labels, **extras}
        datasets.Dataset.from_dict(data, features=datasets.Features(features)).to_parquet(path)
        return path

    return write_parquet
