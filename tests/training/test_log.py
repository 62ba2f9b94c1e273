"""The log survives a break, and its signs of collapse tell collapse from spread."""

import json
import math

import pytest
import torch
from torch.nn.functional import normalize

from vissl_zoo.training.log import RANK_ROWS, RunLog, collapse_signals, short_line, singular_values


def test_lines_are_on_disk_at_once_and_short(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.write(short_line({"step": 1, "loss": 1 / 3, "name": "x"}))
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "loss": 0.333333, "name": "x"}
    log.write(short_line({"step": 2, "loss": 1e-9 / 3}))
    assert [line["loss"] for line in log.read()] == [0.333333, 3.33333e-10]


@pytest.mark.parametrize("step, kept", [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_resuming_drops_the_lines_after_the_checkpoint(tmp_path, step, kept):
    log = RunLog(tmp_path / "log.jsonl")
    for number in (1, 2, 3):
        log.write({"step": number})
    assert [line["step"] for line in RunLog(tmp_path / "log.jsonl", from_step=step).read()] == kept


def test_an_unfinished_line_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert RunLog(tmp_path / "log.jsonl", from_step=5).read() == [{"step": 1}]


def test_resuming_without_a_log(tmp_path):
    assert RunLog(tmp_path / "log.jsonl", from_step=5).read() == []


def test_signals_of_spread_and_of_collapse():
    torch.manual_seed(0)
    spread = collapse_signals(torch.randn(2, 512, 16))
    assert spread["embedding_std"].item() == pytest.approx(1, abs=0.05)
    assert spread["effective_rank"].item() == pytest.approx(16, rel=0.05)
    point = collapse_signals(torch.ones(2, 8, 16) + 1e-7 * torch.randn(2, 8, 16))
    assert point["embedding_std"].item() < 1e-3
    line = torch.randn(2, 64, 1) * torch.randn(16)
    assert collapse_signals(line)["effective_rank"].item() == pytest.approx(1, abs=0.01)


def test_signals_by_their_definitions():
    torch.manual_seed(1)
    y = torch.randn(2, 20, 6) * torch.arange(1, 7)
    flat = normalize(y.reshape(40, 6).double(), dim=1)
    deviation = ((flat - flat.mean(0)) ** 2).sum(0).div(39).sqrt().mean() * math.sqrt(6)
    eigenvalues = torch.linalg.eigvalsh((flat - flat.mean(0)).T @ (flat - flat.mean(0)))
    share = eigenvalues.clamp_min(0).sqrt()
    share = share / share.sum()
    rank = math.exp(-(share * share.log()).sum().item())
    found = collapse_signals(y)
    assert found["embedding_std"].item() == pytest.approx(deviation.item(), rel=1e-5)
    assert found["effective_rank"].item() == pytest.approx(rank, rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (256, 512)])
def test_singular_values(shape):
    x = torch.randn(shape) * torch.logspace(0, -4, shape[1])
    found, expected = singular_values(x), torch.linalg.svdvals(x.double())
    assert (found.sort(descending=True).values - expected).abs().max() < 3e-8 * expected[0]


@pytest.mark.parametrize("views, batch", [(8, 512), (2, 512), (8, 64), (3, 100)])
def test_the_rank_of_many_embeddings_is_that_of_as_many_images_as_can_be(views, batch):
    """And so it does not fall when the views of an image come to agree."""
    torch.manual_seed(0)
    images = torch.randn(batch, 512)
    equal = collapse_signals(images.expand(views, batch, 512))["effective_rank"].item()
    expected = collapse_signals(images[None, :RANK_ROWS])["effective_rank"].item()
    assert equal == pytest.approx(expected, rel=0.05)
    apart = collapse_signals(torch.randn(views, batch, 512))["effective_rank"].item()
    assert apart < RANK_ROWS  # of all rows it would be more


def test_the_rank_is_of_all_views():
    y = torch.zeros(4, 128, 8)
    for view in range(4):
        y[view, :, view] = 1
    four_points_span = collapse_signals(y)["effective_rank"].item()
    assert four_points_span == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_embedding_does_not_stop_the_log(value):
    y = torch.randn(2, 8, 4)
    y[0, 0, 0] = value
    assert math.isnan(collapse_signals(y)["effective_rank"].item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_signals_of_other_precisions(dtype):
    found = collapse_signals(torch.randn(2, 32, 8).to(dtype))
    assert all(math.isfinite(v.item()) for v in found.values())
