"""A table of some rows of another."""

import pickle

import numpy as np

from vissl_zoo.data import open_images


def test_rows_labels_and_columns_are_those_chosen(shapes_folder):
    table = open_images(shapes_folder, split="test")
    rows = np.array([31, 4, 4, 0])
    chosen = table.select(rows)
    assert len(chosen) == 4
    assert chosen.labels.tolist() == table.labels[rows].tolist()
    assert chosen.column("ambiguity").tolist() == table.column("ambiguity")[rows].tolist()
    assert all(chosen.read(i).tobytes() == table.read(row).tobytes() for i, row in enumerate(rows))
    assert chosen.select(np.array([1])).read(0).tobytes() == table.read(4).tobytes()
    assert len(table) == 40


def test_fingerprints_tell_selections_apart(shapes_folder):
    table = open_images(shapes_folder, split="test")
    assert table.fingerprint
    selections = [np.arange(5), np.arange(6), np.arange(5)[::-1]]
    prints = [table.select(rows).fingerprint for rows in selections] + [
        table.fingerprint,
        table.select(np.arange(6)).select(np.arange(5)).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert table.select(np.arange(5)).fingerprint == prints[0]
    assert pickle.loads(pickle.dumps(table.select(np.arange(5)))).fingerprint == prints[0]
