"""The memory-mapped store: equal to the one in memory, made once, by one process, whole or not at all."""

import logging
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from vissl_zoo.data import cache_folder, canvas_cache, open_images, open_store
from vissl_zoo.errors import UserError

SIZES = [(6, 8), (12, 8), (40, 60), (6, 9), (30, 20), (5, 5)]
BATCHES = [
    np.array([3, 0]),
    np.array([5]),
    np.array([1, 1, 2, 4]),
    np.array([0]),
    np.array([2]),
    np.array([4, 5]),
]
NEED = 6 * 3 * 24 * 24  # bytes of six canvases


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "canvases"


@pytest.fixture
def make_table(write_images, picture):
    def make_table(count=6, bad=(), folder="pictures"):
        files = {f"{n:03}.png": picture(n, *SIZES[n % 6]) for n in range(count)}
        return open_images(write_images(files | {f"{n:03}.png": b"rubbish" for n in bad}, folder))

    return make_table


def open_map(table, **options):
    defaults = {"memory_limit": 0, "disk_limit": 2**30, "progress": False, "workers": 2}
    return open_store(table, 16, **defaults | options)


def kind(store) -> str:
    """Where the canvases of a store are."""
    if store is None:
        return "nowhere"
    return "map" if store.ahead else "memory"


def maps(cache):
    return sorted(path for path in cache.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("bad", [(), (2, 5)])
def test_batches_equal_those_from_memory(make_table, bad):
    table = make_table(8, bad)
    store, memory = (
        open_map(table, max_bad_fraction=0.3),
        open_store(table, 16, progress=False, max_bad_fraction=0.3),
    )
    assert (kind(store), kind(memory)) == ("map", "memory")
    assert store.rows.tolist() == memory.rows.tolist()
    assert [(b.row, b.name, b.reason) for b in store.bad] == [(b.row, b.name, b.reason) for b in memory.bad]
    ours, theirs = (list(s.batches(iter(BATCHES))) for s in (store, memory))
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_images_are_decoded_once(make_table, monkeypatch, caplog, cache):
    table = make_table(8, (1,))
    first = open_map(table, max_bad_fraction=0.3)
    monkeypatch.setattr(canvas_cache, "decode_all", lambda *a, **k: pytest.fail("decoded again"))
    with caplog.at_level(logging.WARNING):
        again = open_map(table, max_bad_fraction=0.3)
    assert "left out 1 of 8 images that cannot be read: 001.png" in caplog.text
    assert again.rows.tolist() == first.rows.tolist()
    with pytest.raises(UserError, match=r"1 of 8 images cannot be read .* the first is 001\.png"):
        open_map(table, max_bad_fraction=0.1)
    assert len(maps(cache)) == 1


def test_other_images_rows_splits_and_canvases_have_other_maps(make_table, cache):
    table = make_table()
    open_map(table)
    open_map(table.select(np.array([3, 1])))
    open_map(table.select(np.array([1, 3])))
    open_store(table, 32, memory_limit=0, disk_limit=2**30, progress=False)
    open_map(make_table(5))
    open_map(table.part(":5"))
    assert len(maps(cache)) == 6


@pytest.mark.parametrize(
    "limits, where",
    [
        ({"memory_limit": NEED}, "memory"),
        ({"memory_limit": NEED - 1, "disk_limit": NEED}, "map"),
        ({"memory_limit": NEED - 1, "disk_limit": NEED - 1}, "nowhere"),
        ({"memory_limit": NEED - 1}, "nowhere"),
    ],
)
def test_the_limits_decide(make_table, limits, where):
    store = open_store(make_table(), 16, progress=False, **limits)
    assert kind(store) == where


def test_twice_the_need_must_be_free(make_table, monkeypatch):
    usage = shutil.disk_usage("/")
    for free, where in ((2 * NEED, "map"), (2 * NEED - 1, "nowhere")):
        monkeypatch.setattr(
            canvas_cache.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free)
        )
        assert kind(open_map(make_table(folder=str(free)))) == where


def test_long_unused_maps_make_room(make_table, cache, caplog):
    tables = [make_table(folder=name) for name in "abc"]
    for n, table in enumerate(tables[:2]):
        open_map(table)
        os.utime(max(maps(cache), key=lambda p: p.stat().st_mtime), (n, n))
    kept = open_map(tables[0])  # used now: the other is the oldest
    before = maps(cache)
    with caplog.at_level(logging.WARNING):
        open_map(tables[2], disk_limit=int(2.5 * NEED))
    assert len(maps(cache)) == 2
    assert len(set(maps(cache)) & set(before)) == 1
    assert "to make room" in caplog.text
    assert len(next(kept.batches([[0, 1]])).images) == 2


def test_an_interrupted_map_is_made_anew(make_table, cache, monkeypatch):
    table = make_table()
    real = canvas_cache.decode_all

    def interrupted(table, pixels, **options):
        pixels[:] = 77
        raise KeyboardInterrupt

    monkeypatch.setattr(canvas_cache, "decode_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_map(table)
    assert maps(cache) == []
    monkeypatch.setattr(canvas_cache, "decode_all", real)
    (batch,) = open_map(table).batches([np.arange(6)])
    (expected,) = open_store(table, 16, progress=False).batches([np.arange(6)])
    assert torch.equal(batch.images, expected.images)


def test_what_a_crash_left_is_removed(make_table, cache):
    cache.mkdir(parents=True)
    for name in ("dead", "alive"):
        (cache / f"{name}.unfinished").mkdir()
    with FileLock(cache / "alive.lock"):
        open_map(make_table())
    assert {p.name for p in maps(cache) if p.suffix} == {"alive.unfinished"}


def test_a_folder_that_cannot_be_written_means_no_store(make_table, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert kind(open_map(make_table())) == "nowhere"
    assert "images are decoded on the fly" in caplog.text


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_a_disk_that_fills_up_or_has_no_locks_means_no_store(make_table, cache, monkeypatch):
    """Space is reserved first: a write into a hole of the file, on a full disk, would kill the process."""

    def full(*arguments):
        raise OSError(28, "No space left on device")

    def no_locks(self, *arguments, **keywords):
        raise NotImplementedError("this file system has no locks")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert kind(open_map(make_table())) == "nowhere"
    assert not list(cache.glob("*.unfinished"))
    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", no_locks)
        assert kind(open_map(make_table())) == "nowhere"
    assert kind(open_map(make_table())) == "map"


def open_in_another_process(path: str, log: str, die: bool) -> None:
    real = canvas_cache.decode_all

    def watched(table, pixels, **options):
        with open(log, "a") as file:
            file.write("decoding\n")
        time.sleep(0.5)
        if die:
            os._exit(1)
        return real(table, pixels, **options)

    canvas_cache.decode_all = watched
    (batch,) = open_map(open_images(path)).batches([np.arange(6)])
    with open(log, "a") as file:
        file.write(f"{int(batch.images.long().sum())}\n")


def test_one_process_decodes_and_the_others_wait_also_when_the_first_dies(make_table, tmp_path):
    table, log = make_table(), tmp_path / "log"
    context = multiprocessing.get_context("fork")
    dying = context.Process(target=open_in_another_process, args=(table.path, str(log), True))
    dying.start()
    while not (log.exists() and log.read_text()):
        time.sleep(0.01)
    others = [
        context.Process(target=open_in_another_process, args=(table.path, str(log), False)) for _ in range(2)
    ]
    for process in others:
        process.start()
    for process in (dying, *others):
        process.join(60)
    (expected,) = open_store(table, 16, progress=False).batches([np.arange(6)])
    total = f"{int(expected.images.long().sum())}"
    assert log.read_text().splitlines() == ["decoding", "decoding", total, total]


def test_the_folder_of_the_cache(monkeypatch):
    monkeypatch.delenv("VISSL_ZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/vissl_zoo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vissl_zoo"
