"""The packed file: exact, as small as said, and closed to everything else; and the integer path beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shift_networks import classifier, network, samples

from sutura.errors import ShiftError
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.shift.convert import METHODS, ShiftConfig, to_shift
from sutura.shift.grid import BITS, Grid, decoded, ps_grid, q_grid
from sutura.shift.integer import fixed, products, real
from sutura.shift.pack import KEY, Packed, pack, restored, unpacked

pytest.importorskip("safetensors")
GRIDS = [Grid(bits, zero) for bits in BITS for zero in (False, True)]


def layer(grid, shape, *, scale=True, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**grid.bits, (shape[0], int(np.prod(shape[1:])))).astype(np.uint8)
    factors = np.exp2(rng.normal(0, 3, shape[0])).astype(np.float32) if scale else None
    return Packed(shape, grid, codes, factors)


def file_of(header, body):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_the_bytes_by_hand():
    codes = np.array([[0x1F, 0x02, 0x13]], np.uint8)  # signs 1, 0, 1; nibbles F, 2, 3
    held = pack({"a": Packed((1, 3), q_grid(5), codes, None)})
    assert held.endswith(bytes([0x2F, 0x03, 0b101]))
    codes = np.array([[0xF, 0x2, 0x3]], np.uint8)
    assert pack({"a": Packed((1, 3), q_grid(4), codes, None)}).endswith(bytes([0x2F, 0x03]))
    codes = np.array([[7, 2, 1, 0, 5]], np.uint8)  # pairs 3 2 1 0 1, signs 1 0 0 0 1
    assert pack({"a": Packed((1, 5), q_grid(3), codes, None)}).endswith(bytes([0b00011011, 1, 0b10001]))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 33), (32, 32), (4, 3, 3, 3), (2, 5, 1)])
def test_round_trip_is_exact(grid, shape):
    parts = {"layer one/ü": layer(grid, shape), "two": layer(grid, shape, scale=False, seed=1)}
    data = pack(parts, onnx_sha256="0" * 64)
    assert data == pack(parts, onnx_sha256="0" * 64)
    found = unpacked(data)
    assert list(found) == list(parts)
    for name, part in parts.items():
        assert (found[name].shape, found[name].grid) == (part.shape, part.grid)
        assert (found[name].codes == part.codes).all()
        assert found[name].rows().tobytes() == part.rows().tobytes()


def test_negative_zero_comes_back_negative():
    values = np.array([[0.0, -0.0, 1.0, -0.25]], np.float32)
    part = Packed.of("a", (1, 4), ps_grid(5), values, None)
    assert unpacked(pack({"a": part}))["a"].rows().tobytes() == values.tobytes()


@pytest.mark.parametrize("grid", GRIDS)
def test_the_file_is_within_one_percent_of_the_nominal_bits(grid):
    part = layer(grid, (256, 256))
    nominal = (grid.bits * 256 * 256 + 32 * 256) / 8
    size = len(pack({"fc1": part}, onnx_sha256="0" * 64))
    assert nominal < size
    assert size < (1.01 if grid.bits > 3 else 1.02) * nominal


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", BITS)
def test_a_packed_network_is_restored_bit_for_bit(method, bits):
    net = classifier()
    made = to_shift(net, ShiftConfig(method=method, bits=bits), data=samples(net))
    again = restored(made.network, unpacked(made.packed()))
    assert write_onnx(again) == made.onnx
    blank = to_shift(made.network, ShiftConfig(method="q", bits=2)).network
    assert write_onnx(restored(blank, unpacked(made.packed()))) == made.onnx


def test_zeros_of_q_take_the_grid_with_zero_where_they_can():
    def chain(weight):
        return network("moves.onnx", [(3,), (2,)], ("fc", ops.MatMul(weight)))

    ones = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    made = to_shift(chain(ones), ShiftConfig(method="q", bits=2))
    assert made.layers[0].grid == ps_grid(2)
    assert (unpacked(made.packed())["fc"].rows() == ones.T).all()
    halves = to_shift(chain(ones / 2), ShiftConfig(method="q", bits=2))
    with pytest.raises(
        ShiftError, match=r"layer 'fc' cannot be packed: .* 4 exact zeros, .*; ps and ours have one"
    ):
        halves.packed()


def test_hostile_files_are_refused_in_one_line():
    good = pack({"a": layer(q_grid(5), (3, 7))})
    size = int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8 : 8 + size]), good[8 + size :]

    def said(**change):
        held = json.loads(header["__metadata__"][KEY]) | change
        return file_of(header | {"__metadata__": {KEY: json.dumps(held)}}, body)

    bad = {
        "empty": b"", "short": good[:20], "cut": good[:-1], "more": good + b"0", "noise": bytes(range(256)),
        "huge header": (2**63).to_bytes(8, "little") + good[8:],
        "no metadata": file_of({k: v for k, v in header.items() if k != "__metadata__"}, body),
        "other metadata": file_of(header | {"__metadata__": {"format": "pt"}}, body),
        "no json": file_of(header | {"__metadata__": {KEY: "{"}}, body),
        "deep json": file_of(header | {"__metadata__": {KEY: "[" * 100_000}}, body),
        "version": said(version=2), "layers": said(layers=[1]), "described": said(layers={"a": 5}),
        "huge shape": said(layers={"a": [[2**40, 2**40], 5, 0]}),
        "negative": said(layers={"a": [[-3, -7], 5, 0]}), "true": said(layers={"a": [[True, 21], 5, 0]}),
        "bits": said(layers={"a": [[3, 7], 6, 0]}), "zero": said(layers={"a": [[3, 7], 5, 2]}),
        "flat": said(layers={"a": [[21], 5, 0]}), "fewer": said(layers={"a": [[3, 5], 5, 0]}),
        "other": said(layers={"b": [[3, 7], 5, 0]}), "left over": said(layers={}),
        "four bits": said(layers={"a": [[3, 7], 4, 0]}),
    }  # fmt: skip
    for name, data in bad.items():
        with pytest.raises(ShiftError) as error:
            unpacked(data, "evil\n.safetensors")
            pytest.fail(name)
        assert "\n" not in str(error.value), name
        assert len(str(error.value)) < 300, name


def test_bits_behind_the_last_weight_and_bad_scales_are_refused():
    part = layer(q_grid(4), (1, 3))
    data = bytearray(pack({"a": part}))
    spot = len(data) - 1  # the plane of bytes lies behind the scale
    data[spot] |= 0xF0
    with pytest.raises(ShiftError, match="bits set behind the last weight"):
        unpacked(bytes(data))
    for scale in (0.0, -1.0, np.nan, np.inf):
        held = pack({"a": Packed(part.shape, part.grid, part.codes, np.array([scale], np.float32))})
        with pytest.raises(ShiftError, match="scales are not 1 finite positive float32 numbers"):
            unpacked(held)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(data):
    with pytest.raises(ShiftError):
        unpacked(data)


def test_only_layers_of_that_name_and_shape_are_restored():
    net = classifier()
    with pytest.raises(ShiftError, match=r"packed layer 'nix' is .*; .* has no such layer"):
        restored(net, {"nix": layer(q_grid(4), (3, 7))})
    with pytest.raises(ShiftError, match=r"packed layer 'fc1' is .*3.*7.*; .* has .*10.*36"):
        restored(net, {"fc1": layer(q_grid(4), (3, 7))})


def test_fixed_point_by_hand():
    x = np.array([3.9, -0.01, 100.0, -100.0])
    assert fixed(x, 3, 5).tolist() == [124, -1, 127, -128]
    assert fixed(np.array([0.75]), 16, 16).tolist() == [49152]


@pytest.mark.parametrize("grid", GRIDS)
def test_shifts_and_sums_equal_the_float_path_bit_for_bit(grid):
    part = layer(grid, (9, 50), scale=False)
    x = np.random.default_rng(3).normal(0, 4, (6, 50))
    whole = fixed(x, 8, 8)
    got = products(whole, part.codes, grid)
    assert got.dtype == np.int64
    weight = decoded(part.codes, grid).astype(np.float64)
    exact = [
        [sum(int(a) * int(w * 2**-grid.lowest) for a, w in zip(r, c, strict=True)) for c in weight]
        for r in whole
    ]
    assert got.tolist() == exact
    assert (real(got, grid, 8) == np.ldexp(whole.astype(np.float64), -8) @ weight.T).all()


def test_sums_that_could_outgrow_int64_are_refused():
    part = layer(q_grid(5), (2, 50), scale=False)
    with pytest.raises(ShiftError, match="may outgrow int64"):
        products(np.full((1, 50), 2**45), part.codes, part.grid)
