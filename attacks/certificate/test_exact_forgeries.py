"""Forgeries at the edges of what is allowed: both checkers say the same; the last allowed thing passes."""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from exported import (
    HALVES,
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_BLOCKS,
    ORDER_COLUMN,
    ORDER_GUARD,
    ORDER_PROPERTY,
    ROW_GUARD,
    Guard,
    add_dispatch,
    add_output_gate,
    certificate,
    dense,
    f32,
    leaning,
    leaning_rows,
    leaning_weights,
    order_constants,
)
from test_mutations import counted, resigned

from sutura.certificate import check as fast
from sutura.certificate import exact
from sutura.certificate.schema import Counts
from sutura.certificate.tree import LEAF, Split


def accepted(network, text=ORDER_PROPERTY, nodes=LEANING_TREE, counts=LEANING_COUNTS, written=None):
    written = written or certificate(network, [text], nodes, counts)
    theirs = fast.check(network, [text], written)
    ours, reason = exact.check([network, text, written])
    assert ours == theirs.accepted, (reason, theirs.reason)
    return ours


@pytest.mark.parametrize(("candidates", "allowed"), [(1, True), (2, True), (8, True), (9, False)])
def test_candidates_are_a_few(candidates, allowed):
    assert accepted(leaning_rows(ROW_GUARD, candidates).save()) == allowed


@pytest.mark.parametrize(
    ("node", "at", "name"),
    [
        ("sutura.test.1.count", 1, "weaker"),
        ("sutura.test.1.off", 0, "none_active"),
        ("sutura.test.1.off", 1, "other_row"),
        ("sutura.test.1.ok", 1, "minus"),
        ("sutura.test.1.0", 1, "sutura.test.1.0.l"),
    ],
)
def test_every_candidate_meets_the_same_test(node, at, name):
    draft = leaning_rows(ROW_GUARD, 2)
    draft.constant("weaker", f32([[0]]))
    draft.constant("none_active", f32([[1], [1]]))
    draft.constant("minus", f32(-0.5))
    draft.constant("other_row", np.array([0]))
    draft.find(node).input[at] = name
    assert not accepted(draft.save())


@pytest.mark.parametrize(
    ("places", "kinds", "weights"),
    [
        ([1, 2, 2], [0, 0, 0], [0, 1, 0]),
        ([1, 2, 2], [0, 0, 0], [0, 0, 1]),
        ([1, 2, 2], [0, 0, 1], [0, 1, 0]),
        ([1, 2], [0, 1], [0, 1]),
        ([1], [0], [0]),
        ([1, 2, 0], [0, 0, 0], [0, 1, 1]),
        ([2, 1], [0, 0], [1, 0]),
    ],
)
def test_leaves_of_the_dispatch_tree_hold_one_number_each(places, kinds, weights):
    draft = leaning()
    node = draft.find("sutura.leaf")
    kept = [a for a in node.attribute if not a.name.startswith("target_")]
    del node.attribute[:]
    node.attribute.extend(kept)
    lists = {"treeids": [0] * len(places), "nodeids": places, "ids": kinds}
    for name, value in [*lists.items(), ("weights", [float(w) for w in weights])]:
        node.attribute.append(onnx.helper.make_attribute(f"target_{name}", value))
    assert accepted(draft.save()) == (places == [2, 1])


@pytest.mark.parametrize(
    "change",
    [
        {"tool": ""}, {"tool": "a\n"}, {"tool": "x" * 256}, {"tool": 5}, {"tool": None},
        {"original": {"sha256": "0" * 63}}, {"original": {"sha256": "G" * 64}}, {"original": {}},
        {"original": {"sha256": "0" * 64, "more": 1}}, {"version": 1}, {"version": "2"}, {"version": True},
        {"format": "other"}, {"profile": "reals"}, {"assumes": []}, {"counts": {}}, {"properties": []},
        {"network": {"sha256": "0" * 64}}, {"tree": "AAA="}, {"tree": ""}, {"tree": "A"}, {"more": 1},
        {"tree": "AgAA\nAAAA"}, {"tree": "AgAA!AAAA"},
    ],
)  # fmt: skip
def test_fields_of_a_certificate_are_what_they_must_be(change):
    network = leaning().save()
    written = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    forged = resigned(json.dumps(json.loads(written) | change))
    assert not accepted(network, written=forged)
    for tool in ("x" * 255, "x"):
        kept = {"tool": tool, "original": {"sha256": "0123456789abcdef" * 4}}
        assert accepted(network, written=resigned(json.dumps(json.loads(written) | kept)))


@pytest.mark.parametrize("ordered", [True, False])
def test_keys_in_another_order_are_refused_however_they_are_signed(ordered):
    network = leaning().save()
    written = json.loads(certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS))
    del written["digest"]
    turned = dict(sorted(written.items(), reverse=True))
    signed = json.dumps(turned, sort_keys=ordered, separators=(",", ":")).encode()
    turned["digest"] = hashlib.sha256(signed).hexdigest()
    assert not accepted(network, written=json.dumps(turned, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree + b"\0", lambda tree: tree[:-1], lambda tree: tree[:-2], lambda tree: tree[:3],
        lambda tree: tree[:-2] + b"\x80\0" + tree[-1:], lambda tree: tree[:-1] + b"\x80\x80\0",
        lambda tree: b"\x82\0" + tree[1:], lambda tree: b"\x82\x80\x80\x80\x80\0" + tree[1:],
        lambda tree: b"\6" + tree[1:], lambda tree: b"\5\0\0",
    ],
)  # fmt: skip
def test_trees_are_written_in_one_way_and_to_their_end(change):
    network = leaning().save()
    written = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    document = json.loads(written)
    tree = change(base64.b64decode(document["tree"]))
    document["tree"] = base64.b64encode(tree).decode()
    assert not accepted(network, written=resigned(json.dumps(document)))


@pytest.mark.parametrize("extra", ["!", "\n", "=", " "])
def test_trees_are_plain_base64(extra):
    network = leaning().save()
    document = json.loads(certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS))
    for at in (0, 4, len(document["tree"])):
        tree = document["tree"][:at] + extra + document["tree"][at:]
        assert not accepted(network, written=resigned(json.dumps(document | {"tree": tree})))


@pytest.mark.parametrize("cut", [0.25, float(np.nextafter(np.float32(0.25), np.float32(0))), -1.0])
def test_faces_of_a_box_belong_to_the_cells_that_they_touch(cut):
    plain, narrow = dense(leaning_weights()).save(), ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    found = [Counts(2, 2 - out, 0, out, 1) for out in (0, 1)]
    verdicts = [accepted(plain, narrow, (Split(0, cut), LEAF, LEAF), counts) for counts in found]
    assert verdicts == [cut != 0.25, cut == 0.25]


def gap(at, inputs=3):
    """y0 = relu(x1 - 1/3) - relu(x1 - 1/3) + `at`, y1 = 0: no bound sees that the two are the same."""
    first = np.zeros((inputs, 2))
    first[1] = 1
    return dense([(first, f32([-1 / 3, -1 / 3])), (f32([[1, 0], [-1, 0]]), f32([at, 0]))]).save()


THREE = b"(declare-const X_2 Real)(assert (>= X_2 -1.0))(assert (<= X_2 1.0))"


@pytest.mark.parametrize(("at", "allowed"), [(0.8, True), (0.015, True), (0.008, False)])
def test_open_boxes_are_halved_six_times(at, allowed):
    assert accepted(gap(at), ORDER_PROPERTY + THREE, (LEAF,), Counts(1, 1, 0, 0, 1)) == allowed


def test_cells_are_cut_in_one_input_and_keep_the_others():
    nodes = (Split(1, 0.0), LEAF, Split(0), LEAF, Split(2, 0.5), LEAF, Split(1, 0.25), LEAF, LEAF)
    nodes = (Split(0, -1.0), LEAF, Split(0, 1.0), *nodes, LEAF)
    wrong = certificate(gap(0.1), [ORDER_PROPERTY + THREE], nodes, Counts(1, 1, 0, 0, 1))
    counts = counted(fast.check(gap(0.1), [ORDER_PROPERTY + THREE], wrong).reason)
    assert accepted(gap(0.1), ORDER_PROPERTY + THREE, nodes, counts)
    assert not accepted(gap(0.008), ORDER_PROPERTY + THREE, nodes, counts)


@pytest.mark.parametrize(
    ("unsafe", "allowed"),
    [
        ("(and (<= Y_0 5.0) (<= Y_0 Y_1))", True), ("(and (<= Y_0 Y_1) (<= Y_0 5.0))", True),
        ("(and (<= Y_0 5.0) (>= Y_0 Y_1))", False), ("(or (<= Y_0 Y_1) (<= Y_0 -9.0))", True),
        ("(or (<= Y_0 Y_1) (<= Y_0 5.0))", False), ("(or (<= Y_0 5.0) (<= Y_0 Y_1))", False),
    ],
)  # fmt: skip
def test_one_refuted_inequality_is_enough_for_each_conjunction(unsafe, allowed):
    text = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25").replace(b"(<= Y_0 Y_1)", unsafe.encode())
    assert accepted(dense(leaning_weights()).save(), text, (LEAF,), Counts(1, 1, 0, 0, 1)) == allowed


@pytest.mark.parametrize("tool", ["a", "b", "c", "d", "e", "f"])
def test_the_certificates_own_digest_draws_what_a_sample_bounds(tool):
    plain, nodes = (
        dense(leaning_weights()).save(),
        (Split(0, -0.5), LEAF, Split(0, 0.0), LEAF, Split(0, 0.75)),
    )
    written = certificate(plain, [ORDER_PROPERTY], (*nodes, LEAF, LEAF), Counts(4, 4, 0, 0, 1))
    written = resigned(json.dumps(json.loads(written) | {"tool": tool}))
    seed = b"sutura exact sample\0" + hashlib.sha256(written).digest()
    order = sorted(range(4), key=lambda at: hashlib.sha256(seed + b"%d" % at).hexdigest())
    safe = [exact.check([plain, ORDER_PROPERTY, written], sample=many)[0] for many in range(5)]
    assert safe == [not {2, 3} & set(order[:many]) for many in range(5)]


@pytest.mark.parametrize(
    "more", [b"", b"(declare-const Y_2 Real)", THREE, b"(declare-const X_2 Real)(assert (= X_2 0.0))"]
)
def test_gated_boxes_need_a_property_of_the_right_size_too(more):
    text = ORDER_PROPERTY.replace(b">= X_0 -1.0", b">= X_0 0.5")
    for draft in (leaning(), leaning_rows()):
        assert accepted(draft.save(), text + more, (LEAF,), Counts(1, 0, 1, 0, 2)) == (not more)


def test_all_properties_are_of_one_size():
    network, text = leaning().save(), ORDER_PROPERTY.replace(b">= X_0 -1.0", b">= X_0 0.5")
    for more in (b"", THREE, b"(declare-const Y_2 Real)"):
        for texts in ([text, text + more], [text + more, text]):
            written = certificate(network, texts, (LEAF,), Counts(1, 0, 1, 0, 2))
            found = exact.check([network, *texts, written])[0]
            assert found == fast.check(network, texts, written).accepted == (not more)


def test_a_box_that_is_one_point_is_a_case():
    point = ORDER_PROPERTY.replace(b"(<= X_0 1.0)", b"(<= X_0 1.0))(assert (>= X_0 1.0)")
    point = point.replace(b"(<= X_1 1.0)", b"(<= X_1 -1.0)")
    plain = dense(leaning_weights()).save()
    assert exact.vnnlib.read_property(point)[2][0].lower == exact.vnnlib.read_property(point)[2][0].upper
    assert not accepted(plain, point, (LEAF,), Counts(1, 1, 0, 0, 1))
    low = point.replace(b"X_0 1.0", b"X_0 -1.0").replace(b">= X_0 1.0", b">= X_0 -1.0")
    assert accepted(plain, low, (LEAF,), Counts(1, 1, 0, 0, 1))
    empty = ORDER_PROPERTY.replace(b"(<= X_0 1.0)", b"(<= X_0 -1.1)")
    assert not accepted(plain, empty, (LEAF,), Counts(1, 1, 0, 0, 1))


@pytest.mark.parametrize(("op", "constant", "safe"), [("<", 1, True), ("<=", 1, False), ("<=", 0.5, True)])
def test_a_constant_output_at_the_edge_of_the_unsafe_set(op, constant, safe):
    text = ORDER_PROPERTY.replace(b"(<= Y_0 Y_1)", b"(%s Y_0 Y_1)" % op.encode())
    draft = leaning_rows()
    draft.constants["sutura.constant"] = f32([[0, 0], [1, constant]])
    assert accepted(draft.save(), text) == safe


@pytest.mark.parametrize(("version", "allowed"), [(3, False), (4, True), (10, True), (11, False)])
def test_versions_of_the_file_format(version, allowed):
    model = onnx.load_from_string(leaning().save())
    model.ir_version = version
    data = model.SerializeToString(deterministic=True)
    if allowed:
        exact.graph.read_graph(data)
        return
    with pytest.raises(exact.ticks.RefusedError):
        exact.graph.read_graph(data)


@pytest.mark.parametrize(
    "cut",
    [-1.0, -1.5, 0.999, 1.0, 2.0, 0.0, -1e-45, *(float(np.nextafter(f32(-1), f32(end))) for end in (-2, 0))],
)
def test_cells_are_cut_inside_only_and_side_by_side(cut):
    cut = float(f32(cut))
    nodes = (Split(0, 0.0), Split(0, -1.0), LEAF, Split(0, cut), LEAF, LEAF, LEAF)
    plain, narrow = dense(leaning_weights()).save(), ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    counts = {True: Counts(4, 3, 0, 1, 1), False: Counts(4, 4, 0, 0, 1)}
    found = [accepted(plain, narrow, nodes, counts[key]) for key in (True, False)]
    assert any(found) == (-1 < cut < 0)


@pytest.mark.parametrize("dim", [0, 1])
def test_cells_may_be_halved_where_their_sides_end(dim):
    plain, narrow = dense(leaning_weights()).save(), ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    halves = (Split(dim), Split(dim), LEAF, LEAF, Split(1 - dim, 0.5), LEAF, LEAF)
    nodes = (Split(dim, -2.0), LEAF, Split(dim, 2.0), *halves, LEAF)
    wrong = certificate(plain, [narrow], nodes, Counts(1, 1, 0, 0, 1))
    counts = counted(fast.check(plain, [narrow], wrong).reason)
    assert accepted(plain, narrow, nodes, counts)
    assert not accepted(plain, narrow, nodes, Counts(6, 6, 0, 0, 1))
    ones, one = Counts(2, 2, 0, 0, 1), Counts(3, 3, 0, 0, 1)
    for wrong in ((Split(dim), LEAF, LEAF), (Split(dim, -2.0), Split(dim), LEAF, LEAF, LEAF)):
        assert not accepted(plain, narrow, wrong, ones)
    for at in ((0.0, Split(dim), LEAF, LEAF, LEAF), (0.0, LEAF, Split(dim), LEAF, LEAF)):
        assert not accepted(plain, narrow, (Split(dim, at[0]), *at[1:]), one)


@pytest.mark.parametrize("end", [0.3, 0.35, 0.36, 0.37, 0.3725, 0.374, 0.3749, 0.37499])
def test_open_boxes_are_halved_so_often_and_no_more(end):
    text = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 %f" % end)
    found = accepted(dense(leaning_weights()).save(), text, (LEAF,), Counts(1, 1, 0, 0, 1))
    assert found or end > 0.37


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(<= Y_0 Y_1)", b"(<= Y_0 Y_2)"),
        (b"(<= Y_0 Y_1)", b"(<= Y_0 Y_01)"),
        (b"(<= X_1 1.0)", b"(<= X_2 1.0)"),
        (b"(<= Y_0 Y_1)", b"(<= Y_0 X_1)"),
        (b"(<= Y_0 Y_1)", b"(<= Y_0 (* Y_1 Y_1))"),
        (b"(<= Y_0 Y_1)", b"(<= 0 1)"),
        (b"(<= Y_0 Y_1)", b"(= Y_0 Y_1 Y_1)"),
        (b"(<= Y_0 Y_1)", b"(= Y_0)"),
        (b"(<= Y_0 Y_1)", b"(or)"),
        (b"(<= Y_0 Y_1)", b"(<= Y_0 Y_1 Y_1)"),
        (b"(<= Y_0 Y_1)", b"(<= Y_0 1e)"),
        (b"(declare-const Y_1 Real)", b"(declare-const Y_2 Real)"),
        (b"(declare-const Y_1 Real)", b"(declare-const Z_1 Real)"),
        (b"(assert (<= X_1 1.0))", b""),
        (b"(assert (<= X_1 1.0))", b"(assert (<= X_1 1.0)"),
        (b"(assert (<= X_1 1.0))", b"(assert (<= X_1 1.0)))"),
        (b"(assert (<= X_1 1.0))", b"(assume (<= X_1 1.0))"),
        (b"(assert (<= X_1 1.0))", b"(assert (<= X_1 1.0) (<= X_1 1.0))"),
        (b"(assert (<= X_1 1.0))", b"x (assert (<= X_1 1.0))"),
        (b"(<= X_1 1.0)", b"(<= X_1 1e39)"),
    ],
)
def test_properties_that_say_something_else_are_refused(old, new):
    text = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    plain, one = dense(leaning_weights()).save(), Counts(1, 1, 0, 0, 1)
    assert accepted(plain, text, (LEAF,), one)
    assert not accepted(plain, text.replace(old, new), (LEAF,), one)


@pytest.mark.parametrize("end", ["input", "output"])
@pytest.mark.parametrize("kind", [onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64])
def test_ends_are_float32(end, kind):
    model = onnx.load_from_string(leaning().save())
    getattr(model.graph, end)[0].type.tensor_type.elem_type = kind
    assert not accepted(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize(("batch", "allowed"), [(None, True), (1, True), (2, False), (-1, False)])
def test_the_batch_axis_is_free_or_one(batch, allowed):
    model = onnx.load_from_string(leaning().save())
    if batch is not None:
        for end in (model.graph.input[0], model.graph.output[0]):
            end.type.tensor_type.shape.dim[0].dim_value = batch
    assert accepted(model.SerializeToString(deterministic=True)) == allowed


BY_ROW = [(0, 1.5, 1, 2), ("leaf", 0), (0, 2.5, 3, 4), ("leaf", 1), ("leaf", 0)]


@pytest.mark.parametrize(
    ("guard", "dispatched", "allowed"),
    [
        (Guard(ORDER_COLUMN, [[("leaf", 1)]]), 1, False),
        (ORDER_GUARD, 1, False),
        (Guard(ORDER_COLUMN, [[("leaf", 0)], [("leaf", 1)]]), 1, False),
        (Guard(ORDER_COLUMN, [BY_ROW], rows=True), 1, True),
        (Guard(ORDER_COLUMN, [BY_ROW], rows=True), 2, False),
        (Guard(ORDER_COLUMN, [[("leaf", 1)]]), 0, True),
    ],
)
def test_rows_without_clauses_are_never_mended(guard, dispatched, allowed):
    # The network is safe here, and what "mends" it is not: z = y + (-9, 9), which no clause tests.
    text = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    draft = dense(leaning_weights(), "sutura.raw")
    order_constants(draft)
    tables = [[1]], [[0, 0], [1, 0.5], [1, 0.5]], [-9, 9], [[1], [1], [1]]
    add_output_gate(draft, guard, ORDER_BLOCKS, *tables)
    add_dispatch(draft, [HALVES[0], ("leaf", dispatched), ("leaf", dispatched)])
    network, x = draft.save(), f32([[0.125, 0]])
    (y,) = onnxruntime.InferenceSession(network).run(None, {"X": x})
    assert (y[0, 0] > y[0, 1]) == allowed or guard is ORDER_GUARD
    assert accepted(network, text, (LEAF,), Counts(1, 1, 0, 0, 3)) == allowed
