"""Quantised ONNX of shifted networks: the same weights to the bit, in ONNX Runtime and in our own reader."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from shift_networks import classifier, network, samples

from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.shift.convert import METHODS, ShiftConfig, ShiftedLayer, to_shift
from sutura.shift.grid import BITS, Grid, decoded, ps_grid, q_grid
from sutura.shift.qdq import planes, quantised


def weights(net):
    return [node.op.weight for node in net.nodes if hasattr(node.op, "weight")]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", BITS)
def test_weights_are_the_same_to_the_bit(method, bits):
    net = classifier()
    data = samples(net)
    made = to_shift(net, ShiftConfig(method=method, bits=bits))
    found = quantised(made)
    onnx.checker.check_model(onnx.load_from_string(found.onnx), full_check=True)
    again = load(found.onnx).network
    for ours, read in zip(weights(made.network), weights(again), strict=True):
        assert (ours == read).all()
    want = evaluate(made.network, data.x.astype(np.float64))
    got = run(open_session(found.onnx), data.x)
    assert np.abs(got - want).max() <= 1e-4 * max(1, np.abs(want).max())
    assert len(found.one) + len(found.two) + len(found.float32) == len(made.layers)


def test_four_bits_of_ps_are_one_plane_of_powers_up_to_64():
    made = to_shift(classifier(), ShiftConfig(method="ps", bits=4))
    found = quantised(made)
    assert len(found.one) == 5
    held = [t for t in onnx.load_from_string(found.onnx).graph.initializer if t.name.endswith("int8")]
    numbers = np.concatenate([onnx.numpy_helper.to_array(tensor).reshape(-1) for tensor in held])
    assert numbers.dtype == np.int8
    assert set(np.abs(numbers)) <= {0, 1, 2, 4, 8, 16, 32, 64}


def test_it_is_a_quarter_of_float32():
    weight = np.random.default_rng(0).normal(0, 0.3, (300, 300)).astype(np.float32)
    net = network("wide.onnx", [(300,), (300,)], ("fc", ops.MatMul(weight)))
    made = to_shift(net, ShiftConfig(method="ps", bits=4))
    assert len(quantised(made).onnx) < 0.26 * len(made.onnx)


def test_it_equals_pytorch():
    torch = pytest.importorskip("torch")
    from sutura.network.torch_write import to_module

    made = to_shift(classifier(), ShiftConfig(method="ps", bits=4))
    x = samples(made.network).x
    want = to_module(made.network)(torch.tensor(x)).detach().numpy()
    assert np.abs(run(open_session(quantised(made).onnx), x) - want).max() < 1e-4


def every(grid):
    """A layer with every code in each row, and scales."""
    values = decoded(np.tile(np.arange(1 << grid.bits, dtype=np.uint8), (2, 1)), grid)
    return ShiftedLayer("all", values.shape, grid, values, np.array([1.5, 0.3], np.float32), 0.0)


@pytest.mark.parametrize("grid", [Grid(b, z) for b in BITS for z in (False, True)])
def test_all_codes_are_exact_in_the_planes_they_need(grid):
    layer = every(grid)
    found = planes(layer)
    assert len(found) == {q_grid(5): 0, ps_grid(5): 2, q_grid(4): 2}.get(grid, 1)
    if found:
        parts = [part.whole.astype(np.float32) * part.scale[:, None] for part in found]
        assert (sum(parts) == layer.values * layer.scale[:, None]).all()


def test_powers_too_far_apart_stay_float32():
    weight = np.array([[1.0, -1.0, 2.0**-15]], np.float32).T.copy()
    net = network("far.onnx", [(3,), (1,)], ("fc", ops.MatMul(weight)))
    found = quantised(to_shift(net, ShiftConfig(method="q", bits=5)))
    assert (found.one, found.two, found.float32) == ((), (), ("fc",))
    assert (weights(load(found.onnx).network)[0] == weight).all()


def test_a_row_of_zeros_is_zero():
    layer = every(ps_grid(4))
    zeros = ShiftedLayer("none", layer.shape, layer.grid, 0 * layer.values, layer.scale, 0.0)
    (plane,) = planes(zeros)
    assert not plane.whole.any()
    assert np.isfinite(plane.scale).all()
