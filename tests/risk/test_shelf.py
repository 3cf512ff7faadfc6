"""Open boxes by distance: the nearest come first, nothing is lost, and no result depends on the threads."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_networks import dense, points

from sutura.bounds.crown import Enclosure
from sutura.bounds.region import Region
from sutura.risk import shelf as shelves
from sutura.risk.quantify import RiskConfig, quantify_risk
from sutura.risk.shelf import Batch, put, shelf, taken, within
from sutura.verdict.frontier import Waiting


def batch(far):
    """Boxes of one side that are told apart by their distance, which is also what they hold."""
    far = np.asarray(far, np.float64)
    column = far[:, None]
    boxes = Waiting(
        Region(column, column + 1.0), Enclosure({1: column}, {1: column}), far, far, column, far < 0
    )
    return Batch(boxes, far)


distances = st.lists(st.integers(0, 40).map(float), max_size=30)


@settings(max_examples=60, deadline=None)
@given(distances, st.lists(distances, max_size=6), st.integers(1, 7), st.integers(1, 5))
def test_taken_boxes_are_the_nearest_and_all_come_once(first, later, most, hand):
    with mock.patch.object(shelves, "AT_HAND", hand):
        held, waiting = shelf(batch(first)), sorted(first)
        for new in [*later, []]:
            held, waiting = put(held, batch(new)), sorted(waiting + new)
            assert len(held) == len(waiting)
            assert held.nearest == min(waiting, default=np.inf)
            got, held = taken(held, most)
            assert bool(len(got)) == bool(waiting) and len(got) <= most
            assert sorted(got.far) == waiting[: len(got)]
            assert (got.boxes.region.low[:, 0] == got.far).all() and (got.boxes.share == got.far).all()
            waiting = waiting[len(got) :]
    held = within(held, 20.0)
    left = np.concatenate([part.far for part in (held.near, *held.later)])
    assert sorted(left) == [v for v in waiting if v < 20.0]


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_the_bracket_does_not_depend_on_the_number_of_threads(norm):
    net, x = dense((3, 12, 12, 3), 5), points(1, 3, 1)[0]
    config = RiskConfig(norm=norm, estimator="none", budget=60.0, tight=0.97, workers=1)
    one, two = (quantify_risk(net, x, replace(config, workers=w)) for w in (1, 2))
    assert (one.lower, one.upper) == (two.lower, two.upper)
    assert one.lower >= 0.97 * one.upper * (1 - 1e-8)
