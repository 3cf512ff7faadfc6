"""Data sets: what is read, and every refusal in one line."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from sutura.dataset import read_dataset
from sutura.errors import DataError

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_samples_and_labels(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=np.array([0, 2, 1], np.uint8))
    data = read_dataset(tmp_path / "d.npz")
    assert data.name == "d.npz"
    assert len(data) == 3
    assert data.x.dtype == np.float32
    assert np.array_equal(data.x, X)
    assert data.y is not None
    assert data.y.dtype == np.int64
    assert data.y.tolist() == [0, 2, 1]


def test_labels_may_be_absent(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=X)
    assert read_dataset(tmp_path / "d.npz").y is None


def test_samples_are_laid_out_as_the_network_takes_them(tmp_path):
    np.savez(tmp_path / "d.npz", x=X)
    assert np.array_equal(read_dataset(tmp_path / "d.npz", sample=(1, 2, 1)).x, X.reshape(3, 1, 2, 1))
    assert read_dataset(tmp_path / "d.npz", sample=(3,)).x.shape == (3, 2)  # told by whoever takes them


NAN = np.array([[0, 1], [np.nan, 0]], np.float32)
REFUSED = {
    "labels_missing": ({"x": X}, "no array 'y'; it holds x"),
    "x_missing": ({"a": X, "y": np.array([1])}, "no array 'x'; it holds a, y"),
    "nan": ({"x": NAN, "y": np.array([0, 1])}, "NaN or infinities in sample 1"),
    "double": ({"x": X.astype(np.float64), "y": np.arange(3)}, "x is float64"),
    "flat": ({"x": X[0], "y": np.arange(3)}, r"shape \(2,\)"),
    "empty": ({"x": X[:0], "y": np.arange(0)}, r"shape \(0, 2\)"),
    "one_label_short": ({"x": X, "y": np.arange(2)}, "one integer for each of 3"),
    "label_fraction": ({"x": X, "y": np.array([0.5, 1, 2])}, "y is float64"),
    "label_negative": ({"x": X, "y": np.array([0, -1, 2])}, "label -1 of sample 1"),
    "pickled": ({"x": np.array([{}, {}], dtype=object), "y": np.arange(2)}, "plain arrays"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_line(name, tmp_path):
    arrays, told = REFUSED[name]
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=told) as caught:
        read_dataset(tmp_path / "d.npz", labelled=True)
    assert "\n" not in str(caught.value)
    assert "d.npz" in str(caught.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "d.csv").write_text("1,2")
    with pytest.raises(DataError, match="suffix"):
        read_dataset(tmp_path / "d.csv")
    (tmp_path / "d.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"no \.npz archive"):
        read_dataset(tmp_path / "d.npz")


def test_archives_that_would_unpack_too_far_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sutura.dataset.MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(2000))
    with pytest.raises(DataError, match="unpack"):
        read_dataset(tmp_path / "d.npz")
