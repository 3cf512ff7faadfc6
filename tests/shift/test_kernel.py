"""Kernels for packed weights against W x: every grid, shapes off the groups, every level of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import ShiftError
from sutura.shift.grid import BITS, Grid, decoded, ps_grid, q_grid
from sutura.shift.integer import products
from sutura.shift.kernel import (
    KERNEL_BATCH,
    LEVELS,
    Decoding,
    Kernels,
    kernels,
    linear,
    panels,
    rounded,
    whole_sums,
)
from sutura.shift.layout import PLACE, codes_of, laid_out
from sutura.shift.native import library
from sutura.shift.pack import Packed

GRIDS = [Grid(bits, zero) for bits in BITS for zero in (False, True)]


def runners():
    """Decoding, and each level from portable C to the machine's best."""
    found = kernels()
    levels = [Kernels(found.library, k) for k in range(found.level + 1)] if isinstance(found, Kernels) else []
    return [Decoding("a test"), *levels]


def matrix(grid, shape, *, scale=True, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << grid.bits, shape).astype(np.uint8)
    return Packed(shape, grid, codes, rng.uniform(0.5, 2, shape[0]).astype(np.float32) if scale else None)


@pytest.fixture
def compiled():
    found = kernels()
    if isinstance(found, Decoding):
        pytest.skip(found.reason)
    return found


def placed(compiled, folder):
    """A cache that already holds the library."""
    folder.mkdir(mode=0o700)
    shutil.copy(compiled.library._name, folder)


def test_the_library_is_built_once_and_is_the_users_alone(compiled):
    held = Path(compiled.library._name)
    assert (held.suffix, held.stat().st_mode & 0o777) == (".so", 0o700)
    assert held.parent.stat().st_mode & 0o022 == 0


def test_the_bytes_by_hand():
    codes = np.zeros((1, 64), np.uint8)
    codes[0, 0], codes[0, 1], codes[0, 8], codes[0, 33] = 0x1F, 0x02, 0x03, 0x14
    held = laid_out(Packed((1, 64), q_grid(5), codes, None))
    fields = np.zeros(32, np.uint8)
    fields[0], fields[2], fields[1] = 0x0F, 0x02 | 0x40, 0x03  # columns 0, 1 and 33, 8
    signs = np.zeros(32, np.uint8)
    signs[0], signs[2] = 0b10000000, 0b01000000
    assert held.fields.tolist() == [fields.tolist()]
    assert held.signs is not None
    assert held.signs.tolist() == [signs.tolist()]
    assert sorted(PLACE) == list(range(32))


def test_memory_is_five_and_four_bits_where_columns_fill_their_blocks():
    for grid in (q_grid(5), ps_grid(4)):
        assert laid_out(matrix(grid, (8, 512), scale=False)).size == 8 * 512 * grid.bits // 8


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(3, 1), (5, 64), (4, 100), (2, 257), (3, 300), (7, 513)])
def test_every_runner_equals_the_plain_product(grid, shape):
    part, rng = matrix(grid, shape), np.random.default_rng(1)
    layout, weight = laid_out(part), part.rows().astype(np.float64)
    assert (codes_of(layout) == part.codes).all()
    bias = rng.normal(size=shape[0]).astype(np.float32)
    for batch in (1, 3, 6, KERNEL_BATCH + 1):
        x = rng.normal(size=(batch, shape[1])).astype(np.float32)
        want = x.astype(np.float64) @ weight.T + bias
        size = np.abs(x).astype(np.float64) @ np.abs(weight).T + np.abs(bias)
        whole, step = rounded(x)
        near = (whole * step[:, None]) @ weight.T + bias
        for using in runners():
            assert (np.abs(linear(layout, x, bias, using=using) - want) <= 1e-5 * size).all()
            got = linear(layout, x, bias, activations="int8", using=using)
            assert (np.abs(got - near) <= 1e-6 * (size + 1)).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_whole_sums_are_those_of_shifted_integers_bit_for_bit(grid):
    part = matrix(grid, (6, 700), seed=2)
    layout = laid_out(part)
    random = np.random.default_rng(3).integers(-127, 128, (5, 700)).astype(np.int8)
    value = decoded(part.codes, grid)
    extreme = np.where(value[:1] < 0, -127, 127).astype(
        np.int8
    )  # all products of row 0 positive, and largest
    for x in (random, extreme, -extreme):
        want = products(x.astype(np.int64), part.codes, grid)
        for using in runners():
            assert (whole_sums(layout, x, using=using) == want).all()


@pytest.mark.parametrize("grid", [q_grid(5), ps_grid(5), q_grid(4), ps_grid(4)])
def test_the_largest_sums_do_not_overflow(grid):
    """Every weight 1 and every activation 127, far beyond what 16 bits or one step of 32 could hold."""
    codes = np.full((1, 40_000), (1 << grid.bits - 1) - 1, np.uint8)
    layout = laid_out(Packed((1, 40_000), grid, codes, None))
    for using in runners():
        for sign in (1, -1):
            x = np.full((1, 40_000), sign * 127, np.int8)
            assert whole_sums(layout, x, using=using).item() == sign * 127 * 40_000 * 2**-grid.lowest


@pytest.mark.parametrize("grid", GRIDS)
def test_panels_are_the_weights_exactly(grid, monkeypatch):
    part = matrix(grid, (9, 130))
    monkeypatch.setattr("sutura.shift.kernel.PANEL", 260)
    for using in runners():
        found = list(panels(laid_out(part), using))
        assert [len(panel) for panel in found] == [2, 2, 2, 2, 1]
        assert (np.concatenate(found) == part.rows()).all()


@given(st.integers(1, 9), st.integers(1, 600), st.sampled_from(GRIDS), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_levels_agree(rows, columns, grid, seed):
    layout = laid_out(matrix(grid, (rows, columns), seed=seed))
    x = np.random.default_rng(seed).integers(-127, 128, (2, columns)).astype(np.int8)
    sums = [whole_sums(layout, x, using=using) for using in runners()]
    assert all((other == sums[0]).all() for other in sums)


@given(st.integers(1, 600), st.sampled_from(GRIDS), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_levels_round_alike(columns, grid, seed):
    """In halves of a step many activations lie between two whole numbers."""
    layout = laid_out(matrix(grid, (5, columns), seed=seed))
    random = np.random.default_rng(seed)
    x = (random.integers(-254, 255, (2, columns)) / 2).astype(np.float32)
    x[:, 0] = 127, -127
    x[1] *= np.float32(10.0 ** random.integers(-44, 30))
    bias = random.normal(size=5).astype(np.float32)
    made = [linear(layout, x, bias, activations="int8", using=using) for using in runners()]
    assert all((other == made[0]).all() for other in made)


def test_activations_too_near_zero_to_invert_are_zeros():
    layout = laid_out(matrix(ps_grid(5), (3, 70)))
    for size in (1e-37, 1e-38, 1e-45):
        x = np.full((1, 70), size, np.float32)
        for using in runners():
            assert (linear(layout, x, activations="int8", using=using) == 0).all()


def test_rounding_by_hand():
    whole, step = rounded(np.array([[254.0, -254.0, 1.0, 3.0], [0, 0, 0, 0]], np.float32))
    assert whole.tolist() == [[127, -127, 0, 2], [0, 0, 0, 0]]  # 0.5 and 1.5: half to even
    assert step.tolist() == [2.0, 0.0]


def test_zeros_and_infinities():
    layout = laid_out(matrix(ps_grid(5), (3, 70)))
    bad = np.zeros((2, 70), np.float32)
    for using in runners():
        assert (linear(layout, bad[:1], activations="int8", using=using) == 0).all()
        for value in (np.inf, -np.inf, np.nan):
            bad[1, 69] = value
            with pytest.raises(ShiftError, match="an activation is not finite"):
                linear(layout, bad, activations="int8", using=using)


def test_activations_that_do_not_fit_are_refused():
    layout = laid_out(matrix(ps_grid(5), (3, 70)))
    for x in (np.zeros((1, 71), np.float32), np.zeros(70, np.float32), np.zeros((1, 70))):
        with pytest.raises(ShiftError, match=r"the layer takes float32 \(batch, 70\)"):
            linear(layout, x)


def test_without_a_compiler_it_says_so_and_decodes(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    found = kernels(tmp_path / "cache")
    assert isinstance(found, Decoding)
    assert "there is no C compiler" in found.title
    part, x = matrix(q_grid(4), (5, 70)), np.ones((2, 70), np.float32)
    assert np.allclose(linear(laid_out(part), x, using=found), x @ part.rows().T, rtol=1e-5)


def test_a_compiler_that_fails_is_told_in_one_line(tmp_path, monkeypatch, compiled):
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ShiftError, match="cannot build the kernels") as error:
        library(tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


def test_nothing_is_loaded_from_where_others_can_write(tmp_path, monkeypatch, compiled):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ShiftError, match="others could write there"):
        library(shared)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "own")
    placed(compiled, tmp_path / "own")
    with pytest.raises(ShiftError, match="others could write there"):
        library(link)
    assert library(tmp_path / "own").sutura_level() in range(len(LEVELS))
    (held,) = (tmp_path / "own").iterdir()
    held.chmod(0o722)
    with pytest.raises(ShiftError, match="others could write there"):
        library(tmp_path / "own")


def test_the_cache_is_the_users(tmp_path, monkeypatch, compiled):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    placed(compiled, tmp_path / "sutura")
    assert Path(library()._name).parent == tmp_path / "sutura"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ShiftError, match="cannot be used"):
        library(file / "under")
