"""Forged certificates and forged networks: all digests are right, only the substance is wrong.

Both checkers are asked, and must say the same.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exported import (
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_BLOCKS,
    ORDER_COLUMN,
    ORDER_GUARD,
    ORDER_PROPERTY,
    ROW_GUARD,
    Guard,
    add_dispatch,
    add_neuron_gate,
    add_output_gate,
    certificate,
    dense,
    f32,
    leaning,
    leaning_rows,
    leaning_weights,
    order_constants,
)

from sutura.certificate import exact
from sutura.certificate.check import check
from sutura.certificate.schema import Counts
from sutura.certificate.tree import LEAF, Split


def verdict(network, nodes=LEANING_TREE, counts=LEANING_COUNTS, properties=(ORDER_PROPERTY,)):
    written = certificate(network, properties, nodes, counts)
    report = check(network, properties, written)
    accepted, reason = exact.check([network, *properties, written])
    assert accepted == report.accepted, (reason, report.reason)
    return report


def refused(draft, because="", nodes=LEANING_TREE, counts=LEANING_COUNTS):
    report = verdict(draft.save(), nodes, counts)
    assert not report.accepted
    assert because in report.reason, report.reason
    assert "\n" not in report.reason


def test_every_flipped_byte_is_refused():
    network = leaning().save()
    written = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    assert check(network, [ORDER_PROPERTY], written).accepted
    files = [network, ORDER_PROPERTY, written]
    for at, data in enumerate(files):
        for place in range(len(data)):
            for bits in (1, 128):
                changed = bytearray(data)
                changed[place] ^= bits
                parts = [bytes(changed) if at == i else part for i, part in enumerate(files)]
                assert not check(parts[0], [parts[1]], parts[2]).accepted, (at, place)


def test_every_truncation_is_refused():
    network = leaning().save()
    written = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    for length in range(len(written)):
        assert not check(network, [ORDER_PROPERTY], written[:length]).accepted
    for length in range(0, len(network), 3):
        assert not verdict(network[:length]).accepted, length
    for length in range(len(ORDER_PROPERTY) - 1):
        text = ORDER_PROPERTY[:length]
        report = check(network, [text], certificate(network, [text], LEANING_TREE, LEANING_COUNTS))
        assert not report.accepted, text


def test_flipped_bytes_with_right_digests_are_refused_or_still_safe():
    """A changed file may be accepted only if what it delivers is safe: ONNX Runtime says whether it is."""
    network = leaning().save()
    x = np.random.default_rng(0).uniform(-1, 1, (4000, 2)).astype(np.float32)
    x[:8] = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [1e-30, 0], [0.999, 0], [0.5, 0.5]]
    accepted = 0
    for place in range(0, len(network), 2):
        changed = bytearray(network)
        changed[place] ^= (1, 64, 128, 2)[place // 2 % 4]
        if not verdict(bytes(changed)).accepted:
            continue
        accepted += 1
        try:
            session = ort.InferenceSession(bytes(changed))
            (y,) = session.run(None, {session.get_inputs()[0].name: x})
        except Exception:  # noqa: BLE001 - the runtime may refuse what it is given, in any way it likes
            continue
        assert (y[:, 0] > y[:, 1]).all(), place
    assert accepted < len(network)


def test_leaves_cannot_be_left_out_or_exchanged():
    network = leaning().save()
    assert not verdict(network, (LEAF,), Counts(1, 1, 0, 0, 2)).accepted
    # The left leaf alone, said to be the whole: the right half is served by the gate, so it must be walked.
    assert not verdict(network, (LEAF,), Counts(1, 0, 1, 0, 2)).accepted
    moved = (Split(0, 0.25), LEAF, LEAF)
    report = verdict(network, moved)
    assert (
        report.accepted
    )  # cells need not follow the dispatch tree: both rows are checked where both are reached
    assert not verdict(network, (Split(0, 0.75), LEAF, LEAF)).accepted


def test_the_tree_of_another_property_does_not_do():
    narrow = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    plain = dense(leaning_weights()).save()
    assert verdict(plain, (LEAF,), Counts(1, 1, 0, 0, 1), (narrow,)).accepted
    assert not verdict(plain, (LEAF,), Counts(1, 1, 0, 0, 1)).accepted
    written = certificate(plain, [narrow], (LEAF,), Counts(1, 1, 0, 0, 1))
    assert "SHA-256" in check(plain, [ORDER_PROPERTY], written).reason
    assert not check(plain, [narrow, narrow], written).accepted
    assert not check(plain, [], written).accepted


def test_the_properties_stand_in_their_order():
    other = ORDER_PROPERTY.replace(b"X_1 1.0", b"X_1 0.5")
    network = leaning().save()
    written = certificate(network, [ORDER_PROPERTY, other], LEANING_TREE, LEANING_COUNTS)
    assert check(network, [ORDER_PROPERTY, other], written).accepted
    assert not check(network, [other, ORDER_PROPERTY], written).accepted


def edited(draft=leaning_rows, /, **constants):
    made = draft()
    made.constants |= {name.replace("__", "."): value for name, value in constants.items()}
    return made


def test_tables_cannot_be_weakened():
    refused(edited(sutura__inactive=f32([[1], [1]])), "no active clause tests")
    refused(edited(sutura__inactive=f32([[1], [0.75]])), "not 0 or 1")
    refused(edited(sutura__inactive=f32([[1], [-1]])), "not 0 or 1")
    refused(edited(sutura__inactive=f32([[0], [1]])))
    refused(edited(sutura__inactive=f32([[0], [0]])), "row 0")
    refused(edited(sutura__inactive=f32([[0]])))
    refused(edited(sutura__clauses=f32([[1, 0]])))
    for draft in (leaning, leaning_rows):
        refused(edited(draft, sutura__clauses=f32([[0]])), "no active clause")
        refused(edited(draft, sutura__clauses=f32([[2]])), "not 0 or 1")
        refused(edited(draft, sutura__half=f32(-0.5)), "0.5")
        refused(edited(draft, sutura__half=f32([[0.5]])), "0.5")
        refused(edited(draft, sutura__lhs=np.array([1]), sutura__rhs=np.array([0])), "no active clause")
        refused(edited(draft, sutura__lhs=np.array([-2])), "0 or more")
        refused(edited(draft, sutura__lhs=np.array([2])), "beyond")


def test_constants_must_be_safe_and_finite():
    refused(edited(sutura__constant=f32([[0, 0], [1, 1]])), "constant output is unsafe")
    refused(edited(sutura__constant=f32([[0, 0], [0, 1]])), "constant output is unsafe")
    refused(edited(sutura__constant=f32([[0, 0], [np.nan, 0]])), "finite")
    refused(edited(sutura__constant=f32([[0, 0], [np.inf, 0]])), "finite")
    refused(edited(sutura__constant=f32([[0, 0, 0], [1, 0, 0]])), "outputs")
    refused(edited(leaning, sutura__constant=f32([[0, 1]])), "constant output is unsafe")
    refused(edited(leaning, sutura__constant=f32([[1, 0.5], [1, 0.5]])))


def test_row_zero_is_never_mended_whatever_its_clauses_say():
    # The unsafe half is served by row 0: its clauses would exclude everything unsafe, if anyone asked them.
    for guard in (ORDER_GUARD, ROW_GUARD):
        draft = dense(leaning_weights(), "sutura.raw")
        order_constants(draft)
        constants = [[1, 0.5], [1, 0.5]]
        add_output_gate(draft, guard, ORDER_BLOCKS, [[1]], constants, [0.5, -0.5], [[0], [1]])
        add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 1), ("leaf", 0)])
        network = draft.save()
        (y,) = ort.InferenceSession(network).run(None, {"X": f32([[1, 0]])})
        assert y[0, 0] <= y[0, 1]
        refused(draft, "row 0")


SMALL = -(2.0**-126)


@pytest.mark.parametrize(
    "guard",
    [
        Guard(ORDER_COLUMN, [[("leaf", 0)]]),  # lets everything pass
        Guard(ORDER_COLUMN, [[(0, SMALL, 1, 2), ("leaf", 1), ("leaf", 0)]]),  # the other way round
        Guard(ORDER_COLUMN, [[(0, 0.25, 1, 2), ("leaf", 0), ("leaf", 1)]]),  # too generous
        Guard(ORDER_COLUMN, [[(0, SMALL / 2, 1, 2), ("leaf", 0), ("leaf", 1)]]),  # a flushed difference
        Guard([[1.0], [-1.0]], [[(0, SMALL, 1, 2), ("leaf", 0), ("leaf", 1)]]),  # the column negated
        Guard([[-1.0], [2.0]], [[(0, SMALL, 1, 2), ("leaf", 0), ("leaf", 1)]]),  # a sum that rounds
        Guard(ORDER_COLUMN, [[(1, SMALL, 1, 2), ("leaf", 0), ("leaf", 1)]]),  # no such comparison
    ],
)
def test_the_guard_cannot_be_weakened(guard):
    refused(leaning(guard))


def test_the_guard_by_row_cannot_be_weakened():
    one = Guard(
        ORDER_COLUMN, [[(0, 1.5, 1, 2), ("leaf", 0), (1, SMALL, 3, 4), ("leaf", 0), ("leaf", 1)]], rows=True
    )
    refused(leaning_rows(one), "guard lets")


def dispatch_edit(name, value):
    draft = leaning()
    node = draft.find("sutura.leaf")
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))
    return draft


def test_the_dispatch_tree_cannot_be_moved():
    up = float(np.nextafter(np.float32(0.75), np.float32(1)))
    cut = (Split(0, 0.75), LEAF, LEAF)
    # y is unsafe from 0.375 on: a threshold above that leaves unsafe inputs to row 0.
    refused(dispatch_edit("nodes_values", [0.75, 0.0, 0.0]), "no bound shows", cut)
    refused(dispatch_edit("nodes_values", [up, 0.0, 0.0]))
    refused(dispatch_edit("target_weights", [1.0, 0.0]), "no bound shows")
    for wrong in (2.0, 0.5, -1.0):
        refused(dispatch_edit("target_weights", [0.0, wrong]))
    refused(dispatch_edit("nodes_featureids", [1, 0, 0]))
    refused(dispatch_edit("nodes_featureids", [2, 0, 0]))
    refused(dispatch_edit("nodes_truenodeids", [2, 0, 0]))
    refused(dispatch_edit("nodes_truenodeids", [0, 0, 0]))
    refused(dispatch_edit("nodes_modes", ["BRANCH_LT", "LEAF", "LEAF"]), "mode")
    refused(dispatch_edit("nodes_modes", ["BRANCH_LEQ", "LEAF"]))
    refused(dispatch_edit("nodes_treeids", [0, 0, 1]))
    refused(dispatch_edit("nodes_missing_value_tracks_true", [1, 0, 0]))
    refused(dispatch_edit("base_values", [1.0]))
    refused(dispatch_edit("aggregate_function", "MAX"))
    refused(dispatch_edit("post_transform", "LOGISTIC"))
    refused(dispatch_edit("n_targets", 2))
    refused(dispatch_edit("nodes_values_as_tensor", onnx.numpy_helper.from_array(f32([9, 0, 0]))))


def test_the_dispatch_tree_one_ulp_off_reaches_one_more_input():
    # Row 0 is safe up to x0 < 0.375 only; the proof tree cuts exactly where the dispatch tree should.
    edge = float(f32(0.37))
    above = float(np.nextafter(np.float32(edge), np.float32(1)))
    nodes, counts = (Split(0, edge), LEAF, LEAF), LEANING_COUNTS
    good = verdict(dispatch_edit("nodes_values", [edge, 0.0, 0.0]).save(), nodes, counts)
    assert good.accepted, good.reason
    off = verdict(dispatch_edit("nodes_values", [above, 0.0, 0.0]).save(), nodes, counts)
    assert not off.accepted  # its right leaf now needs a bound for row 0


def rewire(name, at, value):
    draft = leaning_rows()
    draft.find(name).input[at] = value
    return draft


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("sutura.fixed", 0, "sutura.mended"),
        ("sutura.fixed", 1, "sutura.second_axis"),
        ("sutura.fixed", 2, "sutura.mended"),
        ("sutura.sealed", 0, "sutura.test.0"),
        ("sutura.sealed", 1, "sutura.bad"),
        ("sutura.sealed", 2, "sutura.mended"),
        ("sutura.test.0.l", 0, "sutura.bad"),
        ("sutura.test.0.r", 0, "sutura.raw"),
        ("sutura.fallback", 1, "sutura.place"),
        ("sutura.test.off", 1, "sutura.place"),
        ("sutura.needing", 1, "sutura.leaf"),
        ("sutura.needing", 0, "sutura.failing"),
        ("sutura.found", 0, "sutura.failing"),
        ("sutura.found", 1, "sutura.leaf"),
        ("sutura.gaps", 0, "X"),
        ("sutura.bad_leaf", 0, "sutura.failing"),
        ("sutura.place", 1, "sutura.second_axis"),
        ("sutura.index", 1, "sutura.first"),
        ("sutura.any", 1, "sutura.found"),
    ],
)
def test_what_is_delivered_must_be_what_was_tested(name, at, value):
    refused(rewire(name, at, value))


def without_least(draft):
    """The test compares its counts of clauses themselves: one comparison a clause, not one of all."""
    low = draft.find("sutura.test.low")
    draft.find("sutura.test.ok").input[0] = low.input[0]
    draft.mending.remove(low)
    return draft


@pytest.mark.parametrize("made", [leaning, leaning_rows])
def test_a_single_clause_is_its_own_least(made):
    assert verdict(without_least(made()).save()).accepted


@pytest.mark.parametrize("made", [leaning, leaning_rows])
def test_of_two_clauses_the_least_counts(made):
    # Without it each output would be taken by a clause of its own, and the whole vector may fail both.
    draft = made()
    draft.constants["sutura.clauses"] = f32([[1, 1]])
    if "sutura.inactive" in draft.constants:
        draft.constants["sutura.inactive"] = f32([[1, 1], [0, 0]])
    assert verdict(draft.save()).accepted
    refused(without_least(draft), "the table of clauses")


def test_the_output_must_be_the_gates():
    for output in ("sutura.raw", "sutura.failing", "sutura.gaps"):
        direct = leaning()
        direct.output = output
        direct.mending = []
        refused(direct)


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("sutura.test.0", "GreaterOrEqual"),
        ("sutura.test.0", "Less"),
        ("sutura.test.low", "ReduceMax"),
        ("sutura.test.ok", "GreaterOrEqual"),
        ("sutura.test.ok", "Less"),
        ("sutura.test.total", "Sub"),
        ("sutura.test.total", "Max"),
        ("sutura.needing", "Add"),
        ("sutura.any", "Less"),
        ("sutura.found", "MatMul"),
        ("sutura.bad_row", "Identity"),
        ("sutura.fixed", "ScatterElements"),
    ],
)
def test_operators_of_the_gate_cannot_be_exchanged(name, op):
    draft = leaning_rows()
    draft.find(name).op_type = op
    refused(draft)


@pytest.mark.parametrize("name", ["sutura.test.ok", "sutura.sealed", "sutura.fixed", "sutura.found"])
def test_operators_of_another_set_are_no_part_of_the_gate(name):
    draft = leaning_rows()
    draft.find(name).domain = "ai.onnx.ml"
    refused(draft)


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("sutura.test.low", "axes", [0]),
        ("sutura.test.low", "keepdims", 0),
        ("sutura.test.0.l", "axis", 0),
        ("sutura.test.off", "axis", 1),
        ("sutura.test.float", "to", 10),
        ("sutura.fallback", "axis", 1),
        ("sutura.fixed", "reduction", "add"),
        ("sutura.found", "transA", 0),
        ("sutura.found", "alpha", 0.25),
        ("sutura.place", "axis", 1),
        ("sutura.bad_row", "axis", 0),
        ("sutura.bad_leaf", "axis", 1),
    ],
)
def test_attributes_of_the_gate_cannot_be_exchanged(name, attribute, value):
    draft = leaning_rows()
    node = draft.find(name)
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute(attribute, value))
    refused(draft)


def test_names_are_defined_once_and_before_use():
    twice = leaning()
    twice.nodes.append(onnx.helper.make_node("Identity", ["X"], ["Y"]))
    refused(twice, "second time")
    shadow = leaning()
    shadow.node("Identity", ["sutura.constant"], "sutura.clauses")
    refused(shadow, "second time")
    late = leaning()
    late.nodes.reverse()
    refused(late, "nothing before it")


def test_callers_cannot_override_constants():
    model = onnx.load_from_string(leaning().save())
    model.graph.input.append(onnx.helper.make_tensor_value_info("sutura.constant", 1, [2, 2]))
    assert not verdict(model.SerializeToString()).accepted


def test_reserved_names_without_a_dispatch_tree_are_refused():
    draft = dense(leaning_weights(), "sutura.raw")
    draft.node("Identity", ["sutura.raw"], "Y")
    refused(draft, "dispatch tree", (LEAF,), Counts(1, 1, 0, 0, 1))


def pinned(change=lambda draft: None):
    draft = dense(leaning_weights())
    add_neuron_gate(draft, "h0", np.array([[False] * 3, [True, True, False]]), [[0, 0, 0], [1, 0, 0]])
    add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)], row=True)
    change(draft)
    return draft


def test_neuron_gates_cannot_be_bypassed():
    counts = Counts(2, 2, 0, 0, 2)
    assert verdict(pinned().save(), LEANING_TREE, counts).accepted

    def bypass(draft):
        next(node for node in draft.nodes if "m1" in node.output).input[0] = "sutura.pre.h0"

    def swap(draft):
        node = draft.find("w.h0")
        node.input[1], node.input[2] = node.input[2], node.input[1]

    def nan(draft):
        draft.constants["sutura.value.h0"] = f32([[0, 0, 0], [np.nan, 0, 0]])

    def short(draft):
        draft.constants["sutura.mask.h0"] = np.array([[True, True, False]])

    def wide(draft):
        draft.constants["sutura.mask.h0"] = np.ones((2, 1), bool)
        draft.constants["sutura.value.h0"] = f32(np.ones((2, 1)))

    for change in (bypass, swap, nan, short, wide):
        refused(pinned(change), nodes=LEANING_TREE, counts=counts)


@pytest.mark.parametrize("unsafe", [b"(assert (>= X_0 0))", b"(assert (or (<= Y_0 0) (>= X_0 0)))"])
def test_a_case_in_which_every_output_is_unsafe_is_refused(unsafe):
    text = ORDER_PROPERTY.replace(b"(assert (<= Y_0 Y_1))", unsafe)
    assert not verdict(leaning().save(), properties=(text,)).accepted
    plain = dense(leaning_weights()).save()
    assert not verdict(plain, (LEAF,), Counts(1, 1, 0, 0, 1), (text,)).accepted


def test_a_network_of_nan_is_refused():
    draft = leaning()
    draft.constants["W0"] = f32(np.full((2, 3), np.nan))
    refused(draft, "finite")
    draft.constants["W0"] = f32(np.full((2, 3), 3e38))
    refused(draft, "no bound shows")


def switched(change):
    """The saved file with its If changed."""
    model = onnx.load_from_string(leaning().save())
    change(next(node for node in model.graph.node if node.op_type == "If"))
    return model.SerializeToString()


def branch(node, key):
    return next(a.g for a in node.attribute if a.name == key)


def test_the_switch_of_the_gate_cannot_be_turned_off():
    def other(node):
        branch(node, "else_branch").node[0].input[0] = "m0"

    def changed(node):
        branch(node, "else_branch").node[0].op_type = "Neg"

    def exchanged(node):
        for attribute in node.attribute:
            attribute.name = {"then_branch": "else_branch", "else_branch": "then_branch"}[attribute.name]

    def looped(node):
        node.op_type = "Loop"

    def table(node):
        weaker = onnx.numpy_helper.from_array(f32([[1], [1]]), "sutura.clauses")
        branch(node, "then_branch").initializer.append(weaker)

    def constant(node):
        branch(node, "else_branch").initializer.append(onnx.numpy_helper.from_array(f32([[9, 0]]), "own"))

    for change in (other, changed, exchanged, looped, table, constant):
        assert not verdict(switched(change)).accepted, change.__name__
    high = leaning()
    high.constants["one"] = f32(1.5)
    high.find("sutura.any").input[1] = "one"
    refused(high, "0.5")


@pytest.mark.parametrize("name", ["sutura.raw", "sutura.leaf", "sutura.constant", "X", "Y"])
def test_branches_cannot_hide_a_second_meaning_of_a_name(name):
    def hide(node):
        branch(node, "then_branch").node.insert(0, onnx.helper.make_node("Identity", ["m0"], [name]))

    report = verdict(switched(hide))
    assert not report.accepted and "second time" in report.reason


def test_constants_of_a_branch_are_known_inside_of_it_alone():
    model = onnx.load_from_string(leaning().save())
    then = branch(next(node for node in model.graph.node if node.op_type == "If"), "then_branch")
    kept = [t for t in model.graph.initializer if t.name != "sutura.constant"]
    then.initializer.extend(t for t in model.graph.initializer if t.name == "sutura.constant")
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    assert verdict(model.SerializeToString()).accepted
    model.graph.node.append(onnx.helper.make_node("Identity", ["sutura.constant"], ["Z"]))
    report = verdict(model.SerializeToString())
    assert not report.accepted and "nothing before it" in report.reason


def test_names_of_a_branch_are_known_inside_of_it_alone():
    model = onnx.load_from_string(leaning().save())
    model.graph.node.append(onnx.helper.make_node("Identity", ["sutura.mended"], ["Z"]))
    model.graph.output[0].name = "Z"
    report = verdict(model.SerializeToString())
    assert not report.accepted and "nothing before it" in report.reason
