"""Branch and bound over a box: proofs that hold, budgets kept, the same tree from any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import loaded, mlp, points, pool, run_original

from sutura.bounds.lower import lower
from sutura.gates.cells import box32, boxes_of, cells
from sutura.gates.cover import Budget, cover
from sutura.progress import silent
from sutura.property.build import argmax_in, box
from sutura.property.spec import unsafe_mask
from sutura.verdict.deadline import Deadline, within
from sutura.verdict.goal import goal

DATA = mlp([3, 10, 4], 4)
PROGRAM = lower(loaded(DATA).network)
WANTED = argmax_in(box([-1] * 3, [1] * 3), [0, 1], outputs=4)
CASE = WANTED.cases[0]
ROOT = box32(*CASE.box.float32_hull())
AIM = goal(CASE.unsafe, 4)


def covered(boxes, deadline=None, workers=1, listen=silent):
    with pool(workers) as threads:
        return cover(PROGRAM, AIM, ROOT, Budget(boxes, deadline or Deadline()), (threads, listen))


def test_proved_cells_hold_no_unsafe_point():
    found = covered(3000)
    proved = [place for cell, place in boxes_of(found.tree, ROOT) if cell.label]
    assert len(proved) > 20
    assert not all(cells(found.tree))
    run = run_original(DATA)
    draw = np.random.default_rng(0)
    for place in proved:
        share = draw.random((50, 3))
        share[:25] = np.round(share[:25])
        x = (place.low + share * (place.high - place.low)).astype(np.float32)
        x = np.clip(x, place.low.astype(np.float32), place.high.astype(np.float32))
        assert not unsafe_mask(CASE, run(x)).any()


def test_unsafe_points_lie_in_open_cells():
    found = covered(3000)
    x = points(CASE.box, 2000, 1)
    wrong = x[unsafe_mask(CASE, run_original(DATA)(x))]
    assert len(wrong)
    places = list(boxes_of(found.tree, ROOT))
    for point in wrong[:200]:
        held = [c.label for c, p in places if np.all(p.low <= point) and np.all(point <= p.high)]
        assert held == [False]


def test_the_number_of_threads_changes_nothing():
    assert covered(1500, workers=1) == covered(1500, workers=3)


@pytest.mark.parametrize("boxes", [0, 1, 2, 3, 10, 101])
def test_the_budget_of_boxes_is_kept(boxes):
    found = covered(boxes)
    assert found.boxes <= boxes
    assert len(cells(found.tree)) <= boxes + 1


def test_no_budget_leaves_the_box_whole_and_open():
    assert cells(covered(0).tree) == (False,)


def test_more_budget_proves_more():
    def share(boxes):
        sizes = [(c.label, np.prod(p.high - p.low)) for c, p in boxes_of(covered(boxes).tree, ROOT)]
        return sum(size for label, size in sizes if label)

    assert share(30) < share(300) < share(3000)


def test_a_passed_deadline_leaves_the_box_open():
    found = covered(1000, within(0.0))
    assert cells(found.tree) == (False,)
    assert found.boxes == 0


def test_progress_is_told_with_growing_counts():
    told = []
    found = covered(500, listen=told.append)
    assert told[-1].boxes == found.boxes
    assert [e.boxes for e in told] == sorted(e.boxes for e in told)
    assert all(0 <= e.settled <= 1 for e in told)
