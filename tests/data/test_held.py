"""Held canvases on a device: what moves, what stays, and when."""

import numpy as np
import pytest
import torch

from vissl_zoo.data import held, open_images, open_store
from vissl_zoo.data.held import free_memory

BATCHES = [np.array([3, 0]), np.array([2, 2, 1])]


@pytest.fixture
def table(write_images):
    return open_images(write_images({f"{n}.png": n for n in range(4)}))


def hold(table, **options):
    return open_store(table, 8, progress=False, **options)


def test_on_a_cpu_nothing_changes(table):
    plain, asked = hold(table), hold(table, device="cpu")
    for one, other in zip(plain.batches(BATCHES), asked.batches(BATCHES), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert asked.ahead == 0


@pytest.mark.parametrize("share, moves", [(0.5, True), (0.49, False)])
def test_small_stores_move_and_large_ones_stay(table, monkeypatch, share, moves):
    """On the device of torch that holds no numbers: places and shapes are all that it tells."""
    need = 4 * 3 * 6 * 8
    monkeypatch.setattr(held, "free_memory", lambda device: 2 * need)
    store = hold(table, device="meta", device_share=share)
    for indices, batch in zip(BATCHES, store.batches(BATCHES), strict=True):
        assert batch.images.device.type == ("meta" if moves else "cpu")
        assert batch.images.shape == (len(indices), 3, 6, 8)
        assert (batch.sizes.device.type, batch.indices.device.type) == ("cpu", "cpu")
        assert batch.sizes.tolist() == [[6, 8]] * len(indices)
        assert batch.indices.tolist() == indices.tolist()


def test_a_device_that_tells_no_memory_holds_nothing(table):
    assert free_memory(torch.device("mps")) == free_memory(torch.device("cpu")) == 0
    assert next(hold(table, device="mps").batches(BATCHES)).images.device.type == "cpu"


def test_batches_gathered_ahead_are_the_same_in_the_same_order(table):
    store, plain = hold(table), hold(table)
    store.ahead = 3
    orders = [np.random.default_rng(n).integers(0, 4, 5) for n in range(20)]
    for one, other in zip(store.batches(orders), plain.batches(orders), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert list(store.batches([])) == []


def test_positions_are_drawn_no_further_than_needed(table):
    store = hold(table)
    store.ahead = 3
    drawn = []
    batches = store.batches(drawn.append(n) or [n % 4] for n in range(100))
    next(batches)
    assert drawn == [0, 1, 2]
    batches.close()
    assert drawn == [0, 1, 2]


def test_an_error_while_gathering_ahead_is_the_callers(table):
    store = hold(table)
    store.ahead = 2
    with pytest.raises(IndexError):
        list(store.batches([[0], [99]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_cuda_batches_without_host_synchronisation(table, share):
    expected = list(hold(table).batches(BATCHES))
    store = hold(table, device="cuda", device_share=share)
    list(store.batches(BATCHES))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [(b, b.images.to("cuda", non_blocking=True)) for b in store.batches(BATCHES)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (batch, images), other in zip(batches, expected, strict=True):
        assert batch.images.is_cuda == bool(share)
        assert share or batch.images.is_pinned()
        assert torch.equal(images.cpu(), other.images)
