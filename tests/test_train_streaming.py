"""Training on a stream: without an index of the data, and resumed where it stopped."""

import json

import pytest
import torch
from safetensors.torch import load_file

STREAM = ("--data.streaming", "--data.buffer", "40", "--batch-size", "32", "--no-report")


def weights(run):
    checkpoint = max((run / "checkpoints").glob("step_*"))
    return load_file(checkpoint / "method.safetensors")


@pytest.fixture(scope="module")
def streamed(train_main, small, tmp_path_factory):
    """Five steps of 32 images: more than one pass over the 120."""
    run = tmp_path_factory.mktemp("stream") / "run"
    outcome = train_main(*small, *STREAM, "--max-steps", "5", "--output-dir", run)
    assert outcome.code == 0, outcome.err
    return run


def test_it_trains_and_exports(streamed):
    lines = [json.loads(line) for line in (streamed / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 5
    assert lines[-1]["epoch"] is None  # nobody knows how long a pass is
    assert (streamed / "export" / "model.safetensors").exists()


def test_the_seed_decides_the_order(train_main, small, streamed, tmp_path):
    for seed, same in ((0, True), (1, False)):
        run = tmp_path / str(seed)
        arguments = (*small, *STREAM, "--max-steps", "5", "--output-dir", run, "--seed", str(seed))
        assert train_main(*arguments).code == 0
        equal = all(
            torch.equal(a, b) for a, b in zip(weights(run).values(), weights(streamed).values(), strict=True)
        )
        assert equal == same


def test_resuming_is_exact(train_main, small, streamed, tmp_path):
    run = tmp_path / "run"
    arguments = (*small, *STREAM, "--max-steps", "5", "--output-dir", run)
    assert train_main(*arguments, "--max-minutes", "0.00001").code == 0
    for _ in range(20):
        if max((run / "checkpoints").glob("step_*")).name == "step_0000005":
            break
        assert train_main(*arguments, "--resume", "--max-minutes", "0.00001").code == 0
    for name, tensor in weights(streamed).items():
        assert torch.equal(weights(run)[name], tensor), name


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ((), "--max-steps"),
        (("--max-steps", "3", "--warmup-epochs", "1"), "--warmup-epochs"),
        (("--max-steps", "3", "--batch-size", "200"), "200"),
        (("--max-steps", "3", "--data.buffer", "0"), "--data.buffer"),
    ],
)
def test_what_a_stream_cannot_do_is_one_line(train_main, small, tmp_path, flags, named):
    outcome = train_main(*small, *STREAM, "--output-dir", tmp_path / "run", *flags)
    assert outcome.code == 2
    assert named in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
