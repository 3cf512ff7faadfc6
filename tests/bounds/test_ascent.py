"""Optimised bounds: worked by hand, never below plain CROWN, never above what executions reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ir_networks import ORDERS, chain, execute, single
from random_networks import boxes, networks, points

from sutura.bounds.ascent import Choice, Domain, Effort, Start, ascend, evaluate, plain_choice
from sutura.bounds.condensed import condense
from sutura.bounds.crown import crown, lower_planes
from sutura.bounds.leaf import Place, sound_outputs
from sutura.bounds.lower import lower, lower_traced
from sutura.bounds.maxima import without_maxima
from sutura.bounds.program import MaxOf
from sutura.bounds.region import Region
from sutura.bounds.tighten import tighten
from sutura.network import ops

EFFORT = Effort(steps=60, pace=0.2, decay=0.95)


def placed(program, region, rows):
    with np.errstate(all="ignore"):
        bounds = crown(program, region)
        return Place(program, region, bounds, condense(program, region, bounds, rows))


def asked(net, count=None):
    count = len(net.rows_bias) if count is None else count
    domain = Domain(np.repeat(net.low[None], count, axis=0), np.repeat(net.high[None], count, axis=0))
    return domain, Start(net.rows_inputs, net.rows_neurons, net.rows_bias)


def mixed(choice, mix):
    return Choice(choice.lower, choice.upper, choice.pull, mix.astype(np.float32))


def interval(low, high):
    return Region(np.array([low], np.float64), np.array([high], np.float64))


def absolute_value():
    """|x| = relu(x) + relu(-x)."""
    return chain(
        (1,),
        ops.Gemm(single([[1], [-1]]), single([0, 0]), transposed=True),
        ops.Relu(),
        ops.Gemm(single([[1, 1]]), single([0]), transposed=True),
    )


def test_alpha_finds_the_slope_that_plain_crown_misses():
    # relu(x) >= x, the line of plain CROWN on [-1, 2], gives -1; the slope 0 gives 0, the exact minimum.
    network = chain((1,), ops.Gemm(single([[1]]), single([0]), transposed=True), ops.Relu())
    place = placed(lower(network), interval([-1], [2]), np.eye(1))
    domain, start = asked(place.net)
    plain = mixed(plain_choice(place.net.blocks, domain), np.eye(1))
    assert evaluate(place.net, place.net.blocks, domain, plain, start).value[0] == pytest.approx(-1, abs=1e-5)
    best = ascend(place.net, place.net.blocks, domain, (start, plain), EFFORT)
    assert best.value[0] == pytest.approx(0, abs=1e-5)
    assert sound_outputs(place, domain, best.choice, np.eye(1))[0] == pytest.approx(0, abs=1e-5)


def test_beta_makes_the_bound_of_a_split_exact():
    # Where x >= 0, relu(x) = x; over the whole box [-1, 2] that is at least -1, with no multiplier.
    network = chain((1,), ops.Gemm(single([[1]]), single([0]), transposed=True), ops.Relu())
    place = placed(lower(network), interval([-1], [2]), np.eye(1))
    domain, start = asked(place.net)
    half = Domain(np.zeros_like(domain.low), domain.high)
    plain = mixed(plain_choice(place.net.blocks, half), np.eye(1))
    assert evaluate(place.net, place.net.blocks, half, plain, start).value[0] == pytest.approx(-1)
    best = ascend(place.net, place.net.blocks, half, (start, plain), EFFORT)
    assert best.value[0] == pytest.approx(0, abs=1e-3)
    assert best.choice.pull[0, 0] == pytest.approx(1, abs=1e-3)
    assert sound_outputs(place, half, best.choice, np.eye(1))[0] == pytest.approx(0, abs=1e-3)


def test_an_empty_half_has_the_infinite_bound():
    place = placed(lower(absolute_value()), interval([-1], [1]), np.eye(1))
    domain, _ = asked(place.net)
    nothing = Domain(np.full_like(domain.low, 0.5), np.full_like(domain.high, 0.25))
    choice = mixed(plain_choice(place.net.blocks, domain), np.eye(1))
    assert sound_outputs(place, nothing, choice, np.eye(1))[0] == np.inf


def test_a_mixture_of_rows_can_refute_what_no_row_refutes():
    # Unsafe where |x| <= 1/2 and x >= 3/4: on [1/4, 1] each alone happens, both never.
    place = placed(lower(absolute_value()), interval([0.25], [1]), np.eye(1))
    assert place.net.neurons == 0
    start = Start(single([[1], [-1]]), np.zeros((2, 0), np.float32), single([-0.5, 0.75]))
    domain = Domain(np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32))
    choice = mixed(plain_choice((), domain), np.array([[0.9, 0.1]]))
    best = ascend(place.net, (), domain, (start, choice), EFFORT)
    assert best.value[0] == pytest.approx(0.125, abs=0.02)
    assert best.choice.mix[0] == pytest.approx([0.5, 0.5], abs=0.1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_the_ascent_never_ends_below_plain_crown(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size)).take(slice(0, 1))
    program = without_maxima(lower(network))
    rows = np.concatenate([np.eye(network.output_size), -np.eye(network.output_size)])
    place = placed(program, region, rows)
    domain, start = asked(place.net)
    plain = mixed(plain_choice(place.net.blocks, domain), np.eye(len(rows)))
    with np.errstate(all="ignore"):
        best = ascend(place.net, place.net.blocks, domain, (start, plain), Effort(steps=6))
        sound = sound_outputs(place, domain, best.choice, rows)
        planes = lower_planes(program, region, place.bounds, rows).value[0]
        first = evaluate(place.net, place.net.blocks, domain, plain, start).value
    assume(np.isfinite(first).all() and np.isfinite(planes).all())
    assert np.all(best.value >= first)
    size = 1 + abs(planes) + abs(place.bounds.low[-1]).max() + abs(place.bounds.high[-1]).max()
    plain_sound = sound_outputs(place, domain, plain, rows)
    assert np.all(sound >= plain_sound - 2e-4 * size)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_no_execution_on_its_side_of_the_splits_goes_below_the_bound(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size)).take(slice(0, 1))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    program, at = lower_traced(network)
    assume(not any(isinstance(layer, MaxOf) for layer in program.layers))
    rows = np.concatenate([np.eye(network.output_size), random.normal(size=(1, network.output_size))])
    place = placed(program, region, rows)
    net, count = place.net, 6
    domain, _ = asked(net, count)
    cuts = domain.low + random.random(domain.low.shape).astype(np.float32) * (domain.high - domain.low)
    sides = random.integers(0, 5, domain.low.shape)
    names = {index: name for name, index in at.items()}
    for block in net.blocks:
        if block.source not in names:  # no operator's own value
            sides[:, block.span] = 2
    part = Domain(np.where(sides == 0, cuts, domain.low), np.where(sides == 1, cuts, domain.high))
    free = [random.random(domain.low.shape).astype(np.float32) for _ in "lu"]
    pull = (random.normal(size=domain.low.shape) * random.choice([0, 1, 50])).astype(np.float32)
    mix = np.eye(len(rows))[random.integers(0, len(rows), count)]
    mix[0] = random.random(len(rows))
    with np.errstate(all="ignore"):
        found = sound_outputs(place, part, Choice(*free, pull, mix.astype(np.float32)), rows)
    assert not np.isnan(found).any()
    for x in points(region, 4)[0]:
        for order in ORDERS[:3]:
            values = execute(network, x.reshape(network.input_shape), order)
            flat = {k: values[n].reshape(-1).astype(np.float64) for k, n in names.items()}
            here = np.full(count, True)
            for block in (b for b in net.blocks if b.source in names):
                z = flat[block.source][block.entry]
                here &= np.all((part.low[:, block.span] <= z) & (z <= part.high[:, block.span]), axis=1)
            y = values[network.output].reshape(-1).astype(np.float64)
            if np.isfinite(y).all():
                reached = mix.astype(np.float32).astype(np.float64) @ (rows @ y)
                assert np.all(~here | (found <= reached + 1e-9 * (1 + abs(reached))))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_tightened_bounds_hold_every_execution_and_are_never_wider(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size)).take(slice(0, 1))
    program, at = lower_traced(network)
    assume(not any(isinstance(layer, MaxOf) for layer in program.layers))
    place = placed(program, region, np.eye(network.output_size))
    with np.errstate(all="ignore"):
        better = tighten(program, region, place.bounds, place.net, Effort(steps=3))
    for old, new in zip(place.bounds.low, better.low, strict=True):
        assert np.all(new >= old)
    for old, new in zip(place.bounds.high, better.high, strict=True):
        assert np.all(new <= old)
    for x in points(region, 4)[0]:
        for order in ORDERS[:3]:
            for name, value in execute(network, x.reshape(network.input_shape), order).items():
                flat = value.reshape(-1).astype(np.float64)
                known = ~np.isnan(flat)
                assert np.all((better.low[at[name]][0] <= flat)[known])
                assert np.all((flat <= better.high[at[name]][0])[known])
