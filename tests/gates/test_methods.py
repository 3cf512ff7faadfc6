"""The published methods: what they promise, what they leave open, and that both are told."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import at_most, cube, less, loaded, mlp, points, prop, run_original, run_repaired

from sutura.bounds.gradient import gradients
from sutura.bounds.lower import lower
from sutura.bounds.program import run
from sutura.certificate.check import check
from sutura.errors import MismatchError
from sutura.gates.cells import box32, boxes_of
from sutura.gates.cross_entropy import loss_gradient, push
from sutura.gates.evaluate import same_bits, violating
from sutura.gates.mend import ClampConfig, RepairConfig
from sutura.gates.minimal import MinimalConfig, Point, smallest_change
from sutura.gates.nrepair import NRepairConfig
from sutura.gates.repair import repair
from sutura.gates.rows import rows_of
from sutura.gates.safe_set import alternatives, safe_set
from sutura.gates.smear import grid, interval_gradient, splits
from sutura.property.build import argmax_in, argmax_not_in, argmin_in, argmin_not_in, robustness
from sutura.verdict.goal import goal

DATA = mlp([3, 10, 4], 4)
WANTED = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
NREPAIR = NRepairConfig(share=0.5, depth=5, leaf_boxes=20, workers=1)


def unsafe(properties):
    return properties.cases[0].unsafe


BOX = cube([0] * 5, [1] * 5)


@pytest.mark.parametrize(
    ("prop", "direction"),
    [
        (argmax_not_in(BOX, [0], outputs=5), [-1, 0, 0, 0, 0]),  # property 2 of ACAS Xu
        (argmin_not_in(BOX, [3, 4], outputs=5), [0, 0, 0, 1, 1]),  # property 7
        (argmin_in(BOX, [0, 1], outputs=5), [-1, -1, 0, 0, 0]),  # property 8
        (robustness([0.5] * 5, 0.1, 2, classes=5), [0, 0, 1, 0, 0]),
    ],
)
def test_the_published_losses_come_out_of_one_rule(prop, direction):
    found = push(unsafe(prop), 5)
    assert found.relative
    assert found.direction.tolist() == direction


def test_the_gradient_of_the_loss_is_that_of_cross_entropy():
    wanted = push(unsafe(argmin_not_in(BOX, [3, 4], outputs=5)), 5)
    y = np.random.default_rng(0).standard_normal(5)

    def loss(y):
        shares = np.exp(y) / np.exp(y).sum()
        return -np.log(shares[3]) - np.log(shares[4])

    numeric = [(loss(y + h) - loss(y - h)) / 2e-6 for h in np.eye(5) * 1e-6]
    np.testing.assert_allclose(loss_gradient(wanted, y), numeric, atol=1e-8)


def test_a_bound_by_a_number_pushes_the_score_itself():
    wanted = push((((at_most({1: 1}, 3)),),), 3)
    assert not wanted.relative
    assert loss_gradient(wanted, np.zeros(3)).tolist() == [0, -1, 0]


def test_the_interval_gradient_holds_every_gradient_of_the_box():
    program = lower(loaded(DATA).network)
    seed = np.array([1.0, -1.0, 0.5, 0.0])
    low, high = interval_gradient(program, box32(*BOX3.float32_hull()), seed)
    x = points(BOX3, 300, 1).astype(np.float64)
    found = gradients(program, run(program, x), np.broadcast_to(seed, (300, 4)))[0]
    assert (found >= low - 1e-9).all()
    assert (found <= high + 1e-9).all()


BOX3 = cube([-1, -0.5, 0], [1, 0.5, 0])


def test_the_grid_cuts_sides_by_their_smear_and_covers_the_box():
    program = lower(loaded(DATA).network)
    box = box32(*BOX3.float32_hull())
    aim = goal(WANTED[0].cases[0].unsafe, 4)
    counts = splits(program, aim, box, 20)
    assert counts[2] == 1
    assert 20 <= counts.sum() <= 24
    parts = [part for _, part in boxes_of(grid(program, aim, box, 20), box)]
    assert len(parts) == counts.prod()
    x = points(BOX3, 200, 0)
    held = [((x >= p.low) & (x <= p.high)).all(axis=1) for p in parts]
    assert (np.sum(held, axis=0) == 1).all()


def test_nrepair_proves_what_it_repairs_and_says_what_it_leaves():
    result = repair(loaded(DATA), WANTED, NREPAIR)
    trials, regions = result.trials, result.regions
    assert trials.counterexamples >= trials.repaired > 0
    left = trials.counterexamples - trials.repaired + trials.unsettled
    assert result.certified == (left == 0)
    assert result.note.startswith(f"{left} of {trials.boxes} boxes of the grid") == (left > 0)
    assert regions.rows == trials.repaired + 1
    assert trials.gates <= 0.5 * 10 + 1
    x = points(WANTED[0].cases[0].box, 3000, 0)
    was, now, row = run_original(DATA)(x), run_repaired(result.onnx)(x), rows_of(result.onnx)(x)
    assert not violating(WANTED, x, now)[row > 0].any()
    assert same_bits(was[row == 0], now[row == 0]).all()
    assert violating(WANTED, x, now).sum() < violating(WANTED, x, was).sum()


def test_nrepair_gets_a_certificate_where_nothing_is_left():
    wanted = [argmax_in(cube([-0.5] * 3, [0.5] * 3), [0, 1, 2], outputs=4)]
    data = mlp([3, 10, 4], 3)
    result = repair(loaded(data), wanted, NREPAIR)
    assert result.trials.counterexamples == result.trials.repaired > 0
    assert (result.certified, result.regions.open, result.note) == (True, 0, "")
    assert check(result.onnx, [wanted[0].text], result.certificate).accepted


def test_no_time_leaves_everything_and_says_so():
    result = repair(loaded(DATA), WANTED, NRepairConfig(timeout=1e-9, workers=1))
    assert result.trials.skipped == result.trials.boxes == result.regions.open
    assert not result.certified
    assert f"{result.trials.skipped} were not reached in time" in result.note
    x = points(cube([-2] * 3, [2] * 3), 200, 0)
    assert same_bits(run_original(DATA)(x), run_repaired(result.onnx)(x)).all()


def test_the_smallest_change_is_that_of_the_linear_program():
    """One point that reads (2,) and gives (0, 0); y0 > y1 by 0.3: h and 1 move both, by t (2 + 1) each."""
    piece = alternatives(safe_set([(less(0, 1),)]))
    point = Point(np.array([2.0]), np.array([0.1, 0.1]), piece)
    change = smallest_change([point], (2, True), 1.5)
    t = 1.5 * 0.1 * 2 / (2 * 3)
    np.testing.assert_allclose(change, [[t, -t], [t, -t]], atol=1e-9)
    unbiased = smallest_change([point], (2, False), 1.5)
    np.testing.assert_allclose(unbiased[1], 0.0)


def test_minimal_modification_is_certified_where_it_is_proved():
    easy = [prop("y0", 3, 4, (cube([-0.2] * 3, [0.2] * 3), [[at_most({0: 1}, 0)]]))]
    result = repair(loaded(DATA), easy, MinimalConfig(boxes=3000, margin=0.02, workers=1))
    assert result.certified
    assert check(result.onnx, [easy[0].text], result.certificate).accepted
    x = points(easy[0].cases[0].box, 2000, 0)
    assert violating(easy, x, run_original(DATA)(x)).any()
    assert not violating(easy, x, run_repaired(result.onnx)(x)).any()
    assert result.note == "the last layer is changed for every input, in the boxes and outside"


def test_minimal_modification_says_what_is_not_proved():
    result = repair(loaded(DATA), WANTED, MinimalConfig(boxes=20, workers=1))
    assert not result.certified
    assert "regions are not proved" in result.note
    assert result.regions.open > 0


def test_minimal_modification_says_where_no_change_will_do():
    both = [
        prop("a", 3, 4, (cube([0] * 3, [1] * 3), [[at_most({0: 1}, 0)]])),
        prop("b", 3, 4, (cube([0] * 3, [1] * 3), [[at_most({0: -1}, 1)]])),
    ]
    result = repair(loaded(DATA), both, MinimalConfig(boxes=20, workers=1))
    assert "no change of the last layer repairs all of" in result.note
    assert not result.certified


def test_minimal_modification_needs_an_affine_last_layer():
    from onnx import helper
    from small_networks import onnx_bytes

    relu = onnx_bytes([helper.make_node("Relu", ["x"], ["y"])], {}, [2], [2])
    wanted = [argmax_in(cube([0] * 2, [1] * 2), [0], outputs=2)]
    with pytest.raises(MismatchError, match="ends in Relu"):
        repair(loaded(relu), wanted, MinimalConfig(workers=1))


def test_the_clamp_is_the_default_without_a_search():
    clamped = repair(loaded(DATA), WANTED, ClampConfig(workers=1))
    plain = repair(loaded(DATA), WANTED, RepairConfig(boxes=0, workers=1))
    assert clamped.onnx == plain.onnx
    assert (clamped.method, plain.method) == ("clamp", "default")
    assert clamped.certified
