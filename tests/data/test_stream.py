"""A stream is checked against plain arithmetic on the images themselves: each carries its number as its colour."""

import itertools
import logging
import signal
import threading
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pytest
import torch
from datasets import Features, Image, IterableDataset

from vissl_zoo.data import ImageStream, ImageTable, canvas_size, open_images, open_store, open_stream, sources
from vissl_zoo.data.shapes import shapes
from vissl_zoo.errors import UserError

IMAGE = Features(img=Image())
SHARDS = (17, 3, 40, 1, 29)  # rows of the parquet files: 90


@pytest.fixture
def numbered(encode):
    """numbered(17) -> a PNG that is 17 all over."""
    return lambda number: encode(np.full((4, 5, 3), number, dtype=np.uint8))


@pytest.fixture
def write_shards(tmp_path, numbered, write_parquet):
    """write_shards((rows, ...), bad=(...)) -> a folder of parquet files; the images at `bad` are corrupt."""

    def write_shards(shards=SHARDS, bad=()) -> Path:
        numbers = itertools.count()
        for shard, rows in enumerate(shards):
            mine = list(itertools.islice(numbers, rows))
            pictures = [b"rubbish %d" % n if n in bad else numbered(n) for n in mine]
            write_parquet(tmp_path / "shards" / f"{shard}.parquet", pictures, [0] * rows)
        return tmp_path / "shards"

    return write_shards


def stream(path, image_size: int = 8, **options):
    return open_stream(path, image_size, **{"buffer": 20, "workers": 2} | options)


def numbers(batch) -> list[int]:
    """The numbers that the images of a batch carry."""
    flat = batch.images.flatten(1)
    assert (flat == flat[:, :1]).all()
    return flat[:, 0].tolist()


def take(opened, count: int, batch_size: int = 12, **options) -> list[list[int]]:
    """The numbers in the first `count` batches."""
    batches = opened.batches(batch_size, **options)
    taken = [numbers(batch) for batch in itertools.islice(batches, count)]
    batches.close()
    return taken


def flat(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain(*batches))


def one_line(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["parquet", "folder", "table"])
def ninety(request, write_shards, write_images, numbered) -> Path | ImageTable:
    """90 numbered images, streamed from uneven shards, or known from a list of files or a table."""
    if request.param == "parquet":
        return write_shards()
    if request.param == "table":
        table = open_images(write_shards((97,)))
        return table.select(np.arange(90))
    return write_images({f"{n:03}.png": numbered(n) for n in range(90)})


def test_a_batch(write_images, picture):
    folder = write_images({"a.png": picture(1, 6, 8), "b.png": picture(2, 6, 8)})
    opened = stream(folder)
    batches = opened.batches(2)
    batch = next(batches)
    batches.close()
    assert (opened.canvas, opened.length, opened.bad) == ((6, 8), 2, [])
    assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (2, 3, 6, 8))
    assert (batch.sizes.dtype, batch.sizes.tolist()) == (torch.int64, [[6, 8]] * 2)
    assert (batch.indices.dtype, batch.indices.tolist()) == (torch.int64, [0, 1])
    table = open_images(folder)
    expected = {np.asarray(table.read(row)).transpose(2, 0, 1).tobytes() for row in range(2)}
    assert {image.numpy().tobytes() for image in batch.images} == expected


@pytest.mark.parametrize("sizes", [[(6, 8)] * 3, [(6, 8), (40, 30)]])
def test_canvas_and_sizes_are_those_of_indexed_data(tmp_path, picture, write_parquet, sizes):
    path = write_parquet(tmp_path / "x.parquet", [picture(1, *size) for size in sizes], [0] * len(sizes))
    opened = stream(path)
    assert opened.canvas == canvas_size(open_images(path), 8)
    batches = opened.batches(len(sizes))
    assert sorted(next(batches).sizes.tolist()) == sorted(map(list, sizes))
    batches.close()


def test_no_image_comes_twice_in_a_pass(ninety):
    batches = take(stream(ninety), 14)  # two passes of 7 batches; 6 images of each pass are left out
    for one_pass in (flat(batches[:7]), flat(batches[7:])):
        assert len(set(one_pass)) == len(one_pass) == 84
        assert set(one_pass) <= set(range(90))


def test_passes_are_shuffled_each_in_its_own_way(ninety):
    batches = take(stream(ninety), 14)
    first, second = flat(batches[:7]), flat(batches[7:])
    for order in (first, second):
        assert abs(np.corrcoef(order, np.arange(84))[0, 1]) < 0.9
    assert np.mean(np.array(first) == second) < 0.2
    assert len(set(first) ^ set(second)) > 0  # those left out differ too


def test_the_order_follows_from_the_seed_alone(ninety):
    order = take(stream(ninety, seed=3), 9)
    assert take(stream(ninety, seed=3, workers=1), 9) == order
    assert take(stream(ninety, seed=4), 9) != order


def test_processes_see_together_what_one_sees(ninety):
    alone = take(stream(ninety), 9)
    for processes in (2, 3):
        shares = [take(stream(ninety), 9, rank=rank, processes=processes) for rank in range(processes)]
        assert [flat(parts) for parts in zip(*shares, strict=True)] == alone


def test_positions_count_within_the_pass(ninety):
    batches = stream(ninety).batches(12, rank=1, processes=3)
    positions = [batch.indices.tolist() for batch in itertools.islice(batches, 8)]
    batches.close()
    assert positions == [list(range(12 * n + 4, 12 * n + 8)) for n in (*range(7), 0)]


def test_start_skips_exactly_and_decodes_nothing_on_the_way(ninety, monkeypatch):
    whole, decoded = take(stream(ninety), 34), []
    open_one = ImageStream._open
    monkeypatch.setattr(ImageStream, "_open", lambda *args: decoded.append(1) or open_one(*args))
    for start in (1, 6, 7, 13, 30):
        opened = stream(ninety)
        decoded.clear()
        assert take(opened, 3, start=start) == whole[start : start + 3]
        assert len(decoded) <= 12 * (3 + 4 + 1)
        if start in (7, 30):  # now that the length is known
            assert take(opened, 3, start=start) == whole[start : start + 3]


def test_a_small_buffer_keeps_what_it_draws_from(write_shards):
    order = flat(take(stream(write_shards((90,)), buffer=1), 7))
    # A buffer of one draws nothing: only shards, here row groups or the one file, change places.
    assert order == sorted(order)
    assert flat(take(stream(write_shards((90,)), buffer=1000), 7)) != order


def test_corrupt_images_are_replaced_alike_on_every_layout(write_shards, caplog):
    bad = (5, 17, 18, 60)
    whole = take(stream(write_shards()), 21)
    folder = write_shards(bad=bad)
    opened = stream(folder, max_bad_fraction=0.2)
    with caplog.at_level(logging.WARNING):
        alone = take(opened, 21)
    # the others keep their places
    for batch, expected in zip(alone, whole, strict=True):
        assert set(batch) <= set(expected)
        assert all(a == b for a, b in zip(batch, expected, strict=True) if b not in bad)
        assert not set(batch) & set(bad)
    assert len(opened.bad) == len(bad)  # each once, in three passes
    assert opened.bad[0].name.startswith("image ")
    assert any("left out 4 of 90 images that cannot be read" in message for message in caplog.messages)
    shares = [take(stream(folder, max_bad_fraction=0.2), 21, rank=rank, processes=3) for rank in range(3)]
    assert [flat(parts) for parts in zip(*shares, strict=True)] == alone
    for start in (6, 15):
        assert take(stream(folder, max_bad_fraction=0.2), 4, start=start) == alone[start : start + 4]


def test_a_stand_in_says_where_it_comes_from(write_shards):
    folder = write_shards((24,), bad=(7,))
    batches = stream(folder, max_bad_fraction=0.5).batches(12)
    found = [next(batches) for _ in range(2)]
    batches.close()
    order = flat(take(stream(write_shards((24,))), 2))
    for batch in found:
        assert numbers(batch) == [order[position] for position in batch.indices]
    places = np.concatenate([batch.indices for batch in found])
    (moved,) = np.flatnonzero(places != np.arange(24))
    assert order[moved] == 7
    assert places[moved] in (set(range(4, 12)) if moved < 12 else set(range(16, 24)))  # the end of its batch


def test_too_many_corrupt_images(write_shards):
    folder = write_shards((120,), bad=(3, 40, 80))
    message = one_line(take, stream(folder), 30)
    assert message.startswith(f"{folder}: ")
    assert message.endswith("not an image that Pillow can read")
    assert " images cannot be read (at most 1.00% may be corrupt); the first is image " in message
    assert flat(take(stream(folder, max_bad_fraction=0.03), 30))


def test_nothing_can_stand_in(write_images, numbered):
    folder = write_images({"a.png": numbered(1), "b.png": b"rubbish"})
    message = one_line(take, stream(folder), 2, batch_size=1)
    what = "b.png: not an image that Pillow can read; no image of its batch can stand in for it"
    assert message == f"{folder}: {what}"


def test_fewer_images_than_a_batch(ninety):
    message = one_line(take, stream(ninety), 1, batch_size=91)
    path = ninety.path if isinstance(ninety, ImageTable) else ninety
    assert message == f"{path}: a batch of 91 images is larger than the data set (90 images)"
    assert sorted(flat(take(stream(ninety), 1, batch_size=90))) == list(range(90))


def test_what_cannot_be_opened(tmp_path, write_shards):
    folder = write_shards()
    assert one_line(stream, tmp_path / "missing").startswith(
        f"{tmp_path}/missing: neither a file nor a folder"
    )
    assert one_line(stream, folder, split="extra") == f'{folder}: no split "extra"; it has train'
    assert one_line(stream, folder, image_column="i").startswith(
        f'{folder}: no image column "i"; the columns'
    )
    assert one_line(stream, folder, image_column="label").startswith(f'{folder}: column "label" holds')
    assert one_line(stream, "nobody/nothing").startswith(
        "nobody/nothing: neither a file nor a folder here, nor a Hub data set that could be loaded "
        "(offline: HF_HUB_OFFLINE is set): "
    )


def test_a_file_that_is_damaged_inside(tmp_path, picture, write_parquet):
    path = write_parquet(tmp_path / "x.parquet", [picture(n) for n in range(50)], [0] * 50)
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)  # the first data page; the footer is whole
    path.write_bytes(content)
    assert one_line(stream, path).startswith(f"{path}: cannot be read (")


@pytest.mark.parametrize(
    "options",
    [{"buffer": 0}, {"workers": -1}, {"seed": -1}],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="must be positive, workers"):
        stream("never opened", **options)


@pytest.mark.parametrize(
    "batch_size, options",
    [(0, {}), (12, {"rank": 1}), (12, {"processes": 5}), (12, {"rank": -1}), (12, {"start": -1})],
)
def test_shares_that_do_not_fit(write_images, batch_size, options):
    opened = stream(write_images({"a.png": 1}))
    with pytest.raises(ValueError, match="cannot share"):
        opened.batches(batch_size, **options)  # at once, not at the first batch


@pytest.fixture
def hub(monkeypatch):
    """hub(value, ...) -> the stream of a Hub data set org/n of 30 images in ten shards; value(n) is the n-th."""

    def hub(value, features=IMAGE, rows: int = 3, **options):
        def read(shards):
            for shard in shards:
                for n in range(rows * shard, rows * (shard + 1)):
                    yield {"img": value(n)}

        def load_dataset(*name, split, streaming=False):
            assert (name, split, streaming) == (("org/n",), "train", True)
            return IterableDataset.from_generator(
                read, features=features, gen_kwargs={"shards": list(range(10))}
            )

        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *name: ["train"])
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return stream("org/n", **options)

    return hub


@pytest.mark.parametrize("features", [IMAGE, None])
def test_a_hub_data_set(hub, numbered, features):
    opened = hub(lambda n: {"bytes": numbered(n), "path": None}, features)
    batches = take(opened, 10, batch_size=6)
    assert [sorted(flat(batches[:5])), sorted(flat(batches[5:]))] == [list(range(30))] * 2
    assert batches[:5] != batches[5:]
    assert opened.length == 30


def test_files_that_a_hub_data_set_only_names(hub, numbered):
    memory = fsspec.filesystem("memory")
    for n in range(30):
        memory.pipe(f"/n/{n}.png", numbered(n) if n != 8 else b"rubbish")
    opened = hub(lambda n: {"bytes": None, "path": f"memory://n/{n}.png"}, max_bad_fraction=0.1)
    assert len(set(flat(take(opened, 5, batch_size=6))) - {8}) == 29
    assert [image.name for image in opened.bad] == ["memory://n/8.png"]


def test_a_stream_that_breaks_off(hub, numbered):
    reads = itertools.count()

    def value(n):
        if next(reads) > 100:  # after it was opened, and some batches
            raise ConnectionError("the connection\nbroke")
        return {"bytes": numbered(n), "path": None}

    opened = hub(value)
    batches = opened.batches(6)
    assert next(batches).images.shape[0] == 6
    message = one_line(lambda: list(itertools.islice(batches, 20)))
    assert message == "org/n: the data cannot be read (the connection broke)"
    assert not threads()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("stream-")}


def test_leaving_ends_all_threads(ninety):
    batches = stream(ninety).batches(12)
    next(batches)
    assert threads()
    batches.close()
    assert not threads()


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt; a test run in the background of a shell has it ignored, and would not end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_wait_for_the_buffer_to_fill(hub, numbered):
    encoded = {"bytes": numbered(1), "path": None}
    batches = hub(lambda n: encoded, rows=10**9, buffer=10**9).batches(6)
    main = threading.main_thread().ident
    threading.Timer(0.3, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    assert not threads()


def test_the_embedded_data(monkeypatch):
    monkeypatch.setattr(sources, "_draw_shapes", lambda split: shapes(split, count=200))
    opened = stream("shapes", 32, split="test")
    assert (opened.length, opened.canvas) == (200, (32, 32))
    batches = opened.batches(64)
    batch = next(batches)
    batches.close()
    assert len({image.numpy().tobytes() for image in batch.images}) == 64


def test_a_table_comes_in_the_order_of_a_store_that_is_asked_for_it(write_images, picture):
    """So that a training goes the same way whether its images fit in memory or not."""
    table = open_images(write_images({f"{n}.png": picture(n, 6 + n, 20) for n in range(10)}))
    store, opened = open_store(table, 8, progress=False), stream(table, seed=5)
    order = np.concatenate([np.random.default_rng([5, number]).permutation(10)[:8] for number in range(2)])
    batches = opened.batches(4)
    for expected, batch in zip(store.batches(order.reshape(-1, 4)), batches, strict=False):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.sizes, expected.sizes)
    batches.close()
    assert (len(opened), opened.canvas) == (len(store), store.canvas)


def test_corrupt_images_of_a_table_are_named(write_shards):
    table = open_images(write_shards(bad=(17,)))
    opened = stream(table, max_bad_fraction=0.5)
    assert 17 not in flat(take(opened, 7))
    assert [str(image) for image in opened.bad] == ["row 17: not an image that Pillow can read"]


def test_a_stream_has_a_length_when_a_pass_has_been_read(write_shards):
    opened = stream(write_shards())
    with pytest.raises(TypeError, match="no length"):
        len(opened)
    take(opened, 8)
    assert len(opened) == 90
