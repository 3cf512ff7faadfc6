"""The exact checker's readers and rules, one at a time: what must be refused there and then, and what not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from exported import (
    HALVES,
    ORDER_GUARD,
    Draft,
    Guard,
    add_dispatch,
    add_output_gate,
    boxed,
    dense,
    f32,
    leaning,
    leaning_rows,
    leaning_weights,
    order_constants,
    tree_node,
)
from onnx import TensorProto, helper, numpy_helper

from sutura.certificate import exact

ONE = 1 << 149


def refused(call, *arguments):
    with pytest.raises(exact.ticks.RefusedError):
        call(*arguments)


def test_the_largest_number_and_the_ends_of_properties():
    largest = exact.ticks.ticks(0x7F7FFFFF)
    assert largest == exact.ticks.LARGEST
    assert exact.ticks.round_down(Fraction(2**128 - 2**104)) == largest
    refused(exact.ticks.round_down, Fraction(2**128))
    refused(exact.ticks.round_down, -Fraction(2**128))


@pytest.mark.parametrize("data", [b"\x0a\x08", b"\x70\x01", b"\x08\x08\x08\x09", b"\x12\x05ab"])
def test_fields_of_another_wire_unknown_twice_or_cut_off(data):
    refused(exact.graph.message, data, "model")
    assert exact.graph.message(b"\x08\x08", "model")["ir_version"] == 8


def test_numbers_of_a_file_have_at_most_64_bits():
    assert exact.graph.varint(b"\xff" * 9 + b"\x01", 0) == ((1 << 64) - 1, 10)
    assert exact.graph.varint(b"\x7f\x01", 0) == (127, 1)
    assert exact.graph.varint(b"\x80\x7f\x01", 0) == (127 << 7, 2)
    for data in (b"\x80" * 9 + b"\x02", b"\xff" * 9 + b"\x7f", b"\x80" * 10 + b"\x00", b"\x80", b""):
        refused(exact.graph.varint, data, 0)
    assert exact.graph.READ["int"]((1 << 64) - 1) == -1
    assert exact.graph.READ["int"]((1 << 63) - 1) == (1 << 63) - 1


def test_constants_have_sizes_and_truth_values():
    def made(kind, dims, raw):
        return exact.graph.tensor({"name": "c", "data_type": kind, "dims": dims, "raw_data": raw})

    assert made(9, [2], b"\x00\x01").values == (0, 1)
    for wrong in ((9, [2], b"\x00\x02"), (9, [-1, -1], b"\x01"), (11, [1], bytes(8)), (1, [2], bytes(4))):
        refused(made, *wrong)


def read_node(node, change=lambda node: None):
    change(node)
    return exact.graph.read_node(exact.graph.message(node.SerializeToString(), "node"))


def test_attributes_are_given_once_and_as_their_type_says():
    def flatten():
        return helper.make_node("Flatten", ["x"], ["y"], axis=1)

    assert read_node(flatten()).attributes == {"axis": ("i", 1)}
    refused(read_node, flatten(), lambda node: node.attribute.append(node.attribute[0]))
    refused(read_node, flatten(), lambda node: setattr(node.attribute[0], "f", 1.0))
    refused(read_node, flatten(), lambda node: setattr(node.attribute[0], "type", 4))


def test_constants_are_given_once_and_have_names():
    part = numpy_helper.from_array(f32([1]), "c")

    def read(*tensors):
        graph = helper.make_graph([], "g", [], [], tensors).SerializeToString()
        return exact.graph.parts(exact.graph.message(graph, "graph"))[1]

    assert [*read(part)] == ["c"]
    refused(read, part, part)
    refused(exact.graph.define, {"x", ""}, read(numpy_helper.from_array(f32([1]), "")), [], {""})


def switched(change):
    """The small repaired network, its If changed."""
    model = onnx.load_from_string(leaning().save())
    last = model.graph.node[-1]
    then, other = (next(a.g for a in last.attribute if a.name == f"{key}_branch") for key in ("then", "else"))
    change(model.graph, last, then, other)
    return exact.graph.read_graph(model.SerializeToString(deterministic=True))


def named(name, values=1.0):
    return numpy_helper.from_array(f32(values), name)


def more(graph, name, reads="m0", op="Identity"):
    graph.node.insert(0, helper.make_node(op, [reads], [name]))


@pytest.mark.parametrize(
    "change",
    [
        lambda graph, last, then, other: then.input.append(then.output[0]),
        lambda graph, last, then, other: other.input.append(other.output[0]),
        lambda graph, last, then, other: then.output.append(then.output[0]),
        lambda graph, last, then, other: other.output.append(other.output[0]),
        lambda graph, last, then, other: other.initializer.append(named("own")),
        lambda graph, last, then, other: then.initializer.append(named("W0")),
        lambda graph, last, then, other: then.initializer.append(named("X")),
        lambda graph, last, then, other: then.initializer.append(named("sutura.mended")),
        lambda graph, last, then, other: then.initializer.append(named("Y")),
        lambda graph, last, then, other: then.initializer.append(named("")),
        lambda graph, last, then, other: more(then, "sutura.raw"),
        lambda graph, last, then, other: more(then, "Y"),
        lambda graph, last, then, other: more(then, ""),
        lambda graph, last, then, other: more(then, "sutura.untouched"),
        lambda graph, last, then, other: more(then, "new", reads="nothing"),
        lambda graph, last, then, other: more(other, "new"),
        lambda graph, last, then, other: setattr(other.node[0], "op_type", "Neg"),
        lambda graph, last, then, other: setattr(other.node[0], "domain", "ai.onnx.ml"),
        lambda graph, last, then, other: other.node[0].input.append("m0"),
        lambda graph, last, then, other: other.node[0].output.append("new"),
        lambda graph, last, then, other: other.node[0].input.__setitem__(0, "sutura.mended"),
        lambda graph, last, then, other: setattr(other.output[0], "name", "new"),
        lambda graph, last, then, other: last.input.append("m0"),
        lambda graph, last, then, other: last.input.__setitem__(0, "sutura.mended"),
        lambda graph, last, then, other: last.output.append("new"),
        lambda graph, last, then, other: last.output.__setitem__(0, "new"),
        lambda graph, last, then, other: setattr(last, "domain", "ai.onnx.ml"),
        lambda graph, last, then, other: last.attribute.append(helper.make_attribute("more", 1)),
        lambda graph, last, then, other: setattr(last, "op_type", "Loop"),
        lambda graph, last, then, other: graph.node.append(helper.make_node("Identity", ["Y"], ["Z"])),
        lambda graph, last, then, other: graph.node[0].attribute.append(last.attribute[0]),
        lambda graph, last, then, other: then.node[0].attribute.append(last.attribute[0]),
    ],
)
def test_an_if_at_the_end_hands_over_one_value_or_mends_it(change):
    with pytest.raises((exact.ticks.RefusedError, *exact.proof.MALFORMED)):
        switched(change)


def test_branches_may_have_constants_and_more_nodes():
    assert switched(lambda graph, last, then, other: None).switches == [("sutura.any", "sutura.raw")]
    found = switched(
        lambda graph, last, then, other: (then.initializer.append(named("own")), more(then, "new", "own"))
    )
    assert "own" in found.constants and "new" in found.makers and "Y" not in found.makers


@pytest.mark.parametrize(
    ("opsets", "allowed"),
    [
        ([("", 17), ("ai.onnx.ml", 1)], True), ([("", 17), ("ai.onnx.ml", 2)], True),
        ([("", 17), ("ai.onnx.ml", 3)], True), ([("", 17), ("ai.onnx.ml", 4)], False),
        ([("", 16), ("ai.onnx.ml", 3)], False), ([("", 18), ("ai.onnx.ml", 3)], False), ([("", 17)], False),
        ([("", 17), ("ai.onnx.ml", 3), ("more", 1)], False), ([("ai.onnx.ml", 3)], False),
        ([("", 17), ("ai.onnx.ml", 3), ("ai.onnx.ml", 3)], False),
    ],
)  # fmt: skip
def test_sets_of_operators(opsets, allowed):
    model = onnx.load_from_string(leaning().save())
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*pair) for pair in opsets)
    data = model.SerializeToString(deterministic=True)
    if allowed:
        assert exact.graph.read_graph(data).output == "sutura.raw" or exact.graph.read_graph(data).switches
        return
    with pytest.raises((exact.ticks.RefusedError, LookupError)):
        exact.graph.read_graph(data)


@pytest.mark.parametrize("sample", [(0,), (0, 3), (3, 0), (-1, -2)])
def test_axes_of_samples_are_known(sample):
    model = onnx.load_from_string(leaning().save())
    shape = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", *sample])
    model.graph.input[0].CopyFrom(shape)
    refused(exact.graph.read_graph, model.SerializeToString(deterministic=True))


TWO = b"(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
BOX = b"(assert (>= X_0 -1))(assert (<= X_0 1))"


@pytest.mark.parametrize(
    "more",
    [
        b"(push 1)", b"(assert (<= Y_0 3) (<= Y_1 3))", b"(assert (!= Y_0 Y_1))", b"(assert (~ Y_0 Y_1))",
        b"(assert (<= (/ Y_0 2) 1))", b"(assert (<= (* (+ Y_0 1) Y_1) 1))", b"(assert (<= X_0 -2))",
        b"(assert (<= Y_0 3)", b"(assert (<= Y_0 X_0))", b"(assert (<= 0 1))", b"(assert (<= (* Y_0 Y_1) 1))",
    ],
)  # fmt: skip
def test_formulas_that_mean_something_else_are_refused_by_the_reader(more):
    read = exact.vnnlib.read_property
    assert read(TWO + BOX + b"(set-logic QF_LRA)(assert (<= Y_0 3))(check-sat)")[:2] == (1, 2)
    refused(read, TWO + BOX + more)


def test_properties_declare_inputs_and_outputs_and_bound_each_input():
    for other in (b"X_2", b"Z_1", b"Y_3", b"X", b"X_01"):
        refused(exact.vnnlib.read_property, TWO + b"(declare-const %s Real)" % other + BOX)
    refused(exact.vnnlib.read_property, b"(declare-const X_0 Real)" + BOX)
    refused(exact.vnnlib.read_property, b"(declare-const Y_0 Real)(assert (<= Y_0 1))")
    for half in (b"(assert (>= X_0 -1))", b"(assert (<= X_0 1))", b""):
        refused(exact.vnnlib.read_property, TWO + half + b"(assert (<= Y_0 1))")


def test_the_tightest_bounds_count_and_boxes_empty_in_one_input_are_left_out():
    (case,) = exact.vnnlib.read_property(
        TWO + BOX + b"(assert (<= X_0 0.5))(assert (>= X_0 0))(assert (<= Y_0 1))"
    )[2]
    assert (list(case.lower), list(case.upper)) == ([0], [ONE // 2])
    second = b"(declare-const X_1 Real)(assert (>= X_1 0))(assert (<= X_1 1))"
    refused(exact.vnnlib.read_property, TWO + second + BOX + b"(assert (<= X_0 -2))(assert (<= Y_0 1))")


def gated(draft):
    return exact.gates.read_gates(exact.graph.read_graph(draft.save()))


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0])
def test_tables_of_a_gate_hold_zeros_and_ones(value):
    draft = leaning_rows()
    draft.constants["sutura.inactive"] = f32([[1], [value]])
    refused(gated, draft)
    draft = leaning_rows()
    draft.constants["sutura.clauses"] = f32([[value]])
    refused(gated, draft)


@pytest.mark.parametrize("weak", ["count", "off", "lits"])
@pytest.mark.parametrize("which", ["", ".1", ".2"])
def test_a_weaker_test_of_any_one_candidate_is_refused(weak, which):
    draft = leaning_rows(candidates=3)
    assert gated(draft).rows == 2
    draft.constant("weaker", f32([[0]]))
    draft.constant("none_active", f32([[1], [1]]))
    draft.constant("zero", np.array([0], dtype=np.int64))
    node, at, name = {
        "count": (f"sutura.test{which}.count", 1, "weaker"),
        "off": (f"sutura.test{which}.off", 0, "none_active"),
        "lits": (f"sutura.test{which}.0.l", 1, "zero2"),
    }[weak]
    draft.constant("zero2", np.array([1], dtype=np.int64))
    draft.find(node).input[at] = name
    refused(gated, draft)


def test_literals_read_outputs_that_there_are():
    for name, at in (("sutura.lhs", 2), ("sutura.lhs", -1), ("sutura.rhs", 2), ("sutura.rhs", -2)):
        draft = leaning_rows()
        draft.constants[name] = np.array([at], dtype=np.int64)
        refused(gated, draft)


def several():
    """Literals y0 > y1, y0 > 1 and y1 < 1, two clauses, of which row 1 asks for the second alone."""
    draft = dense(leaning_weights(), "sutura.raw")
    order_constants(draft)
    blocks = [("order", "sutura.lhs", "sutura.rhs"), ("above", "first", "t"), ("below", "second", "t")]
    for name, at in (("first", 0), ("second", 1)):
        draft.constant(name, np.array([at], dtype=np.int64))
    draft.constant("t", f32([1]))
    tables = [[1, 0], [0, 1], [0, 1]], [[0, 0], [2, 0]], [0.5, -0.5], [[1, 1], [1, 0]]
    add_output_gate(draft, ORDER_GUARD, blocks, *tables)
    add_dispatch(draft, HALVES)
    return draft


def test_clauses_of_several_kinds_of_literals_by_row():
    found = gated(several())
    assert found.clauses == [[("order", 0, 1, True)], [("Greater", 0, ONE), ("Less", 1, ONE)]]
    assert [[*row] for row in found.active] == [[], [1]]
    for name, value in (("first", -1), ("second", -1), ("first", 2)):
        draft = several()
        draft.constants[name] = np.array([value], dtype=np.int64)
        refused(gated, draft)


@pytest.mark.parametrize("op", ["LessOrEqual", "GreaterOrEqual", "Equal"])
def test_literals_of_another_comparison_are_refused(op):
    for at in (1, 2):
        draft = several()
        draft.find(f"sutura.test.{at}").op_type = op
        refused(gated, draft)


def test_row_zero_has_no_active_clauses():
    draft = leaning_rows()
    draft.constants["sutura.inactive"] = f32([[0], [0]])
    refused(gated, draft)


def test_boxes_are_those_of_their_rows():
    lower, upper = gated(boxed((0.5, -1), (1, 2))).box
    assert [[*row] for row in lower] == [[0, 0], [ONE // 2, -ONE]]
    assert [[*row] for row in upper] == [[0, 0], [ONE, 2 * ONE]]


@pytest.mark.parametrize(("used", "clause"), [(1, [("order", 0, 0, True)]), (0, [])])
def test_clauses_over_one_output(used, clause):
    draft = dense([(f32([[1]]), f32([0]))], "sutura.raw")
    draft.constant("first", np.array([0], dtype=np.int64))
    guard, blocks = Guard([[1.0]], [[("leaf", 0)]]), [("order", "first", "first")]
    add_output_gate(draft, guard, blocks, [[used]], [[0], [1]], [0], [[1], [1]])
    add_dispatch(draft, HALVES)
    assert gated(draft).clauses == [clause]


def test_a_dispatch_tree_has_a_table_with_its_rows():
    draft = dense(leaning_weights())
    add_dispatch(draft, [("leaf", 0)], row=True)
    refused(gated, draft)
    draft.constant("mask", np.array([True, False, True]))
    draft.node("Gather", ["mask", "sutura.row"], "picked", axis=0)
    assert gated(draft).rows == 3
    draft.constants["mask"] = np.array(True)
    refused(gated, draft)


CUT = (0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)


def rewritten(trees, **lists):
    node = tree_node("x", "y", trees)
    for attribute in node.attribute:
        if attribute.name in lists:
            attribute.CopyFrom(helper.make_attribute(attribute.name, lists[attribute.name]))
    return exact.gates.read_trees(read_node(node), 1, 2)


def test_nodes_of_trees_stand_in_their_order_and_make_one_tree_each():
    assert len(rewritten([CUT, CUT])) == 2
    for wrong in (
        {"nodes_nodeids": [0, 2, 1, 0, 1, 2]}, {"nodes_treeids": [1, 1, 1, 0, 0, 0]},
        {"nodes_falsenodeids": [2, 0, 0, 1, 0, 0]}, {"nodes_falsenodeids": [1, 0, 0, 2, 0, 0]},
    ):  # fmt: skip
        refused(lambda wrong=wrong: rewritten([CUT, CUT], **wrong))
    refused(rewritten, [(CUT[0], CUT[1], ("leaf", 2))])


def test_half_may_be_a_vector_and_nothing_else():
    draft = leaning_rows()
    draft.constants["sutura.half"] = f32([0.5])
    assert gated(draft).rows == 2


def test_switches_need_a_dispatch_tree():
    plain = exact.graph.read_graph(dense(leaning_weights()).save())
    assert exact.gates.read_gates(plain).rows == 1
    refused(exact.gates.read_gates, plain._replace(switches=[("c", "y")]))


def test_constants_have_the_type_that_is_asked_for():
    g = exact.graph.read_graph(dense(leaning_weights()).save())
    g = g._replace(constants={"n": exact.graph.Tensor(7, (2,), (0, 1))})
    assert exact.gates.constant(g, "n", 7, 2).values == (0, 1)
    for kind, *shape in ((1, 2), (7, 3), (7, 2, 1)):
        with pytest.raises((exact.ticks.RefusedError, ValueError)):
            exact.gates.constant(g, "n", kind, *shape)


@pytest.mark.parametrize("leaf", [-1, 0.5])
def test_guards_end_in_whole_numbers(leaf):
    refused(gated, leaning(Guard([[-1.0], [1.0]], [[(0, -1.0, 1, 2), ("leaf", 0), ("leaf", leaf)]])))


def compiled(draft):
    g = exact.graph.read_graph(draft.save())
    return exact.rules.compile_network(g, exact.gates.read_gates(g))


def network(*nodes, shape=(3,), **constants):
    """Nodes (operator, inputs, output, attributes) over X; the last makes Y."""
    draft = Draft(inputs=shape, outputs=(1,), constants=dict(constants))
    for op, inputs, output, *attributes in nodes:
        draft.node(op, inputs, output, **(attributes[0] if attributes else {}))
    return draft


EYE = np.eye(3, dtype=np.float32)
TO_M = ("MatMul", ["X", "W"], "m")


@pytest.mark.parametrize(
    ("nodes", "layers"),
    [
        ([TO_M, ("Add", ["m", "b"], "Y")], 1),
        ([TO_M, ("Add", ["m", "b"], "a"), ("Add", ["a", "m"], "Y")], 3),
        ([TO_M, ("Mul", ["m", "b"], "Y")], 2),
        ([TO_M, ("Add", ["m", "b"], "a"), ("Add", ["a", "b"], "Y")], 2),
    ],
)
def test_a_bias_joins_a_product_that_nothing_else_reads(nodes, layers):
    made, output = compiled(network(*nodes, W=EYE, b=f32([0, 2, 3])))
    assert (len(made), output) == (layers, layers)
    assert made[0].roundings == 4
    assert all(layer.roundings == 0 and layer.sources for layer in made[1:])


@pytest.mark.parametrize(("inputs", "weight", "bias"), [(["m", "b"], 1, -2), (["b", "m"], -1, 2)])
def test_differences_have_their_signs(inputs, weight, bias):
    made, _ = compiled(network(("Relu", ["X"], "m"), ("Sub", inputs, "Y"), b=f32([2, 2, 2])))
    assert list(made[-1].bias) == [bias * ONE] * 3
    assert [Fraction(row[0], 1 << made[-1].q) for _, row in made[-1].rows] == [weight] * 3
    assert made[-1].roundings == 0


def test_products_and_sums_of_unlike_values_have_no_rule():
    halves = [("MatMul", ["X", "W"], "m"), ("MatMul", ["X", "V"], "n")]
    for op, wide in (("Mul", EYE), ("Add", EYE[:, :1]), ("Sub", EYE[:, :2])):
        refused(compiled, network(*halves, (op, ["m", "n"], "Y"), W=EYE, V=wide))
    made, _ = compiled(network(*halves, ("Add", ["m", "n"], "Y"), W=EYE, V=EYE))
    assert len(made) == 3 and list(made[-1].bias) == [0, 0, 0]


def test_convolutions_count_their_roundings_and_pools_keep_their_channels():
    weight = np.ones((2, 1, 2, 2), np.float32)
    made, _ = compiled(network(("Conv", ["X", "W"], "Y"), shape=(1, 3, 4), W=weight))
    assert made[0].roundings == 5
    every = {"auto_pad": "NOTSET", "kernel_shape": [2, 2], "strides": [1, 1], "pads": [0] * 4}
    every |= {"dilations": [1, 1], "group": 1}
    assert compiled(network(("Conv", ["X", "W"], "Y", every), shape=(1, 3, 4), W=weight))[0] == made
    refused(compiled, network(("Conv", ["X", "W"], "Y"), shape=(2, 3, 4), W=weight))
    pool = ("MaxPool", ["X"], "p", {"kernel_shape": (2, 2)})
    made, _ = compiled(
        network(pool, ("Conv", ["p", "W"], "Y"), shape=(1, 3, 4), W=np.ones((1, 1, 1, 1), np.float32))
    )
    assert len(made[1].rows) == 6


def reshaped(target, shape=(2, 3), op="Reshape", **attributes):
    draft = network((op, ["X", "to"][: 1 + (op == "Reshape")], "Y", attributes), shape=shape)
    draft.constant("to", np.array(target, dtype=np.int64))
    g = exact.graph.read_graph(draft.save())
    values = {g.input: (0, g.sample)}
    exact.rules.on_shape(exact.layers.Draft(g, None, [], values, []), g.nodes[0])
    return values["Y"][1]


def test_shapes_are_those_of_the_format():
    assert reshaped([0, 3, 2]) == reshaped([-1, 3, 2]) == reshaped([1, 3, 2]) == (3, 2)
    assert (reshaped([0, -1]), reshaped([0, 1, 6]), reshaped([0, -1, 2])) == ((6,), (1, 6), (3, 2))
    assert (reshaped([0, 6, 1]), reshaped([], op="Flatten", axis=1)) == ((6, 1), (6,))
    for wrong in ([0, 4, 2], [2, 6], [0, -2, -3], [0, -2, -3, 1], [-2, 6]):
        refused(reshaped, wrong)
    refused(lambda: reshaped([], op="Flatten", axis=2))
    refused(lambda: reshaped([0, 6], allowzero=1))


def test_bends_have_the_ends_that_their_operator_names():
    def bend(op, *ends, **attributes):
        names = [f"e{at}" if end is not None else "" for at, end in enumerate(ends)]
        constants = {f"e{at}": f32(end) for at, end in enumerate(ends) if end is not None}
        return compiled(network((op, ["X", *names], "Y", attributes), **constants))[0][0]

    for layer, low, high in (
        (bend("Clip", None, 2), -5, 2), (bend("Clip", 1), 1, 5), (bend("Clip", 2, 2), 2, 2),
        (bend("Clip", -1, 1), -1, 1), (bend("Relu"), 0, 5),
    ):  # fmt: skip
        assert (layer.f(-5 * ONE), layer.f(5 * ONE)) == (low * ONE, high * ONE)
    refused(bend, "Clip", 2, 1)
    slope = exact.ticks.ticks(int(np.float32(0.01).view(np.uint32)))
    assert bend("LeakyRelu").f(-ONE) == -slope


def test_curves_may_err_as_far_as_is_assumed():
    promised = Fraction(4 * ONE, 10**7)
    assert promised < exact.rules.STRAY < promised + (ONE >> 70)


def test_constants_are_stretched_only_along_axes_of_one():
    spread, tensor = exact.layers.spread, exact.graph.Tensor
    assert spread(tensor(1, (2,), (1, 2)), (2, 2)) == [1, 2, 1, 2]
    for shape in ((3,), (1, 3), (1, 1, 1, 2)):
        refused(spread, tensor(1, shape, (1, 2, 3)), (2,))


@pytest.mark.parametrize(
    ("ends", "row", "limit", "refuted"),
    [
        ((1, 1.5), 1, 0.9, True), ((1, 1.5), 1, 1.2, False), ((1, 1.5), 2, 1.9, True),
        ((1, 1.5), 2, 2.5, False),
        ((-1.5, -1), 1, -1.8, True), ((-1.5, -1), 1, -1.2, False), ((-1.5, -1), -1, 0.9, True),
        ((-1.5, -1), -1, 1.2, False), ((-1.5, -1), 0, -1, True), ((-1.5, -1), 0, 1, False),
    ],
)  # fmt: skip
def test_an_inequality_is_refuted_where_all_is_beyond_its_limit(ends, row, limit, refuted):
    def scaled(value):
        return int(Fraction(value) * ONE)

    made = [exact.layers.linear_layer((0,), [(None, [ONE])], [0], 2)]
    values = exact.bound.bound(made, 0, [scaled(ends[0])], [scaled(ends[1])])
    effect = exact.proof.refuted(values, made, 1, ([row], scaled(limit), False))
    assert (effect == []) == refuted
    assert refuted or len(effect) == 1


def test_bounds_that_cross_late_prove_nothing():
    plain = exact.layers.linear_layer((0,), [((0,), (ONE,))], [0], 2)
    turned = exact.layers.Bend((1,), lambda x: -x, ())
    for f, fits in ((lambda x: x, True), (lambda x: -x, False)):
        found = exact.bound.bound([plain, turned._replace(f=f)], 0, [0], [ONE])
        assert (found is not None) == fits


@pytest.mark.parametrize("turn", [1, -1])
def test_one_entry_that_may_overflow_or_is_crossed_is_enough(turn):
    def bound(weights, low):
        rows = [((at,), (weight,)) for at, weight in enumerate(weights[::turn])]
        made = exact.layers.linear_layer((0,), rows, [0, 0], 2)
        return exact.bound.bound([made], 0, low[::turn], [ONE, ONE])

    assert bound([ONE, ONE], [0, 0]) is not None
    assert bound([1 << 275, ONE], [0, 0]) is None
    assert bound([ONE, ONE], [0, 2 * ONE]) is None
