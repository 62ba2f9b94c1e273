import logging

import numpy as np
import pytest
import torch

from vissl_zoo.data import BadImage, open_images, open_store
from vissl_zoo.data import store as module
from vissl_zoo.data.store import ImageStore, decode_batches, free_memory
from vissl_zoo.errors import UserError

SIZES = [(6, 8), (12, 8), (40, 60), (6, 9), (30, 20), (5, 5)]
BATCHES = [np.array([3, 0]), np.array([5]), np.array([1, 1, 2, 4])]


@pytest.fixture
def make_table(write_images, picture):
    """make_table(count, bad=[...]) -> a table of pictures of several sizes, those at `bad` corrupt."""

    def make_table(count: int = 6, bad: tuple[int, ...] = ()):
        files = {f"{n:03}.png": picture(n, *SIZES[n % 6]) for n in range(count)}
        files |= {f"{n:03}.png": b"rubbish" for n in bad}
        return open_images(write_images(files))

    return make_table


def hold(table, image_size: int = 16, **options) -> ImageStore:
    return open_store(table, image_size, progress=False, **{"workers": 2} | options)


def test_batches_hold_what_was_asked_for(make_table):
    table = make_table()
    store = hold(table)
    assert (len(store), store.canvas, store.rows.tolist(), store.bad) == (6, (24, 24), [*range(6)], [])
    assert store.rows.dtype == np.int64
    for indices, batch in zip(BATCHES, store.batches(BATCHES), strict=True):
        assert batch.images.shape == (len(indices), 3, 24, 24)
        assert (batch.images.dtype, batch.sizes.dtype, batch.indices.dtype) == (
            torch.uint8,
            torch.int64,
            torch.int64,
        )
        assert batch.indices.tolist() == indices.tolist()
        assert batch.sizes.tolist() == [list(SIZES[i]) for i in indices]


def test_pixels_of_native_size_are_exact(write_images):
    table = open_images(write_images({"a.png": 1, "b.png": 2}))
    (batch,) = hold(table, 8).batches([[1, 0]])
    for position, row in enumerate((1, 0)):
        expected = np.asarray(table.read(row)).transpose(2, 0, 1)
        np.testing.assert_array_equal(batch.images[position].numpy(), expected)


def test_any_iterable_of_any_kind_of_indices(make_table):
    store = hold(make_table())
    kinds = ([2, 1], torch.tensor([0]), np.array([3], dtype=np.int32))
    assert [b.indices.tolist() for b in store.batches(k for k in kinds)] == [[2, 1], [0], [3]]


def test_a_choice_of_rows(make_table):
    store = hold(make_table().select(np.array([4, 2])))
    assert (len(store), store.rows.tolist()) == (2, [0, 1])
    (batch,) = store.batches([[0, 1]])
    assert batch.sizes.tolist() == [[30, 20], [40, 60]]


def test_batches_decoded_when_asked_for_are_those_of_a_store(make_table):
    table = make_table()
    for one, other in zip(
        decode_batches(table, (24, 24), BATCHES), hold(table).batches(BATCHES), strict=True
    ):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))
    with pytest.raises(BadImage, match=r"003\.png"):
        list(decode_batches(make_table(bad=(3,)), (24, 24), BATCHES))


def test_the_next_batch_is_decoded_while_one_is_used(make_table):
    asked = []
    batches = decode_batches(make_table(), (24, 24), (asked.append(rows) or rows for rows in BATCHES))
    next(batches)
    assert len(asked) == 2
    batches.close()


def test_the_memory_limit_decides(make_table):
    table = make_table()
    needed = 6 * 3 * 24 * 24
    assert hold(table, memory_limit=needed) is not None
    assert hold(table, memory_limit=needed - 1) is None


def test_in_memory_corrupt_images_are_left_out_counted_and_named(make_table, caplog):
    table = make_table(8, bad=(2, 5))
    with caplog.at_level(logging.WARNING):
        store = hold(table, max_bad_fraction=0.25)
    assert store.rows.tolist() == [0, 1, 3, 4, 6, 7]
    assert [(b.row, b.name) for b in store.bad] == [(2, "002.png"), (5, "005.png")]
    (message,) = caplog.messages
    assert message == (
        f"{table.path}: left out 2 of 8 images that cannot be read: "
        "002.png: not an image that Pillow can read; 005.png: not an image that Pillow can read"
    )
    (batch,) = store.batches([np.arange(6)])
    assert batch.sizes.tolist() == [list(SIZES[row % 6]) for row in store.rows]


@pytest.mark.parametrize("bad, count", [((0,), 8), ((0, 1), 2)])
def test_in_memory_too_many_corrupt_images(make_table, bad, count):
    table = make_table(count, bad=bad)
    with pytest.raises(UserError) as caught:
        hold(table, max_bad_fraction=0.1 if count > 2 else 1.0)
    assert str(caught.value).startswith(f"{table.path}: {len(bad)} of {count} images cannot be read")
    assert str(caught.value).endswith("the first is 000.png: not an image that Pillow can read")


def test_the_progress_bar_is_on_stderr_and_can_be_off(make_table, capsys):
    table = make_table()
    open_store(table, 16, progress=False)
    assert capsys.readouterr() == ("", "")
    open_store(table, 16)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err


FEW = [np.array([3, 0]), np.array([2, 2, 1])]


@pytest.fixture
def table(write_images):
    return open_images(write_images({f"{n}.png": n for n in range(4)}))


def native(table, **options):
    return open_store(table, 8, progress=False, **options)


def test_on_a_cpu_nothing_changes(table):
    plain, asked = native(table), native(table, device="cpu")
    for one, other in zip(plain.batches(FEW), asked.batches(FEW), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert asked.ahead == 0


@pytest.mark.parametrize("share, moves", [(0.5, True), (0.49, False)])
def test_small_stores_move_and_large_ones_stay(table, monkeypatch, share, moves):
    """On the device of torch that holds no numbers: places and shapes are all that it tells."""
    need = 4 * 3 * 6 * 8
    monkeypatch.setattr(module, "free_memory", lambda device: 2 * need)
    monkeypatch.setattr(module, "_DEVICE_SHARE", share)
    store = native(table, device="meta")
    for indices, batch in zip(FEW, store.batches(FEW), strict=True):
        assert batch.images.device.type == ("meta" if moves else "cpu")
        assert batch.images.shape == (len(indices), 3, 6, 8)
        assert (batch.sizes.device.type, batch.indices.device.type) == ("cpu", "cpu")
        assert batch.sizes.tolist() == [[6, 8]] * len(indices)
        assert batch.indices.tolist() == indices.tolist()


def test_a_device_that_tells_no_memory_holds_nothing(table):
    assert free_memory(torch.device("mps")) == free_memory(torch.device("cpu")) == 0
    assert next(native(table, device="mps").batches(FEW)).images.device.type == "cpu"


def test_batches_gathered_ahead_are_the_same_in_the_same_order(table):
    store, plain = native(table), native(table)
    store.ahead = 3
    orders = [np.random.default_rng(n).integers(0, 4, 5) for n in range(20)]
    for one, other in zip(store.batches(orders), plain.batches(orders), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert list(store.batches([])) == []


def test_positions_are_drawn_no_further_than_needed(table):
    store = native(table)
    store.ahead = 3
    drawn = []
    batches = store.batches(drawn.append(n) or [n % 4] for n in range(100))
    next(batches)
    assert drawn == [0, 1, 2]
    batches.close()
    assert drawn == [0, 1, 2]


def test_an_error_while_gathering_ahead_is_the_callers(table):
    store = native(table)
    store.ahead = 2
    with pytest.raises(IndexError):
        list(store.batches([[0], [99]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_cuda_batches_without_host_synchronisation(table, share, monkeypatch):
    expected = list(native(table).batches(FEW))
    monkeypatch.setattr(module, "_DEVICE_SHARE", share)
    store = native(table, device="cuda")
    list(store.batches(FEW))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [(b, b.images.to("cuda", non_blocking=True)) for b in store.batches(FEW)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (batch, images), other in zip(batches, expected, strict=True):
        assert batch.images.is_cuda == bool(share)
        assert share or batch.images.is_pinned()
        assert torch.equal(images.cpu(), other.images)
