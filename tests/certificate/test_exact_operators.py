"""The exact checker's rules: what ONNX Runtime computes is inside, and the fast bound agrees."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exported import f32
from test_certificate_bound import DRAFTS, box, program_of

from sutura.certificate import bound as fast
from sutura.certificate import exact

RULED = (
    "conv", "conv groups", "average pool", "average pool padded", "global average pool", "max pool",
    "constant first", "multiply", "residual", "reshape", "flatten", "leaky", "clip", "sigmoid", "tanh",
)  # fmt: skip


def in_ticks(values):
    return [exact.ticks.ticks(int(bits)) for bits in f32(values).reshape(-1).view(np.uint32)]


def opened(draft):
    g = exact.graph.read_graph(draft.save())
    return exact.rules.compile_network(g, exact.gates.read_gates(g))


def session_of(draft):
    model = onnx.load_from_string(draft.save())
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return ort.InferenceSession(model.SerializeToString())


def executed(name, width):
    """A box, what ONNX Runtime computes at points of it, and the fast checker's lower bounds."""
    draft, rng = DRAFTS[name], np.random.default_rng(1)
    middle = f32(rng.normal(size=draft.inputs))
    lower, upper = f32(middle - width).reshape(-1), f32(middle + width).reshape(-1)
    session, outputs = session_of(draft), []
    for at in range(20):
        x = np.clip(f32(lower + (upper - lower) * (rng.random(len(lower)) if at > 1 else at)), lower, upper)
        outputs.append(session.run(None, {"X": x.reshape(1, *draft.inputs)})[0])
    state = fast.sweep(program_of(draft.save()), box(lower, upper))
    return lower, upper, outputs, state.lower[state.program.output][0]


@pytest.mark.parametrize("name", RULED)
@pytest.mark.parametrize("width", [0.3, 0.0, 2.5])
def test_runtime_outputs_are_inside_and_both_bounds_agree(name, width):
    lower, upper, outputs, theirs = executed(name, width)
    layers, output = opened(DRAFTS[name])
    found = exact.bound.bound(layers, 0, in_ticks(lower), in_ticks(upper))
    assert found is not None
    size = len(found[output].lower)
    rows = [[int(i == j) for j in range(size)] for i in range(size)]
    backward = [exact.bound.lowest(found, layers, output, row)[0] for row in rows]
    for y in map(in_ticks, outputs):
        ends = zip(found[output].lower, y, found[output].upper, strict=True)
        assert all(low <= value <= high for low, value, high in ends)
        assert all(low <= value << 64 for low, value in zip(backward, y, strict=True))
    ours = [float(low) * 2.0**-149 for low in found[output].lower]
    assert np.allclose(theirs, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(DRAFTS) - set(RULED)))
def test_what_has_no_rule_is_refused_by_its_name(name):
    with pytest.raises(exact.ticks.RefusedError) as caught:
        opened(DRAFTS[name])
    assert any(node.op_type in str(caught.value) for node in DRAFTS[name].nodes)


@pytest.mark.parametrize("x", [0.0, 1e-30, 0.001, 0.5, 1.0, 3.0, 17.482065, 60.0, 127.9, 128.1, 3e38])
@pytest.mark.parametrize("sign", [1, -1])
def test_curves_against_decimal_arithmetic(x, sign):
    (t,) = in_ticks(sign * x)
    with localcontext() as context:
        context.prec = 80
        number, tick = Decimal(float(f32(sign * x))), Decimal(2) ** -149
        e = (-2 * abs(number)).exp()
        tanh = (1 - e) / (1 + e) * sign
        logistic = 1 / (1 + (-number).exp()) if abs(number) < 10**6 else Decimal(sign > 0)
        for ours, theirs in ((exact.layers.logistic(t), logistic), (exact.layers.tanh(t), tanh)):
            assert abs(ours * tick - theirs) < Decimal(2) ** -90


def one_node(op, inputs, **attributes):
    draft = type(DRAFTS["tanh"])(inputs=inputs)
    draft.node(op, ["X"], "Y", **attributes)
    return draft


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [2, 2], "storage_order": 1}),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [0, 0, -1, 0]}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [0, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [2, 0, 2, 0]}),
        ("MaxPool", {"kernel_shape": [2]}),
        ("MaxPool", {"kernel_shape": [9, 1]}),
        ("MaxPool", {"kernel_shape": [1, 4]}),
        ("AveragePool", {"kernel_shape": [2, 2], "ceil_mode": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [1, 1]}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [2, 0, 2, 0]}),
        ("AveragePool", {}),
        ("GlobalAveragePool", {"kernel_shape": [2, 2]}),
        ("Sigmoid", {"alpha": 1.0}),
    ],
)
def test_other_forms_of_operators_are_refused(op, attributes):
    with pytest.raises((exact.ticks.RefusedError, *exact.proof.MALFORMED)):
        opened(one_node(op, (1, 3, 3), **attributes))


@pytest.mark.parametrize("batch", [2, -2, 3])
def test_reshape_keeps_the_batch_axis(batch):
    draft = type(DRAFTS["tanh"])(inputs=(2, 6))
    draft.constant("shape", np.array([batch, 3, 4]))
    draft.node("Reshape", ["X", "shape"], "Y")
    with pytest.raises(exact.ticks.RefusedError):
        opened(draft)


@pytest.mark.parametrize(
    ("name", "roundings"),
    [
        ("conv", 4 * 3 * 2 + 1), ("average pool", 3 * 2 + 4), ("average pool padded", 3 * 3 + 4),
        ("global average pool", 16 + 4), ("multiply", 0), ("constant first", 0),
    ],
)  # fmt: skip
def test_every_term_of_a_sum_may_be_rounded_so_often(name, roundings):
    layers, output = opened(DRAFTS[name])
    made = layers[output - 1]
    taps = max(len(weights) for _, weights in made.rows)
    assert made.roundings == roundings
    assert made.roundings == 0 or taps < made.roundings


@pytest.mark.parametrize("slope", [0.0, 1.0, -0.1, 1.5])
def test_slopes_of_leaky_relu_are_from_0_to_1(slope):
    draft = one_node("LeakyRelu", (3,), alpha=slope)
    if 0 <= slope <= 1:
        assert opened(draft)[1] == 1
        return
    with pytest.raises(exact.ticks.RefusedError):
        opened(draft)
