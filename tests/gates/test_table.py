"""The gates of a repaired file, read back."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import cube, loaded, mlp, run_repaired

from sutura.gates.cells import Cell, Cut, cells
from sutura.gates.mend import ClampConfig, RepairConfig
from sutura.gates.neuron_gate import NeuronConfig
from sutura.gates.repair import repair
from sutura.gates.rows import rows_of
from sutura.gates.speed import speed
from sutura.gates.table import gate_table, is_gated
from sutura.network.run import open_session
from sutura.property.build import argmax_in, robustness

DATA = mlp([3, 10, 4], 3)
WANTED = [argmax_in(cube([-0.5] * 3, [0.5] * 3), [0, 1], outputs=4)]


def test_one_clamp_is_one_row_around_its_box():
    fixed = repair(loaded(DATA), WANTED, ClampConfig(workers=1)).onnx
    table = gate_table(fixed)
    assert is_gated(fixed)
    (none, row) = table.rows
    assert (none.kind, row.kind, row.neurons, row.cells, row.share) == ("none", "output", 0, 1, 1.0)
    assert (row.low, row.high) == ((-0.5,) * 3, (0.5,) * 3)
    assert table.kinds == {"output": 1}
    assert table.depth == 6
    assert table.tree[0] == Cut(0, 0.5)


def test_rows_shares_and_kinds_are_those_at_work():
    config = RepairConfig(
        gate="neuron", boxes=300, regions=4, workers=1, neuron=NeuronConfig(share=0.4, boxes=400)
    )
    result = repair(loaded(DATA), WANTED, config)
    table = gate_table(result.onnx)
    assert "neuron" in table.kinds
    assert sum(row.neurons for row in table.rows) == result.regions.neurons_held
    assert sum(row.share for row in table.rows) == pytest.approx(1.0)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (20_000, 3)).astype(np.float32)
    met = rows_of(result.onnx)(x)
    for row in table.rows[1:]:
        here = x[met == row.number]
        assert (here >= np.float32(row.low)).all()
        assert (here <= np.float32(row.high)).all()
        assert row.share == pytest.approx((met == row.number).sum() / (met > 0).sum(), abs=0.02)
    assert set(cells(table.tree)) <= {row.number for row in table.rows}
    assert all(isinstance(node, Cut | Cell) for node in table.tree)


def test_rows_with_a_box_are_shown_in_it():
    data = mlp([200, 6, 5], 0, scale=0.1)
    draw = np.random.default_rng(0)
    wanted = [robustness(draw.random(200), 0.02, k, classes=5, name=f"p{k}") for k in range(3)]
    fixed = repair(loaded(data), wanted, RepairConfig(boxes=0, workers=1)).onnx
    table = gate_table(fixed)
    assert is_gated(fixed)
    hulls = [p.cases[0].box.float32_hull() for p in wanted]
    found = {(row.low, row.high) for row in table.rows[1:]}
    assert found == {(tuple(map(float, low)), tuple(map(float, high))) for low, high in hulls}
    assert sum(row.share for row in table.rows) == pytest.approx(1.0)
    assert table.depth < 200


def test_a_network_without_gates_has_no_table():
    assert gate_table(DATA) is None
    assert not is_gated(DATA)
    assert not is_gated(b"no network at all")


def test_speed_compares_two_sessions():
    fixed = repair(loaded(DATA), WANTED, ClampConfig(workers=1)).onnx
    x = np.zeros((16, 3), np.float32)
    found = speed((open_session(DATA), open_session(fixed, gated=True)), x)
    assert found.batch == 16
    assert found.ratio == found.after / found.before > 0
    assert run_repaired(fixed)(x).shape == (16, 4)
