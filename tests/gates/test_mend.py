"""repair() from end to end: what it hands over was accepted by the independent checker."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from small_networks import (
    at_most,
    convolution,
    cube,
    just_outside,
    less,
    loaded,
    mlp,
    points,
    prop,
    quiet_session,
    run_original,
    run_repaired,
)

import sutura
from sutura.certificate import exact
from sutura.certificate.check import check
from sutura.errors import MismatchError, RepairError
from sutura.gates import certify as certify_module
from sutura.gates import mend as mend_module
from sutura.gates.cover import cover
from sutura.gates.evaluate import same_bits, violating
from sutura.gates.mend import RepairConfig
from sutura.gates.neuron_gate import NeuronConfig, counterexample
from sutura.gates.repair import repair
from sutura.gates.rows import rows_of
from sutura.property.build import argmax_in, argmin_not_in, robustness

QUICK = RepairConfig(boxes=300, workers=1)
DATA = mlp([3, 10, 4], 4)


def promises(data, properties, result):
    """The guarantee on samples, the bits elsewhere, and the checker's word."""
    report = check(result.onnx, [p.text for p in properties], result.certificate)
    assert report.accepted, report.reason
    hulls = [case.box for p in properties for case in p.cases]
    x = np.concatenate([points(box, 1000, i) for i, box in enumerate(hulls)])
    before, after, row = run_original(data), run_repaired(result.onnx), rows_of(result.onnx)
    was, now = before(x), after(x)
    assert not violating(properties, x, now).any()
    untouched = row(x) == 0
    assert same_bits(was[untouched], now[untouched]).all()
    beyond = np.concatenate([just_outside(box, 100, i) for i, box in enumerate(hulls)])
    assert same_bits(before(beyond), after(beyond))[row(beyond) == 0].all()
    return x, was, now, row(x)


def test_a_violated_network_is_repaired():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1, 2], outputs=4)]
    result = repair(loaded(DATA), wanted, QUICK)
    x, was, now, row = promises(DATA, wanted, result)
    right = ~violating(wanted, x, was)
    assert (~right).any()
    assert same_bits(was[right], now[right]).all()
    assert result.exact
    regions = result.regions
    assert (regions.proved > 0, regions.output_gated > 0, regions.neuron_gated) == (True, True, 0)
    assert 0 < regions.proved_share < 1
    assert regions.proved_share == pytest.approx((row == 0)[len(row) // 2 :].mean(), abs=0.1)


def test_proofs_of_small_parts_are_not_worth_a_look_at_every_input():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    regions = repair(loaded(DATA), wanted, QUICK).regions
    assert (regions.proved, regions.output_gated, regions.proved_share) == (0, 1, 0.0)


def test_more_boxes_never_prove_much_less():
    """Cells too many to tell apart are cut off by depth first, and not made ever dearer."""
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    few, many = (
        repair(loaded(mlp([3, 10, 4], 8)), wanted, RepairConfig(boxes=boxes, workers=1)).regions
        for boxes in (300, 4000)
    )
    assert 0.4 < few.proved_share < many.proved_share + 0.05


def test_beside_a_large_network_a_look_costs_nothing(monkeypatch):
    monkeypatch.setattr(mend_module, "LOOK", 0)
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    result = repair(loaded(DATA), wanted, QUICK)
    assert result.regions.proved > 20
    promises(DATA, wanted, result)


def test_sums_and_thresholds_are_accepted_too():
    wanted = [
        prop(
            "sum",
            3,
            4,
            (cube([-1] * 3, [1] * 3), [[at_most({0: 1, 2: "1/3"}, "0.7")], [at_most({1: -1}, -2)]]),
        ),
        prop(
            "either",
            3,
            4,
            (cube([0] * 3, [2] * 3), [[less(0, 3), at_most({1: 2, 2: 5, 3: 1}, 1, strict=True)]]),
        ),
    ]
    promises(DATA, wanted, repair(loaded(DATA), wanted, QUICK))


def test_overlapping_properties_hold_together():
    wanted = [
        argmax_in(cube([-1, -1, -1], [0.5, 1, 1]), [0, 1], outputs=4, name="a"),
        argmin_not_in(cube([0, -1, -1], [1, 1, 1]), [2], outputs=4, name="b"),
        prop("c", 3, 4, (cube([0.25] * 3, [0.3] * 3), [[at_most({0: 1}, 1)]])),
    ]
    result = repair(loaded(DATA), wanted, RepairConfig(boxes=0, workers=1))
    promises(DATA, wanted, result)
    assert result.regions.rows == 5  # a, a and b, all three, b, and none
    assert result.regions.proved_share == 0


def test_rank_three_outputs_and_rank_four_inputs():
    data = convolution()
    wanted = [robustness([0.0] * 4, 1.0, 2, classes=5, low=None)]
    result = repair(loaded(data), wanted, QUICK)
    promises(data, wanted, result)
    assert quiet_session(result.onnx).run(None, {"x": np.zeros((2, 1, 2, 2), np.float32)})[0].shape == (
        2,
        1,
        5,
    )


def test_many_inputs():
    data = mlp([400, 6, 3], 0, scale=0.1)
    wanted = [robustness(np.full(400, 0.5), 0.01, label, classes=3, name=f"p{label}") for label in (1,)]
    promises(data, wanted, repair(loaded(data), wanted, RepairConfig(boxes=4, workers=1)))


def balls(count, inputs, radius=0.02, seed=0):
    draw = np.random.default_rng(seed)
    return [
        robustness(centre, radius, int(draw.integers(5)), classes=5, name=f"ball{number}")
        for number, centre in enumerate(draw.random((count, inputs)).astype(np.float32))
    ]


@pytest.mark.parametrize("boxes", [0, 300])
def test_many_balls_of_many_inputs_are_compared_in_full_where_an_output_fails(boxes):
    data = mlp([200, 6, 5], 0, scale=0.1)
    wanted = balls(12, 200)
    result = repair(loaded(data), wanted, RepairConfig(boxes=boxes, workers=1))
    x, was, now, row = promises(data, wanted, result)
    right = ~violating(wanted, x, was)
    assert (right.any(), right.all()) == (True, False)
    assert same_bits(was[right], now[right]).all()
    assert exact.check([result.onnx, *[p.text for p in wanted], result.certificate])[0]
    assert len(result.onnx) < len(data) + 12 * (2 * 4 * 200 + 6000) + 20_000
    met = set(row.tolist())
    assert met >= set(range(1, result.regions.rows))
    assert (result.regions.rows == 13) == (boxes == 0)
    beyond = np.concatenate([just_outside(case.box, 200, 1) for p in wanted for case in p.cases])
    leaf = coarse_rows(result.onnx, beyond)
    assert (leaf > 0).mean() > 0.5  # the dispatcher takes them for inputs of the ball: the full test does not
    assert not rows_of(result.onnx)(beyond).any()
    y = run_original(data)(beyond)
    assert same_bits(y, run_repaired(result.onnx)(beyond)).all()
    hulls = [p.cases[0].box.float32_hull() for p in wanted]
    within = np.concatenate([beyond[200 * i : 200 * i + 200].clip(*hull) for i, hull in enumerate(hulls)])
    assert violating(wanted, within, y).any()  # the guard held some back


def coarse_rows(network, x):
    """The rows that the dispatcher alone gives."""
    model = onnx.load_from_string(network)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("sutura.leaf"))
    return quiet_session(model.SerializeToString()).run(["sutura.leaf"], {"x": x})[0][:, 0]


def test_balls_that_overlap_or_are_the_same_keep_what_each_asks():
    data = mlp([140, 6, 5], 1, scale=0.1)
    centre = np.random.default_rng(2).random(140).astype(np.float32)
    moved = centre + np.float32(0.01)
    unsafe = ([[less(0, 1)]], [[less(0, 1)]], [[less(2, 3)]], [[less(0, 4)]])
    places = (centre, centre, centre, moved)
    wanted = [
        prop(f"p{at}", 140, 5, (cube(x - np.float32(0.02), x + np.float32(0.02)), u))
        for at, (x, u) in enumerate(zip(places, unsafe, strict=True))
    ]
    result = repair(loaded(data), wanted, RepairConfig(boxes=0, workers=1))
    promises(data, wanted, result)
    shared = moved - np.float32(0.015)
    y = run_repaired(result.onnx)(shared[None])[0]
    assert (y[0] > y[1], y[2] > y[3], y[0] > y[4]) == (True, True, True)


def test_neuron_gates_in_many_inputs_act_in_their_boxes_alone():
    data = mlp([150, 6, 5], 2, scale=0.1)
    wanted = balls(2, 150, radius=0.005)
    config = dataclasses.replace(NEURON, boxes=20, regions=1)
    result = repair(loaded(data), wanted, config)
    promises(data, wanted, result)
    beyond = np.concatenate([just_outside(case.box, 100, 1) for p in wanted for case in p.cases])
    assert not rows_of(result.onnx)(beyond).any()
    assert same_bits(run_original(data)(beyond), run_repaired(result.onnx)(beyond)).all()


def test_a_network_that_is_right_comes_back_as_it_was():
    wanted = [prop("easy", 3, 4, (cube([-1] * 3, [1] * 3), [[at_most({0: -1}, -1000)]]))]
    result = repair(loaded(DATA), wanted, QUICK)
    assert result.regions.rows == 1
    assert result.regions.proved_share == 1
    assert not any(n.name.startswith("sutura.") for n in onnx.load_from_string(result.onnx).graph.node)
    assert check(result.onnx, [wanted[0].text], result.certificate).accepted


def test_the_same_bytes_from_any_number_of_workers():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    one, two = (repair(loaded(DATA), wanted, dataclasses.replace(QUICK, workers=w)) for w in (1, 2))
    assert one.onnx == two.onnx
    assert one.certificate == two.certificate


def bounded(monkeypatch):
    """How many boxes each search is given."""
    asked = []

    def listening(program, aim, box, budget, run_with):
        asked.append(budget.boxes)
        return cover(program, aim, box, budget, run_with)

    monkeypatch.setattr(mend_module, "cover", listening)
    return asked


def test_few_boxes_are_bounded_by_default_where_the_gate_stays(monkeypatch):
    asked = bounded(monkeypatch)
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    result = repair(loaded(DATA), wanted, RepairConfig(workers=1))
    assert asked == [mend_module.SKETCHED]
    promises(DATA, wanted, result)


def test_an_unsafe_output_is_looked_for_in_what_few_boxes_leave_open(monkeypatch):
    asked = bounded(monkeypatch)
    looked = []

    def only_in_parts(program, aim, box):
        looked.append(box)
        return None if len(looked) == 1 else counterexample(program, aim, box)

    monkeypatch.setattr(mend_module, "counterexample", only_in_parts)
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    promises(DATA, wanted, repair(loaded(DATA), wanted, RepairConfig(workers=1)))
    assert asked == [mend_module.SKETCHED]
    assert all(part.within(looked[0]) for part in looked[1:])


def test_many_boxes_are_bounded_by_default_where_a_gate_may_be_needless(monkeypatch):
    asked = bounded(monkeypatch)
    monkeypatch.setattr(mend_module, "SKETCHED", 3)
    wanted = [prop("holds", 3, 4, (cube([-1] * 3, [1] * 3), [[at_most({0: -1}, "-2.6")]]))]
    result = repair(loaded(DATA), wanted, RepairConfig(workers=1))
    assert asked == [3, mend_module.MOST_BOXES]
    assert (result.regions.rows, result.regions.proved_share) == (1, 1)


def test_no_time_means_gates_everywhere():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    result = repair(loaded(DATA), wanted, RepairConfig(timeout=1e-9, workers=1))
    assert result.regions.proved == 0
    assert result.regions.output_gated == 1
    promises(DATA, wanted, result)


def test_contradictions_name_both_properties_and_the_overlap():
    wanted = [
        argmax_in(cube([-1, -1, -1], [1, 1, 1]), [0], outputs=4, name="first"),
        argmax_in(cube([0.5, -1, -1], [2, 1, 1]), [1], outputs=4, name="second"),
        argmax_in(cube([0.5, -1, -1], [2, 1, 1]), [1, 2], outputs=4, name="bystander"),
    ]
    with pytest.raises(RepairError) as caught:
        repair(loaded(DATA), wanted, QUICK)
    said = str(caught.value)
    assert "properties 'first' and 'second' contradict each other" in said
    assert "X_0 in [0.5, 1], X_1 in [-1, 1]" in said
    assert "bystander" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "unsafe", [[[less(0, 1)], [less(1, 0)]], [[at_most({0: 1}, 1)], [at_most({0: -1}, 0)]], [[]]]
)
def test_what_no_output_can_satisfy_is_named(unsafe):
    wanted = [prop("never", 3, 4, (cube([0] * 3, [1] * 3), unsafe))]
    with pytest.raises(
        RepairError, match=r"property 'never' cannot be satisfied by any output where X_0 in \[0, 1\]"
    ):
        repair(loaded(DATA), wanted, QUICK)


def test_wrong_sizes_and_no_properties_are_refused():
    with pytest.raises(MismatchError, match="2 inputs and 4 outputs"):
        repair(loaded(DATA), [argmax_in(cube([0] * 2, [1] * 2), [0], outputs=4)], QUICK)
    with pytest.raises(MismatchError, match="no property"):
        repair(loaded(DATA), [], QUICK)


def refuse(monkeypatch, most):
    """Let the checker refuse the first `most` files that it is given."""
    asked = []

    def refusing(*given, **options):
        asked.append(given)
        report = check(*given, **options)
        return dataclasses.replace(report, accepted=False, reason="because") if len(asked) <= most else report

    monkeypatch.setattr(certify_module, "check", refusing)


def test_nothing_is_handed_over_when_the_checker_refuses(monkeypatch):
    refuse(monkeypatch, 9)
    with pytest.raises(RepairError, match=r"refuses .*: because"):
        repair(loaded(DATA), [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)], QUICK)


def test_regions_that_the_checker_cannot_prove_again_are_gated_and_told(monkeypatch):
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    assert repair(loaded(DATA), wanted, QUICK).note == ""
    refuse(monkeypatch, 1)
    result = repair(loaded(DATA), wanted, QUICK)
    assert result.note.endswith("because")
    assert (result.regions.proved, result.regions.output_gated) == (0, 1)
    promises(DATA, wanted, result)


NEURON = RepairConfig(
    gate="neuron", boxes=300, regions=4, workers=1, neuron=NeuronConfig(share=0.4, boxes=400)
)


@pytest.mark.parametrize(("seed", "labels", "both_kinds"), [(3, [0, 1, 2], False), (5, [1, 2], True)])
def test_neuron_gates_hold_neurons_in_their_regions_only(seed, labels, both_kinds):
    data = mlp([3, 10, 4], seed)
    wanted = [argmax_in(cube([-0.5] * 3, [0.5] * 3), labels, outputs=4)]
    result = repair(loaded(data), wanted, NEURON)
    x, _, _, row = promises(data, wanted, result)
    assert result.regions.neuron_gated > 0
    assert (result.regions.output_gated > 0) == both_kinds
    assert result.regions.neurons_held > 0
    graph = onnx.load_from_string(result.onnx)
    tables = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    masks = [name for name in tables if name.startswith("sutura.mask.")]
    assert masks
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    for mask in masks:
        value = mask.removeprefix("sutura.mask.")
        shown.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    outputs = quiet_session(shown.SerializeToString()).run(None, {"x": x})[1:]
    for mask, value in zip(masks, outputs, strict=True):
        held, constant = tables[mask][row], tables[mask.replace("mask", "value")][row]
        assert (value[held] == constant[held]).all()
    assert not any(tables[mask][0].any() for mask in masks)


def test_regions_without_a_neuron_gate_fall_back_and_are_counted():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0], outputs=4)]
    none = dataclasses.replace(NEURON, neuron=NeuronConfig(share=1e-9, changes=0, boxes=50))
    result = repair(loaded(DATA), wanted, none)
    assert result.regions.neuron_gated == 0
    assert result.regions.fallbacks > 0
    assert result.regions.output_gated >= result.regions.fallbacks
    promises(DATA, wanted, result)


def test_neuron_gates_without_boxes_gate_the_whole_box():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0], outputs=4)]
    result = repair(loaded(DATA), wanted, dataclasses.replace(NEURON, boxes=0))
    assert (result.regions.output_gated, result.regions.neuron_gated, result.regions.fallbacks) == (1, 0, 1)


def test_the_public_name():
    wanted = [argmax_in(cube([-1] * 3, [1] * 3), [0, 1], outputs=4)]
    result = sutura.repair(sutura.load(DATA), wanted, sutura.RepairConfig(boxes=50))
    assert sutura.check(result.onnx, [wanted[0].text], result.certificate).accepted
