"""Gates that act in a box of inputs alone: forged boxes, and tests that look at something else.

Both checkers are asked, and must say the same; what they accept is run.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from exported import (
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_PROPERTY,
    add_input_box,
    boxed,
    certificate,
    f32,
    leaning,
    leaning_rows,
)

from sutura.certificate import exact
from sutura.certificate.check import check

ABOVE_ZERO = float(np.nextafter(np.float32(0), np.float32(1)))
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def verdict(draft):
    network = draft.save()
    written = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    report = check(network, [ORDER_PROPERTY], written)
    accepted, reason = exact.check([network, ORDER_PROPERTY, written])
    assert accepted == report.accepted, (reason, report.reason)
    return report, reason


def run(draft, x):
    return ort.InferenceSession(draft.save(), providers=["CPUExecutionProvider"]).run(None, {"X": f32(x)})[0]


@pytest.mark.parametrize("lower", [(0.0, -1.0), (ABOVE_ZERO, -1.0), (-9.0, -3e38)])
@pytest.mark.parametrize("upper", [(1.0, 1.0), (3e38, 2.0)])
def test_a_box_that_holds_what_is_gated_is_accepted(lower, upper):
    draft = boxed(lower, upper)
    assert verdict(draft)[0].accepted
    inside = run(draft, [[1.0, 1.0], [0.5, -1.0]])
    assert (inside[:, 0] > inside[:, 1]).all()


def test_outside_of_its_box_a_sample_leaves_as_it_is():
    x = [[1.0, 1.5], [1.0, -1.5], [1.5, 0.0], [1.0, 0.0], [float("nan"), 0.0], [1.0, 1.0]]
    was, now = run(leaning_rows(), x), run(boxed(), x)
    assert (was[:3, 0] > was[:3, 1]).all()  # without a box they are mended
    assert now[:3].tolist() == [[0.0, 1.25], [0.0, 1.25], [0.0, 1.75]]
    assert (now[[3, 5], 0] > now[[3, 5], 1]).all()


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ((2 * ABOVE_ZERO, -1.0), (1.0, 1.0)),
        ((0.0, -BELOW_ONE), (1.0, 1.0)),
        ((0.0, -1.0), (BELOW_ONE, 1.0)),
        ((0.0, -1.0), (1.0, BELOW_ONE)),
        ((1.0, 1.0), (0.0, -1.0)),
        ((0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_a_box_that_leaves_out_an_input_is_refused(lower, upper):
    fast, exactly = verdict(boxed(lower, upper))
    assert "row 1: its gate does not act in all of the box of" in fast.reason
    assert "row 1: its gate does not act in all of the box of leaf 1" in exactly


FORGED = [
    ("sutura.kept", 1, "sutura.mended"), ("sutura.kept", 0, "sutura.test.ok"),
    ("sutura.kept", 1, "sutura.bad"),
    ("sutura.kept", 2, "sutura.fallback"), ("sutura.kept", 2, "sutura.bad_leaf"),
    ("sutura.fixed", 2, "sutura.mended"), ("sutura.fixed", 2, "sutura.bad"),
    ("sutura.box.ok", 0, "sutura.test.low"), ("sutura.box.ok", 1, "sutura.first"),
    ("sutura.box.above", 0, "sutura.bad"), ("sutura.box.above", 1, "sutura.upper.row"),
    ("sutura.box.below", 0, "sutura.mended"), ("sutura.box.below", 1, "sutura.lower.row"),
    ("sutura.box.sides", 0, "sutura.box.below"), ("sutura.box.sides", 1, "sutura.box.above"),
    ("sutura.lower.row", 1, "sutura.place"), ("sutura.upper.row", 1, "sutura.first"),
    ("sutura.bad_input", 0, "sutura.raw"), ("sutura.bad_input", 1, "sutura.mended_row"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "at", "value"), FORGED)
def test_the_test_looks_at_the_input_and_the_box_of_the_sample(name, at, value):
    draft = boxed()
    draft.find(name).input[at] = value
    assert not verdict(draft)[0].accepted


@pytest.mark.parametrize("row", ["sutura.place", "sutura.other", "sutura.first"])
def test_both_ends_of_the_box_are_those_of_the_row_that_mends(row):
    draft = boxed()
    draft.constant("sutura.other", np.array([1]))
    for name in ("sutura.lower.row", "sutura.upper.row"):
        draft.find(name).input[1] = row
    assert not verdict(draft)[0].accepted


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("sutura.box.above", "Greater"), ("sutura.box.above", "LessOrEqual"), ("sutura.box.below", "Less"),
        ("sutura.box.sides", "Or"), ("sutura.box.sides", "Xor"), ("sutura.box.least", "ReduceMax"),
        ("sutura.box.least", "ReduceSum"), ("sutura.box.ok", "Less"), ("sutura.box.ok", "GreaterOrEqual"),
    ],
)  # fmt: skip
def test_operators_of_the_test_cannot_be_exchanged(name, op):
    draft = boxed()
    draft.find(name).op_type = op
    assert not verdict(draft)[0].accepted


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("sutura.box.least", "axes", [0]), ("sutura.box.least", "keepdims", 0), ("sutura.box.float", "to", 7),
        ("sutura.bad_input", "axis", 1), ("sutura.bad", "axis", 1), ("sutura.lower.row", "axis", 1),
        ("sutura.upper.row", "axis", 1),
    ],
)  # fmt: skip
def test_attributes_of_the_test_cannot_be_exchanged(name, attribute, value):
    draft = boxed()
    (found,) = (a for a in draft.find(name).attribute if a.name == attribute)
    if attribute == "axes":
        found.ints[:] = value
    else:
        found.i = value
    assert not verdict(draft)[0].accepted


@pytest.mark.parametrize("table", ["sutura.lower", "sutura.upper"])
@pytest.mark.parametrize("value", [[[0, -1]], [[0], [0]], [[0, 0, 0], [0, -1, 0]], [0, 0]])
def test_tables_have_a_row_for_each_gate_and_a_number_for_each_input(table, value):
    draft = boxed()
    draft.constants[table] = f32(value)
    assert not verdict(draft)[0].accepted


@pytest.mark.parametrize("table", ["sutura.lower", "sutura.upper"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_ends_are_finite_float32_constants(table, value):
    draft = boxed()
    draft.constants[table][1, 0] = value
    assert not verdict(draft)[0].accepted
    draft = boxed()
    draft.constants[table] = draft.constants[table].astype(np.int64)
    assert not verdict(draft)[0].accepted
    draft = boxed()
    draft.node("Identity", ["X"], "sutura.other")
    draft.find(f"{table}.row").input[0] = "sutura.other"
    assert not verdict(draft)[0].accepted


def test_a_second_box_inside_of_the_first_is_no_part_of_the_template():
    draft = boxed()
    (last,) = draft.mending[-2:-1]
    assert last.name == "sutura.kept"
    draft.mend("Where", ["sutura.box.ok", "sutura.kept", "sutura.bad"], "sutura.again")
    draft.mending[-2], draft.mending[-1] = draft.mending[-1], draft.mending[-2]
    draft.mending[-1].input[2] = "sutura.again"
    assert not verdict(draft)[0].accepted


def test_a_single_gate_without_tables_has_no_box():
    draft = leaning()
    draft.mend("Gather", ["sutura.leaf", "sutura.place"], "sutura.bad_leaf", axis=0)
    draft.mend("Gather", ["sutura.bad_leaf", "sutura.first"], "sutura.bad_row", axis=1)
    draft.mend("Cast", ["sutura.bad_row"], "sutura.mended_row", to=7)
    put = draft.mending.pop(-4)
    assert put.op_type == "ScatterND"
    draft.mending.append(put)
    add_input_box(draft, [[0, 0], [0, -1]], [[0, 0], [1, 1]])
    report, _ = verdict(draft)
    assert not report.accepted
