"""Bounds worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from ir_networks import chain, graph, single

from sutura.bounds import interval
from sutura.bounds.crown import Enclosure, crown, lower_planes
from sutura.bounds.gradient import gradients
from sutura.bounds.lower import lower
from sutura.bounds.program import run
from sutura.bounds.region import Region, after, halves, midpoint
from sutura.bounds.rounding import EXACT_REALS, FLOAT32_ANY_ORDER, gamma
from sutura.network import ops


def box(*ends):
    """One box from (low, high) pairs."""
    low, high = zip(*ends, strict=True)
    return Region(np.array([low], dtype=np.float64), np.array([high], dtype=np.float64))


def dense(weight, bias=None):
    """y = W x + b with W as one writes it, a row an output."""
    return ops.Gemm(single(weight), None if bias is None else single(bias), transposed=True)


def near(value):
    return pytest.approx(value, abs=1e-5)


def test_interval_of_one_layer():
    # y0 = 2 x0 - x1 + 1 on [-1, 1] x [0, 3]: least -2 - 3 + 1 = -4, most 2 - 0 + 1 = 3.
    # y1 = -x0 + 0.5 x1: least -1 + 0 = -1, most 1 + 1.5 = 2.5.
    program = lower(chain((2,), dense([[2, -1], [-1, 0.5]], [1, 0])))
    bounds = crown(program, box((-1, 1), (0, 3)))
    assert bounds.low[1][0] == near([-4, -1]) and bounds.high[1][0] == near([3, 2.5])


def test_execution_error_is_the_stated_formula():
    # v = |2| 1 + |-1| 3 + |1| = 6 and a term meets at most n + 5 = 7 roundings, so the error is gamma_7 6.
    program = lower(chain((2,), dense([[2, -1]], [1])))
    error = crown(program, box((-1, 1), (0, 3))).errors[1][0, 0]
    assert error == pytest.approx(6 * 7 * 2.0**-24 / (1 - 7 * 2.0**-24), rel=1e-6)
    reals = crown(program, box((-1, 1), (0, 3)), profile=EXACT_REALS).errors[1][0, 0]
    assert 6 * 2.0**-53 < reals < 1e-12


def test_gamma():
    assert gamma(0, 0.5) == 0.0 and gamma(1, 0.25) == 0.25 / 0.75 and gamma(2, 0.25) == np.inf
    assert FLOAT32_ANY_ORDER.unit == 2.0**-24


def test_crown_of_the_difference_of_two_relus():
    # h0 = relu(x), h1 = relu(-x), y = h0 - h1 on [-1, 1]. Interval: [-1, 1].
    # Lower bound of y: h0 >= 0 (slope 0: 1 > 1 is false), h1 <= 0.5 (-x) + 0.5: y >= 0.5 x - 0.5 >= -1.
    network = chain((1,), dense([[1], [-1]]), ops.Relu(), dense([[1, -1]]))
    program, region = lower(network), box((-1, 1))
    planes = lower_planes(program, region, crown(program, region), np.array([[1.0], [-1.0]]))
    assert planes.value[0] == near([-1, -1])
    assert planes.slopes[0, 0, 0] == near(0.5)


def test_crown_keeps_what_intervals_lose():
    # z = (x, x + 2) on [-1, 1], y = relu(x + 2) - relu(x): one is stable. Interval: [1 - 1, 3 - 0].
    # Lower: (x + 2) - (x / 2 + 1/2) = x / 2 + 3/2 >= 1.  Upper: (x + 2) - 0 <= 3.
    network = chain((1,), dense([[1], [1]], [0, 2]), ops.Relu(), dense([[-1, 1]]))
    program, region = lower(network), box((-1, 1))
    bounds = crown(program, region)
    assert (bounds.low[-1][0, 0], bounds.high[-1][0, 0]) == (near(0), near(3))
    planes = lower_planes(program, region, bounds, np.array([[1.0], [-1.0]]))
    assert planes.value[0] == near([1, -3])


def test_crown_of_two_layers():
    # a = (x0 + x1, x0 - x1) on [-1, 1]^2, both in [-2, 2]; h = relu(a) <= a / 2 + 1, h >= 0.
    # b = h0 + h1 - 0.5: interval [-0.5, 3.5]; backward: a0/2 + a1/2 + 2 - 0.5 = x0 + 1.5 <= 2.5.
    # g = relu(b) with [-0.5, 2.5]: slope 2.5 / 3, g <= 5/6 (b + 0.5) = 5/6 (h0 + h1) <= 5/6 (x0 + 2) <= 2.5;
    # lower slope 1 as 2.5 > 0.5: g >= b >= -0.5, and the interval of relu says 0.
    network = chain((2,), dense([[1, 1], [1, -1]]), ops.Relu(), dense([[1, 1]], [-0.5]), ops.Relu())
    program, region = lower(network), box((-1, 1), (-1, 1))
    bounds = crown(program, region)
    assert bounds.low[3][0, 0] == near(-0.5) and bounds.high[3][0, 0] == near(2.5)
    planes = lower_planes(program, region, bounds, np.array([[1.0], [-1.0]]))
    assert planes.value[0] == near([0, -2.5])
    assert planes.slopes[0, 0] == near([0, 0])
    assert planes.slopes[0, 1] == near([-5 / 6, 0])


def test_a_single_output_is_read_off_without_rounding():
    network = chain((1,), ops.Relu())
    program, region = lower(network), box((-1, 1))
    planes = lower_planes(program, region, crown(program, region), np.array([[1.0], [-1.0], [-2.0]]))
    assert planes.value[0, :2].tolist() == [0.0, -1.0]
    assert -2.0 - 1e-9 < planes.value[0, 2] <= -2.0


def test_a_sum_of_outputs_is_rounded_down():
    # Outputs are known exactly; float64 products with them, and sums of forty of these, are not.
    random = np.random.default_rng(3)
    x = single(1 + random.random(40)).astype(np.float64)
    rows = np.concatenate([random.normal(size=(100, 40)), np.diag(random.normal(size=40))])
    program, region = lower(chain((40,), ops.Relu())), Region(x[None], x[None])
    planes = lower_planes(program, region, crown(program, region), rows)
    exact = [
        sum(Fraction(c) * Fraction(v) for c, v in zip(row, x.tolist(), strict=True)) for row in rows.tolist()
    ]
    assert all(Fraction(v) <= e for v, e in zip(planes.value[0].tolist(), exact, strict=True))
    assert planes.value[0] == pytest.approx([float(e) for e in exact], abs=1e-9)


def test_maximum_with_and_without_a_sure_winner():
    # Windows (0, 1) and (2, 3): 5 <= x0 beats x1 <= 1, so max = x0; x2, x3 in [0, 1], [-1, 2] do not settle:
    # max >= x2 (best lower bound) and max <= 2.
    network = chain((1, 4), ops.MaxPool((2,), (2,), (0, 0), (1,)), ops.Reshape((2,)), dense([[1, 0], [0, 1]]))
    program = lower(network)
    region = box((5, 6), (0, 1), (0, 1), (-1, 2))
    bounds = crown(program, region)
    assert bounds.low[1][0] == near([5, 0]) and bounds.high[1][0] == near([6, 2])
    planes = lower_planes(program, region, bounds, np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
    assert planes.value[0] == near([5, -6, 0, -2])
    expected = [[1, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert planes.slopes[0].tolist() == expected


def test_residual_connection_cancels_in_the_backward_pass():
    # y = (relu(x + 4) - 4) - x on [-1, 1] is 0; intervals say [-2, 2].
    steps = [
        (dense([[1]], [4]), ["x"], "z"),
        (ops.Relu(), ["z"], "h"),
        (ops.SubtractConstant(single([4])), ["h"], "s"),
        (ops.Subtract(), ["s", "x"], "y"),
    ]
    program, region = lower(graph((1,), *steps)), box((-1, 1))
    bounds = crown(program, region)
    planes = lower_planes(program, region, bounds, np.array([[1.0], [-1.0]]))
    assert bounds.low[-1][0, 0] == near(-2) and bounds.high[-1][0, 0] == near(2)
    assert planes.value[0] == near([0, 0])


def test_known_bounds_are_intersected():
    program, region = lower(chain((1,), dense([[1], [2]]), ops.Relu())), box((-1, 1))
    known = Enclosure({1: np.array([[-0.5, -3.0]])}, {1: np.array([[3.0, 0.25]])})
    bounds = crown(program, region, known)
    assert bounds.low[1][0] == near([-0.5, -2]) and bounds.high[1][0] == near([1, 0.25])
    assert bounds.enclosure(program).low.keys() == {1}


def test_magnitude_and_range_of_activations():
    low, high = np.array([[-3.0, 1.0]]), np.array([[2.0, 4.0]])
    assert interval.magnitude(low, high).tolist() == [[3.0, 4.0]]


def test_gradient_of_a_small_network():
    # y = relu(x0 - x1) + 0.5 leaky(x1) at (2, 1): dy/dx0 = 1, dy/dx1 = -1 + 0.5; at (1, -2) leaky has 0.25.
    steps = [
        (dense([[1, -1]]), ["x"], "d"), (ops.Relu(), ["d"], "r"), (dense([[0, 0.5]]), ["x"], "h"),
        (ops.LeakyRelu(0.25), ["h"], "k"), (ops.Add(), ["r", "k"], "y"),
    ]  # fmt: skip
    program = lower(graph((2,), *steps))
    values = run(program, np.array([[2.0, 1.0], [1.0, -2.0]]))
    slopes = gradients(program, values, np.ones((2, 1)))[0]
    assert slopes.tolist() == [[1.0, -0.5], [1.0, -1.0 + 0.125]]


ENDS = [
    (-1.0, 1.0), (0.0, 1.0), (-0.0, 2.0**-149), (1.0, 1.0 + 2.0**-23), (-(2.0**-149), 2.0**-149),
    (-3.4e38, 3.4e38),
    (3.0e38, 3.4028234663852886e38), (-1e-45, 1e30), (0.1, 0.3), (-7.25, -7.0), (2.0**-149, 3.4e38),
]  # fmt: skip


@pytest.mark.parametrize(("low", "high"), ENDS)
def test_midpoint_is_a_float32_number_that_leaves_both_halves_something(low, high):
    low, high = float(np.float32(low)), float(np.float32(high))
    cut = midpoint(np.array([low]), np.array([high]))[0]
    follower = after(np.array([cut]))[0]
    assert low <= cut < follower <= high
    assert np.float32(cut) == cut and np.float32(follower) == follower


@pytest.mark.parametrize("low", [1.0, -1.0, 0.0, 2.0**-140, -(2.0**-126)])
def test_halves_hold_every_float32_point_exactly_once_until_single_points_are_left(low):
    numbers = [np.float32(low)]
    for _ in range(12):
        numbers.append(np.nextafter(numbers[-1], np.float32(np.inf)))
    ends = (float(numbers[0]), float(numbers[-1]))
    boxes, singles = [Region(np.array([[ends[0]]]), np.array([[ends[1]]]))], []
    while boxes:
        region = boxes.pop()
        if region.low[0, 0] == region.high[0, 0]:
            singles.append(region.low[0, 0])
            continue
        boxes.extend(halves(region, np.array([0])))
    assert sorted(singles) == [float(v) for v in numbers]


def test_halves_cut_each_box_at_its_own_side():
    region = Region(np.array([[0.0, 0.0], [2.0, -4.0]]), np.array([[1.0, 8.0], [6.0, 4.0]]))
    left, right = halves(region, np.array([1, 0]))
    assert left.high.tolist() == [[1.0, 4.0], [4.0, 4.0]] and left.low.tolist() == region.low.tolist()
    above = float(np.nextafter(np.float32(4), np.float32(5)))
    assert right.low.tolist() == [[0.0, above], [above, -4.0]] and right.high.tolist() == region.high.tolist()


def test_a_maximum_without_a_sure_winner_is_not_its_likely_winner():
    # y = x0 - max(x0, x1), x0 in [0.5, 2], x1 in [0, 1], reaches -0.5; x0 has the best bounds but may lose.
    # Backward: max <= 2, so y >= x0 - 2 >= -1.5; upwards max >= x0 (best lower bound), so y <= 0.
    steps = [
        (ops.MaxPool((2,), (2,), (0, 0), (1,)), ["x"], "m"),
        (ops.Take(1, np.array([0])), ["x"], "t"),
        (ops.Subtract(), ["t", "m"], "y"),
    ]
    program, region = lower(graph((1, 2), *steps)), box((0.5, 2), (0, 1))
    planes = lower_planes(program, region, crown(program, region), np.array([[1.0], [-1.0]]))
    assert planes.value[0] == near([-1.5, 0])


def test_bounds_of_a_product_and_a_quotient():
    # On [1, 1.01]: x (x + 1) lies in [2, 2.0301], x / (x + 1) in [1/2, 101/201]; for p + q and p alone.
    # The square ((a + b)^2 - (a - b)^2) / 4 of width 0.02 strays by at most 0.02^2 / 4 = 1e-4.
    network = graph(
        (1,),
        (ops.AddConstant(single([1.0])), ("x",), "a"),
        (ops.Multiply(), ("x", "a"), "p"),
        (ops.Divide(), ("x", "a"), "q"),
        (ops.Concat(0), ("p", "q"), "y"),
    )
    region = box((1.0, float(np.float32(1.01))))
    program = lower(network)
    bounds = crown(program, region)
    found = lower_planes(program, region, bounds, np.concatenate([np.eye(2), -np.eye(2)])).value[0]
    true = np.array([2.0, 0.5, -2.0301, -101 / 201])
    assert (found <= true + 1e-7).all() and found == pytest.approx(true, abs=3e-4)
