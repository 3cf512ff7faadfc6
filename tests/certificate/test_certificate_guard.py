"""The guard and the mending it switches: what a comparison teaches, and forgeries that are refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from exported import (
    HALVES,
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_GUARD,
    ORDER_PROPERTY,
    ROW_GUARD,
    SMALLEST,
    add_dispatch,
    certificate,
    f32,
    leaning,
    leaning_rows,
    tree_node,
)
from hypothesis import given
from hypothesis import strategies as st

from sutura.certificate.check import check
from sutura.certificate.clauses import Above, Below, Order
from sutura.certificate.guard import comparison

FLOATS = st.floats(width=32, allow_nan=False)


def refused(draft):
    network = draft.save()
    report = check(
        network, [ORDER_PROPERTY], certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    )
    assert not report.accepted
    return report.reason


def holds(literal, y):
    match literal:
        case Order(high, low):
            return y[high] > y[low]
        case Above(index, threshold):
            return y[index] > threshold
        case Below(index, threshold):
            return y[index] < threshold
    raise AssertionError


@given(FLOATS, FLOATS, st.sampled_from([[-1, 1], [1, -1], [1, 0], [0, -1]]), FLOATS.filter(np.isfinite))
def test_what_a_comparison_teaches_is_true(a, b, column, threshold):
    """With and without subnormal numbers flushed to zero, before and after the sum."""
    literal = comparison(f32(column), threshold)
    if literal is None:
        return
    y = f32([a, b])

    def flushed(v):
        return np.where(abs(v) < SMALLEST, np.float32(0), v)

    with np.errstate(all="ignore"):
        exact = y * f32(column)
        sums = [exact.sum(), flushed(exact).sum(), flushed(exact.sum()), flushed(flushed(exact).sum())]
    if any(total <= np.float32(threshold) for total in sums):
        assert holds(literal, y)


@pytest.mark.parametrize(
    ("column", "threshold"),
    [
        ([-1, 1], 0.0),
        ([-1, 1], -SMALLEST / 2),
        ([-1, 1], 1.0),
        ([1, 1], -1.0),
        ([-2, 2], -1.0),
        ([-1, 0.5], -1.0),
        ([0, 0], -1.0),
        ([0, 1], 0.0),
        ([0, 1], SMALLEST / 2),
    ],
)
def test_other_comparisons_teach_nothing(column, threshold):
    assert comparison(f32(column), threshold) is None


def test_the_literals_are_the_tightest():
    assert comparison(f32([-1, 1]), -SMALLEST) == Order(0, 1, strict=True)
    assert comparison(f32([0, 1]), 1.0) == Below(1, float(np.nextafter(np.float32(1), np.float32(2))))
    assert comparison(f32([0, -1]), 1.0) == Above(1, -float(np.nextafter(np.float32(1), np.float32(2))))


def tree(*splits):
    return [list(splits)]


WEAK = {
    "always lets through": tree((0, 0.0, 1, 2), ("leaf", 0), ("leaf", 0)),
    "lets ties through": tree((0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)),
    "lets the wrong side through": tree((0, -SMALLEST, 1, 2), ("leaf", 1), ("leaf", 0)),
    "no tree decides": tree((0, 1.0, 1, 2), ("leaf", 0), ("leaf", 1)),
}


@pytest.mark.parametrize("trees", WEAK.values(), ids=WEAK)
def test_a_guard_that_lets_unsafe_outputs_through_is_refused(trees):
    assert "the guard lets unsafe conjunction 0 through" in refused(
        leaning(replace(ORDER_GUARD, trees=trees))
    )


def test_a_guard_of_the_wrong_row_is_refused():
    trees = tree((0, 0.5, 1, 2), (1, -SMALLEST, 3, 4), ("leaf", 0), ("leaf", 0), ("leaf", 1))
    assert "row 1: the guard lets" in refused(leaning_rows(replace(ROW_GUARD, trees=trees)))


def test_a_comparison_of_the_wrong_outputs_is_refused():
    assert "the guard lets" in refused(leaning(replace(ORDER_GUARD, columns=[[1.0], [-1.0]])))


def change(draft, name, **attributes):
    node = draft.find(name)
    for attribute in node.attribute:
        if attribute.name in attributes:
            attribute.i = attributes[attribute.name]
    return draft


def rewire(draft, name, at, value):
    draft.find(name).input[at] = value
    return draft


def with_other(draft, name, value):
    draft.constants[name] = np.asarray(value)
    return draft


FORGED = {
    "the guard compares another value": lambda d: rewire(d, "sutura.gaps", 0, "a0"),
    "the guard is not added up": lambda d: change(d, "sutura.found", transA=0),
    "the guard is weighted by something else": lambda d: rewire(d, "sutura.found", 0, "sutura.failing"),
    "something else is compared with one half": lambda d: rewire(d, "sutura.any", 0, "sutura.leaf"),
    "half is not a half": lambda d: with_other(d, "sutura.half", f32(1.5)),
    "other samples are mended": lambda d: rewire(d, "sutura.places", 0, "sutura.failing"),
    "the second axis of places": lambda d: with_other(d, "sutura.first", np.array(1)),
    "samples are taken along another axis": lambda d: change(d, "sutura.place", axis=1),
    "the index has another shape": lambda d: with_other(d, "sutura.second_axis", np.array([0])),
    "mended into another value": lambda d: rewire(d, "sutura.fixed", 0, "a0"),
    "what is sealed is not what was tested": lambda d: rewire(d, "sutura.sealed", 1, "sutura.bad"),
    "the seal is turned round": lambda d: swap(d, "sutura.sealed"),
    "the constant is unsafe": lambda d: with_other(d, "sutura.constant", f32([[0.5, 0.5]])),
    "two constants without rows": lambda d: with_other(d, "sutura.constant", f32([[1, 0], [1, 0]])),
    "the constant is not finite": lambda d: with_other(d, "sutura.constant", f32([[np.inf, 0]])),
}


def swap(draft, name):
    node = draft.find(name)
    node.input[1], node.input[2] = node.input[2], node.input[1]
    return draft


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_forged_gates_are_refused(forge):
    refused(forge(leaning()))


FORGED_ROWS = {
    "rows of other samples": lambda d: rewire(d, "sutura.bad_leaf", 0, "sutura.failing"),
    "rows in another order": lambda d: rewire(d, "sutura.bad_leaf", 1, "sutura.place2"),
    "the row of something else": lambda d: rewire(d, "sutura.fallback", 1, "sutura.place"),
    "the test of another row": lambda d: rewire(d, "sutura.test.off", 1, "sutura.place"),
    "all clauses off": lambda d: with_other(d, "sutura.inactive", f32([[1], [1]])),
    "the guard does not see the row": lambda d: rewire(d, "sutura.features", 0, "sutura.gaps"),
}


@pytest.mark.parametrize("forge", FORGED_ROWS.values(), ids=FORGED_ROWS)
def test_forged_tables_are_refused(forge):
    draft = leaning_rows()
    draft.mending.insert(3, type(draft.mending[0])())
    draft.mending[3].CopyFrom(draft.find("sutura.place"))
    draft.mending[3].name = draft.mending[3].output[0] = "sutura.place2"
    refused(forge(draft))


def test_a_row_beyond_the_single_gate_is_refused():
    draft = leaning()
    del draft.nodes[0]
    add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 2)])
    assert "is no row of the tables" in refused(draft)


def test_a_second_dispatch_tree_is_refused():
    draft = leaning()
    draft.nodes.insert(1, tree_node("X", "sutura.other", [HALVES]))
    refused(draft)


def test_ranks_of_trees_that_leave_a_gap_are_refused():
    draft = leaning()
    for attribute in draft.find("sutura.failing").attribute:
        if attribute.name in {"nodes_treeids", "target_treeids"}:
            attribute.ints[:] = [1] * len(attribute.ints)
    assert "nodes_treeids" in refused(draft)


def test_a_switch_that_hands_over_another_value_is_refused():
    draft = leaning()
    nodes = draft.switch()
    other = next(a.g for a in nodes[0].attribute if a.name == "else_branch")
    other.node[0].input[0] = "m1"
    draft.nodes += nodes
    draft.mending = []
    refused(draft)


def test_exactness_of_thresholds():
    """y <= t with t a float32 number, against the property's rational bound: 1/3 lies between two of them."""
    third = np.float32(1) / np.float32(3)
    below = comparison(f32([1]), float(third))
    assert isinstance(below, Below)
    assert Fraction(below.threshold) > Fraction(1, 3)
