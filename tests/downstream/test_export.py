"""torch.export with a free batch size, TorchScript, and ONNX in onnxruntime."""

import pytest
import torch


@pytest.fixture(scope="module")
def script(example):
    return example("export_onnx")


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ("resnet", "vit"))
def test_torch_export_of_forward(small, kind, batches):
    model = small(kind)
    shapes = {"x": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(model, (batches[1],), dynamic_shapes=shapes).module()
    for x in batches:
        assert_equal([program(x)], [model(x)])


@pytest.mark.parametrize("kind", ("resnet_exp", "dino_vit"))
def test_torch_export_of_represent(script, small, kind, batches):
    model = script.Represent(small(kind)).eval()
    shapes = {"image": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(model, (batches[1],), dynamic_shapes=shapes).module()
    for x in batches:
        assert_equal(program(x), model.model.represent(x))


@pytest.mark.filterwarnings("ignore")  # of TorchScript's age
@pytest.mark.parametrize("kind", ("resnet", "vit"))
def test_torchscript(script, small, kind, batches):
    model = small(kind)
    scripted, traced = torch.jit.script(model), torch.jit.trace(model, batches[1])
    representing = torch.jit.trace(script.Represent(model), batches[1])
    for x in batches:
        assert_equal([scripted(x)], [model(x)])
        assert_equal([traced(x)], [model(x)])
        assert_equal(representing(x), model.represent(x))


@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_embedding_kappa_and_uncertainty(script, small, batches, tmp_path):
    """Of attention and the entropy of prototypes; the script, below, exports convolutions."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = small("dino_vit"), tmp_path / "model.onnx"
    script.export_onnx(model, path, 32)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.shape[1:] for i in session.get_inputs()] == [[3, 32, 32]]
    for x in batches:
        found = session.run(["embedding", "kappa", "uncertainty"], {"image": x.numpy()})
        with torch.no_grad():
            expected = model.represent(x)
        for a, b in zip(map(torch.from_numpy, found), expected, strict=True):
            assert a.shape == b.shape
            assert ((a - b).abs() / b.abs().clamp_min(1)).max() < 1e-4
    assert expected.kappa.std() > 0.01 * expected.kappa.mean()  # there was something to get wrong
    assert expected.uncertainty.std() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_the_script_checks_what_it_wrote(script, exports, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    arguments = [str(exports("resnet_exp")), "--output", str(tmp_path / "m.onnx"), "--image-size", "32"]
    script.main(arguments)
    assert "agrees to" in capsys.readouterr().out
    monkeypatch.setattr(script, "export_onnx", lambda *_: None)
    monkeypatch.setattr(script, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(script.UserError, match="differs"):
        script.main(arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [([], "needs a model"), (["nowhere"], "cannot be loaded"), (["--output", "x.onnx"], "needs a model")],
)
def test_bad_input_is_one_line(script, arguments, message):
    with pytest.raises(script.UserError, match=message):
        script.main(arguments)
