"""Every perturbation on asymmetric images, held to scipy.ndimage or to hand-computed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from sutura.calibration.affine import NINE, Affine, matrix, transform
from sutura.calibration.corruption import CORRUPTIONS
from sutura.calibration.words import swap_words, word_swap


def image(height=9, width=12, seed=0):
    """No symmetry anywhere: a ramp that differs along rows and columns, with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(0.05 * np.arange(height), 0.02 * np.arange(width))
    return (0.6 * ramp + 0.4 * rng.random((height, width))).astype(np.float32)


def moved(picture, **by):
    return transform(picture[None, None], Affine(**by))[0, 0]


def close(a, b):
    return np.allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("pixels", [2.0, 3.5, 18.0])
def test_shift_x_moves_rows_and_shift_y_columns(pixels):
    picture = image()
    along_rows = ndimage.shift(picture, (-pixels, 0), order=1, mode="nearest")
    along_columns = ndimage.shift(picture, (0, -pixels), order=1, mode="nearest")
    assert close(moved(picture, shift_x=pixels), along_rows)
    assert close(moved(picture, shift_y=pixels), along_columns)
    assert not close(along_rows, along_columns)


def test_shift_by_whole_pixels_by_hand():
    picture = image()
    up = moved(picture, shift_x=2)
    assert close(up[:-2], picture[2:])
    assert close(up[-1], picture[-1])


@pytest.mark.parametrize("degrees", [10.0, 45.0, 90.0, -30.0])
def test_rotation_is_that_of_ndimage(degrees):
    picture = image()
    assert close(
        moved(picture, rotation=degrees),
        ndimage.rotate(picture, -degrees, reshape=False, order=1, mode="nearest"),
    )


def test_a_quarter_turn_by_hand():
    picture = image(9, 9)
    assert close(moved(picture, rotation=90.0), np.rot90(picture, -1))
    assert not close(moved(picture, rotation=90.0), np.rot90(picture, 1))


@pytest.mark.parametrize("factor", [0.9, 0.5, 0.1])
def test_zoom_reads_the_middle(factor):
    picture = image()
    rows = (np.arange(9) - 4) * factor + 4
    columns = (np.arange(12) - 5.5) * factor + 5.5

    def read(at_rows, at_columns):
        places = np.meshgrid(at_rows, at_columns, indexing="ij")
        return ndimage.map_coordinates(picture, places, order=1, mode="nearest")

    assert close(moved(picture, zoom_x=factor), read(rows, np.arange(12)))
    assert close(moved(picture, zoom_y=factor), read(np.arange(9), columns))
    assert close(moved(picture, zoom_x=factor, zoom_y=factor), read(rows, columns))


@pytest.mark.parametrize("degrees", [10.0, 60.0, 90.0])
def test_shear_leans_rows_along_columns(degrees):
    picture, lean = image(), math.radians(degrees)
    row, column = np.meshgrid(np.arange(9) - 4, np.arange(12) - 5.5, indexing="ij")
    places = [row - math.sin(lean) * column + 4, math.cos(lean) * column + 5.5]
    assert close(
        moved(picture, shear=degrees), ndimage.map_coordinates(picture, places, order=1, mode="nearest")
    )


def test_all_at_once_is_rotation_after_shift_after_shear_after_zoom():
    by = Affine(rotation=20, shift_x=1.5, shift_y=-2, shear=15, zoom_x=0.8, zoom_y=0.6)
    picture, place, middle = image(), matrix(by), np.array([4, 5.5])
    offset = middle - place[:2, :2] @ middle + place[:2, 2]
    told = ndimage.affine_transform(picture, place[:2, :2], offset, order=1, mode="nearest")
    assert close(transform(picture[None, None], by)[0, 0], told)


@pytest.mark.parametrize("shift", NINE, ids=lambda s: s.name)
def test_the_protocol_has_ten_strengths_and_starts_at_none(shift):
    pictures = np.stack([image(seed=s) for s in range(3)])[:, None]
    assert len(shift.strengths) == 10
    first, last = (shift.perturb(pictures, shift.strengths[k], 0) for k in (0, -1))
    assert close(first, pictures)
    assert first.dtype == np.float32
    assert first.shape == pictures.shape
    assert np.abs(last - pictures).mean() > 0.05


def test_images_of_a_batch_and_channels_do_not_touch():
    pictures = np.stack([[image(seed=s), image(seed=s + 10)] for s in range(2)])
    together = transform(pictures, Affine(rotation=33.0))
    for index in np.ndindex(2, 2):
        assert np.array_equal(together[index], moved(pictures[index], rotation=33.0))


def test_strengths_are_those_of_the_release():
    told = {shift.name: (shift.strengths[1], shift.strengths[-1]) for shift in NINE}
    assert told["rotation left"] == (10.0, 90.0)
    assert told["shift xy"] == (2.0, 18.0)
    assert told["shear"] == (10.0, 90.0)
    assert told["zoom y"] == (0.9, 0.1)


@pytest.mark.parametrize("shift", CORRUPTIONS, ids=lambda s: s.name)
def test_corruptions_repeat_grow_and_stay_in_range(shift):
    pictures = np.stack([np.stack([image(12, 9, seed=3 * k + c) for c in range(3)]) for k in range(4)])
    changed = [shift.perturb(pictures, strength, 5) for strength in shift.strengths]
    assert np.array_equal(changed[0], shift.perturb(pictures, shift.strengths[0], 5))
    assert all(c.dtype == np.float32 and c.min() >= 0 and c.max() <= 1 for c in changed)
    distances = [np.abs(c - pictures).mean() for c in changed]
    assert distances[0] > 0
    assert distances[-1] > 1.3 * distances[0]


def corrupted(name, strength, pictures):
    return next(s for s in CORRUPTIONS if s.name == name).perturb(pictures, strength, 0)


def test_blur_is_separable_and_leaves_channels_apart():
    picture = np.zeros((1, 2, 11, 7), np.float32)
    picture[0, 0, 5, 2] = 1
    blurred = corrupted("gaussian blur", 1.0, picture)
    taps = np.exp(-(np.arange(-4, 5.0) ** 2) / 2)
    taps /= taps.sum()
    assert blurred[0, 1].max() == 0
    assert close(blurred[0, 0, 1:10, 3], taps * taps[5])
    assert blurred[0, 0, 5, 0] > blurred[0, 0, 5, 5]


def test_contrast_and_brightness_by_hand():
    picture = np.array([0.2, 0.4, 0.6, 0.0]).astype(np.float32).reshape(1, 1, 2, 2)
    assert close(corrupted("contrast", 0.5, picture).ravel(), [0.25, 0.35, 0.45, 0.15])
    colours = np.array([[0.5, 0.0], [0.25, 0.0], [0.1, 0.0]], np.float32).reshape(1, 3, 1, 2)
    assert close(corrupted("brightness", 0.1, colours).ravel(), [0.6, 0.1, 0.3, 0.1, 0.12, 0.1])


def test_impulses_hit_the_share_asked_for():
    picture = np.full((20, 1, 50, 50), 0.5, np.float32)
    changed = corrupted("impulse noise", 0.07, picture)
    assert set(np.unique(changed)) == {0.0, 0.5, 1.0}
    assert (changed != 0.5).mean() == pytest.approx(0.07, abs=0.006)


def test_words_give_way_and_gaps_stay():
    tokens = np.tile(np.array([5, 6, 7, 0, 0], np.float32), (4000, 1))
    swapped = swap_words(tokens, 0.3, 1000, 1)
    assert (swapped[:, 3:] == 0).all()
    assert (swapped[:, :3] != tokens[:, :3]).mean() == pytest.approx(0.3, abs=0.02)
    assert swapped.max() < 1000
    assert swapped[:, :3].min() >= 1
    assert np.array_equal(swap_words(tokens, 0.0, 1000, 1), tokens)
    assert word_swap(1000).strengths == (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
