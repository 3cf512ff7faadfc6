"""Data sets: `.npz` files with `x` (float32, batch axis first) and, for labelled ones, `y` (integers)."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from sutura.errors import DataError

MAX_BYTES = 8 * 2**30
"""The most bytes that the arrays of one file may unpack to."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples, batch first, and their labels where they have any; `name` is that of the file."""

    name: str
    x: Float32[np.ndarray, "batch *sample"]
    y: Int64[np.ndarray, " batch"] | None

    def __len__(self) -> int:
        return len(self.x)


def read_dataset(path: Path, *, labelled: bool = False, sample: tuple[int, ...] | None = None) -> Dataset:
    """Read a `.npz` file without ever unpickling.

    Samples of as many numbers as `sample` (the shape that a network takes) are laid out so, row by row.
    Raises DataError, in one line, where the file is no archive of plain arrays, lacks `x` (or `y` where
    `labelled`), is empty, holds NaN or infinities, has labels that are not one integer >= 0 a sample, or
    would unpack to more than MAX_BYTES.
    """
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path.name} is no data set by its suffix; give a .npz file with x and y")
    _within_budget(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("x", "y") if name in archive.files}
            held = ", ".join(sorted(archive.files)) or "nothing"
    except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{path.name} cannot be read as plain arrays: {' '.join(str(error).split())}"
        ) from None
    missing = [name for name in ("x", *("y" * labelled)) if name not in arrays]
    if missing:
        raise DataError(f"{path.name} has no array '{missing[0]}'; it holds {held}")
    x = _samples(path.name, arrays["x"])
    if sample is not None and x[0].size == math.prod(sample):
        x = x.reshape(len(x), *sample)
    return Dataset(path.name, x, _labels(path.name, arrays["y"], len(x)) if "y" in arrays else None)


def _within_budget(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise DataError(
            f"{path.name} is no .npz archive; write it with numpy.savez(path, x=..., y=...)"
        ) from None
    if size > MAX_BYTES:
        raise DataError(f"{path.name} would unpack to {size:,} bytes; at most {MAX_BYTES:,} are read")


def _samples(name: str, x: np.ndarray) -> Float32[np.ndarray, "batch *sample"]:
    if x.ndim < 2 or not x.size:
        raise DataError(f"{name}: x has shape {x.shape}; give at least one sample, batch axis first")
    if x.dtype != np.float32:
        raise DataError(f"{name}: x is {x.dtype}; give float32, scaled as the network takes it")
    if not np.isfinite(x).all():
        raise DataError(f"{name}: x holds NaN or infinities in sample {_first_bad(x)}")
    return x


def _first_bad(x: np.ndarray) -> int:
    return int(np.argmin(np.isfinite(x.reshape(len(x), -1)).all(axis=1)))


def _labels(name: str, y: np.ndarray, count: int) -> Int64[np.ndarray, " batch"]:
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise DataError(
            f"{name}: y is {y.dtype} of shape {y.shape}; give one integer for each of {count} samples"
        )
    if y.min() < 0 or y.max() > np.iinfo(np.int64).max:
        raise DataError(
            f"{name}: label {y.min()} of sample {int(np.argmin(y))} is negative; labels start at 0"
        )
    return y.astype(np.int64)
