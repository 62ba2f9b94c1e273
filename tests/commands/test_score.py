"""`vissl-zoo score`: what people have in their folders, what they type, and what stops in between."""

import csv
import json
import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import rankdata

from vissl_zoo.commands import main
from vissl_zoo.inference import embed, model_hash
from vissl_zoo.photos import scoring, unfinished

COLUMNS = [
    "path",
    "kappa",
    "uncertainty",
    "percentile",
    "width",
    "height",
    "brightness",
    "contrast",
    "sharpness",
]
COLUMNS += ["issue", "content_hash", "error", "model", "model_hash"]
PHOTOS = Path(__file__).parents[3] / "shared/data/photos"


def read(file: Path) -> dict[str, list]:
    return pq.read_table(file).to_pydict()


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Path:
    """Everything that a real folder holds."""
    folder = tmp_path_factory.mktemp("nasty")
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    names = [
        "plain.jpg",
        "=1+2.jpg",
        "-x.png",
        "@sum.jpg",
        "a\nb.jpg",
        "'q\".jpg",
        "<img src=x onerror=1>.png",
    ]
    for name in [*names, "日本 é.webp", "a,b;c.jpg", "'=y.jpg"]:
        noise.save(folder / name)
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rng.integers(0, 65536, (30, 30), dtype=np.uint16)).save(folder / "sixteen.png")
    palette = noise.quantize(16)
    palette.save(folder / "palette.png", transparency=3)
    noise.resize((1, 1)).save(folder / "one.png")
    noise.resize((3000, 2)).save(folder / "wide.png")
    noise.resize((2, 3000)).save(folder / "tall.png")
    noise.save(
        folder / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    (folder / "bad_zero.jpg").touch()
    (folder / "bad_text.jpg").write_text("no image")
    whole = (folder / "plain.jpg").read_bytes()
    (folder / "bad_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad_link.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "bad_loop.jpg").symlink_to(folder / "bad_loop.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "notes.txt").write_text("not a photo")
    with open(os.fsencode(folder) + b"/ok_\xff.jpg", "wb") as file:
        file.write(whole)
    return folder


def test_columns_and_values(scored, photos, small_export):
    table = read(scored / "scores.parquet")
    assert list(table) == COLUMNS
    assert table["path"] == [str(photos / f"{i:02}.jpg") for i in range(12)]
    assert (table["width"][4], table["height"][4]) == (104, 78)
    assert table["error"] == [None] * 12
    assert set(table["model"]) == {str(small_export)}
    model = timm.create_model(f"local-dir:{small_export}", pretrained=True, num_classes=0)
    assert set(table["model_hash"]) == {model_hash(model)}
    kappa, uncertainty = np.array(table["kappa"]), np.array(table["uncertainty"])
    d = model.kappa_head.latent_dim
    np.testing.assert_allclose(uncertainty, (d - 1) / (d - 1 + kappa), rtol=1e-5)
    expected = (rankdata(uncertainty) - 1) / 11 * 100
    np.testing.assert_allclose(table["percentile"], expected)
    assert table["percentile"][int(np.argmax(kappa))] in (
        0.0,
        pytest.approx(100 / 22),
    )  # 10.jpg ties with 03.jpg


def test_embeddings_are_the_models_in_the_order_of_the_rows(scored, small_export):
    embeddings = np.load(scored / "e.npy")
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()
    model = timm.create_model(f"local-dir:{small_export}", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        kappa = model.kappa_head(torch.from_numpy(embeddings)).numpy()
    np.testing.assert_allclose(kappa, read(scored / "scores.parquet")["kappa"], rtol=1e-4)


def test_bad_images_are_rows_and_names_are_safe(nasty, run_command, small_export, tmp_path):
    output, gallery = tmp_path / "s.csv", tmp_path / "g.html"
    flags = ("--output", output, "--gallery", gallery, "--embeddings", tmp_path / "e.npy")
    outcome = run_command("score", nasty, "--model", small_export, *flags)
    assert outcome.code == 0, outcome.err
    assert "23 images, 5 could not be read" in outcome.out
    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    failed = [row for row in rows if row["error"]]
    assert sorted(Path(row["path"]).name[:5] for row in failed) == ["bad_"[:5] + c for c in "clltz"]
    assert all(row["kappa"] == row["uncertainty"] == row["percentile"] == "" for row in failed)
    assert all("\n" not in row["error"] for row in failed)
    assert all(float(row["kappa"]) > 0 for row in rows if not row["error"])
    sizes = {Path(row["path"]).name: (row["width"], row["height"]) for row in rows}
    assert sizes["one.png"] == ("1", "1")
    assert sizes["turned.jpg"] == ("40", "50")  # as it is seen, not as it is stored
    missing = np.isnan(np.load(tmp_path / "e.npy")).all(axis=1)
    assert missing.tolist() == [bool(row["error"]) for row in rows]
    check_page(gallery, images=21)
    assert "&lt;img src=x onerror=1&gt;" in gallery.read_text()


def test_cells_of_a_csv_are_no_formulas(nasty, run_command, small_export, tmp_path, monkeypatch):
    monkeypatch.chdir(nasty)
    names = ["=1+2.jpg", "@sum.jpg", "'=y.jpg", "plain.jpg", "./-x.png"]
    outcome = run_command("score", *names, "--model", small_export, "--output", tmp_path / "s.csv")
    assert outcome.code == 0, outcome.err
    with open(tmp_path / "s.csv", newline="") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert cells == ["'=1+2.jpg", "'@sum.jpg", "''=y.jpg", "plain.jpg", "'-x.png"]
    kept = run_command("filter", tmp_path / "s.csv", "--keep", "1").out.splitlines()
    assert kept == ["=1+2.jpg", "@sum.jpg", "'=y.jpg", "plain.jpg", "-x.png"]


class Sources(HTMLParser):
    """What a page would load, and its pictures."""

    def __init__(self):
        super().__init__()
        self.sources, self.handlers = [], []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "data-source"):
                self.sources.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))


def check_page(page: Path, images: int) -> None:
    parser = Sources()
    text = page.read_text(encoding="utf-8")
    parser.feed(text)
    assert len(parser.sources) == images
    assert all(source.startswith("data:image/jpeg;base64,") for source in parser.sources)
    assert not parser.handlers
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text


def test_gallery(scored):
    check_page(scored / "gallery.html", images=24)  # by certainty, and marked by their pixels
    text = (scored / "gallery.html").read_text()
    assert text.count("<rect") == 32
    assert text.index("Most certain") < text.index("Least certain")


def test_several_paths_and_the_same_twice(run_command, small_export, photos, shapes_folder, tmp_path):
    output = tmp_path / "s.jsonl"
    shapes = shapes_folder / "test.parquet"
    paths = (
        photos / "0[0-3].jpg",
        photos / "03.jpg",
        photos / "05.jpg",
        shapes,
        photos / ".." / "photos" / "05.jpg",
    )
    outcome = run_command("score", *paths, "--model", small_export, "--output", output)
    assert outcome.code == 0, outcome.err
    assert "2 named more than once" in outcome.out
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["path"] for row in rows[:5]] == [str(photos / f"0{i}.jpg") for i in (0, 1, 2, 3, 5)]
    assert [row["path"] for row in rows[5:]] == [f"{shapes}#{i}" for i in range(40)]
    assert list(rows[0]) == COLUMNS


def test_splits_of_a_folder_are_all_scored(run_command, small_export, photos, shapes_folder, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "x.jpg").write_bytes((photos / "00.jpg").read_bytes())
    output = tmp_path / "s.parquet"
    assert run_command("score", tmp_path / "data", "--model", small_export, "--output", output).code == 0
    assert len(read(output)["path"]) == 2
    outcome = run_command(
        "score", shapes_folder, "--split", "test", "--model", small_export, "--output", output
    )
    assert outcome.code == 0, outcome.err
    assert read(output)["path"][39] == f"{shapes_folder}#test/39"


def test_a_second_call_scores_only_what_changed(run_command, small_export, photos, tmp_path):
    folder, output = tmp_path / "photos", tmp_path / "s.parquet"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes((photos / f"{i:02}.jpg").read_bytes())
    (folder / "bad.jpg").touch()
    command = (
        "score",
        folder,
        "--model",
        small_export,
        "--output",
        output,
        "--embeddings",
        tmp_path / "e.npy",
    )
    assert run_command(*command).code == 0
    first, embeddings = read(output), np.load(tmp_path / "e.npy")
    outcome = run_command(*command)
    assert "6 of 7 images were scored before" in outcome.err  # what failed is tried again
    assert read(output) == first
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), embeddings)
    (folder / "2.jpg").write_bytes((photos / "09.jpg").read_bytes())
    (folder / "bad.jpg").write_bytes((photos / "08.jpg").read_bytes())
    outcome = run_command(*command)
    assert "5 of 7" in outcome.err
    second = read(output)
    assert second["kappa"][2] != first["kappa"][2]
    assert second["error"] == [None] * 7
    (tmp_path / "e.npy").write_bytes(b"")  # the embeddings are gone: all must be scored again
    outcome = run_command(*command)
    assert "before" not in outcome.err
    assert np.isfinite(np.load(tmp_path / "e.npy")).all()


def test_stopped_in_the_middle(run_command, small_export, photos, tmp_path, monkeypatch):
    output = tmp_path / "s.parquet"
    command = ["score", photos, "--model", small_export, "--batch-size", 4, "--output"]

    def stopped_after_a_batch(*arguments, **options):
        yield next(embed(*arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "embed", stopped_after_a_batch)
        assert run_command(*command, output, "--embeddings", tmp_path / "e.npy").code == 130
    assert [file.name for file in tmp_path.iterdir()] == ["s.parquet.partial"]
    outcome = run_command(*command, output, "--embeddings", tmp_path / "e.npy")
    assert outcome.code == 0, outcome.err
    assert "4 of 12 images were scored before" in outcome.err
    assert not list(tmp_path.glob("*.partial"))
    whole = tmp_path / "whole.parquet"
    assert run_command(*command, whole, "--embeddings", tmp_path / "whole.npy").code == 0
    np.testing.assert_allclose(read(output)["kappa"], read(whole)["kappa"], rtol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "e.npy"), np.load(tmp_path / "whole.npy"), atol=1e-5)


def test_work_of_other_settings_is_not_mixed_in(run_command, small_export, photos, tmp_path):
    output = tmp_path / "s.parquet"
    with unfinished.Unfinished(output, {"model_hash": "other"}) as work:
        work.add([unfinished.Row(str(photos / "00.jpg"), 1, 1.0, 0.5, 0.5, 0.1, 0.2, 0.3, 3, 4, "ab", None)])
    outcome = run_command("score", photos, "--model", small_export, "--output", output)
    assert outcome.code == 0, outcome.err
    assert "left by another model or other settings" in outcome.err
    assert "before" not in outcome.err


def test_a_file_of_others_in_the_place_of_the_work_is_one_line(run_command, small_export, photos, tmp_path):
    (tmp_path / "s.csv.partial").write_text("mine")
    outcome = run_command("score", photos, "--model", small_export, "--output", tmp_path / "s.csv")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "s.csv.partial: file is not a database" in outcome.err
    assert (tmp_path / "s.csv.partial").read_text() == "mine"


def test_without_a_kappa_head(run_command, photos, tmp_path, monkeypatch):
    plain = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    timm.models._hub.save_for_hf(plain, tmp_path / "plain", safe_serialization=True)
    arguments = ("score", photos, "--model", tmp_path / "plain", "--output", tmp_path / "s.parquet")
    outcome = run_command(*arguments, "--no-fit")
    assert outcome.code == 2
    assert "no κ head" in outcome.err
    assert "fit-kappa" in outcome.err
    assert not list(tmp_path.glob("s.parquet*"))
    outcome = run_command(*arguments)
    assert outcome.code == 0, outcome.err
    assert "κ was fitted to" in outcome.err
    assert min(pq.read_table(tmp_path / "s.parquet")["kappa"].to_pylist()[:5]) > 0


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([""], "PATH is empty"),
        (["no*.jpg"], "no file matches"),
        (["{empty}"], "no image"),
        (["{photos}", "--model", "no_such_model"], "no_such_model"),
        (["{photos}", "--gallery", "g.png"], "--gallery"),
        (["{photos}", "--embeddings", "e.csv"], "--embeddings"),
        (["{photos}", "--views", "-1"], "--views"),
        (["{photos}", "--views", "2"], "200 images or more"),
        (["{photos}", "--batch-size", "0"], "--batch-size"),
        (["{photos}", "--to", "nothing"], "nothing"),
        (["{photos}", "--to-file", "x.json"], "--to"),
        (["{photos}", "--output", "{photos}/00.jpg/s.parquet"], "no folder"),
    ],
)
def test_bad_input_is_one_line(arguments, named, run_command, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    arguments = [a.format(photos=photos, empty=tmp_path / "empty") for a in arguments]
    model = [] if "--model" in (*arguments, named) else ["--model", "x"]
    outcome = run_command("score", *arguments, *model)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert named in outcome.err


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write anything"
)
def test_without_permission(run_command, small_export, photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((photos / "00.jpg").read_bytes())
    (folder / "a.jpg").chmod(0)
    outcome = run_command("score", folder, "--model", small_export, "--output", tmp_path / "s.parquet")
    assert "Permission denied" in read(tmp_path / "s.parquet")["error"][0]
    tmp_path.chmod(0o500)
    outcome = run_command("score", photos, "--model", small_export, "--output", tmp_path / "t.parquet")
    tmp_path.chmod(0o700)
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


def test_reading_stops_early(scored, monkeypatch):
    """`vissl-zoo filter … | head -1` ends without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["filter", str(scored / "scores.parquet")]) == 0


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are not here")
def test_real_photos(run_command, small_export, tmp_path):
    files, output = sorted(PHOTOS.iterdir())[:60], tmp_path / "s.parquet"
    outcome = run_command("score", *files, "--model", small_export, "--output", output)
    assert outcome.code == 0, outcome.err
    table = read(output)
    assert table["path"] == [str(file) for file in files]
    assert table["error"] == [None] * 60
    assert np.isfinite(table["kappa"]).all()


def test_a_data_set_is_not_written_over(run_command, small_export, shapes_folder, tmp_path):
    data = tmp_path / "test.parquet"
    data.write_bytes((shapes_folder / "test.parquet").read_bytes())
    for typed in (data, tmp_path, tmp_path / "*.parquet"):
        outcome = run_command("score", typed, "--model", small_export, "--output", data)
        assert outcome.code == 2
        assert "written over" in outcome.err
    assert data.read_bytes() == (shapes_folder / "test.parquet").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_parquet_file_whose_name_is_no_text(run_command, small_export, shapes_folder, tmp_path):
    data = os.fsencode(tmp_path) + b"/\xff.parquet"
    with open(data, "wb") as file:
        file.write((shapes_folder / "test.parquet").read_bytes())
    outcome = run_command("score", os.fsdecode(data), "--model", small_export, "--output", tmp_path / "s.csv")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "UTF-8" in outcome.err


def test_out_of_memory_is_one_line(run_command, small_export, photos, tmp_path):
    flags = ("--exact", "--batch-size", 10**12, "--output", tmp_path / "s.parquet")
    outcome = run_command("score", photos / "00.jpg", "--model", small_export, *flags)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("vissl-zoo: out of memory")
