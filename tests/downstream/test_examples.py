"""examples/fine_tune.py and own_loop.py at a small size, and every block of docs/downstream.md as it stands."""

import re
import shutil

import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from PIL import Image

BLOCK = re.compile(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", re.M | re.S)
NEEDS = {"Segmentation": "segmentation_models_pytorch", "LoRA": "peft", "int8": "torch.ao.quantization"}
NEEDS["transformers"] = "transformers"
HEADINGS = (
    "A loop of your own",
    "Layer decay",
    "A detector",
    "Segmentation",
    "LoRA",
    "int8",
    "ONNX and torch.export",
    "transformers",
)


@pytest.fixture
def script(example):
    """examples/fine_tune.py, whose processes and precision are its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield example("fine_tune")
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def labelled(tmp_path):
    """Two folders of ten images: stripes that lie and stripes that stand, which colour does not tell apart."""
    for name in ("lying", "standing"):
        folder = tmp_path / "labelled" / name
        folder.mkdir(parents=True)
        for i in range(10):
            stripes = torch.zeros(40, 40, 3, dtype=torch.uint8)
            stripes[i % 8 :: 8] = stripes[i % 8 + 1 :: 8] = 255 - 5 * i
            image = Image.fromarray((stripes if name == "lying" else stripes.transpose(0, 1)).numpy())
            image.save(folder / f"{i}.png")
    return tmp_path / "labelled"


@pytest.mark.parametrize("flags", [("--scratch",), ("--freeze",), ("--layer-decay", "0.8")])
def test_fine_tune_learns_and_exports(script, exports, labelled, tmp_path, capsys, images, flags):
    export, folder = exports("resnet"), tmp_path / "classifier"
    arguments = ["--model", str(export), "--data.path", str(labelled), "--image-size", "32"]
    script.main([*arguments, "--steps", "20", "--batch-size", "8", "--output-dir", str(folder), *flags])
    out = capsys.readouterr().out
    assert "2 classes, 14 images to learn from, 6 to test on" in out
    found = re.findall(
        r"^accuracy [01]\.\d{3}  (.*) \(\d of 6 right; always the commonest class: 0.500\)$", out, re.M
    )
    assert ["random weights" in name for name in found] == [True, False][-1 - ("--scratch" in flags) :]
    assert "6 images are too few" in out
    assert f'timm.create_model("local-dir:{folder}", pretrained=True)' in out
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model(images).shape == (5, 2)
    assert model.kappa_head is None
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert list(model.pretrained_cfg["label_names"]) == ["lying", "standing"]
    before = timm.create_model(f"local-dir:{export}", pretrained=True).state_dict()
    moved = {k for k, v in model.state_dict().items() if k in before and not torch.equal(v, before[k])}
    assert bool(moved) == ("--freeze" not in flags)  # not even its batch statistics


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--steps", "0"), "positive"),
        (("--data.path", "nowhere"), "nowhere"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(script, exports, labelled, flags, message):
    arguments = ["--model", str(exports("resnet")), "--data.path", str(labelled), "--steps", "1"]
    with pytest.raises(script.UserError, match=message):
        script.main([*arguments, *flags])


def test_images_without_labels_are_refused(script, exports, labelled):
    with pytest.raises(script.UserError, match="one folder per class"):
        script.main(["--model", str(exports("resnet")), "--data.path", str(labelled / "lying")])


def test_each_class_keeps_an_image_to_learn_from(script, labelled):
    for name in list((labelled / "standing").iterdir())[1:]:
        name.unlink()
    options = script.Options(data=script.Data(path=str(labelled)))
    table, learned, _, tested = script.labelled_images(options)
    assert sorted(table.labels[tested]) == [0, 0, 0]
    assert sorted(table.labels[learned]) == [0] * 7 + [1]
    assert not set(learned) & set(tested)


@pytest.fixture(scope="module")
def blocks(root):
    text = (root / "docs" / "downstream.md").read_text(encoding="utf-8")
    found = dict(BLOCK.findall(text))
    assert len(found) == text.count("```python")  # one block under each heading
    return found


def test_the_page_has_these_blocks_and_its_links_lead_somewhere(blocks, root):
    assert tuple(blocks) == HEADINGS
    text = (root / "docs" / "downstream.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert all((root / "docs" / link).is_file() for link in links)
    anchors = {
        re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^## (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == anchors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("heading", HEADINGS)
def test_a_block_of_the_page_runs(heading, blocks, exports, tmp_path, monkeypatch):
    if heading in NEEDS:
        pytest.importorskip(NEEDS[heading])
    shutil.copytree(exports("resnet"), tmp_path / "runs" / "demo" / "export")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[heading], f"docs/downstream.md: {heading}", "exec"), {"__name__": heading})


def test_own_loop_trains_and_returns_a_model_that_represents(example, capsys):
    torch.manual_seed(0)
    pixels = torch.rand(24, 3, 40, 40)
    model = example("own_loop").train(pixels, steps=3, batch_size=12)
    assert len(re.findall(r"^step \d: loss -?\d+\.\d{3}, κ \d+\.\d$", capsys.readouterr().out, re.M)) == 3
    assert not model.training
    assert model.represent(pixels).kappa.shape == (24,)
    assert model.kappa_head.mlp.norm.num_batches_tracked == 3
