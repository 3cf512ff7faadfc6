"""Bounds hold for every execution: orders of summation, fused or not, ONNX Runtime, and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exported import Draft, dense, f32
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from sutura.certificate import bound, lines
from sutura.certificate.bound import Boxes, sweep
from sutura.certificate.compile import compile_network
from sutura.certificate.gates import read_gates
from sutura.certificate.model import open_exported


def program_of(data: bytes):
    exported = open_exported(data)
    return compile_network(exported, read_gates(exported))


def box(lower, upper):
    return Boxes(
        np.atleast_2d(np.float64(lower)), np.atleast_2d(np.float64(upper)), np.zeros(1, dtype=np.int64)
    )


def random_net(rng, sizes, spread=1.0):
    return [
        (
            f32(rng.normal(size=(a, b)) * spread ** rng.normal(size=(a, b))),
            f32(rng.normal(size=b)),
        )
        for a, b in pairwise(sizes)
    ]


def any_order(weights, x, rng, how):
    """One float32 execution of dense layers; returns all values, before and after each Relu."""
    values, h = [], np.float32(x)
    for at, (weight, bias) in enumerate(weights):
        z = np.array([neuron(weight[:, j], h, bias[j], rng, how) for j in range(len(bias))], np.float32)
        values.append(z)
        if at < len(weights) - 1:
            h = np.maximum(z, np.float32(0))
            values.append(h)
    return values


def neuron(w, x, b, rng, how):
    order = {"forward": np.arange(len(w) + 1), "backward": np.arange(len(w), -1, -1)}.get(how)
    order = rng.permutation(len(w) + 1) if order is None else order
    if how == "tree":
        terms = [*(w * x), b]
        while len(terms) > 1:
            i = int(rng.integers(len(terms) - 1))
            terms[i : i + 2] = [np.float32(terms[i] + terms[i + 1])]
        return terms[0]
    total = np.float32(0)
    for i in order:
        if i == len(w):
            total = np.float32(total + b)
        elif how == "fused":
            total = np.float32(np.float64(total) + np.float64(w[i]) * np.float64(x[i]))
        else:
            total = np.float32(total + np.float32(w[i] * x[i]))
    return total


def exact(weights, x):
    values, h = [], [Fraction(float(v)) for v in x]
    for at, (weight, bias) in enumerate(weights):
        z = [
            sum(
                (Fraction(float(w)) * v for w, v in zip(weight[:, j], h, strict=True)),
                Fraction(float(bias[j])),
            )
            for j in range(len(bias))
        ]
        values.append(z)
        if at < len(weights) - 1:
            h = [max(v, Fraction(0)) for v in z]
            values.append(h)
    return values


def inside(state, values):
    return all(
        lo <= v <= hi
        for at, value in enumerate(values, start=1)
        for v, lo, hi in zip(value, state.lower[at][0], state.upper[at][0], strict=True)
    )


@given(st.integers(0, 10**9), st.sampled_from([1.0, 8.0]), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_every_execution_of_every_neuron_is_inside(seed, spread, width):
    rng = np.random.default_rng(seed)
    weights = random_net(rng, [3, 6, 6, 2], spread)
    lower = rng.normal(size=3).astype(np.float32)
    upper = (lower + np.float32(width) * rng.random(3).astype(np.float32)).astype(np.float32)
    state = sweep(program_of(dense(weights).save()), box(lower, upper))
    assert not state.failed[0]
    for how in ("forward", "backward", "shuffled", "tree", "fused"):
        x = np.clip((lower + (upper - lower) * rng.random(3)).astype(np.float32), lower, upper)
        assert inside(state, any_order(weights, x, rng, how)), how
        assert inside(state, exact(weights, x))


@given(st.integers(0, 10**9))
@settings(max_examples=15, deadline=None)
def test_corners_of_neurons_at_their_kinks_are_inside(seed):
    # The bias puts each hidden neuron's kink next to a corner of the box, where a wrong line shows.
    rng = np.random.default_rng(seed)
    weights = random_net(rng, [2, 5, 5, 1])
    corner = f32([1, 1])
    weights[0] = (weights[0][0], f32(-(corner @ weights[0][0]) + rng.normal(size=5) * 1e-6))
    state = sweep(program_of(dense(weights).save()), box([-1, -1], [1, 1]))
    for x in ([1, 1], [-1, 1], [1, -1], [-1, -1], [0.999999, 1]):
        assert inside(state, any_order(weights, f32(x), rng, "shuffled"))


def cancelling(rng, n=40):
    """Layers whose sums cancel, so that rounding is most of the result."""
    first = f32(rng.normal(size=(2, n)) * 1e3)
    second = np.concatenate([rng.normal(size=(n // 2, 1)), np.zeros((n // 2, 1))]).astype(np.float32)
    second[n // 2 :] = -second[: n // 2]
    first[:, n // 2 :] = first[:, : n // 2] * (1 + np.float32(2.0**-20))
    return [(first, f32(rng.random(n))), (second, f32([0]))]


def containment(samples=60):
    rng = np.random.default_rng(7)
    good = 0
    for _ in range(samples):
        weights = cancelling(rng)
        x = f32(rng.normal(size=2))
        state = sweep(program_of(dense(weights).save()), box(x, x))
        good += inside(state, any_order(weights, x, rng, "shuffled")) and inside(state, exact(weights, x))
    return good


def test_noise_of_execution_is_what_keeps_executions_inside(monkeypatch):
    assert containment() == 60
    monkeypatch.setattr(bound, "gamma32", lambda count: 0.0)
    assert containment() < 60


def test_noise_of_float64_is_what_keeps_exact_values_inside(monkeypatch):
    rng = np.random.default_rng(3)
    cases = [(cancelling(rng), f32(rng.normal(size=2))) for _ in range(40)]
    monkeypatch.setattr(bound, "gamma32", lambda count: 0.0)
    monkeypatch.setattr(bound, "_underflow", lambda *_: 0.0)

    def good():
        found = [inside(sweep(program_of(dense(w).save()), box(x, x)), exact(w, x)) for w, x in cases]
        return sum(found)

    assert good() == 40
    monkeypatch.setattr(bound, "gamma64", lambda count: 0.0)
    monkeypatch.setattr(bound, "SLACK", 1.0)
    assert good() < 40


def test_a_relu_chord_without_its_intercept_is_noticed(monkeypatch):
    def flat(slope, lower, upper):
        good = lines.leaky_lines(slope, lower, upper)
        return lines.Lines(good.below, good.t0, good.above, good.t1 * 0.5)

    # y = relu(x + b) - 2 has its maximum over [-1, 1] at the chord's ends: a hand-computed oracle.
    weights = [(f32([[1.0]]), f32([0.0])), (f32([[1.0]]), f32([0.0])), (f32([[-1.0]]), f32([0.0]))]
    data = dense(weights).save()
    state = sweep(program_of(data), box([-1], [1]))
    low = bound.lowest(state, {state.program.output: np.array([[1.0]])}, np.zeros(1), np.array([0]))[0]
    assert -1.0 - 1e-5 < low[0] <= -1.0
    monkeypatch.setattr(bound, "leaky_lines", flat)
    state = sweep(program_of(data), box([-1], [1]))
    low = bound.lowest(state, {state.program.output: np.array([[1.0]])}, np.zeros(1), np.array([0]))[0]
    assert low[0] > -1.0


def test_overflow_and_infinities_are_never_proved():
    big = f32([[3e38]])
    state = sweep(program_of(dense([(big, f32([0])), (big, f32([0]))]).save()), box([1], [2]))
    assert state.failed[0]
    state = sweep(program_of(dense([(f32([[1]]), f32([0]))]).save()), box([-np.inf], [2]))
    assert state.failed[0]


def test_subnormal_results_may_be_flushed():
    state = sweep(program_of(dense([(f32([[1e-30]]), f32([0]))]).save()), box([1e-12], [1e-12]))
    assert state.lower[1][0, 0] <= 0 <= np.float32(1e-42) <= state.upper[1][0, 0]


def conv_draft(rng, **attributes):
    draft = Draft(inputs=(4, 6, 5))
    draft.constant("W", f32(rng.normal(size=(4, 4 // attributes.get("group", 1), 3, 2))))
    draft.constant("B", f32(rng.normal(size=4)))
    draft.node("Conv", ["X", "W", "B"], "Y", **attributes)
    return draft


def one_node(op, shape, constants=(), first=("X",), **attributes):
    draft = Draft(inputs=shape)
    names = [draft.constant(f"c{at}", value) for at, value in enumerate(constants)]
    draft.node(op, [*first, *names], "Y", **attributes)
    return draft


def residual(rng):
    draft = Draft(inputs=(6,))
    draft.constant("W", f32(rng.normal(size=(6, 6))))
    draft.node("MatMul", ["X", "W"], "m")
    draft.node("Relu", ["m"], "r")
    draft.node("Sub", ["r", "X"], "d")
    draft.node("Add", ["d", "m"], "Y")
    return draft


def normalised(rng):
    draft = conv_draft(rng, pads=[1, 0, 1, 1])
    conv = draft.find("Y")
    conv.output[0] = conv.name = "z"
    for name in ("scale", "shift", "mean"):
        draft.constant(name, f32(rng.normal(size=4)))
    draft.constant("variance", f32(rng.random(4) + 0.1))
    draft.node("BatchNormalization", ["z", "scale", "shift", "mean", "variance"], "n", epsilon=1e-3)
    draft.node("Relu", ["n"], "Y")
    return draft


def joined():
    draft = Draft(inputs=(2, 3))
    draft.node("Relu", ["X"], "r")
    draft.node("Concat", ["X", "r", "X"], "Y", axis=1)
    return draft


RNG = np.random.default_rng(11)
DRAFTS = {
    "conv": conv_draft(RNG, pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2]),
    "conv groups": conv_draft(RNG, group=2),
    "conv batch norm": normalised(RNG),
    "average pool": one_node(
        "AveragePool", (2, 5, 5), kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 2]
    ),
    "average pool padded": one_node(
        "AveragePool", (2, 5, 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "global average pool": one_node("GlobalAveragePool", (3, 4, 4)),
    "max pool": one_node("MaxPool", (2, 5, 5), kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1]),
    "gemm": one_node(
        "Gemm", (5,), [f32(RNG.normal(size=(3, 5))), f32(RNG.normal(size=3))], alpha=0.7, beta=-1.3, transB=1
    ),
    "matmul of rank 3": one_node("MatMul", (2, 4), [f32(RNG.normal(size=(4, 3)))]),
    "constant first": one_node("Sub", (3,), first=("c", "X")),
    "multiply": one_node("Mul", (2, 3), [f32(RNG.normal(size=(2, 1)))]),
    "divide": one_node("Div", (3,), [f32([3, -7, 0.3])]),
    "residual": residual(RNG),
    "reshape": one_node("Reshape", (2, 6), [np.array([0, 3, -1])]),
    "flatten": one_node("Flatten", (2, 6), axis=1),
    "transpose": one_node("Transpose", (2, 3, 4), perm=[0, 3, 1, 2]),
    "pad": one_node("Pad", (2, 3), [np.array([0, 1, 2, 0, 0, 1]), f32(0.5)]),
    "concat": joined(),
    "gather": one_node("Gather", (3, 4), [np.array([2, 0, 0, -1])], axis=2),
    "leaky": one_node("LeakyRelu", (4,), alpha=0.1),
    "clip": one_node("Clip", (6,), [f32(-0.5), f32(0.75)]),
    "sigmoid": one_node("Sigmoid", (4,)),
    "tanh": one_node("Tanh", (4,)),
}
DRAFTS["constant first"].constant("c", f32([1, 2, 3]))


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("width", [0.0, 0.3, 2.5])
def test_runtime_outputs_are_inside_and_points_are_tight(name, width):
    draft, rng = DRAFTS[name], np.random.default_rng(1)
    model = onnx.load_from_string(draft.save())
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    shape = (len(model.graph.output[0].type.tensor_type.shape.dim),)
    assert shape == (1,)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    session = ort.InferenceSession(model.SerializeToString())
    middle = rng.normal(size=draft.inputs).astype(np.float32)
    lower, upper = (middle - np.float32(width)).reshape(-1), (middle + np.float32(width)).reshape(-1)
    state = sweep(program_of(draft.save()), box(lower, upper))
    at = state.program.output
    low = bound.lowest(
        state, {at: np.eye(state.program.sizes[at])}, np.zeros(state.program.sizes[at]),
        np.zeros(state.program.sizes[at], dtype=np.int64),
    )[0]  # fmt: skip
    for _ in range(20):
        x = np.clip((lower + (upper - lower) * rng.random(len(lower))).astype(np.float32), lower, upper)
        y = session.run(None, {"X": x.reshape(1, *draft.inputs)})[0].reshape(-1).astype(np.float64)
        assert (state.lower[at][0] <= y).all()
        assert (y <= state.upper[at][0]).all()
        assert (low <= y).all()
    if width == 0.0:
        assert np.allclose(state.lower[at][0], y, atol=2e-4, rtol=1e-5)
        assert np.allclose(low, y, atol=2e-4, rtol=1e-5)


@given(st.floats(-3, 3), st.floats(0, 3), st.sampled_from([0.0, 0.25, 1.0]))
def test_lines_enclose_leaky_relu(start, width, slope):
    check_lines(
        lambda L, U: lines.leaky_lines(slope, L, U),
        lambda x: x if x >= 0 else Fraction(slope) * x,
        start,
        width,
    )


@given(st.floats(-3, 3), st.floats(0, 3), st.sampled_from([(-1.0, 1.0), (0.0, np.inf), (-np.inf, 0.5)]))
def test_lines_enclose_clip(start, width, ends):
    def clip(x):
        x = max(x, Fraction(ends[0])) if np.isfinite(ends[0]) else x
        return min(x, Fraction(ends[1])) if np.isfinite(ends[1]) else x

    check_lines(lambda L, U: lines.clamp_lines(*ends, L, U), clip, start, width)


def check_lines(rule, function, start, width):
    L, U = np.array([[start]]), np.array([[start + width]])
    found = rule(L, U)
    below, t0, above, t1 = (Fraction(float(v[0, 0])) for v in (found.below, found.t0, found.above, found.t1))
    a, b = Fraction(float(L[0, 0])), Fraction(float(U[0, 0]))
    for share in (0, Fraction(1, 3), Fraction(1, 2), Fraction(9, 10), 1):
        x = a + (b - a) * share
        assert below * x + t0 <= function(x) <= above * x + t1
    for kink in (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2)):
        if a <= kink <= b:
            assert below * kink + t0 <= function(kink) <= above * kink + t1


def test_acas_xu_executions_are_inside(shared_data):
    model = onnx.load(shared_data / "acasxu" / "onnx" / "ACASXU_run2a_1_1_batch_2000.onnx")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    matrices = [constants[n.input[1]] for n in model.graph.node if n.op_type == "MatMul"]
    sums = [n for n in model.graph.node if n.op_type == "Add"]
    biases = [next(constants[i] for i in n.input if i in constants) for n in sums]
    weights = list(zip(matrices, [b.reshape(-1) for b in biases], strict=True))
    data = dense(weights).save()
    session, rng = ort.InferenceSession(data), np.random.default_rng(0)
    middle = f32([0.6, 0.01, 0.49, 0.4, 0.4])
    for width in (1e-4, 0.02):
        lower, upper = middle - np.float32(width), middle + np.float32(width)
        state = sweep(program_of(data), box(lower, upper))
        for how in ("forward", "backward", "shuffled", "tree"):
            x = np.clip((lower + (upper - lower) * rng.random(5)).astype(np.float32), lower, upper)
            values = any_order(weights, x, rng, how)
            assert inside(state, values)
            values[-1] = session.run(None, {"X": x[None]})[0][0]
            assert inside(state, values)
        assert inside(state, exact(weights, x))
