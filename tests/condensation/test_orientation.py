"""Orientations, multiplicities and predicted lines: by hand, and against the flow that they predict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.condensation.field import field, pull, stable
from sutura.condensation.measure import measured
from sutura.condensation.orientation import clustered_order, count, orientations


def test_lines_and_orientations_by_hand():
    found = orientations(np.array([[2.0, 0.0], [0.5, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), None)
    assert found.neuron.tolist() == [0, 1, 2, 3]
    assert found.length.tolist() == [2.0, 0.5, 3.0, 1.0]
    every = count(found, 0.95, 1.0)
    assert (every.lines, every.orientations) == (2, 3)
    # Nine tenths of four neurons is more than three: nothing may be left out.
    assert count(found, 0.95).lines == 2
    assert count(found, 0.95, 0.75).lines == 1


def test_the_bias_is_one_more_input_weight():
    found = orientations(np.array([[3.0], [3.0]]), np.array([4.0, -4.0]))
    assert found.unit.tolist() == [[0.6, 0.8], [0.6, -0.8]]
    assert found.similarity[0, 1] == pytest.approx(0.36 - 0.64)


def test_faint_neurons_point_nowhere():
    assert orientations(np.array([[1.0], [1e-9]]), None).neuron.tolist() == [0]
    assert len(orientations(np.zeros((3, 2)), None).unit) == 0


def test_the_clustered_order_puts_a_line_together():
    random = np.random.default_rng(0)
    line = random.normal(size=(3, 8))
    which = np.array([0, 1, 2] * 5)
    rows = line[which] * np.where(random.random(15) < 0.5, -1, 1)[:, None]
    order = which[clustered_order(orientations(rows, None))]
    assert int((np.diff(order) != 0).sum()) == 2


def test_layers_of_a_network_with_their_biases(shared_data):
    from sutura.network.read import read_network

    network = read_network(shared_data / "acasxu" / "onnx" / "ACASXU_run2a_1_1_batch_2000.onnx")
    layers = measured(network)
    assert [layer.neurons for layer in layers] == [50] * 6 + [5]
    assert layers[0].found.unit.shape[1] == 6
    assert all(layer.counts[0].lines <= layer.counts[1].lines for layer in layers)


def random_field(seed, d, p):
    random = np.random.default_rng(seed)
    return field(random.normal(size=(30, d)), random.normal(size=30), p)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_two_lines_at_most_for_multiplicity_two_and_they_are_eigenvectors(seed, d):
    flow = random_field(seed, d, 2)
    found = stable(flow)
    assert len(found.lines) <= 2
    for u, value in zip(found.unit, found.value, strict=True):
        assert pull(flow, u[None])[0] == pytest.approx(value * u, abs=1e-9 * abs(value))
    # Nothing is pulled harder than the extreme eigenvectors.
    random = np.random.default_rng(seed)
    others = random.normal(size=(200, d + 1))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    heights = (pull(flow, others) * others).sum(axis=1)
    assert heights.max() <= max(found.value.max(), 0) + 1e-9
    assert heights.min() >= min(found.value.min(), 0) - 1e-9


def test_one_line_for_multiplicity_one():
    flow = field(np.array([[1.0], [3.0]]), np.array([2.0, -1.0]), 1)
    # 2 (1, 1) - (3, 1) = (-1, 1).
    assert stable(flow).unit[0] == pytest.approx(np.array([-1.0, 1.0]) / np.sqrt(2))


def tetrahedron():
    """Four points in two dimensions whose tensor is the sum of cubes of a turned tetrahedron's corners."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    a, b = 0.3, 0.5
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = turn @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    v = corners @ turn.T
    return v, field(v[:, :2] / v[:, 2:], v[:, 2] ** 3, 3)


def test_four_lines_in_two_dimensions_for_multiplicity_three():
    # The count 2p does not hold beyond one input: this is 8 orientations for p = 3.
    corners, flow = tetrahedron()
    found = stable(flow)
    assert len(found.lines) == 4
    assert len(found.unit) == 8
    assert abs(found.lines @ corners.T).max(axis=1) == pytest.approx(np.ones(4), abs=1e-9)
    torch = pytest.importorskip("torch")
    from sutura.condensation.flow import normalised_flow

    rest = normalised_flow(flow, lambda x: x * x * torch.tanh(x), neurons=40, steps=1500)
    every = count(rest, 0.999, 1.0)
    assert (every.lines, every.orientations) == (4, 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tanh", 1), ("sigmoid", 1), ("softplus", 1), ("gelu", 1), ("silu", 1), ("xtanh", 2), ("xxtanh", 3)],
)
def test_multiplicities(name, expected):
    pytest.importorskip("torch")
    from sutura.condensation.activations import ACTIVATIONS
    from sutura.condensation.multiplicity import multiplicity

    assert multiplicity(ACTIVATIONS[name]) == expected


def test_multiplicity_is_undefined_where_a_derivative_jumps():
    torch = pytest.importorskip("torch")
    from sutura.condensation.multiplicity import multiplicity

    assert multiplicity(torch.relu) is None
    assert multiplicity(lambda x: x * torch.relu(x)) is None
    assert multiplicity(torch.zeros_like) is None
    assert multiplicity(torch.cos) == 2


@pytest.mark.parametrize(("name", "lines"), [("one-tanh", 1), ("one-xtanh", 2), ("one-xxtanh", 3)])
def test_one_dimensional_networks_condense_on_as_many_lines(name, lines):
    pytest.importorskip("torch")
    from dataclasses import replace

    from sutura.condensation.experiment import SETTINGS, points, run

    setting = replace(SETTINGS[name], epochs=(100,))
    (seen,) = run(setting)
    assert seen.counts()[0].lines == lines
    data = points(setting)
    predicted = stable(field(data.x.astype(np.float64), data.y[:, 0].astype(np.float64), lines))
    assert len(predicted.lines) == lines


def test_five_inputs_condense_on_one_line_for_tanh():
    pytest.importorskip("torch")
    from sutura.condensation.experiment import SETTINGS, run

    (seen,) = run(SETTINGS["five-tanh"])
    (found,) = seen.counts()
    assert (found.lines, found.orientations) == (1, 2)


def test_condensing_weights_are_small_and_repeatable():
    torch = pytest.importorskip("torch")
    from sutura.condensation.initial import condensing
    from sutura.errors import TrainingError

    module = torch.nn.Sequential(torch.nn.Linear(8, 100), torch.nn.ReLU(), torch.nn.Linear(100, 3))
    first, again = condensing(module, 2.0, 1), condensing(module, 2.0, 1)
    assert torch.equal(first[0].weight, again[0].weight)
    assert float(first[0].weight.detach().std()) == pytest.approx(1e-4, rel=0.1)
    assert float(first[2].weight.detach().std()) == pytest.approx(1e-4, rel=0.2)
    with pytest.raises(TrainingError, match="gamma"):
        condensing(module, 0.0)
    with pytest.raises(TrainingError, match="no linear"):
        condensing(torch.nn.ReLU())
