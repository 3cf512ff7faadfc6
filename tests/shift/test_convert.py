"""Conversion of networks: every layer accounted for, methods as published, ours better by its own measure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shift_networks import classifier, network, samples

import sutura
from sutura.dataset import Dataset
from sutura.errors import DataError, ShiftError
from sutura.network import ops
from sutura.network.evaluate import activations, apply, evaluate
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.shift.convert import METHODS, ShiftConfig, to_shift
from sutura.shift.grid import BITS, decoded, log_rounded, ps_grid, q_grid
from sutura.shift.layers import moments, patches, shiftable, with_rows
from sutura.shift.scaled import Rounded, fed_back, output_loss, scaled

LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")


def weight_of(net, name):
    return next(node.op.weight for node in net.nodes if node.name == name)


@pytest.mark.parametrize("method", ["q", "ps"])
@pytest.mark.parametrize("bits", BITS)
def test_published_methods_round_every_weight_in_the_log_domain(method, bits):
    net = classifier()
    made = to_shift(net, ShiftConfig(method=method, bits=bits))
    grid = (q_grid if method == "q" else ps_grid)(bits)
    assert tuple(layer.name for layer in made.layers) == LAYERS
    for name in ("conv1", "conv2", "fc1", "fc3"):
        assert (weight_of(made.network, name) == log_rounded(weight_of(net, name), grid)).all()
    fc2 = next(node.op for node in made.network.nodes if node.name == "fc2")
    assert (fc2.weight == log_rounded(np.float32(0.5) * weight_of(net, "fc2"), grid)).all()
    assert (fc2.alpha, fc2.beta) == (1.0, 2.0)
    assert made.layers[0].scale is None


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written_is_what_was_made(method):
    net = classifier()
    made = to_shift(net, ShiftConfig(method=method, bits=4), data=samples(net))
    again = load(made.onnx).network
    assert again.sha256 == made.network.sha256
    for layer, other in zip(made.layers, shiftable(again)[0], strict=True):
        scale = 1 if layer.scale is None else layer.scale[:, None]
        assert (layer.values * scale == other.rows).all()
        assert layer.shape == other.shape
    x = samples(net, 5, seed=9).x
    ours = evaluate(again, x.astype(np.float64))
    np.testing.assert_allclose(run(open_session(made.onnx), x), ours, rtol=1e-4, atol=1e-4)


def test_powers_of_two_as_scales_leave_only_powers_of_two():
    net = classifier()
    for data in (None, samples(net)):
        made = to_shift(net, ShiftConfig(bits=3, scale="power"), data=data)
        for name in LAYERS:
            mantissa, _ = np.frexp(np.abs(weight_of(made.network, name)))
            assert set(np.unique(mantissa)) <= {0.0, 0.5}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("grid", [q_grid, ps_grid])
def test_a_scale_found_is_close_to_the_best_of_a_fine_sweep(bits, grid):
    rows = np.random.default_rng(bits).normal(0, 0.05, (6, 30)).astype(np.float32)
    found = scaled(rows, grid(bits))
    values = decoded(np.arange(2**bits, dtype=np.uint8), grid(bits)).astype(np.float64)
    for row, scale, on in zip(rows.astype(np.float64), found.scale, found.values, strict=True):
        fine = np.abs(row).max() * np.exp2(np.linspace(-4, 1, 2001))
        best = min((np.abs(row[:, None] - a * values).min(axis=1) ** 2).sum() for a in fine)
        assert ((row - float(scale) * on) ** 2).sum() <= 1.03 * best
    assert found.loss <= ((rows - log_rounded(rows, grid(bits))) ** 2).sum()


@given(st.integers(0, 10**6), st.sampled_from(BITS))
@settings(max_examples=30, deadline=None)
def test_the_search_over_powers_of_two_is_complete(seed, bits):
    row = np.random.default_rng(seed).standard_t(3, (1, 12)).astype(np.float32)
    found = scaled(row, q_grid(bits), whole=True)
    values = decoded(np.arange(2**bits, dtype=np.uint8), q_grid(bits)).astype(np.float64)
    every = [((np.abs(row[0][:, None] - 2.0**k * values)).min(axis=1) ** 2).sum() for k in range(-8, 12)]
    assert found.loss == pytest.approx(min(every), rel=1e-5)


def test_weights_on_a_scaled_grid_are_found_exactly():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (5, 40)).astype(np.uint8)
    codes[:, 0] = 7  # each row has the largest power
    rows = decoded(codes, q_grid(4)) * np.float32([[0.3], [1.7], [2.0**-20], [5e3], [1.0]])
    assert scaled(rows, q_grid(4)).loss < 1e-10 * (rows.astype(np.float64) ** 2).sum()
    zero = scaled(np.zeros((1, 3), np.float32), ps_grid(4))
    assert zero.values.tolist() == [[0, 0, 0]]
    assert zero.scale.tolist() == [1]


def test_error_feedback_by_hand():
    # Two inputs that are always equal: 1.3 + 1.3 rounds to 1 + 1, feedback makes it 1 + 2 (of 2.6 wanted).
    rows = np.array([[1.3, 1.3]], np.float32)
    start = Rounded(q_grid(3), np.array([[0.5, 0.5]], np.float32), np.array([2.0], np.float32), 0.0)
    found = fed_back(rows, start, np.ones((2, 2)), whole=True)
    assert (found.values * found.scale[:, None]).tolist() == [[1.0, 2.0]]
    assert found.loss == pytest.approx(0.4**2, abs=1e-5)


def test_error_feedback_never_loses_and_mostly_gains():
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(10):
        x = rng.standard_normal((200, 12)) @ rng.standard_normal((12, 12))
        moment = x.T @ x / 200
        rows = rng.standard_normal((8, 12)).astype(np.float32)
        start = scaled(rows, q_grid(3), np.broadcast_to(np.diag(moment), rows.shape))
        found = fed_back(rows, start, moment)
        direct = np.mean(((rows - found.values * found.scale[:, None]) @ x.T) ** 2, axis=1).sum()
        assert found.loss == pytest.approx(direct, rel=1e-3)
        before = output_loss(rows - start.scale[:, None].astype(float) * start.values, moment)
        gains.append(found.loss / before)
    assert max(gains) <= 1
    assert np.mean(gains) < 0.8


def test_unfolded_inputs_are_what_convolutions_see():
    net = classifier()
    x = samples(net, 7).x
    values = activations(net, x.astype(np.float64))
    for layer in shiftable(net)[0]:
        node = net.nodes[layer.index]
        before = values[node.inputs[0]].astype(np.float32)
        if isinstance(node.op, ops.Conv):
            seen = patches(node.op, before)
            rows = layer.rows.reshape(layer.groups, -1, layer.rows.shape[1])
            y = np.einsum("gbpc,goc->bgop", seen, rows).reshape(len(x), -1, *values[node.output].shape[2:])
            bias = 0 if node.op.bias is None else node.op.bias[:, None, None]
            np.testing.assert_allclose(y + bias, values[node.output], rtol=1e-3, atol=1e-4)
            flat = seen.reshape(layer.groups, -1, seen.shape[-1]).astype(np.float64)
            expected = np.einsum("gnc,gnd->gcd", flat, flat) / flat.shape[1]
            np.testing.assert_allclose(moments(node, before), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_rows_go_back_where_they_came_from(name):
    net = classifier()
    layer = next(layer for layer in shiftable(net)[0] if layer.name == name)
    node, x = net.nodes[layer.index], samples(net).x
    before = activations(net, x.astype(np.float64))[net.nodes[layer.index].inputs[0]]
    again = with_rows(node, layer.rows)
    np.testing.assert_allclose(apply(again.op, (before,)), apply(node.op, (before,)), rtol=1e-6)


def test_means_of_channels_are_kept_and_outputs_move_less():
    net = classifier()
    data = samples(net, 100)
    wide = data.x.astype(np.float64)
    made = to_shift(net, ShiftConfig(bits=3), data=data)
    plain = to_shift(net, ShiftConfig(bits=3))
    before, after = activations(net, wide), activations(made.network, wide)
    for name in ("conv2", "fc1", "fc2", "fc3"):
        old, new = (next(n for n in x.nodes if n.name == name).output for x in (net, made.network))
        axes = (0, *range(2, before[old].ndim))
        np.testing.assert_allclose(after[new].mean(axis=axes), before[old].mean(axis=axes), atol=1e-3)
    old, new = (next(n for n in x.nodes if n.name == "bn").output for x in (net, made.network))
    np.testing.assert_allclose(after[new].mean(axis=(0, 2, 3)), before[old].mean(axis=(0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(after[new].std(axis=(0, 2, 3)), before[old].std(axis=(0, 2, 3)), rtol=1e-3)
    fresh = samples(net, 200, seed=5).x.astype(np.float64)
    moved = [np.mean((evaluate(n.network, fresh) - evaluate(net, fresh)) ** 2) for n in (made, plain)]
    assert moved[0] < moved[1]


def test_the_network_given_is_not_changed():
    net = classifier()
    before = write_onnx(net)
    to_shift(net, ShiftConfig(bits=2), data=samples(net))
    assert write_onnx(net) == before


def test_layers_stay_by_name():
    net = classifier()
    made = to_shift(net, ShiftConfig(keep=("conv1", "fc3")), data=samples(net))
    assert [layer.name for layer in made.layers] == ["conv2", "fc1", "fc2"]
    assert [(part.name, part.reason) for part in made.left] == [
        ("conv1", "was asked to stay"), ("fc3", "was asked to stay"),
    ]  # fmt: skip
    assert (weight_of(made.network, "conv1") == weight_of(net, "conv1")).all()


def test_a_torch_module_is_a_source():
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).eval()
    made = sutura.to_shift(module, sutura.ShiftConfig(method="ps", bits=5), example=torch.zeros(1, 4))
    assert (made.layers[0].values == log_rounded(module[0].weight.detach().numpy(), ps_grid(5))).all()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ShiftConfig(method="Q"), "no method is called 'Q'; known: q, ps, ours"),
        (ShiftConfig(bits=8), "weights of 8 bits are not offered; give 2, 3, 4 or 5"),
        (ShiftConfig(scale="two"), "no scale is called 'two'; known: free, power"),
        (ShiftConfig(samples=0), "samples=0; give at least 1"),
        (ShiftConfig(keep=("conv9",)), "is called 'conv9'; it has 'conv1', 'conv2', 'fc1', 'fc2', 'fc3'"),
        (ShiftConfig(keep=LAYERS), "has no layer to shift: 'conv1' was asked to stay"),
    ],
)
def test_bad_settings_are_refused(config, said):
    with pytest.raises(ShiftError, match=said):
        to_shift(classifier(), config)


def test_other_networks_and_data_are_refused():
    with pytest.raises(ShiftError, match="has no layer to shift: none has weights"):
        to_shift(network("relu.onnx", [(3,), (3,)], ("relu", ops.Relu())))
    other = samples(classifier()).x[:, :1]
    with pytest.raises(DataError, match=r"samples are float32 .*1.* takes float32"):
        to_shift(classifier(), data=Dataset("d.npz", other, None))


def test_calibration_that_overflows_is_refused():
    net = classifier()
    huge = Dataset("huge.npz", np.full((4, *net.input_shape), 1e30, np.float32), None)
    with pytest.raises(ShiftError, match="inputs of layer 'conv1' on the calibration data are too large"):
        to_shift(net, data=huge)


def test_layers_of_one_name_are_not_packed():
    weight = np.eye(2, dtype=np.float32)
    net = network("twins.onnx", [(2,), (2,), (2,)], ("fc", ops.MatMul(weight)), ("fd", ops.MatMul(weight)))
    net = replace(net, nodes=tuple(replace(node, name="fc") for node in net.nodes))
    with pytest.raises(ShiftError, match="has two layers of one name"):
        to_shift(net).packed()


def test_a_shifted_network_is_verified_like_any_other():
    weight = np.array([[1.0, -0.6], [0.4, 0.9]], np.float32)
    net = network("tiny.onnx", [(2,), (2,), (2,)], ("fc", ops.MatMul(weight)), ("relu", ops.Relu()))
    made = load(to_shift(net, ShiftConfig(method="q", bits=4)).onnx)  # 1, -0.5, 0.5, 1
    box = sutura.box([0.5, 0.0], [1.0, 0.25])
    safe = sutura.output_bound(box, 0, upper=1.13, outputs=2)
    assert isinstance(sutura.verify(made, safe).verdict, sutura.Proved)
    wrong = sutura.output_bound(box, 0, upper=1.12, outputs=2)
    assert isinstance(sutura.verify(made, wrong).verdict, sutura.Violated)
