"""Damaged files: whatever byte is missing or wrong, one error of ours or a network that works."""

from __future__ import annotations

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from sutura.errors import SuturaError
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network
from sutura.network.inspect import inspect_onnx
from sutura.network.onnx_read import parse_onnx


def _small() -> bytes:
    """A file with a convolution, a pool, shape arithmetic, constants as attributes and a dense layer."""
    w = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    v = np.ones((3, 8), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[0, 0, 1, 1], strides=[1, 1], name="conv"),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["b"], ["s"], start=0, end=1),
        helper.make_node("Constant", [], ["k"], value=hostile.tensor("", np.array([-1], np.int64))),
        helper.make_node("Concat", ["s", "k"], ["t"], axis=0),
        helper.make_node("Reshape", ["b", "t"], ["c"]),
        helper.make_node("Gemm", ["c", "v"], ["d"], transB=1, alpha=0.5),
        helper.make_node("Clip", ["d", "", "h"], ["y"]),
    ]
    tensors = [hostile.tensor("w", w), hostile.tensor("v", v), hostile.tensor("h", np.float32(6))]
    return hostile.model(nodes, tensors, shape=("N", 1, 4, 4)).SerializeToString()


SMALL = _small()


def _read(data: bytes) -> Network | None:
    """The network, None where it was refused as it should be; any other exception is a failure."""
    try:
        inspect_onnx(data, "damaged")
    except SuturaError as error:
        assert "\n" not in str(error)
    try:
        network = parse_onnx(data, "damaged")
    except SuturaError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 4000
        return None
    if network.input_size < 10_000:
        out = evaluate(network, np.ones((2, *network.input_shape)))
        assert out.shape == (2, *network.output_shape)
    return network


def test_the_file_itself_is_read():
    network = _read(SMALL)
    assert network is not None
    assert network.output_shape == (3,)


def test_cut_anywhere_is_refused_or_a_network():
    kept = [length for length in range(len(SMALL)) if _read(SMALL[:length]) is not None]
    # The opset stands at the end of the file: without it nothing is a network.
    assert kept == []


def test_trailing_bytes_are_refused():
    assert _read(SMALL + b"\x00") is None
    assert _read(SMALL + b"\x7f\xff") is None


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_one_wrong_byte_is_refused_or_a_network(place, change):
    data = bytearray(SMALL)
    data[place] ^= change
    _read(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=2, max_size=12))
def test_many_wrong_bytes_are_refused_or_a_network(changes):
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    _read(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(SMALL)), st.integers(0, len(SMALL)), st.integers(0, len(SMALL)))
def test_parts_moved_about_are_refused_or_a_network(start, end, place):
    _read(SMALL[:place] + SMALL[min(start, end) : max(start, end)] + SMALL[place:])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(data):
    assert _read(data) is None


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"PK\x03\x04", b"\x80\x02}q\x00.", b"#!/bin/sh\n", b"{}", b"\x0a" * 99]
)
def test_other_files_are_refused(data):
    assert _read(data) is None
