"""Bounds of neurons inside subproblems: they hold at all points of interest, and are never wider."""

from __future__ import annotations

import numpy as np
import pytest
from ir_networks import chain, single

from sutura.bounds.ascent import Domain, Effort, Start, plain_choice
from sutura.bounds.condensed import condense
from sutura.bounds.crown import crown
from sutura.bounds.leaf import Place, mixed
from sutura.bounds.lower import lower
from sutura.bounds.program import run
from sutura.bounds.region import Region
from sutura.bounds.retighten import Case, retighten
from sutura.network import ops

ROW = np.ones((1, 1))


def random_place(seed, inputs=4, hidden=(8, 8)):
    """A random ReLU network on a box, one output."""
    random, layers, n = np.random.default_rng(seed), [], inputs
    for m in (*hidden, 1):
        weight = single(random.normal(size=(n, m)) / np.sqrt(n))
        layers += [ops.Gemm(weight, single(random.normal(size=m) / 2)), ops.Relu()]
        n = m
    program = lower(chain((inputs,), *layers[:-1]))
    centre = random.normal(size=inputs).astype(np.float32)
    region = Region(*((centre + s * np.float32(0.7)).astype(np.float64)[None] for s in (-1, 1)))
    bounds = crown(program, region)
    return Place(program, region, bounds, condense(program, region, bounds, ROW))


def case_of(place, limit):
    """The whole box, of interest where output <= limit."""
    net = place.net
    domain = Domain(net.low[None].copy(), net.high[None].copy())
    form = Start(net.rows_inputs, net.rows_neurons, net.rows_bias - np.float32(limit))
    return Case(domain, plain_choice(net.blocks, domain), form, mixed(ROW, ROW, np.array([limit])))


def sampled(place, count=20_000):
    """Outputs, and what each open neuron reads, at random points of the box."""
    random, region = np.random.default_rng(0), place.region
    x = single(region.low + random.random((count, place.program.inputs)) * (region.high - region.low))
    values = run(place.program, x.astype(np.float64))
    return values[-1][:, 0], np.concatenate([values[b.source][:, b.entry] for b in place.net.blocks], axis=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_bounds_hold_wherever_the_output_is_of_interest(seed, share):
    place = random_place(seed)
    y, z = sampled(place)
    limit = float(np.quantile(y, share))
    case = case_of(place, limit)
    asked = np.ones(case.domain.low.shape, dtype=bool)
    better = retighten(place, case, asked, Effort(steps=15, pace=0.2, decay=0.9))
    assert (better.low >= case.domain.low).all() and (better.high <= case.domain.high).all()
    seen = z[y <= limit]
    assert (seen >= better.low - 1e-6).all() and (seen <= better.high + 1e-6).all()


def test_the_less_is_of_interest_the_narrower_are_the_bounds():
    place = random_place(3)
    y, _ = sampled(place)
    asked = np.ones((1, place.net.neurons), dtype=bool)
    width = []
    for share in (0.02, 1.0):
        case = case_of(place, float(np.quantile(y, share)))
        better = retighten(place, case, asked, Effort(steps=30, pace=0.2, decay=0.9))
        width.append(float((better.high - better.low).sum()))
    assert width[0] < 0.9 * width[1]


def test_where_nothing_is_of_interest_bounds_cross_and_neurons_not_asked_stay():
    place = random_place(5)
    y, _ = sampled(place)
    case = case_of(place, float(y.min()) - 100.0)
    none = retighten(place, case, np.zeros((1, place.net.neurons), dtype=bool), Effort(steps=3))
    assert np.array_equal(none.low, case.domain.low) and np.array_equal(none.high, case.domain.high)
    every = retighten(place, case, np.ones((1, place.net.neurons), dtype=bool), Effort(steps=40, pace=0.5))
    assert (every.low > every.high).any()


def test_a_form_of_interest_by_hand():
    # y = relu(x) - 2 relu(x - 1) on [-3, 3]. Above relu(x - 1) lies (x + 3) / 3, below relu(x) lies zero:
    # where y <= -1, -2 (x + 3) / 3 <= -1, so that x >= -1.5.
    layers = (
        ops.Gemm(single([[1, 1]]), single([0, -1])),
        ops.Relu(),
        ops.Gemm(single([[1], [-2]]), single([0])),
    )
    program = lower(chain((1,), *layers))
    region = Region(np.array([[-3.0]]), np.array([[3.0]]))
    bounds = crown(program, region)
    place = Place(program, region, bounds, condense(program, region, bounds, ROW))
    better = retighten(place, case_of(place, -1.0), np.ones((1, 2), dtype=bool), Effort(steps=100, pace=0.3))
    assert better.low[0, 0] == pytest.approx(-1.5, abs=1e-2)
    assert better.low[0, 0] <= -1.5
    assert better.high[0, 0] >= 3.0
