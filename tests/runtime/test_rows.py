"""The walked dispatcher picks the row that the network picks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sutura.gates.rows import rows_of
from sutura.runtime.rows import FEW, dispatcher


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 800])
def test_rows_are_those_of_the_network(files, boxes, count):
    network = files.network.read_bytes()
    around = boxes[:: len(boxes) // count][:count]
    points = np.concatenate([around, np.nextafter(around, np.float32(9)), -around])[:count]
    assert dispatcher(network)(points).tolist() == rows_of(network)(points).tolist()


def test_gates_are_met(files, boxes):
    found = dispatcher(files.network.read_bytes())
    assert found.rows > 1
    assert set(found(boxes).tolist()) == set(range(found.rows))


def test_a_network_without_gates_has_row_zero(boxes):
    example = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
    found = dispatcher((example / "vertical_cas.onnx").read_bytes())
    assert found.rows == 1
    assert found(boxes).tolist() == [0] * len(boxes)
    assert found(boxes[:1]).tolist() == [0]
