"""Which side of a box a relaxation is loose for."""

from __future__ import annotations

import numpy as np
import pytest
from ir_networks import chain, single

from sutura.bounds.crown import crown, lower_planes
from sutura.bounds.influence import MOST_SIDES, influence
from sutura.bounds.lower import lower
from sutura.bounds.region import Region
from sutura.network import ops


def dense(weight, bias=None):
    return ops.Gemm(single(weight), None if bias is None else single(bias), transposed=True)


def at(network, low, high):
    program, region = lower(network), Region(np.array([low], float), np.array([high], float))
    bounds = crown(program, region)
    return program, region, bounds, influence(program, region, bounds)


def test_a_side_is_charged_by_its_part_in_the_width():
    # z = x0 + 3 x1 on [-1, 1]^2 is in [-4, 4]: relu lies between z / 2 + 2 and 0 or z, 2 apart in the middle;
    # x1 has three quarters of the width. z1 = x0 + 9 is never bent.
    network = chain((2,), dense([[1, 3], [1, 0]], [0, 9]), ops.Relu(), dense([[1, 1]]))
    program, region, bounds, shares = at(network, [-1, -1], [1, 1])
    assert shares[2][0] == pytest.approx(np.array([[0.5, 1.5], [0, 0]]), abs=1e-5)
    # y = relu(z) + ...: the coefficient is one, so the plane loses just that.
    planes = lower_planes(program, region, bounds, np.array([[1.0]]), shares=shares)
    assert planes.strain[0, 0] == pytest.approx([0.5, 1.5], abs=1e-5)
    assert lower_planes(program, region, bounds, np.array([[1.0]])).strain.tolist() == [[[0, 0]]]


def test_a_maximum_is_charged_to_what_its_likely_winner_reads():
    # max(x0, x1), x0 in [0, 1], x1 in [-1, 2]: best lower bound x0; the high of all is 2 above it.
    network = chain((1, 2), ops.MaxPool((2,), (2,), (0, 0), (1,)), ops.Reshape((1,)))
    shares = at(network, [0, -1], [1, 2])[3]
    assert shares[1][0] == pytest.approx(np.array([[2.0, 0]]))


def test_slopes_that_cancel_leave_the_strain():
    # y = relu(x0) - relu(x0 + 1/8) has hardly a slope over [-1, 1], but all it loses is owed to x0.
    network = chain((2,), dense([[1, 0], [1, 0]], [0, 0.125]), ops.Relu(), dense([[1, -1]]))
    program, region, bounds, shares = at(network, [-1, -1], [1, 1])
    planes = lower_planes(program, region, bounds, np.array([[1.0]]), shares=shares)
    assert planes.strain[0, 0, 0] > 0.5 and planes.strain[0, 0, 1] == 0


def test_nothing_for_many_inputs():
    n = MOST_SIDES + 1
    assert at(chain((n,), dense(np.ones((1, n))), ops.Relu()), [-1] * n, [1] * n)[3] == {}
