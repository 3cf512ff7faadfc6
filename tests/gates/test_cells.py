"""Cutting the input space: cells get exactly the boxes that contain them."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import RepairError
from sutura.gates import cells as module
from sutura.gates.cells import (
    Box32,
    Cell,
    Cut,
    box32,
    boxes_of,
    cells,
    everything,
    explicit,
    graft,
    merged,
    partition,
    pruned,
    thinned,
)

UP, DOWN = np.float32(np.inf), np.float32(-np.inf)


def locate(tree, point):
    """The label at a point, by walking the tree as a runtime does."""
    at = 0
    while isinstance(node := tree[at], Cut):
        at += 1
        if not np.float32(point[node.dim]) <= np.float32(node.threshold):
            at = end_of(tree, at)
    return node.label


def end_of(tree, at):
    """Where the subtree that starts at `at` ends."""
    open_nodes = 1
    while open_nodes:
        open_nodes += 1 if isinstance(tree[at], Cut) else -1
        at += 1
    return at


def containing(boxes, point):
    return frozenset(i for i, b in enumerate(boxes) if np.all(b.low <= point) and np.all(point <= b.high))


EDGES = [
    0.0,
    -0.0,
    1.0,
    float(np.nextafter(np.float32(1), UP)),
    float(np.nextafter(np.float32(1), DOWN)),
    0.5,
]
EDGES += [-1.0, 2.0, float(np.nextafter(np.float32(0), UP)), float(np.nextafter(np.float32(0), DOWN)), 0.1]
NUMBERS = st.one_of(st.sampled_from(EDGES), st.floats(-3, 3, width=32))


@st.composite
def boxes_of_any_kind(draw):
    dims = draw(st.integers(1, 4))
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        ends = [sorted((draw(NUMBERS), draw(NUMBERS))) for _ in range(dims)]
        boxes.append(box32(*np.array(ends, np.float32).T))
    if draw(st.booleans()):
        boxes.append(boxes[0])
    return dims, boxes


@settings(max_examples=60, deadline=None)
@given(boxes_of_any_kind(), st.integers(0, 2**31))
def test_every_point_is_in_a_cell_labelled_with_exactly_its_boxes(drawn, seed):
    dims, boxes = drawn
    tree = partition(boxes, dims)
    assert end_of(tree, 0) == len(tree)
    draw = np.random.default_rng(seed)
    values = [
        np.unique([v for b in boxes for v in (b.low[d], b.high[d])]).astype(np.float32) for d in range(dims)
    ]
    close = [np.concatenate([v, np.nextafter(v, UP), np.nextafter(v, DOWN)]) for v in values]
    grid = list(product(*close))
    chosen = [grid[i] for i in draw.permutation(len(grid))[:150]]
    random = draw.uniform(-4, 4, (50, dims)).astype(np.float32)
    for point in (*np.array(chosen, np.float32), *random):
        assert locate(tree, point) == containing(boxes, point)


@settings(max_examples=40, deadline=None)
@given(boxes_of_any_kind())
def test_cells_lie_wholly_in_or_out_of_every_box(drawn):
    dims, boxes = drawn
    for cell, place in boxes_of(partition(boxes, dims), everything(dims)):
        assert np.all(place.low <= place.high)
        for i, box in enumerate(boxes):
            assert place.within(box) == (i in cell.label)
            assert place.meets(box) == (i in cell.label)


@pytest.mark.parametrize("telling", [1, 2])
@settings(max_examples=60, deadline=None)
@given(drawn=boxes_of_any_kind(), seed=st.integers(0, 2**31))
def test_a_coarse_cell_holds_its_boxes_and_touches_no_other(telling, drawn, seed):
    dims, boxes = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TELLING", telling)
        tree = partition(boxes, dims, coarse=True)
    assert len(tree) <= len(partition(boxes, dims))
    for cell, place in boxes_of(tree, everything(dims)):
        held = [box for box in boxes if box.meets(place)]
        assert {i for i, box in enumerate(boxes) if box.meets(place)} == cell.label
        if not all(place.within(box) for box in held):
            assert all(box.within(held[0]) and held[0].within(box) for box in held)
    draw = np.random.default_rng(seed)
    for box in boxes:
        for share in draw.random((20, dims)).round(draw.integers(3)):
            point = (box.low + share * (box.high - box.low)).astype(np.float32).clip(box.low, box.high)
            assert locate(tree, point) == containing(boxes, point)


def test_many_boxes_of_many_inputs_are_told_apart_by_few():
    low = np.random.default_rng(0).random((50, 2000)).astype(np.float32)
    boxes = [box32(x, x + np.float32(0.01)) for x in low]
    tree = partition(boxes, 2000, coarse=True)
    assert len(tree) < 50 * 2 * 2 * module.TELLING + 200
    for i, box in enumerate(boxes):
        assert locate(tree, box.low) == locate(tree, box.high) == {i}
    other = np.random.default_rng(1).random((100, 2000))
    assert not any(locate(tree, point) for point in other)


def test_one_box_by_hand():
    tree = partition([box32(np.float32([0.0]), np.float32([1.0]))], 1)
    assert tree[0] == Cut(0, 1.0)
    assert cells(tree) == (frozenset(), frozenset({0}), frozenset())
    assert locate(tree, [1.0]) == {0}
    assert locate(tree, [-0.0]) == {0}
    assert locate(tree, [np.nextafter(np.float32(0), DOWN)]) == frozenset()


def test_many_inputs_are_cut_quickly():
    n = 1500
    low = np.zeros(n, np.float32)
    tree = partition([box32(low, low + 1)], n)
    assert sum(bool(label) for label in cells(tree)) == 1
    assert len(cells(tree)) == 2 * n + 1


def test_too_many_overlaps_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_NODES", 20)
    ends = np.linspace(0, 1, 40, dtype=np.float32)
    boxes = [box32(np.float32([a, 0]), np.float32([a + 2, 1])) for a in ends]
    with pytest.raises(RepairError, match=r"40 boxes .* take more than 20 cuts"):
        partition(boxes, 2)


def midpoint_tree(labels):
    """A complete tree of halvings of one input."""
    if len(labels) == 1:
        return (Cell(labels[0]),)
    half = len(labels) // 2
    return (Cut(0), *midpoint_tree(labels[:half]), *midpoint_tree(labels[half:]))


def test_merged_joins_equal_siblings_from_the_bottom_up():
    tree = midpoint_tree([1, 1, 1, 1, 2, 3, 4, 4])
    assert merged(tree, lambda a, b: a == b) == (Cut(0), Cell(1), Cut(0), Cut(0), Cell(2), Cell(3), Cell(4))
    assert merged(tree, lambda a, b: False) == tree
    assert merged((Cell(5),), lambda a, b: True) == (Cell(5),)


@given(st.lists(st.integers(0, 2), min_size=8, max_size=8), st.floats(0, 7.75, width=32))
def test_merging_and_writing_out_thresholds_change_no_label(labels, at):
    tree = midpoint_tree(labels)
    root = Box32(np.zeros(1), np.full(1, 8.0))
    written = explicit(tree, root)
    assert all(node.threshold is not None for node in written if isinstance(node, Cut))
    joined = explicit(merged(tree, lambda a, b: a == b), root)
    assert locate(written, [at]) == locate(joined, [at])


def test_boxes_of_follow_the_midpoints():
    root = Box32(np.zeros(1), np.full(1, 4.0))
    found = [
        (cell.label, place.low[0], place.high[0]) for cell, place in boxes_of(midpoint_tree("abcd"), root)
    ]
    after = [float(np.nextafter(np.float32(v), UP)) for v in (1, 2, 3)]
    ends = [(0, 1), (after[0], 2), (after[1], None), (None, 4)]
    assert [label for label, _, _ in found] == list("abcd")
    assert found[0][1:] == ends[0]
    assert found[1][1:] == ends[1]
    assert found[2][1] == after[1]
    assert found[3][2] == 4
    for (_, _, high), (_, low, _) in pairwise(found):
        assert low == np.nextafter(np.float32(high), UP)


def test_graft_numbers_cells_in_preorder():
    tree = (Cut(0, 1.0), Cell("a"), Cut(1, 2.0), Cell("b"), Cell("c"))
    grown = graft(tree, lambda n, label: (Cut(2, float(n)), Cell(label), Cell(label * 2)))
    assert cells(grown) == ("a", "aa", "b", "bb", "c", "cc")
    assert [node.threshold for node in grown if isinstance(node, Cut) and node.dim == 2] == [0.0, 1.0, 2.0]


def test_pruned_trees_keep_what_is_proved_whole():
    tree = (Cut(0), Cut(1), Cell(True), Cell(True), Cut(1), Cell(True), Cut(0), Cell(False), Cell(True))
    assert pruned(tree, 3) == tree
    assert pruned(tree, 2) == (*tree[:6], Cell(False))
    assert pruned(tree, 1) == (*tree[:4], Cell(False))
    assert pruned(tree, 0) == (Cell(False),)
    assert pruned(tree[1:4], 0) == tree[1:4]


def test_thinned_trees_keep_what_is_proved_whole_or_worth_a_look():
    yes, no = Cell(True), Cell(False)
    # Proved 1/4 for looks of 1/2; as much; and below it 1/16 for looks of 1/4 and 1/8.
    left, right = (Cut(1), yes, no), (Cut(1), yes, Cut(0), no, Cut(2), no, yes)
    tree = (Cut(0), *left, *right)
    assert thinned(tree, 0.16) == tree
    assert thinned(tree, 0.17) == (Cut(0), *left, Cut(1), yes, no)
    assert thinned(tree, 0.24) == (Cut(0), *left, Cut(1), yes, no)
    assert thinned(tree, 0.26) == (no,)
    assert thinned((Cut(0), Cut(1), yes, yes, no), 0.49) == (Cut(0), Cut(1), yes, yes, no)
    assert thinned((Cut(0), yes, yes), 9.0) == (Cut(0), yes, yes)
