"""The nine image perturbations of FALCON: rotation, shift, shear and zoom about the centre of an image.

Conventions, those of the authors' release under Keras up to 2.8: the matrix rotation @ shift @ shear @ zoom
takes a pixel of the *result* to the place in the original that it is read from; x is the row and y the
column; linear interpolation; beyond the edge the nearest pixel. So a zoom of 0.1 magnifies ten times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from sutura.calibration.shift import Shift

Images = Float32[np.ndarray, "batch *channels height width"]
Matrix = Float64[np.ndarray, "3 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """Degrees, pixels and factors of one perturbation; all at their defaults change nothing."""

    rotation: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    shear: float = 0.0
    zoom_x: float = 1.0
    zoom_y: float = 1.0


def matrix(by: Affine) -> Matrix:
    """From the place in the result to the place in the original, about the centre, homogeneous."""
    turn, lean = math.radians(by.rotation), math.radians(by.shear)
    rotation = np.array(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
    )
    shift = np.array([[1, 0, by.shift_x], [0, 1, by.shift_y], [0, 0, 1]])
    shear = np.array([[1, -math.sin(lean), 0], [0, math.cos(lean), 0], [0, 0, 1]])
    zoom = np.diag([by.zoom_x, by.zoom_y, 1.0])
    return rotation @ shift @ shear @ zoom


def transform(images: Images, by: Affine) -> Images:
    """Perturb every image; its last two axes are rows and columns.

    One sparse matrix holds the four weights of every pixel, and serves all images.
    """
    height, width = images.shape[-2:]
    flat = images.reshape(-1, height * width)
    moved = (_weights(matrix(by), height, width) @ flat.T).T
    return np.ascontiguousarray(moved, dtype=np.float32).reshape(images.shape)


def _weights(place: Matrix, height: int, width: int) -> csr_array:
    """Pixel of the result x pixel of the original -> weight."""
    middle = np.array([height - 1, width - 1]) / 2
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).reshape(-1, 2)
    source = (grid - middle) @ place[:2, :2].T + place[:2, 2] + middle
    source = np.clip(source, 0, [height - 1, width - 1])
    low = np.minimum(np.floor(source).astype(np.int64), [max(height - 2, 0), max(width - 2, 0)])
    part = source - low
    rows, columns, values = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for down, right in product((0, 1), (0, 1)):
        corner = np.minimum(low + np.array([down, right]), [height - 1, width - 1])
        rows.append(np.arange(height * width))
        columns.append(corner[:, 0] * width + corner[:, 1])
        values.append(np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1]))
    size = height * width
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(entries, shape=(size, size))


def _by(parameters: Callable[[float], Affine]) -> Callable[[np.ndarray, float, int], np.ndarray]:
    def perturb(images: np.ndarray, strength: float, seed: int) -> np.ndarray:
        return transform(images, parameters(strength))

    return perturb


TENS = tuple(float(degrees) for degrees in range(0, 100, 10))
TWOS = tuple(float(pixels) for pixels in range(0, 20, 2))
TENTHS = tuple(round(1 - step / 10, 1) for step in range(10))

NINE = (
    Shift("rotation right", TENS, _by(lambda s: Affine(rotation=s))),
    Shift("rotation left", TENS, _by(lambda s: Affine(rotation=-s))),
    Shift("shift x", TWOS, _by(lambda s: Affine(shift_x=s))),
    Shift("shift y", TWOS, _by(lambda s: Affine(shift_y=s))),
    Shift("shift xy", TWOS, _by(lambda s: Affine(shift_x=s, shift_y=s))),
    Shift("shear", TENS, _by(lambda s: Affine(shear=s))),
    Shift("zoom x", TENTHS, _by(lambda s: Affine(zoom_x=s))),
    Shift("zoom y", TENTHS, _by(lambda s: Affine(zoom_y=s))),
    Shift("zoom xy", TENTHS, _by(lambda s: Affine(zoom_x=s, zoom_y=s))),
)
"""The protocol's shifts, ten strengths each; the first strength of each changes nothing."""
