"""Damaged weights, images and tables, by hand and by hypothesis: only the errors that are declared, of one line.

`HYPOTHESIS_EXAMPLES=5000 pytest tests/test_hostile_bytes.py` looks for longer.
"""

import io
import json
import os
import pickle
import struct
import warnings

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save

import vissl_zoo
from vissl_zoo.commands import main as command
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model
from vissl_zoo.models.read_weights import read_weights
from vissl_zoo.photos.score_table import read_scores

quick = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "60")),
    derandomize="HYPOTHESIS_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
damage = st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), max_size=8)


def damaged(data, flips, length):
    """Some bytes changed, and the end cut off."""
    changed = bytearray(data[: round(length * len(data))] if length < 1 else data)
    for place, bits in flips:
        if changed:
            changed[place % len(changed)] ^= bits
    return bytes(changed)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    return export_model(model, tmp_path_factory.mktemp("weights") / "export")


def parts(file):
    """The header of a safetensors file, as JSON, and its data."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def overlapping(file):
    header, data = parts(file)
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    return joined(header, data)


def not_finite(file):
    weights = load_file(file)
    weights["conv1.0.weight" if "conv1.0.weight" in weights else "conv1.weight"].view(-1)[3] = float("nan")
    return save(weights, parts(file)[0]["__metadata__"])


def another_record(file):
    header, data = parts(file)
    return joined({**header, "__metadata__": {"vissl_zoo": "[1]"}}, data)


def deep_record(file):
    header, data = parts(file)
    return joined({**header, "__metadata__": {"vissl_zoo": 100_000 * "[" + 100_000 * "]"}}, data)


def declared_whole(file):
    header, data = parts(file)
    name = next(
        n for n, t in header.items() if t.get("dtype") == "F32" and t["shape"][-1:] and t["shape"][0] % 2 == 0
    )
    start, stop = header[name]["data_offsets"]
    header[name] = {"dtype": "I32", "shape": header[name]["shape"], "data_offsets": [start, stop]}
    return joined(header, data)


CASES = {
    "a record nested 100,000 deep": (deep_record, "cannot be read as safetensors"),
    "cut off": (lambda f: f.read_bytes()[:5000], "cannot be read as safetensors"),
    "empty": (lambda f: b"", "cannot be read as safetensors"),
    "a header of 2^63 bytes": (lambda f: struct.pack("<Q", 2**63) + f.read_bytes()[8:], "header too large"),
    "overlapping": (overlapping, "cannot be read as safetensors"),
    "a pickle": (lambda f: pickle.dumps({"conv1.weight": 1}), "cannot be read as safetensors"),
    "not finite": (not_finite, "holds NaN or infinite numbers, in conv1"),
    "another record": (another_record, "is no record of a model"),
}


@pytest.mark.parametrize("case", CASES)
def test_damaged_weights_are_one_line(case, export, tmp_path, capsys):
    make, said = CASES[case]
    (tmp_path / "config.json").write_bytes((export / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(make(export / "model.safetensors"))
    with pytest.raises(RuntimeError, match=r"model\.safetensors") as caught:
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    Image.radial_gradient("L").save(tmp_path / "photo.png")
    arguments = ["score", str(tmp_path / "photo.png"), "--model", str(tmp_path), "--output"]
    assert command([*arguments, str(tmp_path / "s.parquet")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "s.parquet").exists()


def refused(folder, capsys):
    """What `score` says of a model that it refuses."""
    Image.radial_gradient("L").save(folder / "photo.png")
    arguments = [
        "score",
        str(folder / "photo.png"),
        "--model",
        str(folder),
        "--output",
        str(folder / "s.parquet"),
    ]
    assert command(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not (folder / "s.parquet").exists()
    return error


def copied(export, folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((export / name).read_bytes())
    return folder


def test_fractions_declared_as_whole_numbers_are_refused(export, tmp_path, capsys):
    copied(export, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(declared_whole(export / "model.safetensors"))
    with pytest.raises(RuntimeError, match="whole numbers for fractions"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert "whole numbers for fractions" in refused(tmp_path, capsys)


def test_damaged_heads_are_one_line(export, tmp_path, capsys):
    copied(export, tmp_path)
    (tmp_path / "heads.safetensors").write_bytes(b"12345")
    assert "heads.safetensors cannot be read as safetensors" in refused(tmp_path, capsys)


CONFIGS = {
    "a list": (lambda c: [c], "is no JSON object"),
    "not JSON": (lambda c: None, "is no JSON object"),
    "an architecture that is a number": (
        lambda c: {**c, "architecture": 3},
        "architecture = 3, and it must be a name",
    ),
    "arguments that are a list": (
        lambda c: {**c, "model_args": [1]},
        "model_args = [1], and it must be an object",
    ),
    "a mean that is a word": (lambda c: cfg(c, mean="x"), "mean = 'x', and it must be finite numbers"),
    "a deviation of 0": (lambda c: cfg(c, std=[1, 0, 1]), "std = [1, 0, 1], and it must be positive"),
    "a share that is no number": (
        lambda c: cfg(c, crop_pct=float("nan")),
        "crop_pct = nan, and it must be a positive",
    ),
    "a negative size": (lambda c: cfg(c, input_size=[3, -8, -8]), "input_size"),
    "a size of two numbers": (
        lambda c: cfg(c, input_size=[8, 8]),
        "input_size = [8, 8], and it must be three",
    ),
    "an unknown interpolation": (
        lambda c: cfg(c, interpolation="best"),
        "interpolation = 'best', and it must be one",
    ),
}


def cfg(config, **changes):
    return {**config, "pretrained_cfg": {**config["pretrained_cfg"], **changes}}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_is_one_line(case, export, tmp_path, capsys):
    change, said = CONFIGS[case]
    copied(export, tmp_path)
    config = json.loads((export / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(change(config)))
    assert said in refused(tmp_path, capsys)


@quick
@given(flips=damage, length=st.floats(0, 1.2), in_header=st.booleans())
def test_weights_are_read_or_refused(export, flips, length, in_header):
    data = (export / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    flips = [(place % header, bits) for place, bits in flips] if in_header else flips
    file = export / "fuzz.safetensors"
    file.write_bytes(damaged(data, flips, length))
    try:
        found = read_weights({"architecture": "vi_simsiam", "file": str(file)})
    except RuntimeError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(isinstance(value, torch.Tensor) for value in found.weights.values())


def encoded(kind):
    noise = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    options = {"progressive": True} if kind == "JPEG" else {}
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


@quick
@given(kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "JPEG2000"]),
       flips=damage, length=st.floats(0, 1.5), at_the_start=st.booleans())  # fmt: skip
def test_images_are_opened_or_named(tmp_path_factory, kind, flips, length, at_the_start):
    flips = [(place % 64, bits) for place, bits in flips] if at_the_start else flips
    file = tmp_path_factory.getbasetemp() / "fuzz.image"
    file.write_bytes(damaged(encoded(kind), flips, length))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = vissl_zoo.open_image(file)
        except UserError as error:
            assert "fuzz.image" in str(error)  # noqa: PT017
        else:
            assert image.mode == "RGB"


TABLE = pd.DataFrame(
    {"path": ["a.png", "b é.png", "=c.png"], "kappa": [1.5, 640.0, np.nan], "uncertainty": [0.4, 0.1, np.nan],
     "percentile": [66.7, 33.3, np.nan], "width": [640, 32, 0], "height": [480, 32, 0]}
)  # fmt: skip


@quick
@given(kind=st.sampled_from(["csv", "parquet"]), flips=damage, length=st.floats(0, 1.5))
def test_tables_are_read_or_refused(tmp_path_factory, kind, flips, length):
    buffer = io.BytesIO()
    TABLE.to_csv(buffer, index=False) if kind == "csv" else TABLE.to_parquet(buffer)
    file = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    file.write_bytes(damaged(buffer.getvalue(), flips, length))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_scores(str(file))
        except UserError as error:
            assert "fuzz." in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert "path" in found
