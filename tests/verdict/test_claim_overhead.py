"""What soundness for every execution costs a search, in boxes; benchmarks/trust_overhead.py measures more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import trust_overhead

from sutura.bounds import crown
from sutura.network.read import load
from sutura.property.read import read_property

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"


@pytest.mark.parametrize("name", ["alert", "clear"])
def test_noise_costs_few_boxes(name):
    kept = crown.backward
    prop = read_property(EXAMPLE / f"{name}.vnnlib")
    row = trust_overhead.compare(name, load(EXAMPLE / "vertical_cas.onnx"), prop, (1, 30.0))
    assert row.verdict == "holds"
    assert 0 < row.sound_boxes <= 1.05 * row.plain_boxes
    assert crown.backward is kept
