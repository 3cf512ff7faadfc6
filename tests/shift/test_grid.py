"""Grids, roundings and codes against hand-computed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sutura.errors import ShiftError
from sutura.shift.grid import BITS, Grid, decoded, encoded, log_rounded, nearest, ps_grid, ps_weight, q_grid

RANGES = {  # the published ranges of exponents: bits -> Q, PS
    5: (-15, -14), 4: (-7, -6), 3: (-3, -2), 2: (-1, 0),
}  # fmt: skip
GRIDS = [make(bits) for bits in BITS for make in (q_grid, ps_grid)]


def f32(*values):
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("bits", BITS)
def test_ranges_are_the_published_ones(bits):
    assert (q_grid(bits).lowest, ps_grid(bits).lowest) == RANGES[bits]


@pytest.mark.parametrize("bits", [1, 6, 0, -2])
def test_other_widths_are_refused(bits):
    with pytest.raises(ShiftError, match=f"weights of {bits} bits are not offered; give 2, 3, 4 or 5"):
        q_grid(bits)


@pytest.mark.parametrize("grid", GRIDS)
def test_every_code_means_another_number_and_comes_back(grid):
    codes = np.arange(2**grid.bits, dtype=np.uint8)
    values = decoded(codes, grid)
    assert (encoded(values, grid) == codes).all()
    expected = {s * 2.0**p for s in (-1, 1) for p in range(grid.lowest, 1)} | ({0.0} if grid.zero else set())
    assert set(values.tolist()) == expected
    assert len(expected) == 2**grid.bits - grid.zero


def test_the_codes_of_two_bits_by_hand():
    assert decoded(np.arange(4, dtype=np.uint8), q_grid(2)).tolist() == [0.5, 1.0, -0.5, -1.0]
    ternary = decoded(np.arange(4, dtype=np.uint8), ps_grid(2))
    assert ternary.tolist() == [0.0, 1.0, -0.0, -1.0]
    assert np.signbit(ternary).tolist() == [False, False, True, True]


def test_the_field_of_five_bits_with_zero_is_the_exponent_of_a_half_precision_number():
    grid = ps_grid(5)
    codes = np.arange(32, dtype=np.uint16)
    half = ((codes >> 4) << 15 | (codes & 15) << 10).astype(np.uint16).view(np.float16)
    values = decoded(codes.astype(np.uint8), grid)
    assert values.tobytes() == half.astype(np.float32).tobytes()


@pytest.mark.parametrize("p", range(-15, 0))
def test_log_rounding_turns_at_the_square_root_of_two(p):
    below = np.float32(np.sqrt(2) * 2.0**p)  # float32 rounds sqrt(2) down
    above = np.nextafter(below, np.float32(2))
    for sign in (1, -1):
        got = log_rounded(sign * f32(below, above), q_grid(5))
        assert got.tolist() == [sign * 2.0**p, sign * 2.0 ** (p + 1)]
    assert float(above) > np.sqrt(2) * 2.0**p > float(below)
    assert nearest(f32(1.5 * 2.0**p), q_grid(5))[0] == 2.0 ** (p + 1)


def test_log_rounding_by_hand():
    w = f32(0.0, -0.0, 3.0, -0.75, 0.7, 0.72, 1e-9, -0.2)
    assert log_rounded(w, q_grid(3)).tolist() == [0, 0, 1, -1, 0.5, 1, 0.125, -0.25]
    assert log_rounded(w, ps_grid(3)).tolist() == [0, 0, 1, -1, 0.5, 1, 0.25, -0.25]
    assert log_rounded(w, ps_grid(2)).tolist() == [0, 0, 1, -1, 1, 1, 1, -1]


def test_ps_rounds_half_to_even():
    sign = f32(0.5, -0.5, 0.51, -0.51, 1.4, 0.0)
    assert ps_weight(f32(-1, -1, -1, -1, -1, -1), sign, ps_grid(4)).tolist() == [0, 0, 0.5, -0.5, 0.5, 0]
    shift = f32(-0.5, -1.5, -2.5, 3.0, -99.0)
    assert ps_weight(shift, np.ones_like(shift), ps_grid(4)).tolist() == [1, 0.25, 0.25, 1, 2.0**-6]


@given(st.floats(-4, 4, width=32), st.sampled_from(GRIDS))
def test_nearest_is_nearest(w, grid):
    values = decoded(np.arange(2**grid.bits, dtype=np.uint8), grid).astype(np.float64)
    assert abs(float(nearest(f32(w), grid)[0]) - w) == np.abs(values - w).min()


@given(st.floats(2.0**-14, 1, width=32), st.sampled_from([-1, 1]))
def test_log_rounding_is_nearest_by_ratio(w, sign):
    got = float(log_rounded(f32(sign * w), q_grid(5))[0])
    assert got * sign > 0
    assert 0.5 <= (got / w) ** 2 <= 2


def test_what_is_not_on_the_grid_is_told():
    with pytest.raises(ShiftError, match="2 exact zeros, for which there is no code"):
        encoded(f32(0, 1, -0.0), q_grid(4))
    for bad in (0.3, 2.0, 2.0**-8, np.nan, np.inf):
        with pytest.raises(ShiftError, match="not on the grid of 4 bits"):
            encoded(f32(bad), Grid(4, False))
